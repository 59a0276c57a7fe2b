// Package gateway is the encrypted side of a node: one WireGuard device per
// slice, each with its own keys, all behind one UDP socket. While the keys of a
// slice change it has two devices, for the old ones and the new (trunk.go).
//
// The life of a packet going outside:
//
//  1. inner.Read waits until fewer packets are in flight than the governor
//     allows, then pulls a batch from the slice's Link into WireGuard's buffers
//  2. the device encrypts it and hands it to bind.Send
//  3. the socket sends it with sendmmsg and UDP_SEGMENT, gathering from
//     WireGuard's buffers, and the governor has its credits back
//
// and inside:
//
//  4. one reader takes datagrams from the socket (recvmmsg, UDP_GRO)
//  5. mux.route finds the slice: by receiver index, or by mac1 for the first
//     message of a handshake, which costs a rate limit
//  6. the slice's bounded queue holds them until its device takes them, again
//     as the governor allows; this is the one copy on the way
//  7. inner.Write hands the decrypted packets to the Link in the buffers they
//     were decrypted in
//
// Beside the packets of the slice, probes cross the tunnel in both directions:
// stage 1 takes them before the Link's, stage 7 takes them out. They say which
// links to peers are up, and with a Tunnel's Paths, which peer has which
// prefixes (probe.go, watch.go); that is a matter of milliseconds and asks
// nobody outside of this package.
//
// Nothing here waits for anybody on stages 2 to 5 and 7: what does not fit is
// dropped and counted. Stage 1 waits, so that a queue forms where it can be
// managed: before the Link.
//
// The package never looks at inner packets beyond their destination address and
// its own probes, never routes between peers and keeps no key but in memory. A Gateway's
// methods may be called concurrently. A Link's Read is called by one goroutine,
// its Write by one for each peer; buffers are WireGuard's and are not kept by
// the Link. Linux only: the socket uses recvmmsg, sendmmsg and UDP offloads.
package gateway
