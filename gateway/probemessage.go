package gateway

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"

	"slicewire/overlay"
)

// A probe is an IPv6 packet inside the tunnel from one node to its peer, and
// never further:
//
//	0   IPv6 header: next header 253, hop limit 255, addresses of probeAddr
//	40  version, kind, flags, number of tags of links that the sender finds down
//	44  number of the question, repeated in the answer
//	48  random number of the sender's start; number of its state
//	56  number of tags of links that others told the sender are down
//	57  what the sender would send of the slice's ceiling (overlay.Demand); 2 zeros
//	60  tags, 8 bytes each, first the sender's own findings
//
// The tunnel has proved who sends it: the source address belongs to one key.
const (
	probeProtocol = 253 // for experimentation (RFC 3692); no port or router of ours lets it in
	probeVersion  = 1
	probeHeader   = 60
	probeTagsMax  = 64 // of each sort; what does not fit is not told
	probeBytesMax = probeHeader + 2*probeTagsMax*8
	ipv6Header    = 40
	hopLimitMax   = 255

	probeAsk    = 1
	probeAnswer = 2

	flagLeaving = 1
)

// A probeMessage is what a probe says.
type probeMessage struct {
	from, to [16]byte
	kind     uint8
	seq      uint32
	demand   overlay.Demand
	saying   saying
}

// A saying is what a node tells its peers of itself. Another one with the same
// boot and number is the same.
type saying struct {
	boot    uint32 // random, of one start of one tunnel
	number  uint32 // one more with every change
	leaving bool
	down    []overlay.Tag // peers to which the node itself finds no link
	told    []overlay.Tag // peers that say they find no link to the node
}

// probeAddr returns the address of a node's end of all its links on a slice: in
// fe80::/16, which no router of ours passes on, and made of its public key, so
// that both ends know it and nobody has another's.
func probeAddr(key [32]byte) (a [16]byte) {
	h := sha256.New()
	h.Write([]byte("slicewire probe"))
	h.Write(key[:])
	a[0], a[1] = 0xfe, 0x80
	copy(a[2:], h.Sum(nil))
	return a
}

// probePrefix is what WireGuard is told of it.
func probePrefix(key [32]byte) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16(probeAddr(key)), 128)
}

// isProbe reports whether a packet is for an address that only probes have.
func isProbe(p []byte) bool {
	return len(p) >= ipv6Header && p[0]>>4 == 6 && p[24] == 0xfe && p[25] == 0x80
}

// put writes the message as a packet and returns its length. b has room for
// probeBytesMax.
func (m *probeMessage) put(b []byte) int {
	down, told := m.saying.down, m.saying.told
	down, told = down[:min(len(down), probeTagsMax)], told[:min(len(told), probeTagsMax)]
	n := probeHeader + 8*(len(down)+len(told))
	b = b[:n]
	clear(b[:probeHeader])
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(n-ipv6Header))
	b[6], b[7] = probeProtocol, hopLimitMax
	copy(b[8:], m.from[:])
	copy(b[24:], m.to[:])
	b[40], b[41], b[43] = probeVersion, m.kind, uint8(len(down))
	if m.saying.leaving {
		b[42] = flagLeaving
	}
	binary.BigEndian.PutUint32(b[44:], m.seq)
	binary.BigEndian.PutUint32(b[48:], m.saying.boot)
	binary.BigEndian.PutUint32(b[52:], m.saying.number)
	b[56], b[57] = uint8(len(told)), uint8(m.demand)
	at := probeHeader
	for _, tags := range [][]overlay.Tag{down, told} {
		for _, t := range tags {
			binary.BigEndian.PutUint64(b[at:], uint64(t))
			at += 8
		}
	}
	return n
}

// parseProbe reads a packet that put could have written, and nothing else.
func parseProbe(b []byte) (m probeMessage, ok bool) {
	if len(b) < probeHeader || len(b) > probeBytesMax || binary.BigEndian.Uint32(b) != 0x60000000 ||
		int(binary.BigEndian.Uint16(b[4:])) != len(b)-ipv6Header || b[6] != probeProtocol || b[7] != hopLimitMax {
		return m, false
	}
	down, told := int(b[43]), int(b[56])
	if b[40] != probeVersion || b[41] != probeAsk && b[41] != probeAnswer || b[42]&^flagLeaving != 0 || b[58]|b[59] != 0 ||
		down > probeTagsMax || told > probeTagsMax || len(b) != probeHeader+8*(down+told) {
		return m, false
	}
	m.from, m.to, m.kind = [16]byte(b[8:]), [16]byte(b[24:]), b[41]
	m.seq, m.demand = binary.BigEndian.Uint32(b[44:]), overlay.Demand(b[57])
	m.saying = saying{
		boot: binary.BigEndian.Uint32(b[48:]), number: binary.BigEndian.Uint32(b[52:]), leaving: b[42]&flagLeaving != 0,
		down: tags(b[probeHeader:], down), told: tags(b[probeHeader+8*down:], told),
	}
	return m, true
}

func tags(b []byte, n int) []overlay.Tag {
	if n == 0 {
		return nil
	}
	out := make([]overlay.Tag, n)
	for i := range out {
		out[i] = overlay.Tag(binary.BigEndian.Uint64(b[8*i:]))
	}
	return out
}
