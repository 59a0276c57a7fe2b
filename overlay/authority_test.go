package overlay

import (
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
)

var testNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func testAuthority() Authority {
	return Authority{
		Mesh: "lab", ID: NodeID{"site-a", "gw"}, Gateway: true, NotBefore: testNow.Add(-time.Hour), NotAfter: testNow.Add(24 * time.Hour),
		Grants: []Grant{
			{Slice: "earth", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/20")}},
			{Slice: "water", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/20"), netip.MustParsePrefix("fd00:1::/56")}},
			{Slice: "wide", Prefixes: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}},
		},
	}
}

func testRecord(kind Kind) Record {
	r := Record{Origin: NodeID{"site-a", "gw"}, Key: Key{Kind: kind, Slice: "water"}, Version: Version{1, 1}, NotAfter: testNow.Add(time.Hour)}
	switch kind {
	case KindNode:
		r.Key.Slice = ""
		r.Node = &NodeBody{Endpoints: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:51820"), netip.MustParseAddrPort("[2001:db8::1]:51820")}}
	case KindKey:
		r.WGKey = &KeyBody{PublicKey: [32]byte{9}}
	case KindLost:
		r.Lost = &LostBody{Nodes: []NodeID{{"site-a", "n2"}, {"site-b", "gw"}}}
	case KindPrefix:
		r.Prefix = &PrefixBody{Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.1.0/24"), netip.MustParsePrefix("fd00:1::/64")}}
	case KindService:
		r.Key.Name = "default/web"
		r.Service = &ServiceBody{
			Ports:     []ServicePort{{"http", 80, TCP}, {"", 53, UDP}},
			Aliases:   []string{"Web.example.com"},
			Endpoints: []Endpoint{{"pod-1", netip.MustParseAddr("10.1.1.5"), netip.MustParseAddr("fd00:1::5")}, {Name: "pod-2", Addr: netip.MustParseAddr("10.1.15.255")}},
		}
	}
	return r
}

func TestPermits(t *testing.T) {
	addr, addrPort, prefix := netip.MustParseAddr, netip.MustParseAddrPort, netip.MustParsePrefix
	endpoint := func(s string) func(*Record) {
		return func(r *Record) { r.Node.Endpoints = []netip.AddrPort{addrPort(s)} }
	}
	prefixes := func(s ...string) func(*Record) {
		return func(r *Record) {
			r.Prefix.Prefixes = nil
			for _, p := range s {
				r.Prefix.Prefixes = append(r.Prefix.Prefixes, prefix(p))
			}
		}
	}
	backend := func(e Endpoint) func(*Record) { return func(r *Record) { r.Service.Endpoints[0] = e } }
	port := func(p ServicePort) func(*Record) { return func(r *Record) { r.Service.Ports[0] = p } }
	tests := []struct {
		name   string
		kind   Kind
		change func(*Record)
		want   Refusal // "" for permitted
	}{
		{"a node", KindNode, nil, ""},
		{"a key", KindKey, nil, ""},
		{"prefixes", KindPrefix, nil, ""},
		{"a service", KindService, nil, ""},
		{"lost nodes", KindLost, nil, ""},
		{"lost nodes in no order", KindLost, func(r *Record) { r.Lost.Nodes[0].Site = "site-c" }, RefusedRepeated},
		{"a lost node twice", KindLost, func(r *Record) { r.Lost.Nodes[0] = r.Lost.Nodes[1] }, RefusedRepeated},
		{"itself as lost", KindLost, func(r *Record) { r.Lost.Nodes[0] = r.Origin }, RefusedName},
		{"a lost node without a name", KindLost, func(r *Record) { r.Lost.Nodes[0].Node = "" }, RefusedName},
		{"too many lost nodes", KindLost, func(r *Record) { r.Lost.Nodes = make([]NodeID, MaxRecordLost+1) }, RefusedTooMany},
		{"nothing to announce", KindPrefix, prefixes(), ""},
		{"a tombstone", KindPrefix, func(r *Record) { r.Prefix, r.Deleted = nil, true }, ""},
		{"a tombstone on a slice that was granted once", KindPrefix, func(r *Record) { r.Prefix, r.Deleted, r.Key.Slice = nil, true, "fire" }, ""},
		{"another site", KindKey, func(r *Record) { r.Origin.Site = "site-b" }, RefusedOrigin},
		{"another node", KindKey, func(r *Record) { r.Origin.Node = "gw-2" }, RefusedOrigin},
		{"expired", KindKey, func(r *Record) { r.NotAfter = testNow }, RefusedExpired},
		{"living beyond the certificate", KindKey, func(r *Record) { r.NotAfter = testNow.Add(25 * time.Hour) }, RefusedLifetime},
		{"no kind", KindKey, func(r *Record) { r.Key.Kind = 0 }, RefusedKind},
		{"an unknown kind", KindKey, func(r *Record) { r.Key.Kind = LastKind + 1 }, RefusedKind},
		{"a node on a slice", KindNode, func(r *Record) { r.Key.Slice = "water" }, RefusedKind},
		{"a key with a name", KindKey, func(r *Record) { r.Key.Name = "x" }, RefusedKind},
		{"a key on no slice", KindKey, func(r *Record) { r.Key.Slice = "" }, RefusedSlice},
		{"a key on another slice", KindKey, func(r *Record) { r.Key.Slice = "fire" }, RefusedSlice},
		{"no body", KindKey, func(r *Record) { r.WGKey = nil }, RefusedBody},
		{"another kind's body", KindKey, func(r *Record) { r.WGKey, r.Node = nil, &NodeBody{} }, RefusedBody},
		{"two bodies", KindKey, func(r *Record) { r.Node = &NodeBody{} }, RefusedBody},
		{"a tombstone with a body", KindKey, func(r *Record) { r.Deleted = true }, RefusedBody},
		{"a tombstone on a slice that is no name", KindKey, func(r *Record) { r.WGKey, r.Deleted, r.Key.Slice = nil, true, "a b" }, RefusedSlice},
		{"port 0", KindNode, endpoint("192.0.2.1:0"), RefusedEndpoint},
		{"an unspecified endpoint", KindNode, endpoint("0.0.0.0:1"), RefusedEndpoint},
		{"a multicast endpoint", KindNode, endpoint("[ff02::1]:1"), RefusedEndpoint},
		{"a broadcast endpoint", KindNode, endpoint("255.255.255.255:1"), RefusedEndpoint},
		{"an IPv4-mapped endpoint", KindNode, endpoint("[::ffff:192.0.2.1]:1"), RefusedEndpoint},
		{"an endpoint with a zone", KindNode, endpoint("[fe80::1%eth0]:1"), RefusedEndpoint},
		{"no endpoint at all in its place", KindNode, func(r *Record) { r.Node.Endpoints = make([]netip.AddrPort, 1) }, RefusedEndpoint},
		{"17 endpoints", KindNode, func(r *Record) { r.Node.Endpoints = make([]netip.AddrPort, 17) }, RefusedTooMany},
		{"an endpoint twice", KindNode, func(r *Record) { r.Node.Endpoints[1] = r.Node.Endpoints[0] }, RefusedRepeated},
		{"a key of zeros", KindKey, func(r *Record) { r.WGKey.PublicKey = [32]byte{} }, RefusedKey},
		{"a next key of zeros", KindKey, func(r *Record) { r.WGKey.Next.Generation = 5 }, RefusedKey},
		{"a next key that is older", KindKey, func(r *Record) { r.WGKey.Generation, r.WGKey.Next = 5, SliceKey{4, [32]byte{8}} }, RefusedKey},
		{"a next key that is the same", KindKey, func(r *Record) { r.WGKey.Next = SliceKey{4, r.WGKey.PublicKey} }, RefusedKey},
		{"a key of low order", KindKey, func(r *Record) { r.WGKey.PublicKey = [32]byte{1} }, RefusedKey},
		{"a neighbour's prefix", KindPrefix, prefixes("10.1.16.0/24"), RefusedPrefix},
		{"a wider prefix", KindPrefix, prefixes("10.1.0.0/19"), RefusedPrefix},
		{"another slice's prefix", KindPrefix, prefixes("10.2.0.0/24"), RefusedPrefix},
		{"host bits", KindPrefix, prefixes("10.1.1.1/24"), RefusedPrefix},
		{"an IPv4-mapped prefix", KindPrefix, prefixes("::ffff:10.1.1.0/120"), RefusedPrefix},
		{"a default route, granted or not", KindPrefix, func(r *Record) { r.Key.Slice = "wide"; prefixes("0.0.0.0/0")(r) }, RefusedPrefix},
		{"a default route of IPv6, granted or not", KindPrefix, func(r *Record) { r.Key.Slice = "wide"; prefixes("::/0")(r) }, RefusedPrefix},
		{"an invalid prefix", KindPrefix, func(r *Record) { r.Prefix.Prefixes = make([]netip.Prefix, 1) }, RefusedPrefix},
		{"65 prefixes", KindPrefix, func(r *Record) { r.Prefix.Prefixes = make([]netip.Prefix, 65) }, RefusedTooMany},
		{"a prefix twice", KindPrefix, prefixes("10.1.1.0/24", "10.1.1.0/24"), RefusedRepeated},
		{"a service without a namespace", KindService, func(r *Record) { r.Key.Name = "web" }, RefusedName},
		{"a service name with a newline", KindService, func(r *Record) { r.Key.Name = "default/web\n" }, RefusedName},
		{"a service name with a second slash", KindService, func(r *Record) { r.Key.Name = "default/web/x" }, RefusedName},
		{"a backend at another site", KindService, backend(Endpoint{"pod-1", addr("10.1.16.1"), netip.Addr{}}), RefusedAddress},
		{"a backend at another site's IPv6", KindService, backend(Endpoint{"pod-1", addr("10.1.1.1"), addr("fd00:2::1")}), RefusedAddress},
		{"a backend without address", KindService, backend(Endpoint{Name: "pod-1"}), RefusedAddress},
		{"a backend with the families exchanged", KindService, backend(Endpoint{"pod-1", addr("fd00:1::1"), addr("10.1.1.1")}), RefusedAddress},
		{"a backend at a mapped address", KindService, backend(Endpoint{"pod-1", netip.Addr{}, addr("::ffff:10.1.1.1")}), RefusedAddress},
		{"a backend whose name is no label", KindService, backend(Endpoint{"pod.1", addr("10.1.1.1"), netip.Addr{}}), RefusedName},
		{"two backends of one name", KindService, backend(Endpoint{"pod-2", addr("10.1.1.1"), netip.Addr{}}), RefusedRepeated},
		{"257 backends", KindService, func(r *Record) { r.Service.Endpoints = make([]Endpoint, 257) }, RefusedTooMany},
		{"service port 0", KindService, port(ServicePort{"http", 0, TCP}), RefusedPort},
		{"an unknown protocol", KindService, port(ServicePort{"http", 80, "SCTP"}), RefusedPort},
		{"a port name with a quote", KindService, port(ServicePort{`a"`, 80, TCP}), RefusedName},
		{"a port twice", KindService, port(ServicePort{"x", 53, UDP}), RefusedRepeated},
		{"65 ports", KindService, func(r *Record) { r.Service.Ports = make([]ServicePort, 65) }, RefusedTooMany},
		{"an alias with a space", KindService, func(r *Record) { r.Service.Aliases = []string{"a b"} }, RefusedName},
		{"an empty alias", KindService, func(r *Record) { r.Service.Aliases = []string{""} }, RefusedName},
		{"an alias twice", KindService, func(r *Record) { r.Service.Aliases = []string{"a", "a"} }, RefusedRepeated},
		{"17 aliases", KindService, func(r *Record) { r.Service.Aliases = make([]string, 17) }, RefusedTooMany},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := testRecord(tt.kind)
			if tt.change != nil {
				tt.change(&r)
			}
			err := testAuthority().Permits(r, testNow)
			got, ok := errors.AsType[Refusal](err)
			if ok != (err != nil) || got != tt.want {
				t.Fatalf("error %v, want %q", err, tt.want)
			}
		})
	}
	// Whether its time has come is for the verifier to say.
	for at, want := range map[time.Duration]bool{-2 * time.Hour: true, -time.Hour: true, 24*time.Hour - 1: true, 24 * time.Hour: false} {
		r := testRecord(KindKey)
		r.NotAfter = testNow.Add(24 * time.Hour)
		err := testAuthority().Permits(r, testNow.Add(at))
		if want != (err == nil) {
			t.Errorf("%v from now: %v", at, err)
		}
	}
}

// The standard library refuses the keys with which every secret is zero; ours
// must be the same ones.
func TestLowOrderKeysAreThoseThatGiveNoSecret(t *testing.T) {
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak := func(key [32]byte) bool {
		public, err := ecdh.X25519().NewPublicKey(key[:])
		if err != nil {
			t.Fatal(err)
		}
		_, err = private.ECDH(public)
		return err != nil
	}
	check := func(key [32]byte) {
		if lowOrder(key) != weak(key) {
			t.Errorf("key %x: low order %v, gives no secret %v", key, lowOrder(key), weak(key))
		}
	}
	for _, key := range lowOrderPoints {
		if !lowOrder(key) {
			t.Errorf("key %x is listed, but not found", key)
		}
		check(key)
		key[31] |= 0x80
		check(key)
	}
	for d := -19; d <= 18; d++ {
		if d >= -18 {
			check(fieldPrimePlus(d))
		}
		check([32]byte{byte(d + 19)})
	}
	for range 200 {
		var key [32]byte
		if _, err := rand.Read(key[:]); err != nil {
			t.Fatal(err)
		}
		check(key)
	}
}

func TestPermitsAtTheLimits(t *testing.T) {
	r := testRecord(KindService)
	r.Service.Ports, r.Service.Aliases, r.Service.Endpoints = nil, nil, nil
	for i := range MaxRecordPorts {
		r.Service.Ports = append(r.Service.Ports, ServicePort{"p" + strconv.Itoa(i), uint16(i + 1), TCP})
	}
	for i := range MaxRecordAliases {
		r.Service.Aliases = append(r.Service.Aliases, strings.Repeat("a.", 100)+strconv.Itoa(i))
	}
	for i := range MaxRecordBackends {
		r.Service.Endpoints = append(r.Service.Endpoints, Endpoint{Name: "p" + strconv.Itoa(i), Addr: netip.AddrFrom4([4]byte{10, 1, 1, byte(i)})})
	}
	if err := testAuthority().Permits(r, testNow); err != nil {
		t.Fatal(err)
	}
}
