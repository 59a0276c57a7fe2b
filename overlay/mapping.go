package overlay

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// A Mapping is a network behind a site that overlaps one behind another site of
// the slice, and the prefix of the same length that it has on the slice instead:
// addresses differ in the prefix and in nothing else.
type Mapping struct{ Real, Mapped netip.Prefix }

// DefaultMapRange is where mapped IPv4 prefixes are taken from unless the
// manifests say otherwise: the shared space of RFC 6598, which neither sites nor
// the internet should use.
var DefaultMapRange = netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, 0, 0}), 10)

// MapRange6 returns where a slice's mapped IPv6 prefixes are taken from unless
// the manifests say otherwise: a unique local /32 derived from the slice's /48,
// of which every part may become a site's. It has room for whole /48s.
func MapRange6(s *Slice) netip.Prefix {
	if !s.Subnet6.IsValid() {
		return netip.Prefix{}
	}
	own := s.Subnet6.Addr().As16()
	h := sha256.Sum256(append([]byte("slicewire map range6 v1\x00"), own[:]...))
	b := [16]byte{0xfd}
	copy(b[1:4], h[:])
	return netip.PrefixFrom(netip.AddrFrom16(b), 32)
}

// mapTries bounds how many places are looked at for one prefix: first some by
// hash, so that it rarely depends on others, then one after the other.
const (
	mapTries  = 32
	mapPlaces = 1 << 14
)

// MapRoutes gives every network behind one site that overlaps one behind
// another a prefix of its own out of the ranges, and replaces it in the site's
// Routes. ranges has at most one of each family; for one that is missing there is
// a default. The result depends on the slice alone: a prefix is found by a hash
// of the site and of the real one, and moves for others only if they want the
// same place. On error the slice is unchanged.
func MapRoutes(s *Slice, ranges []netip.Prefix) error {
	type route struct {
		site, at int
		real     netip.Prefix
	}
	var all, overlapping []route
	for i, site := range s.Sites {
		for j, p := range site.Routes {
			all = append(all, route{i, j, p})
		}
	}
	used := []netip.Prefix{VirtualRange, s.Subnet, s.Subnet6}
	for _, r := range all {
		used = append(used, r.real)
		if slices.ContainsFunc(all, func(x route) bool { return x.site != r.site && x.real.Overlaps(r.real) }) {
			overlapping = append(overlapping, r)
		}
	}
	slices.SortFunc(overlapping, func(a, b route) int { // wide ones first: they have the fewest places
		return cmp.Or(a.real.Bits()-b.real.Bits(), a.real.Addr().Compare(b.real.Addr()), cmp.Compare(s.Sites[a.site].Name, s.Sites[b.site].Name))
	})
	mapped := make([]netip.Prefix, len(overlapping))
	for k, r := range overlapping {
		from := rangeFor(s, ranges, r.real)
		p, ok := mapPrefix(from, s.Sites[r.site].Name, r.real, used)
		if !ok {
			return fmt.Errorf("%v of %s overlaps another site's, and %v has no place for it to be mapped to", r.real, s.Sites[r.site].Name, from)
		}
		mapped[k], used = p, append(used, p)
	}
	for k, r := range overlapping {
		site := &s.Sites[r.site]
		site.Routes[r.at] = mapped[k]
		site.Mapped = append(site.Mapped, Mapping{r.real, mapped[k]})
		slices.SortFunc(site.Mapped, func(a, b Mapping) int { return comparePrefix(a.Real, b.Real) })
	}
	return nil
}

func rangeFor(s *Slice, ranges []netip.Prefix, p netip.Prefix) netip.Prefix {
	for _, r := range ranges {
		if r.Addr().Is4() == p.Addr().Is4() {
			return r
		}
	}
	if p.Addr().Is4() {
		return DefaultMapRange
	}
	return MapRange6(s)
}

// mapPrefix finds a place in a range for a site's prefix that overlaps nothing used.
func mapPrefix(from netip.Prefix, site string, p netip.Prefix, used []netip.Prefix) (netip.Prefix, bool) {
	if !from.IsValid() || from.Bits() > p.Bits() {
		return netip.Prefix{}, false
	}
	free := func(q netip.Prefix) bool { return !slices.ContainsFunc(used, q.Overlaps) }
	var first uint64
	for try := range uint64(mapTries) {
		h := sha256.Sum256(fmt.Appendf(nil, "slicewire map v1\x00%s\x00%v\x00%d", site, p, try))
		n := binary.BigEndian.Uint64(h[:])
		if q := nthPlace(from, p.Bits(), n); free(q) {
			return q, true
		}
		if try == 0 {
			first = n
		}
	}
	places := uint64(mapPlaces)
	if n := p.Bits() - from.Bits(); n < 14 {
		places = 1 << n
	}
	for i := range places {
		if q := nthPlace(from, p.Bits(), first+i); free(q) {
			return q, true
		}
	}
	return netip.Prefix{}, false
}

// nthPlace returns one of the prefixes of a length that a range consists of;
// numbers go around.
func nthPlace(from netip.Prefix, bits int, n uint64) netip.Prefix {
	b := from.Masked().Addr().As16()
	end := bits
	if from.Addr().Is4() {
		end += 96
	}
	for i := end - 1; i >= end-(bits-from.Bits()) && n != 0; i-- {
		b[i/8] |= byte(n&1) << (7 - i%8)
		n >>= 1
	}
	a := netip.AddrFrom16(b)
	if from.Addr().Is4() {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, bits)
}

// Announced returns what a network behind the site, or a part of one, is called
// on the slice: itself, or where it overlaps another site's its mapped form. ok is
// false if the manifests do not give it to the site.
func (x SliceSite) Announced(p netip.Prefix) (as netip.Prefix, ok bool) {
	for _, m := range x.Mapped {
		if covers(m.Real, p) {
			return netip.PrefixFrom(swapPrefix(p.Addr(), m.Mapped), p.Bits()), true
		}
	}
	return p, slices.ContainsFunc(x.Routes, func(q netip.Prefix) bool {
		return covers(q, p) && !slices.ContainsFunc(x.Mapped, func(m Mapping) bool { return m.Mapped == q })
	})
}

// swapPrefix gives an address another prefix, of its family.
func swapPrefix(a netip.Addr, to netip.Prefix) netip.Addr {
	b, t := a.AsSlice(), to.Masked().Addr().AsSlice()
	for i := range b {
		mask := byte(0xff)
		if n := to.Bits() - i*8; n < 8 {
			mask = ^byte(0xff >> max(n, 0))
		}
		b[i] = t[i] | b[i]&^mask
	}
	out, _ := netip.AddrFromSlice(b)
	return out
}

// On returns the address that one behind the node has on the slice.
func (r SubnetRoute) On(a netip.Addr) netip.Addr { return swapPrefix(a, r.Prefix) }
