package dnsd

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"slicewire/overlay"
)

func testService(name string, typ overlay.ServiceType, endpoints ...overlay.EndpointView) overlay.ServiceView {
	s := overlay.ServiceView{Name: name, Namespace: "shop", Type: typ, DNSNames: []string{overlay.ServiceDNSName(name, "shop")}}
	s.Ports = []overlay.ServicePort{{Name: "http", Port: 80, Protocol: overlay.TCP}, {Name: "http-udp", Port: 80, Protocol: overlay.UDP}, {Name: "metrics", Port: 9090, Protocol: overlay.TCP}}
	for i := range endpoints {
		endpoints[i].Ports = s.Ports[:2]
	}
	if typ == overlay.Virtual {
		s.Virtual, s.Virtual6 = netip.MustParseAddr("198.18.0.7"), netip.MustParseAddr("fd00:0:0:ffff::7")
	}
	s.Endpoints = endpoints
	return s
}

func at(site, name, addr string) overlay.EndpointView {
	e := overlay.EndpointView{Origin: overlay.NodeID{Site: site, Node: "n"}}
	e.Name, e.Addr = name, netip.MustParseAddr(addr)
	return e
}

func testView() View {
	head := testService("head", overlay.Headless, at("east", "e0", "10.1.1.1"), at("east", "e1", "10.1.1.2"), at("west", "w0", "10.1.2.1"))
	head.Endpoints[0].Addr6 = netip.MustParseAddr("fd00::1:1")
	head.DNSNames = append(head.DNSNames, "www.example.com")
	return View{
		Entries: []Entry{{Name: "n.east.node.slice.local", Addrs: addrs("10.1.1.250"), Reverse: true}},
		Services: []overlay.ServiceView{head, testService("virt", overlay.Virtual, at("east", "v0", "10.1.1.9")),
			testService("empty", overlay.Headless), testService("dead", overlay.Headless, at("gone", "d0", "10.1.9.9"))},
		Reach:   map[overlay.NodeID]overlay.Reach{{Site: "gone", Node: "n"}: {Lost: true}, {Site: "west", Node: "n"}: {Rank: 5}},
		Reverse: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::/48"), overlay.VirtualRange},
	}
}

func serviceServer(t testing.TB, v View) *Server {
	t.Helper()
	s, err := New(Config{Zones: []string{overlay.Zone, overlay.ClusterSetZone, "corp.example"}})
	if err != nil {
		t.Fatal(err)
	}
	s.Set(v)
	return s
}

// brief writes answers in short, in their order.
func brief(m *dns.Msg) string {
	out := []string{dns.RcodeToString[m.Rcode]}
	for _, rr := range m.Answer {
		out = append(out, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	for _, rr := range m.Ns {
		out = append(out, "soa:"+rr.Header().Name)
	}
	return strings.Join(out, " ")
}

// The records of the Kubernetes DNS specification and KEP-1645, and KubeSlice's,
// with those that must not exist.
func TestTheRecordsOfServices(t *testing.T) {
	s := serviceServer(t, testView())
	const nx, nodata = "NXDOMAIN soa:", "NOERROR soa:"
	for _, c := range []struct {
		ask   string
		qtype uint16
		want  string
	}{
		{"head.shop.svc.slice.local", typeA, "NOERROR 10.1.1.1 10.1.1.2 10.1.2.1"},
		{"head.shop.svc.slice.local", typeAAAA, "NOERROR fd00::1:1"},
		{"head.shop.svc.clusterset.local", typeA, "NOERROR 10.1.1.1 10.1.1.2 10.1.2.1"},
		{"head.shop.svc.corp.example", typeA, "NOERROR 10.1.1.1 10.1.1.2 10.1.2.1"},
		{"www.example.com", typeA, "NOERROR 10.1.1.1 10.1.1.2 10.1.2.1"},
		{"e1.east.head.shop.svc.slice.local", typeA, "NOERROR 10.1.1.2"},
		{"e1.east.head.shop.svc.slice.local", typeAAAA, nodata + "slice.local."},
		{"E0.East.head.shop.svc.clusterset.local", typeAAAA, "NOERROR fd00::1:1"},
		{"east.head.shop.svc.slice.local", typeA, "NOERROR 10.1.1.1 10.1.1.2"},
		{"east.head.shop.svc.clusterset.local", typeA, nodata + "clusterset.local."}, // only lies above names
		{"north.head.shop.svc.slice.local", typeA, nx + "slice.local."},
		{"e2.east.head.shop.svc.slice.local", typeA, nx + "slice.local."},
		{"w0.east.head.shop.svc.slice.local", typeA, nx + "slice.local."},
		{"x.e0.east.head.shop.svc.slice.local", typeA, nx + "slice.local."},

		{"virt.shop.svc.clusterset.local", typeA, "NOERROR 198.18.0.7"},
		{"virt.shop.svc.clusterset.local", typeAAAA, "NOERROR fd00:0:0:ffff::7"},
		{"virt.shop.svc.slice.local", typeA, "NOERROR 10.1.1.9"}, // KubeSlice's are all headless
		{"v0.east.virt.shop.svc.slice.local", typeA, "NOERROR 10.1.1.9"},
		{"v0.east.virt.shop.svc.clusterset.local", typeA, nx + "clusterset.local."},
		{"east.virt.shop.svc.clusterset.local", typeA, nx + "clusterset.local."},

		{"_http._tcp.virt.shop.svc.clusterset.local", typeSRV, "NOERROR 0 1 80 virt.shop.svc.clusterset.local."},
		{"_http._tcp.head.shop.svc.clusterset.local", typeSRV, "NOERROR 0 1 80 e0.east.head.shop.svc.clusterset.local. 0 1 80 e1.east.head.shop.svc.clusterset.local. 0 1 80 w0.west.head.shop.svc.clusterset.local."},
		{"_http-udp._udp.virt.shop.svc.slice.local", typeSRV, "NOERROR 0 1 80 v0.east.virt.shop.svc.slice.local."},
		{"_metrics._tcp.virt.shop.svc.clusterset.local", typeSRV, "NOERROR 0 1 9090 virt.shop.svc.clusterset.local."},
		{"_metrics._tcp.head.shop.svc.slice.local", typeSRV, nodata + "slice.local."}, // no endpoint serves it
		{"virt.shop.svc.clusterset.local", typeSRV, "NOERROR 0 1 80 virt.shop.svc.clusterset.local. 0 1 9090 virt.shop.svc.clusterset.local."},
		{"_HTTP._TCP.virt.shop.svc.slice.local", typeA, nodata + "slice.local."},
		{"_http._udp.virt.shop.svc.slice.local", typeSRV, nx + "slice.local."},
		{"_nope._tcp.virt.shop.svc.slice.local", typeSRV, nx + "slice.local."},
		{"http._tcp.virt.shop.svc.slice.local", typeSRV, nx + "slice.local."},
		{"_._tcp.virt.shop.svc.slice.local", typeSRV, nx + "slice.local."},
		{"_tcp.virt.shop.svc.slice.local", typeSRV, nodata + "slice.local."},
		{"_sctp.virt.shop.svc.slice.local", typeSRV, nx + "slice.local."},

		{"shop.svc.slice.local", typeA, nodata + "slice.local."},
		{"svc.clusterset.local", typeA, nodata + "clusterset.local."},
		{"any.shop.svc.slice.local", typeA, nx + "slice.local."},
		{"empty.shop.svc.slice.local", typeA, nodata + "slice.local."},
		{"dead.shop.svc.slice.local", typeA, nodata + "slice.local."},
		{"d0.gone.dead.shop.svc.slice.local", typeA, nx + "slice.local."},
		{"dns-version.clusterset.local", typeTXT, `NOERROR "1.0.0"`},
		{"dns-version.slice.local", typeTXT, `NOERROR "1.1.0"`},
		{"n.east.node.slice.local", typeA, "NOERROR 10.1.1.250"},

		{"2.1.1.10.in-addr.arpa", typePTR, "NOERROR e1.east.head.shop.svc.slice.local. e1.east.head.shop.svc.clusterset.local."},
		{"9.1.1.10.in-addr.arpa", typePTR, "NOERROR v0.east.virt.shop.svc.slice.local."},
		{"7.0.18.198.in-addr.arpa", typePTR, "NOERROR virt.shop.svc.clusterset.local."},
		{"250.1.1.10.in-addr.arpa", typePTR, "NOERROR n.east.node.slice.local."},
		{"1.0.0.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", typePTR, "NOERROR e0.east.head.shop.svc.slice.local. e0.east.head.shop.svc.clusterset.local."},
		{"3.1.1.10.in-addr.arpa", typePTR, nx + "1.10.in-addr.arpa."},
		{"9.9.1.10.in-addr.arpa", typePTR, nx + "1.10.in-addr.arpa."}, // of who is lost
		{"1.1.10.in-addr.arpa", typePTR, nodata + "1.10.in-addr.arpa."},
		{"2.1.1.10.in-addr.arpa", typeA, nodata + "1.10.in-addr.arpa."},
		{"1.10.in-addr.arpa", typeSOA, "NOERROR ns.dns.slice.local. hostmaster.slice.local. 2 86400 7200 3600000 5"},
		{"10.in-addr.arpa", typePTR, "REFUSED"},
		{"1.0.0.11.in-addr.arpa", typePTR, "REFUSED"},
		{"01.1.1.10.in-addr.arpa", typePTR, "REFUSED"},
		{"1.1.1.1.10.in-addr.arpa", typePTR, "REFUSED"},
	} {
		if got := brief(ask(t, s, pack(t, query(c.ask, c.qtype)))); got != c.want {
			t.Errorf("%s %s\ngot  %s\nwant %s", c.ask, dns.TypeToString[c.qtype], got, c.want)
		}
		s.Set(testView())
		s.serial = 1 // turns start anew
		s.Set(testView())
	}
	m := ask(t, s, pack(t, query("_http._tcp.virt.shop.svc.clusterset.local", typeSRV)))
	if len(m.Extra) != 2 {
		t.Errorf("the target's addresses are not there: %v", m.Extra)
	}
}

func TestWhyThereIsNoAnswer(t *testing.T) {
	s := serviceServer(t, testView())
	for name, want := range map[string]uint16{"dead.shop.svc.slice.local": edeNoReachable, "example.com": edeNotAuthoritative, "empty.shop.svc.slice.local": edeNone, "nope.slice.local": edeNone} {
		q := query(name, typeA)
		q.SetEdns0(1232, false)
		m := ask(t, s, pack(t, q))
		got := uint16(edeNone)
		for _, o := range m.IsEdns0().Option {
			got = o.(*dns.EDNS0_EDE).InfoCode
		}
		if got != want {
			t.Errorf("%s: extended error %d, want %d", name, got, want)
		}
	}
}

func TestModesAndNearness(t *testing.T) {
	detour := testView()
	detour.Reach = map[overlay.NodeID]overlay.Reach{{Site: "east", Node: "n"}: {Rank: overlay.RankDetour}}
	only := testView()
	only.Reach = map[overlay.NodeID]overlay.Reach{{Site: "east", Node: "n"}: {Rank: overlay.RankDetour}, {Site: "west", Node: "n"}: {Lost: true}}
	with := func(m Mode) View { v := testView(); v.Mode = m; return v }
	for _, c := range []struct {
		name string
		view View
		want []string // of one question after the other
	}{
		{"all, the nearest first and in turn", with(All), []string{"10.1.1.1 10.1.1.2 10.1.2.1", "10.1.1.2 10.1.1.1 10.1.2.1", "10.1.1.1 10.1.1.2 10.1.2.1"}},
		{"near", with(Near), []string{"10.1.1.1 10.1.1.2", "10.1.1.2 10.1.1.1"}},
		{"one", with(One), []string{"10.1.1.1", "10.1.1.2", "10.1.1.1"}},
		{"a detour is left out where there is better", detour, []string{"10.1.2.1"}},
		{"and answers where there is not", only, []string{"10.1.1.1 10.1.1.2"}},
	} {
		s := serviceServer(t, c.view)
		for i, want := range c.want {
			if got := brief(ask(t, s, pack(t, query("head.shop.svc.slice.local", typeA)))); got != "NOERROR "+want {
				t.Errorf("%s, question %d: %s", c.name, i, got)
			}
		}
	}
}

// choose is Choose for a port that all endpoints of the service web serve.
func choose(s *Server, client netip.Addr) []netip.Addr {
	return s.Choose("web.shop.svc.slice.local", overlay.TCP, 80, client, 100)
}

// sticky is a service with affinity.
func sticky(eps ...overlay.EndpointView) overlay.ServiceView {
	v := testService("web", overlay.Headless, eps...)
	v.Affinity = 10
	return v
}

// Who serves a port is chosen, and who is reached is kept.
func TestEndpointsAreChosenByPort(t *testing.T) {
	s := serviceServer(t, testView())
	client := netip.MustParseAddr("10.9.9.9")
	const head = "head.shop.svc.slice.local"
	if got := s.Choose(head, overlay.TCP, 9090, client, 4); len(got) != 0 {
		t.Errorf("%v for a port that none of them serves", got)
	}
	first := make(map[netip.Addr]bool)
	for range 4 {
		got := s.Choose(head, overlay.TCP, 80, client, 2)
		if len(got) != 2 || got[1] == got[0] {
			t.Fatalf("%v, want two", got)
		}
		first[got[0]] = true
	}
	if len(first) != 2 || !first[netip.MustParseAddr("10.1.1.1")] || !first[netip.MustParseAddr("10.1.1.2")] {
		t.Errorf("without affinity the nearest take turns: %v", first)
	}
	for a, want := range map[string]bool{"10.1.1.1": true, "fd00::1:1": true, "10.1.2.1": true, "10.1.1.9": false, "10.1.9.9": false} {
		if s.Reached(head, netip.MustParseAddr(a)) != want {
			t.Errorf("%s is reached: %v, want %v", a, !want, want)
		}
	}
	if s.Reached("nope.shop.svc.slice.local", client) || s.Choose("a..b", overlay.UDP, 1, client, 1) != nil {
		t.Error("names that do not exist have endpoints")
	}
}

// An endpoint that has an IPv6 address only has the same share as the others.
func TestEndpointsWithoutAnIPv4AddressAreChosenToo(t *testing.T) {
	both, only := at("east", "e0", "10.1.1.1"), at("east", "e1", "fd00::1:2")
	both.Addr6 = netip.MustParseAddr("fd00::1:1")
	only.Addr, only.Addr6 = netip.Addr{}, only.Addr
	s := serviceServer(t, View{Services: []overlay.ServiceView{testService("web", overlay.Headless, both, only)}})
	first := make(map[string]int)
	for range 10 {
		got := choose(s, netip.MustParseAddr("10.9.9.9"))
		if len(got) != 2 {
			t.Fatalf("%v, want one address of each", got)
		}
		first[got[0].String()]++
	}
	if first["10.1.1.1"] != 5 || first["fd00::1:2"] != 5 {
		t.Errorf("shares of ten: %v", first)
	}
	if got := brief(ask(t, s, pack(t, query("web.shop.svc.slice.local", typeAAAA)))); got != "NOERROR fd00::1:1 fd00::1:2" {
		t.Errorf("answer %s", got)
	}
}

func TestAClientKeepsItsEndpoint(t *testing.T) {
	var v overlay.ServiceView
	for i := range 20 {
		v.Endpoints = append(v.Endpoints, at("east", fmt.Sprintf("e%02d", i), fmt.Sprintf("10.1.1.%d", i)))
	}
	s := serviceServer(t, View{Services: []overlay.ServiceView{sticky(v.Endpoints...)}})
	fewer := serviceServer(t, View{Services: []overlay.ServiceView{sticky(v.Endpoints[1:]...)}})
	load := make(map[netip.Addr]int)
	moved := 0
	for i := range 2000 {
		client := netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)})
		one, two, less := choose(s, client), choose(s, client), choose(fewer, client)
		if one[0] != two[0] || len(one) != 20 {
			t.Fatalf("%v goes to %v, then to %v", client, one[0], two[0])
		}
		if load[one[0]]++; one[0] != less[0] && one[0] != v.Endpoints[0].Addr {
			moved++
		}
	}
	if moved != 0 {
		t.Errorf("%d clients of other endpoints move when one goes", moved)
	}
	for a, n := range load {
		if n < 50 || n > 200 {
			t.Errorf("%v has %d of 2000 clients", a, n)
		}
	}
}

func TestKubeSlicesAnswerToUnknownNames(t *testing.T) {
	v := testView()
	v.Lenient = true
	if got := brief(ask(t, serviceServer(t, v), pack(t, query("nope.shop.svc.slice.local", typeA)))); got != "NOERROR soa:slice.local." {
		t.Error(got)
	}
}

// A name of another slice is a name like any other: the bytes are those for a
// random name of its length.
func TestNothingTellsAnotherSlicesNames(t *testing.T) {
	a, b := serviceServer(t, View{Services: []overlay.ServiceView{testService("mine", overlay.Headless, at("east", "e0", "10.1.1.1"))}}), serviceServer(t, testView())
	for _, qtype := range []uint16{typeA, typeAAAA, typeSRV, dns.TypeMX, typePTR} {
		for _, edns := range []bool{false, true} {
			in := func(s *Server, name string) string {
				q := query(name, qtype)
				q.Id = 1
				if edns {
					q.SetEdns0(1232, false)
				}
				return strings.ReplaceAll(string(s.respond(nil, pack(t, q), maxUDP)), strings.Split(name, ".")[0], "????")
			}
			if in(a, "head.shop.svc.slice.local") != in(a, "qxzj.shop.svc.slice.local") {
				t.Errorf("type %d: a name of slice b differs in slice a from one that does not exist", qtype)
			}
			if qtype == typeA && in(b, "head.shop.svc.slice.local") == in(b, "qxzj.shop.svc.slice.local") {
				t.Error("the name does not exist in b either: this proves nothing")
			}
		}
	}
}

// The model of what a service answers is held against random views.
func TestEveryEndpointHasItsNamesAndNoOther(t *testing.T) {
	var v View
	var want []string
	for i := range 50 {
		s := testService(fmt.Sprintf("s%d", i), overlay.Headless)
		for k := range i % 7 {
			e := at(fmt.Sprintf("site%d", k/2), fmt.Sprintf("e%d", k), fmt.Sprintf("10.2.%d.%d", i, k))
			s.Endpoints = append(s.Endpoints, e)
			want = append(want, e.Addr.String()+" "+overlay.EndpointDNSName(e.Name, e.Origin.Site, s.Name, "shop"))
		}
		v.Services = append(v.Services, s)
	}
	s := serviceServer(t, v)
	for _, w := range want {
		addr, name, _ := strings.Cut(w, " ")
		if got, ok := s.Lookup(name); !ok || !slices.Equal(got, addrs(addr)) {
			t.Errorf("%s: %v", name, got)
		}
	}
}
