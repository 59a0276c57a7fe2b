package dnsd

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// What clients that reach a service by other addresses are told: by two of
// their own each family's, an endpoint by one, and the rest as ever.
func TestStandInsAreAnsweredInsteadOfTheSlicesAddresses(t *testing.T) {
	const nx, nodata = "NXDOMAIN soa:", "NOERROR soa:"
	view := func() View {
		v := testView()
		v.Reverse = append(v.Reverse, netip.MustParsePrefix("10.96.0.0/16"))
		v.StandIns = map[string]StandIn{
			"shop/virt": {Addrs: addrs("10.96.0.1", "fd00:96::1")},
			"shop/head": {Addrs: addrs("10.96.0.2", "10.96.0.3"), Endpoints: map[string][]netip.Addr{"e1.east": addrs("10.96.0.4")}},
			"shop/dead": {Addrs: addrs("10.96.0.5")},
			"shop/none": {Addrs: addrs("10.96.0.6")},
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
