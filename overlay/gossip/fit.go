package gossip

import (
	"strings"
	"syscall"
)

// streamSegment is the payload of a TCP segment of gossip: with the headers it
// makes 1280 bytes, which every way carries over IPv6 (RFC 8200, section 5).
// Gossip is too little for larger segments to be worth anything.
const streamSegment = 1280 - 40 - 20

// fitAnyWay lets a socket's packets through where the way is narrower than the
// links at its ends and nobody tells: a router that drops what is too long and a
// firewall that drops its ICMP, as tunnels and clouds have them. Streams, which
// carry the records, would stand still there for ever. Segments are short, and
// over IPv4 routers may cut what is still too long. It sets what the system
// takes; the rest is as it was.
func fitAnyWay(network, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// Of an IPv6 socket this concerns IPv4 that goes through it.
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_MTU_DISCOVER, syscall.IP_PMTUDISC_DONT)
		if strings.HasPrefix(network, "tcp") {
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, streamSegment)
		}
	})
}
