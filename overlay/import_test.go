package overlay

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// an export of shop/web by a node, created so many hours after testNow; 0: not known.
func testExport(node string, hours int, body ServiceBody) Record {
	site, name, _ := strings.Cut(node, "/")
	if hours != 0 {
		body.Created = testNow.Add(time.Duration(hours) * time.Hour)
	}
	return Record{Origin: NodeID{site, name}, Key: Key{KindService, "blue", "shop/web"}, Service: &body}
}

func endpoint(name, addr string) Endpoint {
	return Endpoint{Name: name, Addr: netip.MustParseAddr(addr)}
}

// What sites say of one service is merged as KEP-1645 has it.
func TestTheOldestExportWins(t *testing.T) {
	http, metrics := ServicePort{"http", 80, TCP}, ServicePort{"metrics", 9090, TCP}
	one, two := []Endpoint{endpoint("e1", "10.190.0.9")}, []Endpoint{endpoint("e2", "10.190.16.9")}
	for _, c := range []struct {
		name    string
		records []Record
		want    string
	}{
		{"endpoints of all exports", []Record{testExport("a/n", 0, ServiceBody{Endpoints: one}), testExport("b/n", 0, ServiceBody{Endpoints: two})},
			"Headless [] a/e1 b/e2"},
		{"ports of all exports, each endpoint with its own", []Record{
			testExport("a/n", 0, ServiceBody{Ports: []ServicePort{http}, Endpoints: one}),
			testExport("b/n", 0, ServiceBody{Ports: []ServicePort{http, metrics}, Endpoints: two})},
			"Headless [http 80/TCP metrics 9090/TCP] a/e1:1 b/e2:2"},
		{"the type of the older, whatever the order", []Record{
			testExport("a/n", 2, ServiceBody{}), testExport("b/n", 1, ServiceBody{ExportTerms: ExportTerms{Type: Virtual}})},
			"ClusterSetIP [] a/n:TypeConflict"},
		{"an age that is not known is the youngest", []Record{
			testExport("a/n", 0, ServiceBody{}), testExport("b/n", 1, ServiceBody{ExportTerms: ExportTerms{Type: Virtual}})},
			"ClusterSetIP [] a/n:TypeConflict"},
		{"of the same age, the first node", []Record{
			testExport("a/n", 1, ServiceBody{}), testExport("b/n", 1, ServiceBody{ExportTerms: ExportTerms{Type: Virtual}})},
			"Headless [] b/n:TypeConflict"},
		{"a port name with another number gives way", []Record{
			testExport("a/n", 2, ServiceBody{Ports: []ServicePort{{"http", 81, TCP}}, Endpoints: one}),
			testExport("b/n", 1, ServiceBody{Ports: []ServicePort{http}, Endpoints: two})},
			"Headless [http 80/TCP] a/e1 b/e2:1 a/n:PortConflict"},
		{"a port number with another name gives way", []Record{
			testExport("a/n", 1, ServiceBody{Ports: []ServicePort{http}}), testExport("b/n", 2, ServiceBody{Ports: []ServicePort{{"web", 80, TCP}}})},
			"Headless [http 80/TCP] b/n:PortConflict"},
		{"the same number by UDP is another port", []Record{
			testExport("a/n", 1, ServiceBody{Ports: []ServicePort{{"dns", 53, UDP}}}), testExport("b/n", 2, ServiceBody{Ports: []ServicePort{{"dns-tcp", 53, TCP}}})},
			"Headless [dns 53/UDP dns-tcp 53/TCP]"},
		{"session affinity of the older", []Record{
			testExport("a/n", 1, ServiceBody{ExportTerms: ExportTerms{AffinitySeconds: 60}}), testExport("b/n", 2, ServiceBody{})},
			"Headless [] b/n:SessionAffinityConflict"},
		{"labels of the older", []Record{
			testExport("a/n", 1, ServiceBody{ExportTerms: ExportTerms{Exported: `{"l":{"a":"b"}}`}}), testExport("b/n", 2, ServiceBody{ExportTerms: ExportTerms{Exported: `{"l":{"a":"c"},"a":{"x":"y"}}`}})},
			"Headless [] b/n:LabelsConflict b/n:AnnotationsConflict"},
		{"a tombstone is no export", []Record{{Origin: NodeID{"a", "n"}, Key: Key{KindService, "blue", "shop/web"}, Deleted: true}}, ""},
		{"an alias in a zone of ours is none", []Record{testExport("a/n", 1, ServiceBody{Aliases: []string{"x.y.svc.clusterset.local"}})},
			"Headless [] a/n:AliasConflict"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, v := range new(Importer).services(testSlice(t), c.records) {
				got = append(got, v.Type.String(), fmt.Sprint(v.Ports))
				for _, e := range v.Endpoints {
					x := e.Origin.Site + "/" + e.Name
					if len(e.Ports) > 0 {
						x += fmt.Sprintf(":%d", len(e.Ports))
					}
					got = append(got, x)
				}
				for _, x := range v.Conditions {
					got = append(got, x.Origin.String()+":"+x.Reason)
				}
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got  %s\nwant %s", s, c.want)
			}
		})
	}
}

func TestAnAliasIsThatOfTheOlderService(t *testing.T) {
	young, old := testExport("a/n", 2, ServiceBody{Aliases: []string{"www.example.com"}}), testExport("b/n", 1, ServiceBody{Aliases: []string{"WWW.Example.com."}})
	old.Key.Name = "shop/zz"
	v := new(Importer).services(testSlice(t), []Record{young, old})
	if !slices.Contains(v[1].DNSNames, "www.example.com") || len(v[0].DNSNames) != 1 || len(v[0].Conditions) != 1 {
		t.Errorf("got %+v", v)
	}
}

func TestVirtualAddressesAreTheSameEverywhereAndNobodyElses(t *testing.T) {
	s := testSlice(t)
	var services []ServiceView
	for i := range 10000 {
		services = append(services, ServiceView{Name: fmt.Sprintf("s%d", i), Namespace: "shop", Type: Virtual})
	}
	again := slices.Clone(services)
	assignVirtual(s, services)
	assignVirtual(s, again)
	seen := make(map[netip.Addr]bool)
	for i, v := range services {
		for _, a := range []netip.Addr{v.Virtual, v.Virtual6} {
			if seen[a] || !VirtualRange.Contains(a) && !VirtualRange6(s).Contains(a) {
				t.Fatalf("%s has %v", v.Name, a)
			}
			seen[a] = true
		}
		if v.Virtual != again[i].Virtual || v.Virtual6 != again[i].Virtual6 {
			t.Fatalf("%s has %v, then %v", v.Name, v.Virtual, again[i].Virtual)
		}
	}
	if !s.Subnet6.Overlaps(VirtualRange6(s)) {
		t.Error("workloads have no route to the range")
	}
	headless := []ServiceView{{Name: "s", Namespace: "shop"}}
	if assignVirtual(s, headless); headless[0].Virtual.IsValid() {
		t.Error("a headless service has a virtual address")
	}
}

// What a gateway says of nodes behind it is believed by those that go by it.
func TestGatewaysSayWhoIsLost(t *testing.T) {
	leaf, own, g1, g2, far := NodeID{"a", "n1"}, NodeID{"a", "g"}, NodeID{"b", "g1"}, NodeID{"b", "g2"}, NodeID{"b", "n"}
	block := func(i int) []netip.Prefix {
		return []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/24", i))}
	}
	nodes := []Node{{ID: leaf}, {ID: own, Gateway: true, Prefixes: block(1)}, {ID: g1, Gateway: true, Prefixes: block(16)}, {ID: g2, Gateway: true, Prefixes: block(17)}, {ID: far, Prefixes: block(18)}}
	link := func(id NodeID, up bool, p ...netip.Prefix) PeerLink {
		return PeerLink{ID: id, Watched: true, Up: up, RTT: time.Millisecond, Prefixes: p}
	}
	fromLeaf := []PeerLink{link(own, true, slices.Concat(block(1), block(16), block(17), block(18))...)}
	fromOwn := []PeerLink{link(leaf, true, block(0)...), link(g1, true, slices.Concat(block(16), block(18))...), link(g2, true, block(17)...)}
	g2down := []PeerLink{link(g1, true, slices.Concat(block(16), block(17), block(18))...), link(g2, false)}
	says := func(ids ...NodeID) map[NodeID]bool {
		m := make(map[NodeID]bool)
		for _, id := range ids {
			m[id] = true
		}
		return m
	}
	for _, c := range []struct {
		name  string
		self  NodeID
		links []PeerLink
		lost  map[NodeID]map[NodeID]bool
		want  bool // far is lost
	}{
		{"nobody says so", own, fromOwn, nil, false},
		{"the gateway that it goes by says so", own, fromOwn, map[NodeID]map[NodeID]bool{g1: says(far)}, true},
		{"another one does", own, fromOwn, map[NodeID]map[NodeID]bool{g2: says(far)}, false},
		{"the one that stands in does", own, g2down, map[NodeID]map[NodeID]bool{g1: says(far)}, true},
		{"a node behind gateways believes its own", leaf, fromLeaf, map[NodeID]map[NodeID]bool{own: says(far)}, true},
		{"a gateway believes no other site of a third", own, fromOwn, map[NodeID]map[NodeID]bool{{"c", "g"}: says(far)}, false},
	} {
		if got := Reaches(c.self, &View{Nodes: nodes, Lost: c.lost}, c.links)[far].Lost; got != c.want {
			t.Errorf("%s: lost %v", c.name, got)
		}
	}
	if got := Reaches(own, &View{Nodes: nodes, Lost: map[NodeID]map[NodeID]bool{g1: says(g2)}}, g2down)[g2]; !got.Lost {
		t.Errorf("a dead gateway, of which the one that stands in says so: %v", got)
	}
	down := []PeerLink{link(leaf, true, block(0)...), link(g1, false, slices.Concat(block(16), block(17), block(18))...), link(g2, false)}
	v := &View{Nodes: nodes, Lost: map[NodeID]map[NodeID]bool{g1: says(leaf)}}
	if got := LostNodes(own, v, down); !slices.Equal(got, []NodeID{g1, g2, far}) {
		t.Errorf("a gateway tells of %v", got)
	}
	if got := LostNodes(leaf, v, nil); got != nil {
		t.Errorf("a node that is no gateway tells of %v", got)
	}
}

func TestReaches(t *testing.T) {
	self, mate, far, behind := NodeID{"a", "n1"}, NodeID{"a", "n2"}, NodeID{"b", "g1"}, NodeID{"b", "n2"}
	prefix := func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
	farBlock, behindBlock := prefix("10.0.16.0/24"), prefix("10.0.17.0/24")
	v := &View{Nodes: []Node{{ID: self}, {ID: mate, Prefixes: prefix("10.0.1.0/24")}, {ID: far, Prefixes: farBlock}, {ID: behind, Prefixes: behindBlock}},
		Services: []ServiceView{{Endpoints: []EndpointView{{Origin: NodeID{"c", "x"}}}}}}
	up := PeerLink{ID: far, Watched: true, Up: true, RTT: 3 * time.Millisecond, Prefixes: slices.Concat(farBlock, behindBlock)}
	near := PeerLink{ID: mate, Watched: true, Up: true, RTT: time.Millisecond, Prefixes: prefix("10.0.1.0/24")}
	down, young, slow := up, up, up
	down.Up, young.Up, young.Young, slow.RTT = false, false, true, 100*time.Millisecond
	other := PeerLink{ID: NodeID{"b", "g2"}, Watched: true, Up: true, RTT: time.Millisecond, Prefixes: up.Prefixes}
	cut := down
	cut.Prefixes = nil
	for _, c := range []struct {
		name        string
		links       []PeerLink
		far, behind Reach
	}{
		{"by its round trip", []PeerLink{near, up}, Reach{Rank: 6}, Reach{Rank: 6}},
		{"farther", []PeerLink{near, slow}, Reach{Rank: 11}, Reach{Rank: 11}},
		{"its link is down", []PeerLink{near, down}, Reach{true, RankDetour}, Reach{Lost: true}},
		{"its link was never up, but that is new", []PeerLink{near, young}, Reach{Rank: rankUnknown}, Reach{Rank: rankUnknown}},
		{"another gateway stands in", []PeerLink{near, cut, other}, Reach{Rank: RankDetour}, Reach{Rank: 5}},
		{"nothing leads there", []PeerLink{near}, Reach{Lost: true}, Reach{Lost: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Reaches(self, v, c.links)
			if got[far] != c.far || got[behind] != c.behind || got[self] != (Reach{}) || got[mate] != (Reach{Rank: rankSite}) || !got[NodeID{"c", "x"}].Lost {
				t.Errorf("got %v", got)
			}
		})
	}
}

// What is remembered makes no difference: views after any changes are those of
// who looks for the first time.
func TestAnImporterForgetsAndMixesUpNothing(t *testing.T) {
	const seed = 11
	rnd := rand.New(rand.NewPCG(seed, 0))
	var im Importer
	s := testSlice(t)
	var records []Record
	for step := range 300 {
		origin := []string{"a/n", "a/m", "b/n"}[rnd.IntN(3)]
		r := testExport(origin, rnd.IntN(3), ServiceBody{Ports: []ServicePort{{"http", uint16(80 + rnd.IntN(2)), TCP}}})
		r.Key.Name = fmt.Sprintf("shop/web%d", rnd.IntN(4))
		r.Service.Type = ServiceType(rnd.IntN(2))
		if rnd.IntN(3) == 0 {
			r.Service.Aliases = []string{fmt.Sprintf("www%d.example", rnd.IntN(3))}
		}
		for k := range rnd.IntN(4) {
			r.Service.Endpoints = append(r.Service.Endpoints, Endpoint{Name: fmt.Sprintf("e%d", k), Addr: netip.AddrFrom4([4]byte{10, 1, byte(step), byte(k)})})
		}
		records = slices.DeleteFunc(slices.Clone(records), func(x Record) bool { return x.Origin == r.Origin && x.Key == r.Key })
		if rnd.IntN(4) > 0 {
			records = append(records, r)
		}
		if got, want := im.services(s, records), new(Importer).services(s, records); !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d, step %d:\ngot  %+v\nwant %+v", seed, step, got, want)
		}
	}
	if len(im.known) > 4 {
		t.Errorf("%d services are remembered, 4 may be there", len(im.known))
	}
}

func TestNodesCompareAsTheirNames(t *testing.T) {
	ids := []NodeID{{}, {"a", "n"}, {"a", "m"}, {"a-b", "n"}, {"a0", "n"}, {"ab", "n"}, {"b", ""}, {"", "a"}, {"a/b", "c"}, {"a", "b/c"}}
	for _, x := range ids {
		for _, y := range ids {
			if got, want := x.Compare(y), strings.Compare(x.String(), y.String()); got != want {
				t.Errorf("%v and %v: %d, want %d", x, y, got, want)
			}
		}
	}
}
