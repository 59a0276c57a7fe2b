package overlay

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// SliceSubnet6 returns the slice's IPv6 subnet: a unique local /48 (RFC 4193)
// whose global ID is taken from SHA-256 of the mesh's and the slice's name.
// Every node derives the same without asking anybody.
func SliceSubnet6(mesh, slice string) netip.Prefix {
	h := sha256.New()
	h.Write([]byte("slicewire slice subnet6 v1\x00"))
	for _, s := range []string{mesh, slice} { // the length keeps ("ab","c") and ("a","bc") apart
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	var b [16]byte
	b[0] = 0xfd
	copy(b[1:6], h.Sum(nil))
	return netip.PrefixFrom(netip.AddrFrom16(b), 48)
}

// SitePrefix6 returns the /56 of a slice's /48 that belongs to the site with
// the given index, 0 to 255.
func SitePrefix6(subnet6 netip.Prefix, index int) (netip.Prefix, error) {
	if !subnet6.Addr().Is6() || subnet6.Bits() != 48 {
		return netip.Prefix{}, fmt.Errorf("site %d of %v: not an IPv6 /48", index, subnet6)
	}
	if index < 0 || index > 255 {
		return netip.Prefix{}, fmt.Errorf("site %d of %v: a slice has IPv6 room for sites 0 to 255", index, subnet6)
	}
	b := subnet6.Masked().Addr().As16()
	b[6] = byte(index)
	return netip.PrefixFrom(netip.AddrFrom16(b), 56), nil
}
