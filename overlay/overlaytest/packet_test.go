package overlaytest

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// A checksum of zero may be written as 0xffff, as what updates it leaves it.
func TestBothFormsOfZeroAreRightChecksums(t *testing.T) {
	src, dst := netip.MustParseAddrPort("10.1.0.2:1"), netip.MustParseAddrPort("10.1.0.3:2")
	found := false
	for seq := range uint32(1 << 17) {
		p := TCP(src, dst, seq, 0, ACK, nil, []byte("abc"))
		if binary.BigEndian.Uint16(p[36:]) != 0 {
			continue
		}
		found = true
		if !ChecksumsOK(p) {
			t.Errorf("%x: zero", p)
		}
		p[36], p[37] = 0xff, 0xff
		if !ChecksumsOK(p) {
			t.Errorf("%x: the other zero", p)
		}
		p[36] = 0xfe
		if ChecksumsOK(p) {
			t.Errorf("%x: a wrong one passes", p)
		}
		break
	}
	if !found {
		t.Fatal("no packet with a checksum of zero")
	}
}
