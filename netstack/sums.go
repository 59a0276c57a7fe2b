package netstack

import (
	"fmt"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// CheckSums says what gVisor finds wrong with the checksums of a whole packet of
// TCP, UDP or ICMP without options and extension headers: a second opinion for
// tests of others, who must not share code with it. The lengths in it must be
// right. Of fragments only the IP header is looked at, of other protocols too.
func CheckSums(pkt []byte) error {
	var src, dst tcpip.Address
	var proto tcpip.TransportProtocolNumber
	var l4 []byte
	switch header.IPVersion(pkt) {
	case header.IPv4Version:
		h := header.IPv4(pkt)
		if !h.IsValid(len(pkt)) || !h.IsChecksumValid() {
			return fmt.Errorf("IPv4 header of %d bytes: wrong", len(pkt))
		}
		if h.More() || h.FragmentOffset() != 0 {
			return nil
		}
		src, dst, proto, l4 = h.SourceAddress(), h.DestinationAddress(), h.TransportProtocol(), h.Payload()
	case header.IPv6Version:
		h := header.IPv6(pkt)
		if !h.IsValid(len(pkt)) {
			return fmt.Errorf("IPv6 header of %d bytes: wrong", len(pkt))
		}
		src, dst, proto, l4 = h.SourceAddress(), h.DestinationAddress(), tcpip.TransportProtocolNumber(h.NextHeader()), h.Payload()
	default:
		return fmt.Errorf("%d bytes are no IP packet", len(pkt))
	}
	ok := true
	switch proto {
	case header.TCPProtocolNumber:
		h := header.TCP(l4)
		ok = h.IsChecksumValid(src, dst, checksum.Checksum(h.Payload(), 0), uint16(len(h.Payload())))
	case header.UDPProtocolNumber:
		h := header.UDP(l4)
		ok = h.Checksum() == 0 || h.IsChecksumValid(src, dst, checksum.Checksum(h.Payload(), 0))
	case header.ICMPv4ProtocolNumber:
		ok = checksum.Checksum(l4, 0) == 0xffff
	case header.ICMPv6ProtocolNumber:
		h := header.ICMPv6(l4)
		ok = h.Checksum() == header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: h, Src: src, Dst: dst})
	}
	if !ok {
		return fmt.Errorf("protocol %d: its checksum is wrong", proto)
	}
	return nil
}
