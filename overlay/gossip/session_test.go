package gossip

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"slicewire/overlay"
)

// leafConfig is that of a node which is no gateway.
func leafConfig(t testing.TB, ca *authority, n int) Config {
	a := allowed(n)
	a.Gateway = false
	cfg := testConfig(t, ca, n)
	cfg.Leaf, cfg.Key, cfg.Bind, cfg.Signer = true, nil, netip.AddrPort{}, ca.issue(t, a)
	return cfg
}

// begin starts g with seeds and facts(n).
func beginTest(t testing.TB, g *Gossip, n int, seeds ...*Gossip) {
	t.Helper()
	set(t, g, facts(n))
	var at []string
	for _, s := range seeds {
		at = append(at, s.Addr().String())
	}
	g.SetSeeds(at)
	start(t, g)
}

func alive(g *Gossip, name string) bool {
	return slices.ContainsFunc(g.Members(), func(m Member) bool { return m.Name == name && m.State == StateProven })
}

func TestALeafSpeaksThroughGatewaysAndIsDialedByNobody(t *testing.T) {
	leakCheck(t)
	ca := newAuthority("ca")
	var gateways []*Gossip
	for n := range 3 {
		g := newTest(t, testConfig(t, ca, n))
		beginTest(t, g, n, gateways...)
		gateways = append(gateways, g)
	}
	one, two := newTest(t, leafConfig(t, ca, 3)), newTest(t, leafConfig(t, ca, 4))
	beginTest(t, one, 3, gateways[:1]...)
	beginTest(t, two, 4, gateways[2:]...)
	all := append(slices.Clone(gateways), one, two)
	for _, g := range all {
		eventually(t, "all know all", func() bool { return len(g.Records()) == 20 })
	}
	if one.Addr().IsValid() {
		t.Errorf("a leaf listens at %v", one.Addr())
	}
	// One seed is enough: it hears of others.
	eventually(t, "two sessions", func() bool { return len(one.sessions.all()) == 2 && len(two.sessions.all()) == 2 })
	for _, g := range gateways {
		for _, m := range g.members.names("") {
			if m == allowed(3).ID.String() || m == allowed(4).ID.String() {
				t.Errorf("%s is a member", m)
			}
		}
	}
	set(t, one, facts(3)[:3])
	set(t, gateways[1], facts(1)[:3])
	for _, g := range all {
		eventually(t, "both withdrawals are known", func() bool { return len(g.Records()) == 18 })
	}
	for reason, n := range gateways[0].Refused() {
		if n != 0 && reason != RefusedStale {
			t.Errorf("%d refused for %s among friends", n, reason)
		}
	}
}

// Whoever has the gossip key and a certificate, but not a gateway's, is no member.
func TestWhoIsNoGatewayIsNoMember(t *testing.T) {
	leakCheck(t)
	ca := newAuthority("ca")
	gateway := newTest(t, testConfig(t, ca, 0))
	beginTest(t, gateway, 0)
	cfg := testConfig(t, ca, 1)
	a := allowed(1)
	a.Gateway = false
	cfg.Signer = ca.issue(t, a)
	plain := newTest(t, cfg)
	beginTest(t, plain, 1, gateway)
	eventually(t, "what it says is known", func() bool { return len(of(gateway.Records(), a.ID)) == 4 })
	eventually(t, "it is refused", func() bool { return gateway.Refused()[RefusedMember] > 0 && !alive(gateway, a.ID.String()) })
}

func TestARevokedLeafIsPutOutAtOnce(t *testing.T) {
	leakCheck(t)
	var gateways []*Gossip
	for n := range 2 {
		g := newTest(t, testConfig(t, newAuthority("ca"), n))
		beginTest(t, g, n, gateways...)
		gateways = append(gateways, g)
	}
	one, two := newTest(t, leafConfig(t, newAuthority("ca"), 2)), newTest(t, leafConfig(t, newAuthority("ca"), 3))
	beginTest(t, one, 2, gateways...)
	beginTest(t, two, 3, gateways...)
	victim := allowed(2).ID
	eventually(t, "two sessions each", func() bool {
		return len(one.sessions.all()) == 2 && len(two.sessions.all()) == 2 && len(two.Records()) == 16
	})
	id, limits := issuerTest(t, newAuthority("ca"), "issuer-1", overlay.Issuer{Sites: []string{victim.Site}})
	began := time.Now()
	if err := two.Announce(sealTestRevocation(t, id, limits, overlay.Revocation{Node: victim, Until: begin})); err != nil {
		t.Fatal(err)
	}
	for _, g := range gateways {
		eventually(t, "it is out", func() bool { return !alive(g, victim.String()) && len(of(g.Records(), victim)) == 0 })
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("that took %v", took)
	}
	eventually(t, "it comes back and is refused", func() bool { return gateways[0].Refused()[string(overlay.RefusedRevoked)] > 0 })
	for _, g := range gateways {
		if alive(g, victim.String()) {
			t.Error("it has a session again")
		}
	}
	if !alive(gateways[0], allowed(3).ID.String()) {
		t.Error("the other leaf has lost its session")
	}
}

// rogueTest is a session of one who holds a leaf's key with a gateway, to be
// abused.
func rogueTest(t *testing.T, ca *authority, n int, gateway *Gossip) (*identity, *session) {
	t.Helper()
	cfg := leafConfig(t, ca, n)
	r := newTest(t, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	raw, err := system{}.Dial(ctx, gateway.Addr())
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.open(ctx, raw, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.conn.Close() })
	return cfg.Signer.(*identity), s
}

func TestALeafClaimsNothingThatIsNotItsOwn(t *testing.T) {
	leakCheck(t)
	ca := newAuthority("ca")
	gateway, friend := newTest(t, testConfig(t, ca, 0)), newTest(t, leafConfig(t, ca, 1))
	beginTest(t, gateway, 0)
	beginTest(t, friend, 1, gateway)
	eventually(t, "both know both", func() bool { return len(gateway.Records()) == 8 && len(friend.Records()) == 8 })
	id, s := rogueTest(t, ca, 2, gateway)
	good := func(r overlay.Record) overlay.Record {
		r.Origin, r.Version, r.NotAfter = allowed(2).ID, overlay.Version{Epoch: 9, Seq: 1}, begin.Add(time.Hour)
		return r
	}
	for _, tt := range []struct {
		name   string
		reason overlay.Refusal
		change func(*overlay.Record)
	}{
		{"another's name", overlay.RefusedOrigin, func(r *overlay.Record) { r.Origin = allowed(1).ID }},
		{"another's prefix", overlay.RefusedPrefix, func(r *overlay.Record) {
			r.Prefix = &overlay.PrefixBody{Prefixes: allowed(1).Grants[0].Prefixes}
		}},
		{"everything", overlay.RefusedPrefix, func(r *overlay.Record) {
			r.Prefix = &overlay.PrefixBody{Prefixes: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}
		}},
		{"another slice", overlay.RefusedSlice, func(r *overlay.Record) { r.Key.Slice = "wine" }},
		{"a life beyond its certificate's", overlay.RefusedLifetime, func(r *overlay.Record) { r.NotAfter = begin.Add(10000 * time.Hour) }},
	} {
		r := good(facts(2)[2])
		tt.change(&r)
		before := gateway.Refused()[string(tt.reason)]
		if err := writeFrame(s.conn, recordsTest(t, id, sealTest(t, id, r))); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		eventually(t, tt.name+" is refused", func() bool { return gateway.Refused()[string(tt.reason)] == before+1 })
	}
	// What is its own counts, so the session was not the reason.
	if err := writeFrame(s.conn, recordsTest(t, id, sealTest(t, id, good(facts(2)[2])))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its own prefix is known to the friend", func() bool { return len(friend.Records()) == 9 })
	// A signature that is none: no node passes that on, so it is put out.
	raw := sealTest(t, id, good(facts(2)[1]))
	raw[len(raw)-1] ^= 1
	if err := writeFrame(s.conn, recordsTest(t, id, raw)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, s.conn)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Error("it is not put out")
	}
	eventually(t, "it is gone", func() bool { return !alive(gateway, allowed(2).ID.String()) && gateway.Refused()[RefusedSession] == 1 })
	if len(friend.Records()) != 9 {
		t.Errorf("the friend holds %d records", len(friend.Records()))
	}
}

// Who speaks for both sides cannot be between them: a hello is for one
// connection.
func TestAHelloIsGoodForOneConnection(t *testing.T) {
	ca := newAuthority("ca")
	gateway := newTest(t, testConfig(t, ca, 0))
	beginTest(t, gateway, 0)
	leaf := newTest(t, leafConfig(t, ca, 1))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// The one between answers the leaf as a gateway without its key, and passes on
	// to the gateway what the leaf says.
	mallory := newTest(t, testConfig(t, newAuthority("mallory"), 0))
	l, err := system{}.Listen(ctx, netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	heard := make(chan []byte, 1)
	go func() {
		defer close(heard)
		raw, err := l.Accept()
		if err != nil {
			return
		}
		defer raw.Close()
		if conn, err := mallory.serverTest(raw); err == nil {
			if b, err := readFrame(conn, maxHello); err == nil {
				heard <- b
			}
		}
	}()
	raw, err := system{}.Dial(ctx, addrPortOf(l.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaf.open(ctx, raw, true); err == nil {
		t.Error("the leaf takes it for a gateway")
	}
	hello := <-heard
	if _, err := decodeHello(hello); err != nil {
		t.Fatal(err)
	}
	raw, err = system{}.Dial(ctx, gateway.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	conn, err := mallory.clientTest(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFrame(conn, hello); err != nil {
		t.Fatal(err)
	}
	if _, err := readFrame(conn, maxHello); err == nil {
		t.Error("the gateway takes it for the leaf")
	}
	eventually(t, "that is counted", func() bool { return gateway.Refused()[RefusedSession] == 1 })
}

func TestSessionMessagesAreReadAsTheyAreWritten(t *testing.T) {
	h := hello{chain: chain{[]byte("leaf"), []byte("ca")}, instance: instance{1, 2, 3}, sig: bytes.Repeat([]byte{9}, signatureSize)}
	b, err := encodeHello(h)
	if err != nil {
		t.Fatal(err)
	}
	// The wire format stays what it is.
	want := "0110" + "02" + "0004" + "6c656166" + "0002" + "6361" + "01020300000000000000000000000000" + hex.EncodeToString(h.sig)
	if hex.EncodeToString(b) != want {
		t.Errorf("hello %x", b)
	}
	if got, err := decodeHello(b); err != nil || !reflect.DeepEqual(got, h) {
		t.Errorf("hello %+v, %v", got, err)
	}
	list := []gatewayEntry{
		{"a/gw", netip.MustParseAddrPort("192.0.2.1:7946"), bytes.Repeat([]byte{7}, metaSize)},
		{"b/gw", netip.MustParseAddrPort("[2001:db8::1]:1"), bytes.Repeat([]byte{8}, metaSize)},
	}
	g, err := encodeGateways(list)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeGateways(g); err != nil || !reflect.DeepEqual(got, list) {
		t.Errorf("gateways %+v, %v", got, err)
	}
	if !bytes.HasPrefix(g, []byte("\x01\x12\x02\x04a/gw\x04\xc0\x00\x02\x01\x1f\x0a\x07")) {
		t.Errorf("gateways % x", g[:20])
	}
	if c := encodeCheck(digest{1}); !bytes.HasPrefix(c, []byte{1, 17, 1}) {
		t.Errorf("check % x", c)
	}
	if claim := sessionClaim(roleLeaf, "m", instance{5}, []byte{6}); !bytes.Equal(claim, append([]byte{1, 1, 'm', 5}, append(make([]byte, 15), 6)...)) {
		t.Errorf("claim % x", claim)
	}
}

// Whatever comes over a session, it is read whole or refused.
func FuzzSessionMessages(f *testing.F) {
	h, _ := encodeHello(hello{chain: chain{[]byte("leaf")}, sig: make([]byte, signatureSize)})
	g, _ := encodeGateways([]gatewayEntry{{"a/gw", netip.MustParseAddrPort("192.0.2.1:7946"), make([]byte, metaSize)}})
	for _, b := range [][]byte{h, g, encodeCheck(digest{}), encodeBye(byeFull)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := decodeHello(b); err == nil {
			if again, err := encodeHello(h); err != nil || !bytes.Equal(again, b) {
				t.Errorf("hello % x is said % x, %v", b, again, err)
			}
		}
		if list, err := decodeGateways(b); err == nil {
			if again, err := encodeGateways(list); err != nil || !bytes.Equal(again, b) {
				t.Errorf("gateways % x are said % x, %v", b, again, err)
			}
		}
		if d, err := decodeCheck(b); err == nil && !bytes.Equal(encodeCheck(d), b) {
			t.Errorf("check % x", b)
		}
		if r, err := decodeBye(b); err == nil && !bytes.Equal(encodeBye(r), b) {
			t.Errorf("bye % x", b)
		}
	})
}

func TestASessionMayTellAWholeMeshAtOnceAndThenALittle(t *testing.T) {
	p := new(sessionPace)
	now := begin
	for range 16 {
		if w := p.take(now, 1<<20); w != 0 {
			t.Fatalf("the first megabytes wait for %v", w)
		}
	}
	if w := p.take(now, 256<<10); w != time.Second {
		t.Errorf("more waits for %v", w)
	}
	if w := p.take(now.Add(2*time.Second), 128<<10); w != 0 {
		t.Errorf("two seconds later it waits for %v", w)
	}
	p = new(sessionPace)
	waits := 0
	for range paceFrames + 64 {
		if p.take(now, 0) > 0 {
			waits++
		}
	}
	if waits != 64 {
		t.Errorf("%d small frames wait", waits)
	}
	if w := p.take(now.Add(time.Hour), 0); w != 0 {
		t.Errorf("an hour later it waits for %v", w)
	}
}

func TestAnOutboxIsBoundedAndRemembersThatItWas(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var o outbox
	o.init()
	if !o.put(make([]byte, 3*maxWaitingBytes)) {
		t.Error("an empty outbox takes not everything")
	}
	if o.put([]byte{1}) {
		t.Error("a full outbox takes more")
	}
	o.missed()
	if b, behind := o.take(); len(b) != 3*maxWaitingBytes || behind {
		t.Error("not what was put")
	}
	if b, behind := o.take(); b != nil || !behind {
		t.Error("nobody is told that something was missed")
	}
	if _, behind := o.take(); behind {
		t.Error("it is told twice")
	}
	for range 2 * maxWaiting {
		o.put(make([]byte, rng.IntN(100)))
	}
	if len(o.wait) != maxWaiting {
		t.Errorf("%d messages wait", len(o.wait))
	}
}
