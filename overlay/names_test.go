package overlay

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestDNSNamesAreKubeSlices(t *testing.T) {
	if got := ServiceDNSName("iperf-server", "iperf"); got != "iperf-server.iperf.svc.slice.local" {
		t.Error(got)
	}
	if got := EndpointDNSName("iperf-server-0", "worker-1", "iperf-server", "iperf"); got != "iperf-server-0.worker-1.iperf-server.iperf.svc.slice.local" {
		t.Error(got)
	}
}

func TestValidLabel(t *testing.T) {
	for _, tt := range []struct {
		name string
		s    string
		want bool
	}{
		{"letters, digits and hyphens", "worker-1", true},
		{"a digit may come first", "1a", true},
		{"a single character", "a", true},
		{"63 characters", strings.Repeat("a", 63), true},
		{"64 characters are too many", strings.Repeat("a", 64), false},
		{"nothing", "", false},
		{"upper case", "Worker", false},
		{"a hyphen first", "-a", false},
		{"a hyphen last", "a-", false},
		{"a dot", "a.b", false},
		{"an underscore", "a_b", false},
		{"a space", "a b", false},
		{"a letter that is not ASCII", "é", false},
		{"a zero byte", "a\x00b", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := ValidLabel(tt.s); got != tt.want {
				t.Errorf("%q: got %v", tt.s, got)
			}
		})
	}
}

func TestValidDNSName(t *testing.T) {
	for s, want := range map[string]bool{
		"multi-replica-set-0-0-svc.mongodb.svc.cluster.local": true,
		"a":                             true,
		"":                              false,
		".":                             false,
		"a.":                            false,
		".a":                            false,
		"a..b":                          false,
		"A.b":                           false,
		strings.Repeat("a.", 126) + "a": true,
		strings.Repeat("a.", 127) + "a": false,
	} {
		if got := ValidDNSName(s); got != want {
			t.Errorf("%q: got %v", s, got)
		}
	}
}

func FuzzValidDNSName(f *testing.F) {
	f.Add("a.b")
	f.Add("-.x")
	f.Fuzz(func(t *testing.T, s string) {
		naive := len(s) <= 253
		for _, l := range strings.Split(s, ".") {
			ok := len(l) > 0 && len(l) <= 63 && strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" &&
				l[0] != '-' && l[len(l)-1] != '-'
			naive = naive && ok
		}
		if got := ValidDNSName(s); got != naive {
			t.Errorf("%q: got %v, the rule says %v", s, got, naive)
		}
	})
}

func TestNearest(t *testing.T) {
	keys := []string{"sliceSubnet", "sliceType", "clusters", "maxClusters", "site", "node"}
	for _, tt := range []struct {
		name, word, want string
	}{
		{"one letter missing", "sliceSubnt", "sliceSubnet"},
		{"two letters swapped", "clutsers", "clusters"},
		{"other case", "maxclusters", "maxClusters"},
		{"one letter wrong in a short word", "sife", "site"},
		{"nothing like it", "colour", ""},
		{"half of a short word wrong", "mope", ""},
		{"empty", "", ""},
		{"too long to compare", strings.Repeat("site", 100), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Nearest(tt.word, keys); got != tt.want {
				t.Errorf("%q: got %q, want %q", tt.word, got, tt.want)
			}
		})
	}
}

func TestGatewayPairs(t *testing.T) {
	pairs := GatewayPairs("red", []string{"b", "a", "c"}, map[string]int{"a": 0, "b": 1, "c": 2})
	var got []string
	for _, p := range pairs {
		got = append(got, fmt.Sprintf("%s>%s %s %s %d", p.Server, p.Client, p.ServerObject, p.ClientObject, p.Number))
	}
	want := []string{
		"b>a red-b-a red-a-b 0", // the earlier in spec.clusters serves, whatever the index
		"b>c red-b-c red-c-b 1",
		"a>c red-a-c red-c-a 0", // KubeSlice's formula is not unique
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if p := GatewayPairs("red", []string{"a"}, nil); len(p) != 0 {
		t.Errorf("one site has pairs: %v", p)
	}
}

func TestSliceSubnet6(t *testing.T) {
	seen := map[netip.Prefix]string{}
	ula := netip.MustParsePrefix("fd00::/8")
	for _, n := range [][2]string{{"default", "a"}, {"default", "b"}, {"other", "a"}, {"ab", "c"}, {"a", "bc"}, {"", "abc"}, {"abc", ""}} {
		p := SliceSubnet6(n[0], n[1])
		if p.Bits() != 48 || !ula.Contains(p.Addr()) || p != p.Masked() {
			t.Errorf("%v: %v is no ULA /48", n, p)
		}
		if other, ok := seen[p]; ok {
			t.Errorf("%v and %s share %v", n, other, p)
		}
		seen[p] = fmt.Sprint(n)
		if p != SliceSubnet6(n[0], n[1]) {
			t.Errorf("%v: not the same twice", n)
		}
	}
	// Part of what nodes of different releases must agree on.
	if got := SliceSubnet6("default", "iperf-slice"); got.String() != "fdc4:d646:5fe::/48" {
		t.Errorf("the derived subnet of default/iperf-slice changed to %v", got)
	}
}

func TestSitePrefix6(t *testing.T) {
	subnet := netip.MustParsePrefix("fd11:2233:4455::/48")
	var all []netip.Prefix
	for i := range 256 {
		p, err := SitePrefix6(subnet, i)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	checkDisjointInside(t, subnet, all)
	if all[3].String() != "fd11:2233:4455:300::/56" {
		t.Errorf("site 3: %v", all[3])
	}
	for _, i := range []int{-1, 256} {
		if p, err := SitePrefix6(subnet, i); err == nil {
			t.Errorf("site %d has %v", i, p)
		}
	}
	if p, err := SitePrefix6(netip.MustParsePrefix("10.0.0.0/16"), 0); err == nil {
		t.Errorf("an IPv4 slice has %v", p)
	}
}
