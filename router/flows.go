package router

import "encoding/binary"

// flowSlots bounds the flows that one reader remembers: with a hundred of them
// one in twenty shares its slot with another. All of them are 40 KiB, less than
// the buffers of a batch.
const flowSlots = 1 << flowBits

const flowBits = 10

// A pair is the source and the destination of a packet. One of IPv4 has only
// dstLo, which makes it none of IPv6: check refuses the unspecified source.
type pair struct{ srcHi, srcLo, dstHi, dstLo uint64 }

// pairOf reads the addresses of a checked packet.
func pairOf(pkt []byte, v6 bool) pair {
	if !v6 {
		return pair{dstLo: binary.LittleEndian.Uint64(pkt[12:])}
	}
	_ = pkt[ipv6Header-1]
	return pair{
		binary.LittleEndian.Uint64(pkt[8:]), binary.LittleEndian.Uint64(pkt[16:]),
		binary.LittleEndian.Uint64(pkt[24:]), binary.LittleEndian.Uint64(pkt[32:]),
	}
}

// flows remembers which pairs of addresses passed the source check of a port,
// and their way out, under one version of the table. A pair has one slot, where
// it replaces the one before it: the table is asked again for what was
// forgotten, so that whoever sends from or to many addresses costs that, and
// nobody gets another answer than the table's.
type flows struct {
	version uint64 // of the table; not the table, which an idle reader would keep in memory
	in      *port
	slots   [flowSlots]flow
}

type flow struct {
	pair
	out *port // nil in an empty slot
}

// renew forgets what was learnt for another port or from another table.
func (f *flows) renew(version uint64, in *port) {
	if f.version != version || f.in != in {
		f.version, f.in = version, in
		clear(f.slots[:])
	}
}

// slot returns where p is, if anywhere: it is there if the slot says p and has
// a way out. The numbers are odd and without pattern, as a multiplicative hash
// wants them.
func (f *flows) slot(p pair) *flow {
	h := p.srcHi*0x9e3779b97f4a7c15 + p.srcLo*0xbf58476d1ce4e5b9
	h += p.dstHi*0x94d049bb133111eb + p.dstLo*0xd6e8feb86659fd93
	return &f.slots[h>>(64-flowBits)]
}
