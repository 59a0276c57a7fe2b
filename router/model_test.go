package router

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

// The naive model of the router: the same rules written slowly, with a reader
// that cannot run over the end, linear searches and checksums computed anew.

type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad = true
		return make([]byte, max(n, 0))
	}
	x := r.b[:n]
	r.b = r.b[n:]
	return x
}

type modelPacket struct {
	data     []byte // without padding
	src, dst netip.Addr
	proto    int
	l4       int // -1: not in this packet
	options  bool
}

func within(a netip.Addr, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return netip.MustParsePrefix(p).Contains(a) })
}

// naiveParse returns the packet or why it is dropped.
func naiveParse(b []byte) (*modelPacket, overlay.Drop, bool) {
	fail := func(d overlay.Drop) (*modelPacket, overlay.Drop, bool) { return nil, d, false }
	if len(b) < 20 {
		return fail(overlay.DropMalformed)
	}
	if b[0]>>4 == 4 {
		ihl := int(b[0] & 15)
		if ihl < 5 || ihl*4 > len(b) {
			return fail(overlay.DropMalformed)
		}
		if ihl > 5 {
			return fail(overlay.DropOptions)
		}
		n := int(binary.BigEndian.Uint16(b[2:]))
		if n < 20 || n > len(b) {
			return fail(overlay.DropMalformed)
		}
		fixed := slices.Clone(b[:20])
		overlaytest.Fix(fixed)
		// A sum of 0xffff stands for zero and cannot come of a header that has
		// a version in it, so comparing bytes is comparing sums.
		if !slices.Equal(fixed, b[:20]) {
			return fail(overlay.DropMalformed)
		}
		p := &modelPacket{data: b[:n], proto: int(b[9]), l4: 20}
		p.src, _ = netip.AddrFromSlice(b[12:16])
		p.dst, _ = netip.AddrFromSlice(b[16:20])
		if within(p.src, "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3") {
			return fail(overlay.DropSource)
		}
		if within(p.dst, "224.0.0.0/4", "255.255.255.255/32") {
			return fail(overlay.DropMulticast)
		}
		if within(p.dst, "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "240.0.0.0/4") {
			return fail(overlay.DropNoRoute)
		}
		w := binary.BigEndian.Uint16(b[6:])
		if w>>15 == 1 {
			return fail(overlay.DropMalformed)
		}
		more, offset := w>>13&1 == 1, int(w&0x1fff)*8
		if !more && offset == 0 {
			return p.transport(false)
		}
		size := n - 20
		if size == 0 || more && size%8 != 0 || 20+offset+size > 65535 || p.proto == 6 && offset == 8 {
			return fail(overlay.DropFragment)
		}
		if offset > 0 {
			p.l4 = -1
			return p, 0, true
		}
		return p.transport(true)
	}
	if b[0]>>4 != 6 || len(b) < 40 || 40+int(binary.BigEndian.Uint16(b[4:])) > len(b) {
		return fail(overlay.DropMalformed)
	}
	p := &modelPacket{data: b[:40+int(binary.BigEndian.Uint16(b[4:]))], proto: int(b[6])}
	p.src, _ = netip.AddrFromSlice(b[8:24])
	p.dst, _ = netip.AddrFromSlice(b[24:40])
	never := []string{"::/96", "::ffff:0:0/96", "fe80::/10", "ff00::/8"}
	mapped := func(a netip.Addr) bool { return a.Is4In6() } // Prefix.Contains never says so
	if mapped(p.src) || within(p.src, never...) {
		return fail(overlay.DropSource)
	}
	if p.dst.IsMulticast() {
		return fail(overlay.DropMulticast)
	}
	if mapped(p.dst) || within(p.dst, never...) {
		return fail(overlay.DropNoRoute)
	}
	r := &reader{b: p.data[40:]}
	frag, fragHeader := false, false
	for n := 0; slices.Contains([]int{0, 43, 44, 60}, p.proto); n++ {
		if n == 9 {
			return fail(overlay.DropOptions)
		}
		switch p.proto {
		case 43:
			return fail(overlay.DropOptions)
		case 44:
			h := r.take(8)
			if r.bad {
				return fail(overlay.DropMalformed)
			}
			if fragHeader {
				return fail(overlay.DropFragment)
			}
			fragHeader = true
			p.proto = int(h[0])
			w := binary.BigEndian.Uint16(h[2:])
			more, offset, size := w&1 == 1, int(w>>3)*8, len(r.b)
			if !more && offset == 0 {
				break
			}
			frag = true
			if size == 0 || more && size%8 != 0 || offset+size > 65535 || p.proto == 6 && offset == 8 {
				return fail(overlay.DropFragment)
			}
			if offset > 0 {
				p.l4 = -1
				return p, 0, true
			}
		default:
			if p.proto == 0 && n > 0 {
				return fail(overlay.DropOptions)
			}
			if len(r.b) < 8 {
				return fail(overlay.DropMalformed)
			}
			h := r.take(8 + 8*int(r.b[1]))
			if r.bad {
				if frag {
					return fail(overlay.DropFragment)
				}
				return fail(overlay.DropMalformed)
			}
			p.proto, p.options = int(h[0]), true
		}
		if n == 8 {
			return fail(overlay.DropOptions)
		}
	}
	p.l4 = len(p.data) - len(r.b)
	return p.transport(frag)
}

func (p *modelPacket) transport(frag bool) (*modelPacket, overlay.Drop, bool) {
	short := overlay.DropMalformed
	if frag {
		short = overlay.DropFragment
	}
	s := p.data[p.l4:]
	v6 := p.src.Is6()
	bad := false
	switch p.proto {
	case 6:
		bad = len(s) < 20 || s[12]>>4 < 5 || int(s[12]>>4)*4 > len(s)
	case 17:
		bad = len(s) < 8
		if !bad {
			n := int(binary.BigEndian.Uint16(s[4:]))
			bad = n < 8 || !frag && n > len(s)
		}
	case 1, 58:
		if v6 != (p.proto == 58) {
			return nil, overlay.DropProtocol, false
		}
		bad = len(s) < 8
		control := []int{5}
		if v6 {
			control = []int{130, 131, 132, 133, 134, 135, 136, 137, 141, 142, 143, 148, 149, 150, 151, 152, 153}
		}
		if !bad && slices.Contains(control, int(s[0])) {
			return nil, overlay.DropProtocol, false
		}
	}
	if bad {
		return nil, short, false
	}
	return p, 0, true
}

// naiveRoute is what the router should do with b from a port: the port it goes
// to and its bytes, or why it is dropped.
func naiveRoute(s State, mtu int, from string, b []byte) (string, []byte, overlay.Drop) {
	return naiveRoutePoliced(s, mtu, from, b, nil)
}

// naiveRoutePoliced is naiveRoute with the answer of police, which is told the
// role behind the destination; Outside too where nothing leads there.
func naiveRoutePoliced(s State, mtu int, from string, b []byte, police func(p *modelPacket, in, out Role, routed bool) (overlay.Drop, bool)) (string, []byte, overlay.Drop) {
	p, drop, ok := naiveParse(slices.Clone(b))
	if !ok {
		return "", nil, drop
	}
	ports := make(map[string]Port)
	for _, x := range s.Ports {
		ports[x.Name] = x
	}
	in := ports[from]
	if !slices.ContainsFunc(in.Sources, func(x netip.Prefix) bool { return x.Contains(p.src) }) {
		return "", nil, overlay.DropSource
	}
	best := Route{}
	for _, rt := range s.Routes {
		if rt.Prefix.Contains(p.dst) && (best.Port == "" || rt.Prefix.Bits() > best.Prefix.Bits()) {
			best = rt
		}
	}
	if best.Port == "" || best.Port == from {
		if police != nil {
			if drop, ok := police(p, in.Role, Outside, false); !ok {
				return "", nil, drop
			}
		}
		return "", nil, overlay.DropNoRoute
	}
	out := ports[best.Port]
	if police != nil {
		if drop, ok := police(p, in.Role, out.Role, true); !ok {
			return "", nil, drop
		}
	}
	v6 := p.src.Is6()
	at := 8
	if v6 {
		at = 7
	}
	switch {
	case out.Role == Local && p.options:
		return "", nil, overlay.DropOptions
	case out.Role == Local && !slices.Contains([]int{1, 6, 17, 58}, p.proto):
		return "", nil, overlay.DropProtocol
	case out.Role != Local && in.Role != Local:
		if p.data[at] <= 1 {
			return "", nil, overlay.DropTTL
		}
		p.data[at]--
	}
	if len(p.data) > mtu {
		return "", nil, overlay.DropTooBig
	}
	if p.proto == 6 && p.l4 >= 0 && (in.Role == Outside || out.Role == Outside) && p.data[p.l4+13]&2 != 0 {
		most := mtu - 40
		if v6 {
			most = mtu - 60
		}
		if i := naiveMSS(p.data[p.l4:]); i >= 0 {
			v := p.data[p.l4+i:]
			binary.BigEndian.PutUint16(v, min(uint16(most), binary.BigEndian.Uint16(v)))
		}
	}
	return best.Port, p.data, 0
}

// naiveMSS returns where the value of the MSS option is, or -1.
func naiveMSS(tcp []byte) int {
	r := &reader{b: tcp[20 : int(tcp[12]>>4)*4]}
	for len(r.b) > 0 {
		at := int(tcp[12]>>4)*4 - len(r.b)
		switch kind := r.take(1)[0]; kind {
		case 0:
			return -1
		case 1:
		default:
			n := int(r.take(1)[0])
			r.take(n - 2)
			if r.bad || n < 2 {
				return -1
			}
			if kind == 2 && n == 4 {
				return at + 2
			}
		}
	}
	return -1
}
