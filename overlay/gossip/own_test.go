package gossip

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"slicewire/overlay"
)

func versions(g *Gossip) map[overlay.Key]overlay.Version {
	out := make(map[overlay.Key]overlay.Version)
	for _, h := range g.ledger.Of(g.cfg.Self) {
		out[h.Record.Key] = h.Record.Version
	}
	return out
}

func TestSetSaysOnlyWhatChanged(t *testing.T) {
	ca := newAuthority("ca")
	g := newTest(t, testConfig(t, ca, 1))
	set(t, g, facts(1))
	first := versions(g)
	select {
	case <-g.Changed():
	default:
		t.Error("no change was announced")
	}
	set(t, g, facts(1))
	if !reflect.DeepEqual(versions(g), first) {
		t.Errorf("the same facts got new versions: %v, before %v", versions(g), first)
	}
	select {
	case <-g.Changed():
		t.Error("a change was announced")
	default:
	}
	changed := facts(1)[:3]
	changed[0].Node.Endpoints[0] = netip.MustParseAddrPort("198.51.100.9:1")
	set(t, g, changed)
	second := versions(g)
	node, key, web := changed[0].Key, changed[1].Key, facts(1)[3].Key
	if !first[node].Less(second[node]) || first[key] != second[key] || !first[web].Less(second[web]) {
		t.Errorf("versions %v, before %v", second, first)
	}
	if len(g.Records()) != 3 {
		t.Errorf("%d records hold, want 3", len(g.Records()))
	}
	set(t, g, facts(1)) // and back again
	if len(g.Records()) != 4 {
		t.Errorf("%d records hold, want 4", len(g.Records()))
	}
}

func TestRecordsAreSignedAgainAtHalfTheirLife(t *testing.T) {
	ca := newAuthority("ca")
	cfg := testConfig(t, ca, 1)
	c := newClock()
	cfg.Now = c.Now
	g := newTest(t, cfg)
	set(t, g, facts(1))
	first := versions(g)
	c.advance(29 * time.Minute)
	if n := len(g.maintain()); n != 0 {
		t.Errorf("%d signed before half their life", n)
	}
	c.advance(2 * time.Minute)
	if n := len(g.maintain()); n != 4 {
		t.Errorf("%d signed after half their life, want 4", n)
	}
	for k, v := range versions(g) {
		if !first[k].Less(v) {
			t.Errorf("%v keeps version %v", k, v)
		}
	}
	for _, r := range g.Records() {
		if want := c.Now().Add(time.Hour); !r.NotAfter.Equal(want) {
			t.Errorf("until %v, want %v", r.NotAfter, want)
		}
	}
	// The certificate ends before the next life would: nothing is gained by
	// signing over and over.
	c.advance(allowed(1).NotAfter.Sub(c.Now()) - 20*time.Minute)
	g.maintain()
	for range 5 {
		c.advance(3 * time.Minute)
		if n := len(g.maintain()); n != 0 {
			t.Fatalf("%d signed, with the end of the certificate before them", n)
		}
	}
	if len(g.Records()) != 4 {
		t.Errorf("%d records hold", len(g.Records()))
	}
}

// clocked makes a node that has told its facts and goes by a clock of the test's.
// renew gives it another certificate and returns its chain.
func clocked(t *testing.T) (g *Gossip, c *clock, renew func() chain) {
	t.Helper()
	ca := newAuthority("ca")
	cfg := testConfig(t, ca, 1)
	c = newClock()
	cfg.Now = c.Now
	id := ca.issue(t, allowed(1))
	cfg.Signer = id
	g = newTest(t, cfg)
	set(t, g, facts(1))
	return g, c, func() chain {
		renewed := allowed(1)
		renewed.NotAfter = renewed.NotAfter.Add(time.Hour)
		id.chain = ca.issue(t, renewed).chain
		return id.chain
	}
}

// Of time alone, nothing is asked before the first record has lived half its life:
// of thousands, none is looked at meanwhile.
func TestNothingIsLookedAtBeforeItsTime(t *testing.T) {
	g, c, renew := clocked(t)
	idle := func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.idleLocked(c.Now())
	}
	for minute := range 29 {
		if c.advance(time.Minute); !idle() {
			t.Fatalf("looks after %d minutes", minute+1)
		}
	}
	c.advance(-40 * time.Minute)
	if idle() {
		t.Error("does not look when the clock was put back")
	}
	g.maintain()
	c.advance(42 * time.Minute)
	if idle() {
		t.Error("does not look after half a life")
	}
	g.maintain()
	if !idle() {
		t.Error("looks at once again")
	}
	renew()
	if idle() {
		t.Error("does not look with another certificate")
	}
}

func TestARenewedCertificateSignsEverythingAgain(t *testing.T) {
	ca := newAuthority("ca")
	cfg := testConfig(t, ca, 1)
	id := ca.issue(t, allowed(1))
	cfg.Signer = id
	g := newTest(t, cfg)
	set(t, g, facts(1))
	renewed := allowed(1)
	renewed.NotAfter = renewed.NotAfter.Add(time.Hour)
	renewed.Grants = nil // and "water" is granted no longer
	id.chain = ca.issue(t, renewed).chain
	err := g.Set(facts(1))
	if !errors.Is(err, overlay.RefusedSlice) {
		t.Errorf("error %v, want %v", err, overlay.RefusedSlice)
	}
	// What can still be said is said, and what cannot is taken back.
	if err := g.Set(facts(1)[:1]); err != nil {
		t.Fatal(err)
	}
	other := newTest(t, testConfig(t, ca, 0))
	if _, err := other.Restore(g.Snapshot()); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*Gossip{g, other} {
		if r := x.Records(); len(r) != 1 || r[0].Key.Kind != overlay.KindNode {
			t.Errorf("%v hold", r)
		}
	}
	if len(g.chains) != 2 {
		t.Fatalf("%d chains", len(g.chains))
	}
	g.maintain()
	if len(g.chains) != 1 {
		t.Errorf("%d chains kept, want 1", len(g.chains))
	}
}

// The certificate before stands behind nothing any more, what was taken back
// included: else it would be listed, and its authority be in use, for as long
// as the longest tombstone lives.
func TestARenewedCertificateSignsTombstonesAgain(t *testing.T) {
	g, c, renew := clocked(t)
	set(t, g, facts(1)[:3])
	gone := facts(1)[3].Key
	ends := func() (at time.Time) {
		for _, h := range g.ledger.Of(g.cfg.Self) {
			if h.Record.Key == gone && h.Record.Deleted {
				at = h.Record.NotAfter
			}
		}
		return at
	}
	end := ends()
	c.advance(time.Minute)
	renewed := renew()
	set(t, g, facts(1)[:3])
	if got := ends(); got.IsZero() || !got.Equal(end) {
		t.Errorf("the tombstone ends at %v, before it was signed again at %v", got, end)
	}
	if chains := g.Chains(); len(chains) != 1 || !bytes.Equal(chains[0][0], renewed[0]) {
		t.Errorf("%d chains stand behind what is held, want the renewed one alone", len(chains))
	}
	if n := len(g.maintain()); n != 0 {
		t.Errorf("%d signed with nothing new to say", n)
	}
}

func TestWhatIsNotPermittedIsNotSaid(t *testing.T) {
	ca := newAuthority("ca")
	g := newTest(t, testConfig(t, ca, 1))
	all := append(facts(1), overlay.Record{Key: overlay.Key{Kind: overlay.KindKey, Slice: "fire"}, WGKey: &overlay.KeyBody{PublicKey: [32]byte{9}}})
	if err := g.Set(all); !errors.Is(err, overlay.RefusedSlice) {
		t.Fatalf("error %v, want %v", err, overlay.RefusedSlice)
	}
	if len(g.Records()) != 4 {
		t.Errorf("%d records hold, want 4", len(g.Records()))
	}
	cfg := testConfig(t, ca, 1)
	cfg.Now = func() time.Time { return allowed(1).NotAfter }
	late := newTest(t, cfg)
	if err := late.Set(facts(1)); err == nil || len(late.Records()) != 0 {
		t.Errorf("with an expired certificate: %v, %d records", err, len(late.Records()))
	}
}

func TestASnapshotBringsEverythingBack(t *testing.T) {
	ca := newAuthority("ca")
	g := newTest(t, testConfig(t, ca, 0))
	set(t, g, facts(0))
	for n := 1; n < 4; n++ {
		other := newTest(t, testConfig(t, ca, n))
		set(t, other, facts(n))
		set(t, other, facts(n)[:3]) // one tombstone
		if _, err := g.Restore(other.Snapshot()); err != nil {
			t.Fatal(err)
		}
	}
	snapshot := g.Snapshot()
	again := newTest(t, testConfig(t, ca, 0))
	n, err := again.Restore(snapshot)
	if err != nil || n != 4+3*4 {
		t.Fatalf("%d records, %v", n, err)
	}
	if !reflect.DeepEqual(again.Records(), g.Records()) || !reflect.DeepEqual(again.Snapshot(), snapshot) {
		t.Error("not the same after a round trip")
	}
	// A next life with a greater epoch says its own facts anew.
	cfg := testConfig(t, ca, 0)
	cfg.Epoch = 2
	next := newTest(t, cfg)
	if _, err := next.Restore(snapshot); err != nil {
		t.Fatal(err)
	}
	set(t, next, facts(0))
	for k, v := range versions(next) {
		if v.Epoch != 2 {
			t.Errorf("%v still of version %v", k, v)
		}
	}
	// One that forgot to raise it goes on where it was.
	same := newTest(t, testConfig(t, ca, 0))
	if _, err := same.Restore(snapshot); err != nil {
		t.Fatal(err)
	}
	changed := facts(0)
	changed[0].Node.Endpoints[0] = netip.MustParseAddrPort("198.51.100.9:1")
	set(t, same, changed)
	if v := versions(same)[changed[0].Key]; v != (overlay.Version{Epoch: 1, Seq: 5}) {
		t.Errorf("version %v, want 1, 5", v)
	}
	// Nothing is taken on trust: a stranger's node restores nothing.
	cfg = testConfig(t, newAuthority("stranger"), 0)
	stranger := newTest(t, cfg)
	if n, err := stranger.Restore(snapshot); n != 0 || err != nil || stranger.Refused()[RefusedCert] != 16 {
		t.Errorf("%d records, %v, refused %v", n, err, stranger.Refused())
	}
}

func TestADamagedSnapshotLosesOnlyWhatIsDamaged(t *testing.T) {
	ca := newAuthority("ca")
	g := newTest(t, testConfig(t, ca, 1))
	set(t, g, facts(1))
	good := g.Snapshot()
	restore := func(b []byte) (int, error) {
		return newTest(t, testConfig(t, ca, 0)).Restore(b)
	}
	rng := rand.New(rand.NewPCG(5, 5))
	for range 500 {
		b := append([]byte(nil), good...)
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		if n, err := restore(b); n < 3 || !errors.Is(err, ErrDamaged) {
			t.Fatalf("one bit flipped: %d records, %v", n, err)
		}
	}
	last := -1
	for cut := range len(good) {
		n, err := restore(good[:cut])
		if n < last {
			t.Fatalf("cut at %d: %d records, with less %d (%v)", cut, n, last, err)
		}
		last = n
	}
	if last != 4 {
		t.Errorf("%d records without the last byte", last)
	}
	if n, err := restore(append([]byte("rubbish"), good...)); n != 4 || !errors.Is(err, ErrDamaged) {
		t.Errorf("rubbish first: %d records, %v", n, err)
	}
	if n, err := restore(nil); n != 0 || err != nil {
		t.Errorf("nothing: %d records, %v", n, err)
	}
	// A record that was lost comes back from the others, although its floor is known.
	b := append([]byte(nil), good...)
	b[len(good)/2] ^= 1
	hurt := newTest(t, testConfig(t, ca, 0))
	_, _ = hurt.Restore(b)
	id := ca.issue(t, allowed(1))
	for _, h := range g.ledger.Of(allowed(1).ID) {
		hurt.handle(recordsTest(t, id, h.Raw))
	}
	if n := len(hurt.Records()); n != 4 {
		t.Errorf("%d records after the others told them again, refused %v", n, hurt.Refused())
	}
}

// A node that ends for good takes back what it told, and nothing of it is told
// again; others hear of it although its session ends at the same moment.
func TestAnEndOfANodeIsHeardOf(t *testing.T) {
	leakCheck(t)
	ca := newAuthority("ca")
	gateway := newTest(t, testConfig(t, ca, 0))
	set(t, gateway, facts(0))
	start(t, gateway)
	leaf := newTest(t, leafConfig(t, ca, 1))
	set(t, leaf, facts(1))
	leaf.SetSeeds([]string{gateway.Addr().String()})
	stop := start(t, leaf)
	id := allowed(1).ID
	eventually(t, "it is known", func() bool { return len(gateway.RecordsOf(id)) == 4 })
	if gone := gateway.Withdrawn(); len(gone) != 0 {
		t.Errorf("%v have withdrawn", gone)
	}
	if err := leaf.Withdraw(); err != nil {
		t.Fatal(err)
	}
	stop()
	if gone := gateway.Withdrawn(); len(gone) != 1 || gone[0] != id || len(gateway.RecordsOf(id)) != 0 {
		t.Errorf("%v have withdrawn, and %d records hold", gone, len(gateway.RecordsOf(id)))
	}
	set(t, leaf, facts(1))
	if n := len(leaf.RecordsOf(id)); n != 0 {
		t.Errorf("it tells %d records after its end", n)
	}
}
