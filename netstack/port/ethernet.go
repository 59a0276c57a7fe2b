package port

import "encoding/binary"

// ethLen is the size of an Ethernet header without tags.
const ethLen = 14

// The protocols of an Ethernet header that are IP.
const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
)

// carriesIP reports whether an Ethernet header announces the packet behind it.
func carriesIP(head, pkt []byte) bool {
	switch binary.BigEndian.Uint16(head[12:]) {
	case etherIPv4:
		return len(pkt) > 0 && pkt[0]>>4 == 4
	case etherIPv6:
		return len(pkt) > 0 && pkt[0]>>4 == 6
	}
	return false
}

// putEthernet writes the header of a frame that carries pkt.
func putEthernet(b []byte, dst, src *[6]byte, pkt []byte) {
	copy(b, dst[:])
	copy(b[6:], src[:])
	proto := uint16(etherIPv4)
	if len(pkt) > 0 && pkt[0]>>4 == 6 {
		proto = etherIPv6
	}
	binary.BigEndian.PutUint16(b[12:], proto)
}

// farOf returns the address of the other end of a pair of ours: they differ in
// the last bit, so that one tells the other.
func farOf(mac [6]byte) [6]byte {
	mac[5] ^= 1
	return mac
}
