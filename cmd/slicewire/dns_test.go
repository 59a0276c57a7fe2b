package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slicewire/api"
	"slicewire/overlay"
)

func TestSnippets(t *testing.T) {
	s := api.SliceStatus{Name: "blue", DNS: "192.0.2.1:5300", NameServer: api.NameStatus{Zones: []string{"slice.local", "clusterset.local"}}}
	for _, c := range []struct{ form, server, want string }{
		{"coredns", "", "slice.local:53 {\n    errors\n    cache 5\n    forward . 192.0.2.1:5300\n}\nclusterset.local:53 {\n    errors\n    cache 5\n    forward . 192.0.2.1:5300\n}\n"},
		{"coredns", "192.0.2.9:53", "slice.local:53 {\n    errors\n    cache 5\n    forward . 192.0.2.9:53\n}\nclusterset.local:53 {\n    errors\n    cache 5\n    forward . 192.0.2.9:53\n}\n"},
		{"resolved", "127.0.0.1:5300", "[Resolve]\nDNS=127.0.0.1:5300\nDomains=~slice.local ~clusterset.local\n"},
		{"dnsmasq", "", "server=/slice.local/192.0.2.1#5300\nserver=/clusterset.local/192.0.2.1#5300\n"},
		{"coredns", "127.0.0.1:5300", "error"}, // another machine's loopback
		{"dnsmasq", "0.0.0.0:53", "error"},
		{"coredns", "nowhere", "error"},
		{"bind", "", "error"},
	} {
		var b strings.Builder
		got := "error"
		if err := printSnippet(&b, s, c.form, c.server); err == nil {
			got = b.String()
		}
		if got != c.want {
			t.Errorf("%s at %q:\n%s", c.form, c.server, got)
		}
	}
}

func TestUpstreams(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("# nameserver 192.0.2.66\nsearch example\nnameserver 192.0.2.53\nnameserver 2001:db8::53\nnameserver broken\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		settings string
		want     string
	}{
		{"", "[] <nil>"},
		{"node", "[192.0.2.53:53 [2001:db8::53]:53] <nil>"},
		{"192.0.2.1 192.0.2.2:5353", "[192.0.2.1:53 192.0.2.2:5353] <nil>"},
		{"192.0.2.1 node", "[192.0.2.1:53 192.0.2.53:53 [2001:db8::53]:53] <nil>"},
	} {
		got, err := upstreamsOf(strings.Fields(c.settings), path)
		if s := fmt.Sprint(got, " ", err); s != c.want {
			t.Errorf("%q: %s, want %s", c.settings, s, c.want)
		}
	}
	for _, settings := range []string{"here", "node"} {
		if _, err := upstreamsOf([]string{settings}, "/dev/null"); err == nil {
			t.Errorf("%q stands for a server", settings)
		}
	}
}

func TestNoiseDoesNotTurnAnswersOver(t *testing.T) {
	var p namedPeer
	for _, c := range []struct{ rtt, want time.Duration }{{1000, 1000}, {1400, 1000}, {700, 1000}, {1600, 1600}, {1100, 1600}, {1000, 1000}, {0, 0}, {900, 900}} {
		if p.rtt = p.settle(c.rtt); p.rtt != c.want {
			t.Errorf("%d: goes by %d, want %d", c.rtt, p.rtt, c.want)
		}
	}
}

func TestVirtualSocketsAreBounded(t *testing.T) {
	var services []overlay.ServiceView
	for i := range maxVirtual {
		services = append(services, overlay.ServiceView{Name: fmt.Sprintf("s%d", i), Namespace: "shop", Type: overlay.Virtual, Virtual: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}),
			Ports: []overlay.ServicePort{{Name: "http", Port: 80, Protocol: overlay.TCP}, {Name: "dns", Port: 53, Protocol: overlay.UDP}}})
	}
	got, err := virtualsOf(services)
	if err == nil || len(got) != maxVirtual/4 || len(got[0].Ports) != 2 || got[0].Ports[0].Target != "s0.shop.svc.slice.local:80" {
		t.Errorf("%d of %d, %v", len(got), len(services), err)
	}
	if got, err := virtualsOf(services[:3]); err != nil || len(got) != 3 {
		t.Errorf("%d of 3, %v", len(got), err)
	}
}
