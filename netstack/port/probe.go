package port

import (
	"encoding/binary"

	"slicewire/netstack/segment"
)

// probe returns a joined packet, with its virtio_net_hdr and perhaps an
// Ethernet header, that a kernel either refuses as invalid or loses: addresses
// and receiver are nobody's.
func probe(eth bool) []byte {
	const ip, tcp, data = 20, 20, 200
	link := 0
	if eth {
		link = ethLen
	}
	b := make([]byte, vnetLen+link+ip+tcp+data)
	vnet{
		flags: vnetNeedsCsum, gso: gsoTCPv4, headLen: uint16(link + ip + tcp), gsoSize: data / 2,
		csumStart: uint16(link + ip), csumOffset: 16,
	}.put(b)
	pkt := b[vnetLen+link:]
	pkt[0], pkt[8], pkt[9] = 0x45, 1, 6
	binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
	copy(pkt[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2}) // RFC 5737
	binary.BigEndian.PutUint16(pkt[10:], ^segment.Sum(pkt[:ip], 0))
	pkt[ip+12], pkt[ip+13] = tcp/4<<4, segment.ACK
	binary.BigEndian.PutUint16(pkt[ip+16:], segment.Combine(segment.Sum(pkt[12:20], 6), tcp+data))
	if eth {
		nobody := [6]byte{2}
		putEthernet(b[vnetLen:], &nobody, &nobody, pkt)
	}
	return b
}
