package router

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"slicewire/overlay"
)

// A Map gives what is behind a port another prefix on the slice: 1:1, without
// state. Real and Mapped have one family and length. Everything but the port, the
// table and the policy included, knows the mapped form only.
type Map struct{ Real, Mapped netip.Prefix }

// mapping is what the packet path reads of a port's Maps. The zero value of a
// family maps nothing.
type mapping struct {
	v4 []map4
	v6 []map6
}

// map4 and map6 are Maps in the form of a processor. The sums are those of the
// prefixes alone: what an address adds to a checksum changes by their difference,
// whatever its other bits are.
type map4 struct {
	real, mapped, mask uint32
	realSum, mappedSum uint16
}

type map6 struct {
	real, mapped, mask [2]uint64
	realSum, mappedSum uint16
}

// newMapping returns nil if there is nothing to map.
func newMapping(maps []Map) *mapping {
	if len(maps) == 0 {
		return nil
	}
	m := new(mapping)
	for _, x := range maps {
		r, to, bits := x.Real.Masked().Addr().AsSlice(), x.Mapped.Masked().Addr().AsSlice(), x.Real.Bits()
		if x.Real.Addr().Is4() {
			m.v4 = append(m.v4, map4{
				binary.BigEndian.Uint32(r), binary.BigEndian.Uint32(to), ^uint32(0) << (32 - bits), sum(r, 0), sum(to, 0),
			})
			continue
		}
		y := map6{realSum: sum(r, 0), mappedSum: sum(to, 0)}
		for i := range 2 {
			y.real[i], y.mapped[i] = binary.BigEndian.Uint64(r[8*i:]), binary.BigEndian.Uint64(to[8*i:])
			y.mask[i] = ^uint64(0) << (64 - min(max(bits-64*i, 0), 64))
		}
		m.v6 = append(m.v6, y)
	}
	return m
}

func validMaps(maps []Map) error {
	var seen []netip.Prefix
	for _, m := range maps {
		for _, p := range []netip.Prefix{m.Real, m.Mapped} {
			if err := validPrefix(p); err != nil {
				return fmt.Errorf("map %v to %v: %w", m.Real, m.Mapped, err)
			}
			for _, q := range seen {
				if p.Overlaps(q) {
					return fmt.Errorf("map %v to %v: %v overlaps %v", m.Real, m.Mapped, p, q)
				}
			}
			seen = append(seen, p)
		}
		if m.Real.Bits() != m.Mapped.Bits() || m.Real.Addr().Is4() != m.Mapped.Addr().Is4() {
			return fmt.Errorf("map %v to %v: not of one length", m.Real, m.Mapped)
		}
	}
	return nil
}

// A flip is how a checksum changes: as if one word of what it is over did.
type flip struct{ old, now uint16 }

// swap puts the other form of an address in its place: the mapped one of a real
// one, and the real one of a mapped one. Swapped twice is as before. ok is false if
// it has no other form.
func (m *mapping) swap(addr []byte, v6 bool) (f flip, ok bool) {
	if !v6 {
		a := binary.BigEndian.Uint32(addr)
		for i := range m.v4 {
			x := &m.v4[i]
			switch a & x.mask {
			case x.real:
				binary.BigEndian.PutUint32(addr, x.mapped|a&^x.mask)
				return flip{x.realSum, x.mappedSum}, true
			case x.mapped:
				binary.BigEndian.PutUint32(addr, x.real|a&^x.mask)
				return flip{x.mappedSum, x.realSum}, true
			}
		}
		return f, false
	}
	hi, lo := binary.BigEndian.Uint64(addr), binary.BigEndian.Uint64(addr[8:])
	for i := range m.v6 {
		x := &m.v6[i]
		to := &x.mapped
		switch [2]uint64{hi & x.mask[0], lo & x.mask[1]} {
		case x.real:
			f = flip{x.realSum, x.mappedSum}
		case x.mapped:
			f, to = flip{x.mappedSum, x.realSum}, &x.real
		default:
			continue
		}
		binary.BigEndian.PutUint64(addr, to[0]|hi&^x.mask[0])
		binary.BigEndian.PutUint64(addr[8:], to[1]|lo&^x.mask[1])
		return f, true
	}
	return f, false
}

// Where a translation finds the address of the end behind the port.
const (
	atSource      = false // packets from there
	atDestination = true  // packets to there
)

// bring swaps the sources of a batch from behind a port, so that what should be
// there is in its mapped form. Who claims to be in it already is in the real
// form then, which is no source on the slice: it is dropped as such, like any
// other that is not the port's.
func (m *mapping) bring(bufs [][]byte) { m.each(bufs, atSource) }

// deliver swaps the destinations of a batch on its way to a port.
func (m *mapping) deliver(bufs [][]byte) { m.each(bufs, atDestination) }

func (m *mapping) each(bufs [][]byte, to bool) {
	for _, buf := range bufs {
		m.translate(buf[overlay.Headroom:], overlay.MetaOf(buf).Piece != 0, to)
	}
}

// translate swaps the address of one end of a packet, and in the packet that an
// ICMP error quotes, which went the other way, that of the same end. Checksums
// follow by RFC 1624's difference: one that was wrong stays so. begun says that the
// transport's is only begun (overlay.Meta). What fails its check is left as it
// is: nothing passes it on.
func (m *mapping) translate(pkt []byte, begun, to bool) {
	var p info
	if _, ok := p.check(pkt); !ok {
		return
	}
	pkt = pkt[:p.length]
	f, ok := m.swap(end(pkt, p.v6, to), p.v6)
	if ok && !p.v6 {
		f.apply(pkt[10:])
	}
	if p.later {
		return
	}
	segment := pkt[p.l4:]
	if ok {
		f.transport(segment, p.proto, p.v6, begun)
	}
	if isError(p.proto, segment) {
		m.translateQuoted(segment, p.v6, !to)
	}
}

// end is where the source or the destination is in an IP header.
func end(pkt []byte, v6, to bool) []byte {
	switch {
	case v6 && to:
		return pkt[24:40]
	case v6:
		return pkt[8:24]
	case to:
		return pkt[16:20]
	}
	return pkt[12:16]
}

// apply corrects the checksum at the start of b.
func (f flip) apply(b []byte) {
	binary.BigEndian.PutUint16(b, adjust(binary.BigEndian.Uint16(b), f.old, f.now))
}

// transport corrects the checksum of a transport header, as much of it as there
// is, after an address of its pseudo-header changed. It returns what that did to
// the sum over the header itself.
func (f flip) transport(segment []byte, proto uint8, v6, begun bool) flip {
	at := 0
	switch {
	case proto == protoTCP:
		at = 16
	case proto == protoUDP:
		at = 6
	case proto == protoICMPv6 && v6:
		at = 2
	default: // ICMP has no pseudo-header, nor have SCTP, GRE and ESP
		return flip{}
	}
	if len(segment) < at+2 {
		return flip{}
	}
	was := binary.BigEndian.Uint16(segment[at:])
	if proto == protoUDP && was == 0 && !begun {
		return flip{} // none
	}
	now := adjust(was, f.old, f.now)
	switch {
	case begun:
		now = ^adjust(^was, f.old, f.now)
	case proto == protoUDP && now == 0:
		now = 0xffff // RFC 768: as zero says that there is none
	}
	binary.BigEndian.PutUint16(segment[at:], now)
	return flip{was, now}
}

// translateQuoted swaps an address in what an ICMP error quotes, which may be cut
// off anywhere, and corrects the error's own checksum for every word that changes.
func (m *mapping) translateQuoted(message []byte, v6, to bool) {
	q := message[icmpHeader:]
	head := ipv4Header
	if v6 {
		head = ipv6Header
	}
	if len(q) < head || q[0]>>4 == 6 != v6 {
		return
	}
	f, ok := m.swap(end(q, v6, to), v6)
	if !ok {
		return
	}
	proto, l4 := q[9], int(q[0]&15)*4
	if v6 {
		proto, l4, ok = quotedTransport(q)
		f.apply(message[2:])
	} else {
		was := binary.BigEndian.Uint16(q[10:])
		f.apply(q[10:])
		// The header's own checksum outweighs the address, but for the sign of zero.
		f.apply(message[2:])
		flip{was, binary.BigEndian.Uint16(q[10:])}.apply(message[2:])
		ok = l4 >= ipv4Header && binary.BigEndian.Uint16(q[6:])&0x1fff == 0
	}
	if ok && l4 < len(q) {
		f.transport(q[l4:], proto, v6, false).apply(message[2:])
	}
}

// quotedTransport finds the transport header in a quoted IPv6 packet; ok is false
// if it is not there.
func quotedTransport(q []byte) (proto uint8, l4 int, ok bool) {
	proto, l4 = q[6], ipv6Header
	for range maxChain {
		if l4+8 > len(q) {
			return proto, l4, l4 < len(q)
		}
		switch proto {
		case protoHopByHop, protoDestOpts, protoRouting:
			proto, l4 = q[l4], l4+(int(q[l4+1])+1)*8
		case protoFragment:
			if binary.BigEndian.Uint16(q[l4+2:])&0xfff8 != 0 {
				return proto, l4, false
			}
			proto, l4 = q[l4], l4+8
		default:
			return proto, l4, true
		}
	}
	return proto, l4, false
}
