package overlay

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestClusterPrefixBits(t *testing.T) {
	for _, tt := range []struct {
		name        string
		maxClusters int
		want        int
	}{
		{"two clusters halve the slice", 2, 17},
		{"three take quarters", 3, 18},
		{"four take quarters", 4, 18},
		{"five take eighths", 5, 19},
		{"eight take eighths", 8, 19},
		{"nine take sixteenths", 9, 20},
		{"the default of 16 takes sixteenths", 16, 20},
		{"17 take thirty-seconds", 17, 21},
		{"the most, 32, takes thirty-seconds", 32, 21},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := ClusterPrefixBits(tt.maxClusters); got != tt.want {
				t.Errorf("got /%d, want /%d", got, tt.want)
			}
		})
	}
}

func TestStaticPrefix(t *testing.T) {
	for _, tt := range []struct {
		name        string
		subnet      string
		maxClusters int
		index       int
		want        string // "" for an error
	}{
		{"the first site of a default slice starts at zero", "10.190.0.0/16", 16, 0, "10.190.0.0/20"},
		{"the second site follows at once", "10.190.0.0/16", 16, 1, "10.190.16.0/20"},
		{"a user's object: index 2 of 16", "10.10.0.0/16", 16, 2, "10.10.32.0/20"},
		{"the last site of 16", "10.1.0.0/16", 16, 15, "10.1.240.0/20"},
		{"the last site of 32", "10.1.0.0/16", 32, 31, "10.1.248.0/21"},
		{"the second of two", "10.1.0.0/16", 2, 1, "10.1.128.0/17"},
		{"an index beyond the last is refused", "10.1.0.0/16", 16, 16, ""},
		{"a negative index is refused", "10.1.0.0/16", 16, -1, ""},
		{"a slice that is no /16 is refused", "10.1.0.0/20", 16, 0, ""},
		{"an IPv6 slice is refused", "fd00::/16", 16, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := StaticPrefix(netip.MustParsePrefix(tt.subnet), tt.maxClusters, tt.index)
			if (err != nil) != (tt.want == "") || err == nil && got.String() != tt.want {
				t.Errorf("got %v, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestStaticPrefixesAreDisjointAndFillTheSubnet(t *testing.T) {
	subnet := netip.MustParsePrefix("172.16.0.0/16")
	for maxClusters := 2; maxClusters <= 32; maxClusters++ {
		var all []netip.Prefix
		for i := 0; ; i++ {
			p, err := StaticPrefix(subnet, maxClusters, i)
			if err != nil {
				break
			}
			all = append(all, p)
		}
		if len(all) < maxClusters {
			t.Errorf("maxClusters %d: only %d shares", maxClusters, len(all))
		}
		checkDisjointInside(t, subnet, all)
		if n := len(all) << (32 - all[0].Bits()); n != 1<<16 {
			t.Errorf("maxClusters %d: shares cover %d addresses", maxClusters, n)
		}
	}
}

// checkDisjointInside fails when prefixes overlap or leave the parent.
func checkDisjointInside(t *testing.T, parent netip.Prefix, all []netip.Prefix) {
	t.Helper()
	for i, p := range all {
		if p != p.Masked() || !parent.Contains(p.Addr()) || p.Bits() < parent.Bits() {
			t.Errorf("%v is not a subnet of %v", p, parent)
		}
		for _, q := range all[:i] {
			if p.Overlaps(q) {
				t.Errorf("%v and %v overlap", p, q)
			}
		}
	}
}

func TestAssignIndexes(t *testing.T) {
	for _, tt := range []struct {
		name     string
		existing map[string]int
		clusters []string
		want     map[string]int
	}{
		{"new sites count from zero in order", nil, []string{"b", "a", "c"}, map[string]int{"b": 0, "a": 1, "c": 2}},
		{"a site keeps its index when the order changes", map[string]int{"a": 0, "b": 1}, []string{"b", "a"}, map[string]int{"a": 0, "b": 1}},
		{"a site that left frees its index at once", map[string]int{"a": 0, "b": 1}, []string{"b", "c"}, map[string]int{"b": 1, "c": 0}},
		{"the lowest gap is filled first", map[string]int{"a": 0, "c": 2}, []string{"a", "c", "x", "y"}, map[string]int{"a": 0, "c": 2, "x": 1, "y": 3}},
		{"two claims to one index: the earlier site wins", map[string]int{"a": 1, "b": 1}, []string{"a", "b"}, map[string]int{"a": 1, "b": 0}},
		{"a negative index counts as none", map[string]int{"a": -1}, []string{"a"}, map[string]int{"a": 0}},
		{"a repeated site counts once", nil, []string{"a", "a", "b"}, map[string]int{"a": 0, "b": 1}},
		{"no sites, no indexes", map[string]int{"a": 0}, nil, map[string]int{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := AssignIndexes(tt.existing, tt.clusters); !maps.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestAssignIndexesStaysStickyAndDenseOverAnyHistory(t *testing.T) {
	const seed = 7
	r := rand.New(rand.NewPCG(seed, 0))
	state := map[string]int{}
	for step := range 2000 {
		var clusters []string
		for i := range 32 {
			if r.IntN(2) == 0 {
				clusters = append(clusters, "c"+strconv.Itoa(i))
			}
		}
		r.Shuffle(len(clusters), func(i, j int) { clusters[i], clusters[j] = clusters[j], clusters[i] })
		next := AssignIndexes(state, clusters)
		seen := map[int]string{}
		for c, i := range next {
			if was, ok := state[c]; ok && was != i {
				t.Fatalf("seed %d step %d: %s moved from %d to %d", seed, step, c, was, i)
			}
			if other, twice := seen[i]; twice || i < 0 || i >= 32 {
				t.Fatalf("seed %d step %d: index %d of %s is out of range or also %s's", seed, step, i, c, other)
			}
			seen[i] = c
		}
		state = next
	}
}

func TestNodeBlock(t *testing.T) {
	for _, tt := range []struct {
		name  string
		site  string
		index int
		want  string // "" for an error
		err   string
	}{
		{"the first block of a default site", "10.190.16.0/20", 0, "10.190.16.0/24", ""},
		{"the last block of a default site", "10.190.16.0/20", 15, "10.190.31.0/24", ""},
		{"a large site has many /24s", "10.190.0.0/17", 127, "10.190.127.0/24", ""},
		{"a small site is cut into sixteenths", "10.190.0.0/21", 1, "10.190.0.128/25", ""},
		{"a dynamic /24 is cut into sixteenths", "10.1.7.0/24", 2, "10.1.7.32/28", ""},
		{"a /30 has four single addresses", "10.1.7.4/30", 3, "10.1.7.7/32", ""},
		{"an index beyond the site is refused", "10.190.16.0/20", 16, "", "blocks 0 to 15"},
		{"a negative index is refused", "10.190.16.0/20", -1, "", "blocks 0 to 15"},
		{"the tunnel network of the last site is refused", "10.190.240.0/20", 15, "", "reserved tunnel network"},
		{"half of the tunnel network is refused", "10.190.248.0/21", 15, "", "reserved tunnel network"},
		{"a dynamic site inside the tunnel network is refused", "10.1.255.0/24", 0, "", "reserved tunnel network"},
		{"the block before the tunnel network is fine", "10.190.240.0/20", 14, "10.190.254.0/24", ""},
		{"IPv6 is refused", "fd00::/56", 0, "", "not an IPv4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := NodeBlock(netip.MustParsePrefix(tt.site), tt.index)
			if tt.want == "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, %v, want an error with %q", got, err, tt.err)
				}
				return
			}
			if err != nil || got.String() != tt.want {
				t.Errorf("got %v, %v, want %s", got, err, tt.want)
			}
		})
	}
	if _, err := NodeBlock(netip.Prefix{}, 0); err == nil {
		t.Error("the zero Prefix has blocks")
	}
}

func TestNodeBlocksAreDisjointInsideTheSite(t *testing.T) {
	for bits := 16; bits <= 32; bits++ {
		site := netip.PrefixFrom(netip.MustParseAddr("10.3.0.0"), bits)
		var all []netip.Prefix
		for i := range 256 {
			if b, err := NodeBlock(site, i); err == nil {
				all = append(all, b)
				if a := NodeAddr(b); !b.Contains(a) {
					t.Errorf("node address %v is outside %v", a, b)
				}
			}
		}
		if len(all) == 0 {
			t.Errorf("site %v has no blocks", site)
		}
		checkDisjointInside(t, site, all)
	}
	site6 := netip.MustParsePrefix("fd00:1:2:300::/56")
	var all []netip.Prefix
	for i := range 256 {
		b, err := NodeBlock6(site6, i)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	checkDisjointInside(t, site6, all)
	if _, err := NodeBlock6(site6, 256); err == nil {
		t.Error("block 256 of a /56 exists")
	}
	if _, err := NodeBlock6(netip.MustParsePrefix("fd00::/48"), 0); err == nil {
		t.Error("a /48 has node blocks")
	}
}

func TestNodeAddr(t *testing.T) {
	for block, want := range map[string]string{
		"10.190.16.0/24": "10.190.16.1",
		"10.1.7.32/28":   "10.1.7.33",
		"10.1.7.6/31":    "10.1.7.7",
		"10.1.7.7/32":    "10.1.7.7",
	} {
		if got := NodeAddr(netip.MustParsePrefix(block)); got.String() != want {
			t.Errorf("%s: got %v, want %s", block, got, want)
		}
	}
	if got := NodeAddr6(netip.MustParsePrefix("fd00:1:2:304::/64")); got.String() != "fd00:1:2:304::1" {
		t.Errorf("IPv6: got %v", got)
	}
}

var testBlock6 = netip.MustParsePrefix("fd12:3456:789a:105::/64")

func TestAssignBackends(t *testing.T) {
	block := netip.MustParsePrefix("10.9.8.16/28")
	first, err := AssignBackends(block, testBlock6, nil, []string{"a", "b", "b", "c"})
	if err != nil || len(first) != 3 {
		t.Fatalf("got %v, %v", first, err)
	}
	again, _ := AssignBackends(block, testBlock6, nil, []string{"c", "b", "a"})
	if !maps.Equal(first, again) {
		t.Errorf("the order of names matters: %v and %v", first, again)
	}
	previous := map[string]netip.Addr{}
	for n, a := range first {
		previous[n] = a.Addr
	}
	more, err := AssignBackends(block, testBlock6, previous, []string{"x", "c", "y", "a"})
	if err != nil || more["a"] != first["a"] || more["c"] != first["c"] {
		t.Errorf("a and c moved from %v to %v, %v", first, more, err)
	}
	for _, tt := range []struct {
		name string
		addr string
	}{
		{"the block's address is not kept", "10.9.8.16"},
		{"the node's address is not kept", "10.9.8.17"},
		{"the broadcast address is not kept", "10.9.8.31"},
		{"an address of another block is not kept", "10.9.8.40"},
		{"an IPv6 address is not kept", "fd00::5"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := netip.MustParseAddr(tt.addr)
			got, err := AssignBackends(block, testBlock6, map[string]netip.Addr{"a": addr}, []string{"a"})
			if err != nil || got["a"].Addr == addr || !block.Contains(got["a"].Addr) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	for _, b := range []string{"10.0.0.4/30", "10.0.0.4/31", "10.0.0.4/32"} {
		got, err := AssignBackends(netip.MustParsePrefix(b), testBlock6, nil, []string{"a", "b"})
		if err != nil || got["b"].Addr.IsValid() || !testBlock6.Contains(got["b"].Addr6) || got["a"].Addr6 == got["b"].Addr6 {
			t.Errorf("two backends in %s: %v, %v", b, got, err)
		}
	}
	if got, err := AssignBackends(netip.MustParsePrefix("10.0.0.4/30"), testBlock6, nil, []string{"a"}); err != nil || got["a"].Addr.String() != "10.0.0.6" || got["a"].Addr6 != netip.MustParseAddr("fd12:3456:789a:105::2") {
		t.Errorf("one backend in a /30: %v, %v", got, err)
	}
	if _, err := AssignBackends(netip.MustParsePrefix("10.0.0.4/32"), testBlock6, nil, nil); err != nil {
		t.Errorf("no backends in a /32: %v", err)
	}
}

// More names than the block has addresses: as many services as can be have one
// each, names that had one keep it, and all have one in the IPv6 block, which
// stays.
func TestABlockWithTooFewAddresses(t *testing.T) {
	block := netip.MustParsePrefix("10.9.8.0/28") // 13 for backends
	var names []string
	for i := range 10 {
		for k := range 3 {
			names = append(names, fmt.Sprintf("shop/web%d/p%d", i, k))
		}
	}
	first, err := AssignBackends(block, testBlock6, nil, names)
	if err != nil || len(first) != len(names) {
		t.Fatalf("%d of %d, %v", len(first), len(names), err)
	}
	previous := make(map[string]netip.Addr)
	for i := range 10 {
		if a := first[fmt.Sprintf("shop/web%d/p0", i)]; !a.Addr.IsValid() {
			t.Errorf("web%d has no IPv4 address at all", i)
		}
	}
	for n, a := range first {
		if a.Addr.IsValid() {
			previous[n] = a.Addr
		}
	}
	if len(previous) != 13 {
		t.Errorf("%d have an IPv4 address, the block has 13", len(previous))
	}
	second, err := AssignBackends(block, testBlock6, previous, names)
	if err != nil || !maps.Equal(first, second) {
		t.Errorf("addresses changed, %v", err)
	}
	third, err := AssignBackends(block, testBlock6, previous, append(names, "a/a/p0"))
	if err != nil || !third["a/a/p0"].Addr.IsValid() {
		t.Errorf("a new service has %v, %v", third["a/a/p0"], err)
	}
	moved := 0
	for n := range first {
		if third[n] != first[n] {
			moved++
		}
	}
	if moved != 1 {
		t.Errorf("%d endpoints moved for it, want one", moved)
	}
}

func FuzzAssignBackends(f *testing.F) {
	f.Add("a,b,c", byte(24), uint16(3))
	f.Add("", byte(32), uint16(0))
	f.Add("x,y,z,x,long-name-of-a-backend", byte(29), uint16(65535))
	f.Fuzz(func(t *testing.T, list string, bits byte, seed uint16) {
		block := netip.PrefixFrom(netip.MustParseAddr("10.77.0.0"), int(bits%33)).Masked()
		names := strings.Split(list, ",")
		previous := map[string]netip.Addr{}
		for i, n := range names {
			previous[n] = netip.AddrFrom4([4]byte{10, 77, 0, byte(int(seed) + i*int(seed>>8))})
		}
		got, err := AssignBackends(block, testBlock6, previous, names)
		if err != nil {
			return
		}
		seen := map[netip.Addr]bool{}
		for _, n := range names {
			a, ok := got[n]
			if !ok || seen[a.Addr] && !slices.Contains(names, n) {
				t.Fatalf("%q has no address", n)
			}
			if !a.Addr.IsValid() && int64(len(got)) > freeAddrs(block) && testBlock6.Contains(a.Addr6) {
				continue
			}
			if !block.Contains(a.Addr) || a.Addr == block.Addr() || a.Addr == NodeAddr(block) || !testBlock6.Contains(a.Addr6) {
				t.Fatalf("%q got %v in %v", n, a, block)
			}
		}
		for n, a := range got {
			if seen[a.Addr] || seen[a.Addr6] {
				t.Fatalf("%q shares %v", n, a)
			}
			seen[a.Addr6] = true
			if !a.Addr.IsValid() {
				continue
			}
			seen[a.Addr] = true
			if block.Bits() < 31 && !block.Contains(a.Addr.Next()) {
				t.Fatalf("%q got the broadcast address %v of %v", n, a.Addr, block)
			}
		}
	})
}
