package gossip

import (
	"encoding/binary"
	"net/netip"
)

// A writer appends the elements of the wire format to b. What has no encoding
// sets bad, which stays.
type writer struct {
	b   []byte
	bad bool
}

func (w *writer) u8(v int) {
	w.bad = w.bad || v < 0 || v > 0xff
	w.b = append(w.b, byte(v))
}

func (w *writer) u16(v int) {
	w.bad = w.bad || v < 0 || v > 0xffff
	w.b = binary.BigEndian.AppendUint16(w.b, uint16(v))
}

func (w *writer) u32(v uint32) { w.b = binary.BigEndian.AppendUint32(w.b, v) }
func (w *writer) u64(v uint64) { w.b = binary.BigEndian.AppendUint64(w.b, v) }

// count writes the length of a list of at most 255 entries.
func (w *writer) count(n int) { w.u8(n) }

func (w *writer) str(s string) {
	w.u8(len(s))
	w.b = append(w.b, s...)
}

func (w *writer) addr(a netip.Addr) {
	w.bad = w.bad || !a.IsValid() || a.Zone() != ""
	if a.Is4() {
		w.u8(familyV4)
	} else {
		w.u8(familyV6)
	}
	w.b = append(w.b, a.AsSlice()...)
}

// A reader takes the elements of the wire format off b. What is not there or
// not as it should be sets bad, which stays; values read after that are zero.
type reader struct {
	b   []byte
	bad bool
}

// take returns the next n bytes, which stay part of b, or n zero bytes.
func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) str() string { return string(r.take(int(r.u8()))) }

func (r *reader) addr() netip.Addr {
	var b []byte
	switch r.u8() {
	case familyV4:
		b = r.take(4)
	case familyV6:
		b = r.take(16)
	default:
		r.bad = true
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
