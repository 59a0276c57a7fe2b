package dnsd

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"slicewire/overlay"
)

// A reverse is an address and whose it is.
type reverse struct {
	addr     netip.Addr
	service  *service
	endpoint int32  // of service; -1: its virtual address
	name     string // with no service: the name
}

// reverseOf reads the owner of a PTR record: labels of an address under its
// family's domain, reversed. bits is how much of an address it is; -1 if it is
// not one.
func reverseOf(labels []string) (addr netip.Addr, bits int) {
	n := len(labels)
	if n < 2 || labels[n-1] != "arpa" {
		return netip.Addr{}, -1
	}
	digits := labels[:n-2]
	switch labels[n-2] {
	case "in-addr":
		var a [4]byte
		if len(digits) > 4 {
			return netip.Addr{}, -1
		}
		for i, d := range digits {
			v, err := strconv.ParseUint(d, 10, 8)
			if err != nil || d != strconv.FormatUint(v, 10) {
				return netip.Addr{}, -1
			}
			a[len(digits)-1-i] = byte(v)
		}
		return netip.AddrFrom4(a), 8 * len(digits)
	case "ip6":
		var a [16]byte
		if len(digits) > 32 {
			return netip.Addr{}, -1
		}
		for i, d := range digits {
			at := len(digits) - 1 - i
			v := strings.IndexByte("0123456789abcdef", d[0])
			if len(d) != 1 || v < 0 {
				return netip.Addr{}, -1
			}
			a[at/2] |= byte(v) << (4 * (1 - at%2))
		}
		return netip.AddrFrom16(a), 4 * len(digits)
	}
	return netip.Addr{}, -1
}

// reverseZone returns how many bits the zone of an address's name has: the
// network's, rounded up to a whole label; 0 if no network of ours holds it.
func (s *snapshot) reverseZone(addr netip.Addr, bits int) int {
	for _, p := range s.networks {
		if p.Addr().Is4() != addr.Is4() || !p.Contains(addr) {
			continue
		}
		label := 4
		if addr.Is4() {
			label = 8
		}
		if zone := (p.Bits() + label - 1) / label * label; bits >= zone {
			return zone
		}
	}
	return 0
}

// decideReverse answers for the name of an address.
func (s *snapshot) decideReverse(name []byte, labels []string, qtype uint16) (verdict, bool) {
	addr, bits := reverseOf(labels)
	if bits < 0 {
		return verdict{}, false
	}
	zone := s.reverseZone(addr, bits)
	if zone == 0 {
		return verdict{}, false
	}
	per := 4
	if addr.Is4() {
		per = 8
	}
	owner := len(name) // less the labels below the zone's apex
	for _, l := range labels[:(bits-zone)/per] {
		owner -= 1 + len(l)
	}
	found := verdict{soa: owner}
	switch {
	case bits == zone && qtype == typeSOA:
		found.apex = true
		return found, true
	case bits < addr.BitLen():
		return found, true // names may lie below it
	}
	names := s.namesOf(addr)
	switch {
	case len(names) == 0:
		found.rcode = rcodeNXDomain
	case qtype == typePTR:
		found.ptr = names
	case qtype == typeANY:
		found.minAny = true
	}
	return found, true
}

// namesOf lists the names of an address.
func (s *snapshot) namesOf(addr netip.Addr) (out []string) {
	i, _ := slices.BinarySearchFunc(s.reverses, addr, func(r reverse, a netip.Addr) int { return r.addr.Compare(a) })
	for ; i < len(s.reverses) && s.reverses[i].addr == addr; i++ {
		r := &s.reverses[i]
		if r.service == nil {
			out = append(out, r.name)
			continue
		}
		base := r.service.Name + "." + r.service.Namespace + ".svc."
		if r.endpoint < 0 {
			if r.service.standIn != nil {
				out = append(out, base+overlay.Zone)
			}
			out = append(out, base+overlay.ClusterSetZone)
			continue
		}
		e := &r.service.Endpoints[r.endpoint]
		own := e.Name + "." + e.Origin.Site + "." + base
		out = append(out, own+overlay.Zone)
		if r.service.Type == overlay.Headless {
			out = append(out, own+overlay.ClusterSetZone)
		}
	}
	return out
}

func sortReverses(r []reverse) {
	slices.SortStableFunc(r, func(a, b reverse) int { return cmp.Or(a.addr.Compare(b.addr)) })
}
