package overlay

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// testSlice is a slice of three sites with one service, as manifests give it.
func testSlice(t *testing.T) *Slice {
	t.Helper()
	s := &Slice{
		Name: "blue", Mode: SingleNetwork, Subnet: netip.MustParsePrefix("10.190.0.0/16"), Subnet6: SliceSubnet6("m", "blue"),
		Namespaces: []NamespaceBinding{{Namespace: "shop", Sites: []string{"*"}}, {Namespace: "lab", Sites: []string{"b"}}},
		Services: []Service{{
			Name: "web", Namespace: "shop", DNSNames: []string{"web.shop.svc.slice.local", "www.example.com"},
			Ports: []ServicePort{{Name: "http", Port: 80, Protocol: TCP}},
		}},
	}
	for i, name := range []string{"a", "b", "c"} {
		p, err := StaticPrefix(s.Subnet, 16, i)
		if err != nil {
			t.Fatal(err)
		}
		p6, err := SitePrefix6(s.Subnet6, i)
		if err != nil {
			t.Fatal(err)
		}
		s.Sites = append(s.Sites, SliceSite{Name: name, Index: i, Prefix: p, Prefix6: p6})
	}
	return s
}

// testNode is a gateway of a site with a certificate for the test slice.
func testNode(t *testing.T, m *Mesh, site, node string, index int) Authority {
	t.Helper()
	g, err := Grants(m, site, index, true)
	if err != nil {
		t.Fatal(err)
	}
	return Authority{Mesh: "m", ID: NodeID{site, node}, Gateway: true, Index: index, Grants: g}
}

func attachOne(t *testing.T, m *Mesh, a Authority, publish ...Backend) Attachment {
	t.Helper()
	got, errs := Attach(m, a, publish, nil, nil)
	if len(errs) != 0 || len(got) != 1 {
		t.Fatalf("attach %v: %d attachments, %v", a.ID, len(got), errs)
	}
	return got[0]
}

// tellAll is what node id tells, complete with a key and an endpoint.
func tellAll(id NodeID, a Attachment, key byte) []Record {
	ep := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, key}), 51820)
	return Tell(id, []netip.AddrPort{ep}, []Attachment{a}, map[string]KeyBody{a.Slice: {PublicKey: [32]byte{key}}})
}

// namesOf lists the names that a view's services have.
func namesOf(v View) (out []string) {
	for _, s := range v.Services {
		out = append(out, s.DNSNames...)
		for _, e := range s.Endpoints {
			out = append(out, EndpointDNSName(e.Name, e.Origin.Site, s.Name, s.Namespace))
		}
	}
	slices.Sort(out)
	return out
}

func TestTwoSitesSeeEachOther(t *testing.T) {
	s := testSlice(t)
	m := &Mesh{Name: "m", Slices: []Slice{*s}}
	a, b := testNode(t, m, "a", "n1", 0), testNode(t, m, "b", "n1", 0)
	atA := attachOne(t, m, a, Backend{"blue", "shop", "web", "w0"}, Backend{"blue", "shop", "web", "w1"})
	atB := attachOne(t, m, b)
	records := append(tellAll(a.ID, atA, 1), tellAll(b.ID, atB, 2)...)

	v := Look(b.ID, s, &atB, records)
	if len(v.Peers) != 1 || v.Peers[0].ID != a.ID || v.Peers[0].PublicKey != ([32]byte{1}) {
		t.Fatalf("b's peers: %+v", v.Peers)
	}
	if want := atA.Announce; !slices.Equal(v.Peers[0].Prefixes, want) {
		t.Errorf("prefixes of a: %v, want %v", v.Peers[0].Prefixes, want)
	}
	if got, want := namesOf(v), []string{"w0.a.web.shop.svc.slice.local", "w1.a.web.shop.svc.slice.local", "web.shop.svc.slice.local", "www.example.com"}; !slices.Equal(got, want) {
		t.Errorf("names: %v", got)
	}
	if own := atA.Owned(); len(own) != 6 {
		t.Errorf("a owns %v", own)
	}
}

func TestWhatTheRecordsMean(t *testing.T) {
	s := testSlice(t)
	m := &Mesh{Name: "m", Slices: []Slice{*s}}
	self := testNode(t, m, "a", "n1", 0)
	own := attachOne(t, m, self)
	peer := testNode(t, m, "b", "n1", 0)
	atPeer := attachOne(t, m, peer, Backend{"blue", "shop", "web", "w0"})
	good := tellAll(peer.ID, atPeer, 2)
	without := func(k Kind) []Record {
		return slices.DeleteFunc(slices.Clone(good), func(r Record) bool { return r.Key.Kind == k })
	}
	service := func(origin NodeID, name string, aliases ...string) Record {
		return Record{Origin: origin, Key: Key{KindService, "blue", name}, Service: &ServiceBody{
			Aliases: aliases, Endpoints: []Endpoint{{Name: "e", Addr: netip.MustParseAddr("10.190.16.9")}}}}
	}
	for _, tc := range []struct {
		name     string
		records  []Record
		peers    int
		services int
		resolves string // this name and no other of those asked for
	}{
		{"a complete node is a peer", good, 1, 1, "web.shop.svc.slice.local"},
		{"a node without an endpoint is no peer yet", without(KindNode), 0, 1, ""},
		{"a node without a key is no peer yet", without(KindKey), 0, 1, ""},
		{"a node without prefixes is no peer", without(KindPrefix), 0, 1, ""},
		{"a node of a site outside the slice is no peer", tellAll(NodeID{"z", "n1"}, atPeer, 3), 0, 0, ""},
		{"a node is not its own peer", tellAll(self.ID, own, 1), 0, 0, ""},
		{"a tombstone counts for nothing", func() []Record {
			out := slices.Clone(good)
			for i := range out {
				out[i].Deleted = true
			}
			return out
		}(), 0, 0, ""},
		{"a namespace that is not bound exports nothing", []Record{service(peer.ID, "kube-system/dns")}, 0, 0, ""},
		{"a namespace bound elsewhere exports nothing here", []Record{service(NodeID{"c", "n1"}, "lab/x")}, 0, 0, ""},
		{"a namespace bound at one site exports there", []Record{service(peer.ID, "lab/x")}, 0, 1, "x.lab.svc.slice.local"},
		{"an alias answers", []Record{service(peer.ID, "shop/web", "WWW.example.com")}, 0, 1, "www.example.com"},
		{"an alias never takes a name of the slice's zone", []Record{service(peer.ID, "shop/evil", "pay.shop.svc.slice.local")}, 0, 1, "evil.shop.svc.slice.local"},
	} {
		v := Look(self.ID, s, &own, tc.records)
		if len(v.Peers) != tc.peers || len(v.Services) != tc.services {
			t.Errorf("%s: %d peers and %d services, want %d and %d", tc.name, len(v.Peers), len(v.Services), tc.peers, tc.services)
		}
		found := slices.Contains(namesOf(v), tc.resolves)
		if tc.resolves != "" && !found {
			t.Errorf("%s: %s does not resolve: %v", tc.name, tc.resolves, namesOf(v))
		}
		if slices.Contains(namesOf(v), "pay.shop.svc.slice.local") {
			t.Errorf("%s: an alias took a name of the zone", tc.name)
		}
	}
}

func TestAnAliasClaimedTwiceStaysWithTheFirstService(t *testing.T) {
	s := testSlice(t)
	m := &Mesh{Name: "m", Slices: []Slice{*s}}
	self := testNode(t, m, "a", "n1", 0)
	own := attachOne(t, m, self)
	record := func(name, addr string) Record {
		return Record{Origin: NodeID{"b", "n1"}, Key: Key{KindService, "blue", name}, Service: &ServiceBody{
			Aliases: []string{"www.example.com"}, Endpoints: []Endpoint{{Name: "e", Addr: netip.MustParseAddr(addr)}}}}
	}
	v := Look(self.ID, s, &own, []Record{record("shop/zz", "10.190.16.8"), record("shop/aa", "10.190.16.9")})
	if aa, zz := v.Services[0], v.Services[1]; !slices.Contains(aa.DNSNames, "www.example.com") || len(zz.DNSNames) != 1 {
		t.Errorf("aa has the names %v, zz %v", aa.DNSNames, zz.DNSNames)
	}
}

func TestAPrefixHasOneOwner(t *testing.T) {
	s := testSlice(t)
	m := &Mesh{Name: "m", Slices: []Slice{*s}}
	self := testNode(t, m, "a", "n1", 0)
	own := attachOne(t, m, self)
	one, two := testNode(t, m, "b", "n1", 0), testNode(t, m, "b", "n2", 1)
	mate := testNode(t, m, "a", "n2", 1)
	records := slices.Concat(tellAll(two.ID, attachOne(t, m, two), 3), tellAll(one.ID, attachOne(t, m, one), 2), tellAll(mate.ID, attachOne(t, m, mate), 4))
	v := Look(self.ID, s, &own, records)
	if len(v.Peers) != 3 {
		t.Fatalf("%d peers", len(v.Peers))
	}
	owner := make(map[netip.Prefix]NodeID)
	for _, p := range v.Peers {
		for _, prefix := range p.Prefixes {
			if was, twice := owner[prefix]; twice {
				t.Errorf("%v goes to %v and to %v", prefix, was, p.ID)
			}
			owner[prefix] = p.ID
			if prefix.Contains(own.Addr) || prefix.Contains(own.Addr6) {
				t.Errorf("%v of %v contains this node", prefix, p.ID)
			}
		}
	}
	if got := owner[s.Sites[1].Prefix]; got != one.ID && got != two.ID {
		t.Errorf("the site prefix of b goes to %v", got)
	}
	if got := owner[attachOne(t, m, two).Block]; got != two.ID {
		t.Errorf("the block of b/n2 goes to %v", got)
	}
}

func TestAKeyHasOneOwner(t *testing.T) {
	s := testSlice(t)
	m := &Mesh{Name: "m", Slices: []Slice{*s}}
	self := testNode(t, m, "a", "n1", 0)
	own := attachOne(t, m, self)
	honest, thief := testNode(t, m, "b", "n1", 0), testNode(t, m, "c", "n1", 0)
	for _, tc := range []struct {
		name string
		key  byte // that the thief tells
		want []NodeID
	}{
		{"a key of its own", 3, []NodeID{honest.ID, thief.ID}},
		{"another node's key", 2, []NodeID{honest.ID}},
		{"this node's key", 1, []NodeID{honest.ID}},
	} {
		records := slices.Concat(tellAll(thief.ID, attachOne(t, m, thief), tc.key), tellAll(honest.ID, attachOne(t, m, honest), 2), tellAll(self.ID, own, 1))
		var got []NodeID
		for _, p := range Look(self.ID, s, &own, records).Peers {
			got = append(got, p.ID)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: peers %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestNobodyElseIsRoutedInTheOwnBlock(t *testing.T) {
	s := testSlice(t)
	m := &Mesh{Name: "m", Slices: []Slice{*s}}
	self := testNode(t, m, "a", "n1", 0)
	own := attachOne(t, m, self)
	mate := testNode(t, m, "a", "n2", 1) // a gateway of the same site: its certificate covers this node's block
	records := tellAll(mate.ID, attachOne(t, m, mate), 2)
	for i := range records {
		if records[i].Prefix != nil {
			records[i].Prefix.Prefixes = append(records[i].Prefix.Prefixes, netip.PrefixFrom(own.Addr, 32), netip.PrefixFrom(own.Addr6, 128), netip.PrefixFrom(own.Block.Addr(), 25))
		}
	}
	for _, p := range Look(self.ID, s, &own, records).Peers {
		for _, prefix := range p.Prefixes {
			if prefix.Overlaps(own.Block) || prefix.Overlaps(own.Block6) {
				t.Errorf("%v is routed to %v", prefix, p.ID)
			}
		}
	}
}

func TestACertificateThatGrantsTooLittleAttachesNothing(t *testing.T) {
	s := testSlice(t)
	m := &Mesh{Name: "m", Slices: []Slice{*s}}
	a := testNode(t, m, "a", "n1", 0)
	a.Grants[0].Prefixes = a.Grants[0].Prefixes[:1] // no IPv6
	got, errs := Attach(m, a, nil, nil, nil)
	if len(got) != 0 || len(errs) != 1 || !strings.Contains(errs[0].Error(), "does not grant") {
		t.Errorf("attached %d, errors %v", len(got), errs)
	}
	plain := testNode(t, m, "a", "n2", 1)
	plain.Gateway = false
	g, err := Grants(m, "a", 1, false)
	if err != nil {
		t.Fatal(err)
	}
	plain.Grants = g
	at := attachOne(t, m, plain)
	if len(at.Announce) != 2 || at.Announce[0] != at.Block {
		t.Errorf("a node that is no gateway announces %v", at.Announce)
	}
}

func TestAddressesOfBackendsStay(t *testing.T) {
	s := testSlice(t)
	m := &Mesh{Name: "m", Slices: []Slice{*s}}
	a := testNode(t, m, "a", "n1", 0)
	first := attachOne(t, m, a, Backend{"blue", "shop", "web", "w0"})
	moved := map[string]netip.Addr{"shop/web/w0": netip.MustParseAddr("10.190.0.77")}
	got, errs := Attach(m, a, []Backend{{"blue", "shop", "web", "w0"}, {"blue", "shop", "gone", "x"}}, nil, map[string]map[string]netip.Addr{"blue": moved})
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "shop/gone") {
		t.Errorf("errors: %v", errs)
	}
	if got[0].Backends[0].Addr != moved["shop/web/w0"] || first.Addresses()["shop/web/w0"] == moved["shop/web/w0"] {
		t.Errorf("w0 has %v, before %v", got[0].Backends[0].Addr, first.Addresses())
	}
}
