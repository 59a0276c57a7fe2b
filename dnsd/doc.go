// Package dnsd turns names into addresses for the members of one slice: an
// authoritative DNS server on sockets that it is handed, and the same names as
// a Go call.
//
// It answers for its zones and for the exact names it was given, and refuses
// everything else: it never asks another server, never follows a name, never
// opens a socket and never sends more than it was asked for. One Server is one
// slice's view; a name of another slice is to it a name like any other that
// does not exist.
//
//	name.go      names in wire form
//	snapshot.go  the names of a view, immutable
//	answer.go    question + snapshot -> verdict, pure
//	quick.go     the common query: bytes -> bytes, without an allocation
//	message.go   every other query, by miekg/dns, whose types stay in here
//	udp.go, tcp.go, server.go  sockets, limits, lifecycle
//
// All methods of Server may be called concurrently. Entries and their addresses
// belong to the caller again when Set returns; what Lookup returns belongs to
// its caller.
package dnsd
