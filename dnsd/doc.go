// Package dnsd turns names into addresses for the members of one slice: an
// authoritative DNS server on sockets that it is handed, and the same names as
// a Go call.
//
// It answers for its zones and for the exact names it was given, and refuses
// everything else, but for clients that it was told of and only if it was given
// servers to ask: for these it forwards. Else it opens no socket, and it never
// sends more than it was asked for. One Server is one slice's view; a name of
// another slice is to it a name like any other that does not exist.
//
//	name.go      names in wire form
//	snapshot.go  the names of a view, immutable
//	answer.go    question + snapshot -> verdict, pure
//	service.go, reverse.go  names below a service, and of addresses; pure
//	quick.go     the common query: bytes -> bytes, without an allocation
//	message.go   every other query, by miekg/dns, whose types stay in here
//	limit.go     how often the same answer is given
//	forward.go, upstream.go  names of others, for this machine's own
//	udp.go, tcp.go, server.go  sockets, limits, lifecycle
//
// All methods of Server may be called concurrently. Entries and their addresses
// belong to the caller again when Set returns; what Lookup returns belongs to
// its caller.
package dnsd
