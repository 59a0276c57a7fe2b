package netstack

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"slicewire/netstack/segment"
	"slicewire/overlay"
)

// The bounds of what a slice keeps of datagrams that are not yet whole. gVisor
// would keep 4 MiB of each family, and all of it for one sender.
const (
	reassemblyBytes   = 4 << 20
	reassemblySource  = 512 << 10 // of one source
	reassemblyParts   = 256       // of one datagram: 64 KiB in pieces of 256 bytes
	reassemblyPart    = 128       // what a part costs beside its bytes
	reassemblyTimeout = 30 * time.Second
)

// assembler makes fragments into datagrams. It is not for concurrent use.
//
// No byte is taken from two fragments: a datagram of which two overlap is given
// up (RFC 5722), and so is what comes of it later. When there is no room, what is
// oldest goes: of the same source, if that has its share.
type assembler struct {
	partials map[fragmentKey]*partial
	order    []*partial // oldest first
	sources  map[netip.Addr]int
	bytes    int
	drops    *overlay.Drops
}

type fragmentKey struct {
	src, dst netip.Addr
	id       uint32
	proto    uint8
}

// partial is a datagram that is not yet whole.
type partial struct {
	key   fragmentKey
	since time.Time
	head  []byte // the IP header of the first fragment, nil before
	parts []part // by offset, none overlapping
	total int    // bytes of data, -1 before the last fragment
	have  int
	cost  int
	ecn   uint8 // of all fragments
	void  bool  // two overlapped
}

type part struct {
	at   int
	data []byte
}

// A fragment is what is in one of them.
type fragment struct {
	key  fragmentKey
	head []byte
	part
	last bool
	ecn  uint8
}

func newAssembler(drops *overlay.Drops) *assembler {
	return &assembler{partials: make(map[fragmentKey]*partial), sources: make(map[netip.Addr]int), drops: drops}
}

// parseFragment reads a packet that the router's check let pass. It reports
// false for one that is none, or has more than a fragment header before its data.
func parseFragment(pkt []byte) (f fragment, ok bool) {
	if pkt[0]>>4 == 4 {
		w := binary.BigEndian.Uint16(pkt[6:])
		if w&0x3fff == 0 {
			return f, false
		}
		f.head, f.at, f.data, f.last = pkt[:20], int(w&0x1fff)*8, pkt[20:], w&0x2000 == 0
		f.ecn = pkt[1] & 3
		f.key = fragmentKey{
			netip.AddrFrom4([4]byte(pkt[12:16])), netip.AddrFrom4([4]byte(pkt[16:20])), uint32(binary.BigEndian.Uint16(pkt[4:])), pkt[9],
		}
		return f, true
	}
	if len(pkt) < 48 || pkt[6] != 44 {
		return f, false
	}
	w := binary.BigEndian.Uint16(pkt[42:])
	if w&0xfff9 == 0 {
		return f, false // atomic
	}
	f.head, f.at, f.data, f.last = pkt[:41], int(w&0xfff8), pkt[48:], w&1 == 0
	f.ecn = pkt[1] >> 4 & 3
	f.key = fragmentKey{
		netip.AddrFrom16([16]byte(pkt[8:24])), netip.AddrFrom16([16]byte(pkt[24:40])), binary.BigEndian.Uint32(pkt[44:]), 0,
	}
	return f, true
}

// add takes a fragment, of which it keeps a copy, and returns the datagram if
// that is now whole. Everything else that does not become part of one is counted.
func (a *assembler) add(f fragment, now time.Time) []byte {
	for len(a.order) > 0 && now.Sub(a.order[0].since) > reassemblyTimeout {
		a.forget(a.order[0], overlay.DropReassembly)
	}
	p := a.partials[f.key]
	if p == nil {
		p = &partial{key: f.key, since: now, total: -1}
		a.partials[f.key] = p
		a.order = append(a.order, p)
		a.charge(p, reassemblyPart)
	}
	if p.void || !a.place(p, f) {
		a.drops.Add(overlay.DropFragment, 1)
		a.room(nil)
		return nil
	}
	if p.have == p.total && p.head != nil {
		whole := p.whole()
		p.parts = nil // they have become something
		a.forget(p, overlay.DropReassembly)
		return whole
	}
	a.room(p)
	return nil
}

// place puts a fragment among the others of its datagram. It reports false if
// it cannot be one of them.
func (a *assembler) place(p *partial, f fragment) bool {
	i, found := slices.BinarySearchFunc(p.parts, f.at, func(x part, at int) int { return x.at - at })
	if found && bytes.Equal(p.parts[i].data, f.data) {
		return false // once more
	}
	end := f.at + len(f.data)
	overlaps := found || i > 0 && p.parts[i-1].at+len(p.parts[i-1].data) > f.at || i < len(p.parts) && end > p.parts[i].at
	ends := f.last && p.total >= 0 && end != p.total || p.total >= 0 && end > p.total
	if f.last && len(p.parts) > 0 {
		x := p.parts[len(p.parts)-1]
		ends = ends || x.at+len(x.data) > end
	}
	if overlaps || ends || len(p.parts) == reassemblyParts {
		a.drops.Add(overlay.DropFragment, len(p.parts))
		p.parts, p.void = nil, true
		a.charge(p, reassemblyPart-p.cost)
		return false
	}
	if f.last {
		p.total = end
	}
	if f.at == 0 {
		p.head = bytes.Clone(f.head)
	}
	p.parts = slices.Insert(p.parts, i, part{f.at, bytes.Clone(f.data)})
	p.have += len(f.data)
	if p.ecn == 0 || f.ecn == 3 {
		p.ecn = f.ecn
	}
	a.charge(p, len(f.data)+reassemblyPart)
	return true
}

// charge adds to what a datagram costs.
func (a *assembler) charge(p *partial, n int) {
	p.cost += n
	a.bytes += n
	if a.sources[p.key.src] += n; a.sources[p.key.src] == 0 {
		delete(a.sources, p.key.src)
	}
}

// room forgets the oldest until the bounds hold again; the latest is of source p.
func (a *assembler) room(p *partial) {
	for p != nil && a.sources[p.key.src] > reassemblySource {
		i := slices.IndexFunc(a.order, func(x *partial) bool { return x.key.src == p.key.src })
		a.forget(a.order[i], overlay.DropReassembly)
	}
	for a.bytes > reassemblyBytes {
		a.forget(a.order[0], overlay.DropReassembly)
	}
}

// forget gives up a datagram and counts what was there of it.
func (a *assembler) forget(p *partial, why overlay.Drop) {
	if len(p.parts) > 0 {
		a.drops.Add(why, len(p.parts))
	}
	a.charge(p, -p.cost)
	delete(a.partials, p.key)
	i := slices.Index(a.order, p)
	a.order = slices.Delete(a.order, i, i+1)
}

// whole joins the parts. Congestion that one fragment met is the datagram's.
func (p *partial) whole() []byte {
	if p.key.src.Is4() {
		b := append(make([]byte, 0, 20+p.total), p.head...)
		b[1] = b[1]&^3 | p.ecn
		binary.BigEndian.PutUint16(b[2:], uint16(20+p.total))
		b[6], b[7], b[10], b[11] = 0, 0, 0, 0
		binary.BigEndian.PutUint16(b[10:], ^segment.Sum(b, 0))
		return p.join(b)
	}
	b := append(make([]byte, 0, 40+p.total), p.head[:40]...)
	b[1] = b[1]&^0x30 | p.ecn<<4
	binary.BigEndian.PutUint16(b[4:], uint16(p.total))
	b[6] = p.head[40]
	return p.join(b)
}

func (p *partial) join(b []byte) []byte {
	for _, x := range p.parts {
		b = append(b, x.data...)
	}
	return b
}
