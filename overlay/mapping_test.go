package overlay

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// routedSlice is a slice with the routes of its sites: "west=192.168.1.0/24,fd77::/64".
func routedSlice(sites ...string) *Slice {
	s := &Slice{Name: "red", Subnet: netip.MustParsePrefix("10.190.0.0/16"), Subnet6: SliceSubnet6("lab", "red")}
	for i, text := range sites {
		name, list, _ := strings.Cut(text, "=")
		site := SliceSite{Name: name, Index: i}
		for word := range strings.SplitSeq(list, ",") {
			if word != "" {
				site.Routes = append(site.Routes, netip.MustParsePrefix(word))
			}
		}
		s.Sites = append(s.Sites, site)
	}
	return s
}

func mustMap(t *testing.T, s *Slice, ranges ...string) *Slice {
	t.Helper()
	var all []netip.Prefix
	for _, r := range ranges {
		all = append(all, netip.MustParsePrefix(r))
	}
	if err := MapRoutes(s, all); err != nil {
		t.Fatal(err)
	}
	checkMapped(t, s)
	return s
}

// checkMapped demands what holds of every slice.
func checkMapped(t *testing.T, s *Slice) {
	t.Helper()
	seen := []netip.Prefix{s.Subnet, s.Subnet6, VirtualRange}
	for _, site := range s.Sites {
		for _, p := range site.Routes {
			for _, q := range seen {
				if p.Overlaps(q) {
					t.Errorf("%v of %s overlaps %v", p, site.Name, q)
				}
			}
			seen = append(seen, p)
		}
		for _, m := range site.Mapped {
			if m.Real.Bits() != m.Mapped.Bits() || m.Real.Addr().Is4() != m.Mapped.Addr().Is4() || m.Mapped != m.Mapped.Masked() || !slices.Contains(site.Routes, m.Mapped) {
				t.Errorf("%s: %v", site.Name, m)
			}
		}
	}
}

func TestOverlappingRoutesAreMapped(t *testing.T) {
	for _, c := range []struct {
		name  string
		sites []string
		want  string // the real prefixes that are mapped
	}{
		{"none overlap", []string{"west=192.168.1.0/24,fd77::/64", "east=192.168.2.0/24"}, ""},
		{"the same at two sites", []string{"west=192.168.1.0/24", "east=192.168.1.0/24"}, "west 192.168.1.0/24, east 192.168.1.0/24"},
		{"one inside another", []string{"west=192.168.0.0/16", "east=192.168.1.0/24"}, "west 192.168.0.0/16, east 192.168.1.0/24"},
		{"beside one that does not", []string{"west=192.168.1.0/24,172.20.0.0/16", "east=192.168.1.0/24"}, "west 192.168.1.0/24, east 192.168.1.0/24"},
		{"IPv6", []string{"west=fd77::/64", "east=fd77::/48"}, "west fd77::/64, east fd77::/48"},
		{"three sites", []string{"a=192.168.1.0/24", "b=192.168.1.0/25", "c=192.168.1.128/25"}, "a 192.168.1.0/24, b 192.168.1.0/25, c 192.168.1.128/25"},
		{"a site's own range is where others would be mapped", []string{"a=100.64.0.0/11", "b=10.1.0.0/12", "c=10.0.0.0/12"}, "b 10.0.0.0/12, c 10.0.0.0/12"},
	} {
		s := mustMap(t, routedSlice(c.sites...))
		var got []string
		for _, site := range s.Sites {
			for _, m := range site.Mapped {
				got = append(got, site.Name+" "+m.Real.Masked().String())
			}
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: mapped are %v", c.name, got)
		}
	}
}

func TestMappingsAreTheSameOnAllNodesAndStay(t *testing.T) {
	two := mustMap(t, routedSlice("west=192.168.1.0/24,fd77::/64", "east=192.168.1.0/24,fd77::/64"))
	// Written down, as a new version of the program has to agree with an old one.
	var got []string
	for _, site := range two.Sites {
		got = append(got, fmt.Sprint(site.Routes))
	}
	const want = "[100.91.101.0/24 fdd3:f13e:8ff7:bb97::/64] [100.84.26.0/24 fdd3:f13e:3bc3:11e8::/64]"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("%s", s)
	}
	turned := mustMap(t, routedSlice("east=fd77::/64,192.168.1.0/24", "west=fd77::/64,192.168.1.0/24"))
	more := mustMap(t, routedSlice("west=192.168.1.0/24,fd77::/64,172.16.0.0/12", "east=192.168.1.0/24,fd77::/64", "north=192.168.0.0/16,172.16.0.0/16"))
	for _, other := range []*Slice{turned, more} {
		for _, name := range []string{"west", "east"} {
			was, _ := two.Site(name)
			is, _ := other.Site(name)
			for _, m := range was.Mapped {
				if !slices.Contains(is.Mapped, m) {
					t.Errorf("%s: %v is gone: %v", name, m, is.Mapped)
				}
			}
		}
	}
}

func TestAMapRangeMayBeGivenAndFull(t *testing.T) {
	s := mustMap(t, routedSlice("west=192.168.1.0/24", "east=192.168.1.0/24"), "172.31.0.0/23", "fd99::/48")
	for _, site := range s.Sites {
		if !netip.MustParsePrefix("172.31.0.0/23").Overlaps(site.Routes[0]) {
			t.Errorf("%s has %v", site.Name, site.Routes)
		}
	}
	for _, c := range []struct{ sites, from string }{
		{"a=192.168.1.0/24 b=192.168.1.0/24 c=192.168.1.0/24", "172.31.0.0/23"}, // one too many
		{"a=10.0.0.0/9 b=10.0.0.0/9", "100.64.0.0/10"},                          // wider than the range
		{"a=192.168.1.0/24 b=192.168.1.0/24", "10.190.4.0/22"},                  // the slice's own
	} {
		s := routedSlice(strings.Fields(c.sites)...)
		err := MapRoutes(s, []netip.Prefix{netip.MustParsePrefix(c.from)})
		if err == nil || !strings.Contains(err.Error(), c.from+" has no place") {
			t.Errorf("%s: %v", c.sites, err)
		}
		if s.Sites[0].Mapped != nil {
			t.Errorf("%s: changed for all that", c.sites)
		}
	}
}

func TestMappingsOfRandomSlices(t *testing.T) {
	const seed = 4
	rng := rand.New(rand.NewPCG(seed, 1))
	moved, pairs := 0, 0
	for range 300 {
		var sites []string
		for i := range 2 + rng.IntN(6) {
			var list []string
			for j := range 1 + rng.IntN(4) {
				if rng.IntN(3) == 0 {
					list = append(list, fmt.Sprintf("fd%02x:%x::/%d", 0x40+j, rng.IntN(2), 48+16*rng.IntN(2)))
				} else {
					list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(16 + j), byte(rng.IntN(4)), 0}), 16+rng.IntN(9)).Masked().String())
				}
			}
			sites = append(sites, fmt.Sprintf("s%d=%s", i, strings.Join(list, ",")))
		}
		all := mustMap(t, routedSlice(sites...))
		fewer := mustMap(t, routedSlice(sites[:len(sites)-1]...))
		for _, site := range fewer.Sites {
			now, _ := all.Site(site.Name)
			for _, m := range site.Mapped {
				pairs++
				if !slices.Contains(now.Mapped, m) {
					moved++
				}
				for _, p := range []netip.Prefix{m.Real, netip.PrefixFrom(m.Real.Addr(), m.Real.Bits()+3)} {
					as, ok := site.Announced(p)
					back := swapPrefix(as.Addr(), m.Real)
					if !ok || as.Bits() != p.Bits() || !m.Mapped.Contains(as.Addr()) || back != p.Addr() {
						t.Fatalf("seed %d: %v is announced as %v, %v", seed, p, as, ok)
					}
				}
				if _, ok := site.Announced(m.Mapped); ok {
					t.Fatalf("seed %d: the mapped form %v is taken for a real one", seed, m.Mapped)
				}
			}
		}
	}
	t.Logf("%d of %d mappings moved when a site came", moved, pairs)
	if pairs < 500 || moved*20 > pairs {
		t.Errorf("seed %d: %d of %d mappings moved when a site came", seed, moved, pairs)
	}
}
