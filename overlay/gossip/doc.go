// Package gossip spreads what nodes say of themselves: signed records, carried
// by memberlist between the gateways of a mesh, and by sessions between these
// and all other nodes, the leaves.
//
// Trust is in the records alone. Every byte from the network is hostile: a
// record counts only if it is well-formed, its certificate chain leads to the
// mesh's authority, its signature is the certificate's, the certificate permits
// what it says, and it is newer than what is held. Whoever holds the gossip key
// can disturb membership; he cannot add, change or withdraw a fact. Membership
// is a hint about whom to talk to and never says whether a path works.
//
// How records travel:
//
//  1. A new or changed record is broadcast in packets, or by stream to every
//     member when it is large or many change at once. Who accepts it from a
//     packet broadcasts it once more, unless there is too much news for that.
//     The certificate goes along for a minute after it was first used. Who does
//     not know it later asks whoever speaks.
//  2. Two nodes that meet, and random pairs now and then, exchange summaries:
//     per origin a count and a digest. Who lacks something asks for it, naming
//     what it has, which makes the other ask back if it lacks some of that; who
//     has an origin that the other has never heard of sends it.
//  3. Where there are many origins, digests of parts of them go instead of
//     summaries, in one packet, every few seconds to a random member, which
//     answers with a summary of those parts only in which it holds something
//     else.
//
// Revocations are records of issuers: they travel the same way, and beside it
// every node compares them with a few others every few seconds. Whatever they
// make void is dropped at once and not taken again.
//
// A leaf dials two gateways and is dialed by nobody. Over a session the same
// messages go in frames, changes at once, and every few seconds the leaf sends a
// digest of its summary: a gateway that holds something else sends its own. A
// gateway passes on what its leaves say. Sessions are protected by TLS and both
// nodes' certificates, not by the gossip key; see hello.go and
// sessionmessage.go.
//
// The signed bytes are kept and passed on as they came. Package wire formats
// are described in wire.go and message.go.
//
// All methods of Gossip may be called concurrently. Run owns every goroutine
// and socket; memberlist's prober alone may outlive it, by the one probe that
// was under way. Records given and returned share memory with the Gossip:
// nobody changes them.
package gossip
