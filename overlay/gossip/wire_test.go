package gossip

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"slicewire/overlay"
)

// anyRecord makes a record that has an encoding, with no regard to sense.
func anyRecord(rng *rand.Rand) overlay.Record {
	str := func(n int) string {
		b := make([]byte, rng.IntN(n))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return string(b)
	}
	v4 := func() netip.Addr { return netip.AddrFrom4([4]byte{byte(rng.Uint32()), byte(rng.Uint32()), 0, 1}) }
	v6 := func() netip.Addr {
		return netip.AddrFrom16([16]byte{0: byte(rng.Uint32()), 10: 0xff, 11: 0xff, 15: byte(rng.Uint32())})
	}
	addr := func() netip.Addr {
		if rng.IntN(2) == 0 {
			return v4()
		}
		return v6()
	}
	r := overlay.Record{
		Origin:   overlay.NodeID{Site: str(256), Node: str(70)},
		Key:      overlay.Key{Kind: overlay.Kind(1 + rng.IntN(int(overlay.LastKind))), Slice: str(70), Name: str(200)},
		Version:  overlay.Version{Epoch: rng.Uint64(), Seq: rng.Uint64()},
		NotAfter: time.Unix(rng.Int64N(maxUnixTime), 0).UTC(),
		Deleted:  rng.IntN(5) == 0,
	}
	if r.Key.Kind == 8 { // not used
		r.Key.Kind = overlay.KindLost
	}
	if r.Deleted {
		return r
	}
	switch r.Key.Kind {
	case overlay.KindNode:
		r.Node = &overlay.NodeBody{}
		for range rng.IntN(20) {
			r.Node.Endpoints = append(r.Node.Endpoints, netip.AddrPortFrom(addr(), uint16(rng.Uint32())))
		}
	case overlay.KindKey:
		key := func() [32]byte { return [32]byte{byte(rng.Uint32()), 31: byte(rng.Uint32())} }
		r.WGKey = &overlay.KeyBody{PublicKey: key(), Generation: rng.Uint64N(2) * rng.Uint64()}
		if rng.IntN(2) == 0 {
			r.WGKey.Next = overlay.SliceKey{Generation: rng.Uint64N(3), PublicKey: key()}
		}
	case overlay.KindPrefix:
		r.Prefix = &overlay.PrefixBody{}
		for range rng.IntN(255) {
			r.Prefix.Prefixes = append(r.Prefix.Prefixes, netip.PrefixFrom(addr(), rng.IntN(33)))
		}
	case overlay.KindRevocation:
		r.Revocation = &overlay.RevocationBody{}
		if rng.IntN(3) != 0 {
			r.Revocation.Until = time.Unix(1+rng.Int64N(maxUnixTime), 0).UTC()
		}
	case overlay.KindLost:
		r.Lost = &overlay.LostBody{}
		for range rng.IntN(20) {
			r.Lost.Nodes = append(r.Lost.Nodes, overlay.NodeID{Site: str(64), Node: str(64)})
		}
	case overlay.KindRoot:
		r.Root = &overlay.RootBody{Statement: []byte("x" + str(overlay.MaxRootStatement))}
	case overlay.KindIssuer:
		r.Issuer = &overlay.IssuerBody{Keys: rng.Uint64N(2) * rng.Uint64()}
		for range rng.IntN(20) {
			r.Issuer.Endpoints = append(r.Issuer.Endpoints, netip.AddrPortFrom(addr(), uint16(rng.Uint32())))
		}
	case overlay.KindService, overlay.KindWorkloads:
		s := &overlay.ServiceBody{}
		for range rng.IntN(64) {
			s.Ports = append(s.Ports, overlay.ServicePort{Name: str(16), Port: uint16(rng.Uint32()), Protocol: []overlay.Protocol{overlay.TCP, overlay.UDP}[rng.IntN(2)]})
		}
		for range rng.IntN(16) {
			s.Aliases = append(s.Aliases, str(254))
		}
		for range rng.IntN(overlay.MaxRecordBackends + 1) {
			e := overlay.Endpoint{Name: str(64), Addr: v4()}
			switch rng.IntN(3) {
			case 0:
				e.Addr6 = v6()
			case 1:
				e.Addr, e.Addr6 = netip.Addr{}, v6()
			}
			s.Endpoints = append(s.Endpoints, e)
		}
		if rng.IntN(2) == 0 {
			s.Type, s.AffinitySeconds = overlay.ServiceType(rng.IntN(2)), uint32(rng.IntN(2))*rng.Uint32()
			if rng.IntN(2) == 0 {
				s.Created = time.Unix(1+rng.Int64N(maxUnixTime), 0).UTC()
			}
		}
		r.Service = s
	}
	return r
}

func TestWhatIsEncodedDecodesToTheSame(t *testing.T) {
	const seed = 3
	rng := rand.New(rand.NewPCG(seed, 0))
	for i := range 3000 {
		r := anyRecord(rng)
		signer := fingerprint{byte(i), 31: 9}
		body, err := encodeBody(r, signer)
		if err != nil {
			t.Fatalf("seed %d, record %d: %v", seed, i, err)
		}
		s, err := unseal(seal(body, make([]byte, signatureSize)))
		if err != nil {
			t.Fatalf("seed %d, record %d: %v", seed, i, err)
		}
		if s.signer != signer || signerOf(s.raw) != signer || !reflect.DeepEqual(s.record, r) || !bytes.Equal(s.body, body) {
			t.Fatalf("seed %d, record %d:\ngot  %+v\nwant %+v", seed, i, s.record, r)
		}
	}
}

func TestRecordsWithoutAnEncoding(t *testing.T) {
	for name, change := range map[string]func(*overlay.Record){
		"a fraction of a second":     func(r *overlay.Record) { r.NotAfter = r.NotAfter.Add(1) },
		"before 1970":                func(r *overlay.Record) { r.NotAfter = time.Unix(-1, 0) },
		"a long name":                func(r *overlay.Record) { r.Origin.Site = string(make([]byte, 256)) },
		"no body":                    func(r *overlay.Record) { r.Prefix = nil },
		"two bodies":                 func(r *overlay.Record) { r.Node = &overlay.NodeBody{} },
		"a revocation in parts":      func(r *overlay.Record) { revoking(r, begin.Add(1)) },
		"a revocation before 1970":   func(r *overlay.Record) { revoking(r, time.Unix(-1, 0)) },
		"a tombstone with a body":    func(r *overlay.Record) { r.Deleted = true },
		"an unknown kind":            func(r *overlay.Record) { r.Key.Kind = 9 },
		"a tombstone of no kind":     func(r *overlay.Record) { r.Key.Kind, r.Deleted, r.Prefix = overlay.LastKind+1, true, nil },
		"an invalid prefix":          func(r *overlay.Record) { r.Prefix.Prefixes = []netip.Prefix{{}} },
		"a thousand prefixes":        func(r *overlay.Record) { r.Prefix.Prefixes = make([]netip.Prefix, 1000) },
		"an endpoint with a zone":    func(r *overlay.Record) { zoned(r) },
		"a protocol of another kind": func(r *overlay.Record) { *r = service(1, "web", 1); r.Service.Ports[0].Protocol = "SCTP" },
		"an endpoint at no address": func(r *overlay.Record) {
			*r = service(1, "web", 1)
			r.Service.Endpoints[0].Addr, r.Service.Endpoints[0].Addr6 = netip.Addr{}, netip.Addr{}
		},
	} {
		r := sound(1)
		change(&r)
		if body, err := encodeBody(r, fingerprint{}); err == nil {
			t.Errorf("%s: encoded to %x", name, body)
		}
	}
}

func revoking(r *overlay.Record, until time.Time) {
	r.Key.Kind, r.Prefix, r.Revocation = overlay.KindRevocation, nil, &overlay.RevocationBody{Until: until}
}

func zoned(r *overlay.Record) {
	*r = facts(1)[0]
	r.Node.Endpoints[0] = netip.MustParseAddrPort("[fe80::1%eth0]:1")
}

func TestTheLargestServiceFits(t *testing.T) {
	label := func(i int) string {
		return string(bytes.Repeat([]byte{'x'}, 59)) + string([]byte{byte('a' + i/676%26), byte('a' + i/26%26), byte('a' + i%26), 'x'})
	}
	r := service(1, "web", 1)
	r.Origin, r.NotAfter = overlay.NodeID{Site: label(0), Node: label(0)}, begin
	r.Key.Slice, r.Key.Name = label(0), label(0)+"/"+label(1)
	s := &overlay.ServiceBody{}
	for i := range overlay.MaxRecordPorts {
		s.Ports = append(s.Ports, overlay.ServicePort{Name: label(i), Port: 1, Protocol: overlay.TCP})
	}
	for range overlay.MaxRecordAliases {
		s.Aliases = append(s.Aliases, string(make([]byte, 253)))
	}
	for i := range overlay.MaxRecordBackends {
		s.Endpoints = append(s.Endpoints, overlay.Endpoint{Name: label(i), Addr: netip.AddrFrom4([4]byte{1}), Addr6: netip.AddrFrom16([16]byte{1})})
	}
	s.Type, s.Created = overlay.Virtual, begin
	r.Service = s
	body, err := encodeBody(r, fingerprint{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the largest service takes %d of %d bytes", len(body), maxBody)
}

// Whatever is decoded encodes to the same bytes.
func FuzzUnseal(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		body, err := encodeBody(anyRecord(rng), fingerprint{})
		if err != nil {
			f.Fatal(err)
		}
		if len(body) < 4000 {
			f.Add(seal(body, make([]byte, signatureSize)))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := unseal(raw)
		if err != nil {
			return
		}
		body, err := encodeBody(s.record, s.signer)
		if err != nil || !bytes.Equal(seal(body, s.sig), raw) {
			t.Fatalf("%x decodes to %+v, which encodes to %x (%v)", raw, s.record, body, err)
		}
	})
}

func FuzzDecodeMessage(f *testing.F) {
	ca := newAuthority("ca")
	id := ca.issue(f, allowed(1))
	f.Add(recordsTest(f, id, sealTest(f, id, sound(1)), sealTest(f, id, sound(2))))
	summary, _ := encodeSummary(allowed(1).ID, []overlay.OriginSummary{{Origin: allowed(2).ID, Count: 3}})
	f.Add(summary)
	part, _ := encodePart(allowed(1).ID, 5, []overlay.OriginSummary{{Origin: allowed(2).ID, Count: 3}})
	f.Add(part)
	digests, _ := encodeDigests(allowed(1).ID, [overlay.Parts]overlay.Digest{3: {1, 2, 3}})
	f.Add(digests)
	wants, _ := encodeWants(allowed(1).ID, []want{{origin: allowed(2).ID, marks: []overlay.Mark{{Key: 1}}}}, true)
	f.Add(wants)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMessage(b)
		if err != nil || m.refused > 0 {
			return
		}
		var again []byte
		switch m.kind {
		case typeRecords:
			var raws [][]byte
			for _, s := range m.records {
				raws = append(raws, s.raw)
			}
			again, err = encodeRecords(m.chains, raws)
		case typeSummary:
			again, err = encodeSummary(m.sender, m.summary)
		case typePart:
			again, err = encodePart(m.sender, m.parts, m.summary)
		case typeDigests:
			again, err = encodeDigests(m.sender, *m.digests)
		case typeWant:
			again, err = encodeWants(m.sender, m.wants, m.back)
		}
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x decodes, but encodes to %x (%v)", b, again, err)
		}
	})
}

func FuzzRestore(f *testing.F) {
	ca := newAuthority("ca")
	a := newTest(f, testConfig(f, ca, 1))
	set(f, a, facts(1))
	f.Add(a.Snapshot())
	f.Add([]byte{})
	known := a.Records()
	f.Fuzz(func(t *testing.T, snapshot []byte) {
		g := newTest(t, testConfig(t, ca, 0))
		if _, err := g.Restore(snapshot); err != nil && len(snapshot) == 0 {
			t.Fatal(err)
		}
		for _, r := range g.Records() {
			ok := false
			for _, k := range known {
				ok = ok || reflect.DeepEqual(r, k)
			}
			if !ok {
				t.Fatalf("a record that was never signed: %+v", r)
			}
		}
	})
}

func BenchmarkAcceptForgery(b *testing.B) {
	ca := newAuthority("ca")
	id := ca.issue(b, allowed(1))
	g := newTest(b, testConfig(b, ca, 0))
	raw := sealTest(b, id, sound(1))
	raw[len(raw)-1] ^= 1
	message := recordsTest(b, id, raw)
	b.ReportAllocs()
	for b.Loop() {
		g.handle(message)
	}
	if len(g.Records()) != 0 {
		b.Fatal("accepted")
	}
}
