package dnsd

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"slicewire/overlay"
)

// What clients that reach a service by other addresses are told: by two of
// their own each family's, an endpoint by one, and the rest as ever.
func TestStandInsAreAnsweredInsteadOfTheSlicesAddresses(t *testing.T) {
	const nx, nodata = "NXDOMAIN soa:", "NOERROR soa:"
	view := func() View {
		v := testView()
		v.Services = append(v.Services, testService("idle", overlay.Virtual), testService("pets", overlay.Headless, at("east", "p0", "10.1.1.20"), at("west", "p0", "10.1.2.20")))
		bare := testService("bare", overlay.Virtual, at("east", "b0", "10.1.1.30"))
		bare.Ports = bare.Ports[:1]
		bare.Ports[0].Name = ""
		v.Services = append(v.Services, bare)
		v.Reverse = append(v.Reverse, netip.MustParsePrefix("10.96.0.0/16"))
		v.StandIns = map[string]StandIn{
			"shop/virt": {Addrs: addrs("10.96.0.1", "fd00:96::1")},
			"shop/head": {Addrs: addrs("10.96.0.2", "10.96.0.3"), Endpoints: map[string][]netip.Addr{"e1.east": addrs("10.96.0.4")}},
			"shop/dead": {Addrs: addrs("10.96.0.5")},
			"shop/none": {Addrs: addrs("10.96.0.6")},
			"shop/bare": {Addrs: addrs("10.96.0.11")},
			"shop/idle": {Addrs: addrs("10.96.0.7")},
			"shop/pets": {Addrs: addrs("10.96.0.8"), Endpoints: map[string][]netip.Addr{"p0.east": addrs("10.96.0.9"), "p0.west": addrs("10.96.0.10")}},
		}
		return v
	}
	for _, c := range []struct {
		ask   string
		qtype uint16
		want  string
	}{
		{"virt.shop.svc.clusterset.local", typeA, "NOERROR 10.96.0.1"},
		{"virt.shop.svc.clusterset.local", typeAAAA, "NOERROR fd00:96::1"},
		{"virt.shop.svc.slice.local", typeA, "NOERROR 10.96.0.1"},
		{"virt.shop.svc.slice.local", typeAAAA, "NOERROR fd00:96::1"},
		{"virt.shop.svc.corp.example", typeA, "NOERROR 10.96.0.1"},
		{"head.shop.svc.slice.local", typeA, "NOERROR 10.96.0.2 10.96.0.3"},
		{"head.shop.svc.clusterset.local", typeA, "NOERROR 10.96.0.2 10.96.0.3"},
		{"head.shop.svc.slice.local", typeAAAA, nodata + "slice.local."},
		{"www.example.com", typeA, "NOERROR 10.96.0.2 10.96.0.3"}, // an alias of it
		{"e1.east.head.shop.svc.slice.local", typeA, "NOERROR 10.96.0.4"},
		{"e1.east.head.shop.svc.clusterset.local", typeA, "NOERROR 10.96.0.4"},
		{"e0.east.head.shop.svc.slice.local", typeA, nx + "slice.local."}, // its own leads nowhere
		{"east.head.shop.svc.slice.local", typeA, "NOERROR 10.96.0.4"},
		{"west.head.shop.svc.slice.local", typeA, nx + "slice.local."},
		{"v0.east.virt.shop.svc.slice.local", typeA, nx + "slice.local."},
		{"_http._tcp.virt.shop.svc.clusterset.local", typeSRV, "NOERROR 0 1 80 virt.shop.svc.clusterset.local."},
		{"_http._tcp.virt.shop.svc.slice.local", typeSRV, "NOERROR 0 1 80 virt.shop.svc.slice.local."},
		{"_http._tcp.head.shop.svc.slice.local", typeSRV, "NOERROR 0 1 80 head.shop.svc.slice.local. 0 1 80 e1.east.head.shop.svc.slice.local."},
		{"dead.shop.svc.slice.local", typeA, nodata + "slice.local."},
		{"none.shop.svc.slice.local", typeA, nx + "slice.local."},
		{"idle.shop.svc.clusterset.local", typeA, "NOERROR 10.96.0.7"}, // and nobody serves it
		{"idle.shop.svc.slice.local", typeA, "NOERROR 10.96.0.7"},
		{"_http._tcp.idle.shop.svc.clusterset.local", typeSRV, "NOERROR 0 1 80 idle.shop.svc.clusterset.local."},
		{"_._tcp.bare.shop.svc.clusterset.local", typeSRV, nx + "clusterset.local."}, // its port has no name
		{"pets.shop.svc.slice.local", typeA, "NOERROR 10.96.0.8"},
		{"pets.shop.svc.clusterset.local", typeA, "NOERROR 10.96.0.9 10.96.0.10"},
		{"_http._tcp.pets.shop.svc.clusterset.local", typeSRV, "NOERROR 0 1 80 p0.east.pets.shop.svc.clusterset.local. 0 1 80 p0.west.pets.shop.svc.clusterset.local."},
		{"empty.shop.svc.clusterset.local", typeA, nx + "clusterset.local."},
		{"empty.shop.svc.slice.local", typeA, nodata + "slice.local."},
		{"n.east.node.slice.local", typeA, "NOERROR 10.1.1.250"},
		{"1.0.96.10.in-addr.arpa", typePTR, "NOERROR virt.shop.svc.slice.local. virt.shop.svc.clusterset.local."},
		{"4.0.96.10.in-addr.arpa", typePTR, "NOERROR e1.east.head.shop.svc.slice.local. e1.east.head.shop.svc.clusterset.local."},
		{"9.1.1.10.in-addr.arpa", typePTR, nx + "1.10.in-addr.arpa."},
	} {
		if got := brief(ask(t, serviceServer(t, view()), pack(t, query(c.ask, c.qtype)))); got != c.want {
			t.Errorf("%s %s\ngot  %s\nwant %s", c.ask, dns.TypeToString[c.qtype], got, c.want)
		}
	}
	m := ask(t, serviceServer(t, view()), pack(t, query("_http._tcp.virt.shop.svc.slice.local", typeSRV)))
	var extra []string
	for _, rr := range m.Extra {
		extra = append(extra, rr.String())
	}
	if got := strings.Join(extra, " "); len(extra) != 2 || !strings.Contains(got, "10.96.0.1") || !strings.Contains(got, "fd00:96::1") {
		t.Errorf("beside the SRV record: %s", got)
	}
}
