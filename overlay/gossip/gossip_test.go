package gossip

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"slicewire/overlay"
)

const patience = 20 * time.Second

// eventually polls until ok or patience ends.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// leakCheck waits for memberlist's prober too, which may outlive Run by a probe.
func leakCheck(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		eventually(t, "all goroutines end", func() bool { return goleak.Find(ignore) == nil })
	})
}

// clock is a wall clock that tests move. The zero offset is begin at start.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: begin} }
func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}
func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

var testKey = []byte("0123456789abcdef0123456789abcdef")

func testConfig(t testing.TB, ca *authority, n int) Config {
	return Config{
		Self: allowed(n).ID, Mesh: testMesh, Key: testKey, Bind: netip.MustParseAddrPort("127.0.0.1:0"),
		Signer: ca.issue(t, allowed(n)), Verifier: ca, Epoch: 1, Life: time.Hour, Now: newClock().Now,
	}
}

func newTest(t testing.TB, cfg Config) *Gossip {
	t.Helper()
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// start runs g until the returned stop, which waits for its end.
func start(t testing.TB, g *Gossip) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("Run: %v", err)
				}
			case <-time.After(patience):
				t.Error("Run does not end")
			}
		})
	}
	t.Cleanup(stop)
	select {
	case <-g.Ready():
	case <-time.After(patience):
		t.Fatal("not ready")
	}
	return stop
}

func set(t testing.TB, g *Gossip, facts []overlay.Record) {
	t.Helper()
	if err := g.Set(facts); err != nil {
		t.Fatal(err)
	}
}

func of(records []overlay.Record, id overlay.NodeID) []overlay.Record {
	return slices.DeleteFunc(slices.Clone(records), func(r overlay.Record) bool { return r.Origin != id })
}

func TestThreeNodesLearnEverythingWithinASecond(t *testing.T) {
	leakCheck(t)
	ca := newAuthority("ca")
	var nodes []*Gossip
	for n := range 3 {
		nodes = append(nodes, newTest(t, testConfig(t, ca, n)))
		set(t, nodes[n], facts(n))
	}
	began := time.Now()
	for n, g := range nodes {
		if n > 0 {
			g.SetSeeds([]string{nodes[0].Addr().String()})
		}
		start(t, g)
	}
	for _, g := range nodes {
		eventually(t, "12 records everywhere", func() bool { return len(g.Records()) == 12 })
	}
	t.Logf("three nodes started and converged in %v", time.Since(began))
	want := nodes[0].Records()
	for n, g := range nodes {
		if !reflect.DeepEqual(g.Records(), want) {
			t.Errorf("node %d holds other records than node 0", n)
		}
		eventually(t, "three proven members", func() bool {
			proven := 0
			for _, m := range g.Members() {
				if m.State == StateProven {
					proven++
				}
			}
			return proven == 3
		})
	}

	// A small change goes by broadcast, a withdrawal too.
	began = time.Now()
	changed := facts(1)
	changed[0].Node.Endpoints[0] = netip.MustParseAddrPort("198.51.100.9:1")
	set(t, nodes[1], changed[:3])
	for _, g := range nodes {
		eventually(t, "the change everywhere", func() bool {
			mine := of(g.Records(), allowed(1).ID)
			return len(mine) == 3 && mine[0].Node.Endpoints[0].Port() == 1
		})
	}
	t.Logf("a change and a withdrawal were everywhere after %v", time.Since(began))

	// What is too large for a packet goes by stream.
	began = time.Now()
	set(t, nodes[1], append(changed[:3:3], service(1, "big", 200)))
	for _, g := range nodes {
		eventually(t, "the large record everywhere", func() bool { return len(of(g.Records(), allowed(1).ID)) == 4 })
	}
	t.Logf("a record of 200 endpoints was everywhere after %v", time.Since(began))

	// A newcomer that knows one member learns all, and all learn of it.
	began = time.Now()
	late := newTest(t, testConfig(t, ca, 3))
	set(t, late, facts(3))
	late.SetSeeds([]string{nodes[2].Addr().String()})
	start(t, late)
	for _, g := range append(nodes, late) {
		eventually(t, "16 records everywhere", func() bool { return len(g.Records()) == 16 })
	}
	t.Logf("a newcomer had everything, and all had the newcomer's, after %v", time.Since(began))
	for _, g := range append(nodes, late) {
		for reason, count := range g.Refused() {
			if reason != RefusedStale {
				t.Errorf("%v refused %d for %q among friends", g.cfg.Self, count, reason)
			}
		}
	}
}

func TestSeedsMayComeUpLater(t *testing.T) {
	leakCheck(t)
	ca := newAuthority("ca")
	a, b := newTest(t, testConfig(t, ca, 0)), newTest(t, testConfig(t, ca, 1))
	set(t, a, facts(0))
	set(t, b, facts(1))
	a.SetSeeds([]string{"127.0.0.1:1", "not an address", "nobody.invalid:7946"})
	start(t, a)
	start(t, b)
	a.SetSeeds([]string{"127.0.0.1:1", b.Addr().String(), a.Addr().String()})
	eventually(t, "both know both", func() bool { return len(a.Records()) == 8 && len(b.Records()) == 8 })
}

func TestAnotherKeyOrMeshDoesNotJoin(t *testing.T) {
	leakCheck(t)
	ca := newAuthority("ca")
	a := newTest(t, testConfig(t, ca, 0))
	set(t, a, facts(0))
	start(t, a)
	wrongKey := testConfig(t, ca, 1)
	wrongKey.Key = []byte("another key, of thirty-two bytes")
	wrongMesh := testConfig(t, ca, 2)
	wrongMesh.Mesh = "other"
	friend := newTest(t, testConfig(t, ca, 3))
	set(t, friend, facts(3))
	var strangers []*Gossip
	for _, cfg := range []Config{wrongKey, wrongMesh} {
		g := newTest(t, cfg)
		set(t, g, facts(int(cfg.Self.Site[5]-'a')))
		g.SetSeeds([]string{a.Addr().String()})
		start(t, g)
		strangers = append(strangers, g)
		network := g.net.Load()
		if _, err := network.list.Join([]string{a.Addr().String()}); err == nil {
			t.Errorf("%v joined", cfg.Self)
		}
	}
	friend.SetSeeds([]string{a.Addr().String()})
	start(t, friend)
	eventually(t, "the friend joins all the same", func() bool { return len(friend.Records()) == 8 && len(a.Records()) == 8 })
	for _, g := range strangers {
		if len(g.Records()) != 4 || g.members.count() != 1 {
			t.Errorf("%v holds %d records, %d members", g.cfg.Self, len(g.Records()), g.members.count())
		}
	}
}

func TestARestartReplacesWhatWasSaidBefore(t *testing.T) {
	leakCheck(t)
	ca := newAuthority("ca")
	a, first := newTest(t, testConfig(t, ca, 0)), newTest(t, testConfig(t, ca, 1))
	set(t, a, facts(0))
	set(t, first, facts(1))
	start(t, a)
	first.SetSeeds([]string{a.Addr().String()})
	stop := start(t, first)
	eventually(t, "both know both", func() bool { return len(a.Records()) == 8 && len(first.Records()) == 8 })
	stop()

	// The second life remembers nothing, and has one fact less to tell.
	cfg := testConfig(t, ca, 1)
	cfg.Epoch = 2
	second := newTest(t, cfg)
	set(t, second, facts(1)[:3])
	second.SetSeeds([]string{a.Addr().String()})
	start(t, second)
	eventually(t, "the second life's facts, and no other", func() bool {
		mine := of(a.Records(), allowed(1).ID)
		return len(mine) == 3 && !slices.ContainsFunc(mine, func(r overlay.Record) bool { return r.Version.Epoch != 2 })
	})
	eventually(t, "the second life knows all", func() bool { return len(second.Records()) == 7 })
}

func TestALostEpochIsFoundAgain(t *testing.T) {
	leakCheck(t)
	ca := newAuthority("ca")
	cfg := testConfig(t, ca, 1)
	cfg.Epoch = 40
	a, first := newTest(t, testConfig(t, ca, 0)), newTest(t, cfg)
	set(t, first, facts(1))
	start(t, a)
	first.SetSeeds([]string{a.Addr().String()})
	stop := start(t, first)
	eventually(t, "a knows the first life", func() bool { return len(a.Records()) == 4 })
	stop()
	second := newTest(t, testConfig(t, ca, 1)) // epoch 1 again
	changed := facts(1)
	changed[0].Node.Endpoints[0] = netip.MustParseAddrPort("198.51.100.9:1")
	set(t, second, changed)
	second.SetSeeds([]string{a.Addr().String()})
	start(t, second)
	eventually(t, "the new endpoint", func() bool {
		mine := of(a.Records(), allowed(1).ID)
		return len(mine) == 4 && mine[0].Node.Endpoints[0].Port() == 1
	})
	if e := second.Epoch(); e <= 40 {
		t.Errorf("epoch %d, want more than 40", e)
	}
	if second.Refused()[RefusedClone] == 0 {
		t.Error("nobody was told")
	}
}

func TestMembersWithoutProof(t *testing.T) {
	ca := newAuthority("ca")
	g := newTest(t, testConfig(t, ca, 0))
	thief := newAuthority("thief").issue(t, allowed(1))
	friend := newTest(t, testConfig(t, ca, 1))
	at := netip.MustParseAddrPort("127.0.0.1:7946")
	good := friend.meta(at)
	name := allowed(1).ID.String()
	if p := g.proves(name, at, good); p != unknown {
		t.Fatalf("a member whose certificate never came: %v", p)
	}
	set(t, friend, facts(1))
	if n, err := g.Restore(friend.Snapshot()); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	forged := slices.Clone(good)
	copy(forged[33:], thief.Sign(signMember, memberClaim(name, at)))
	for _, tt := range []struct {
		what, name string
		at         netip.AddrPort
		meta       []byte
		want       proof
	}{
		{"the member itself", name, at, good, proven},
		{"once more", name, at, good, proven},
		{"another's name", allowed(2).ID.String(), at, good, disproved},
		{"another address", name, netip.MustParseAddrPort("127.0.0.2:7946"), good, disproved},
		{"another port", name, netip.MustParseAddrPort("127.0.0.1:7947"), good, disproved},
		{"a forged signature", name, at, forged, disproved},
		{"a signature for records", name, at, append(slices.Clone(good[:33]), friend.cfg.Signer.Sign(signRecord, memberClaim(name, at))...), disproved},
		{"no metadata", name, at, nil, disproved},
		{"a byte too many", name, at, append(slices.Clone(good), 0), disproved},
		{"a name that is none", "x", at, good, disproved},
		{"no address", name, netip.AddrPort{}, good, disproved},
	} {
		if p := g.proves(tt.name, tt.at, tt.meta); p != tt.want {
			t.Errorf("%s: %v, want %v", tt.what, p, tt.want)
		}
	}
}

func TestConfigsThatAreRefused(t *testing.T) {
	ca := newAuthority("ca")
	for name, change := range map[string]func(*Config){
		"no self":             func(c *Config) { c.Self = overlay.NodeID{} },
		"a short key":         func(c *Config) { c.Key = c.Key[:16] },
		"no mesh":             func(c *Config) { c.Mesh = "" },
		"a long mesh":         func(c *Config) { c.Mesh = strings.Repeat("x", 256) },
		"nowhere to bind":     func(c *Config) { c.Bind = netip.AddrPort{} },
		"anywhere":            func(c *Config) { c.Bind = netip.MustParseAddrPort("0.0.0.0:7946") },
		"advertising nowhere": func(c *Config) { c.Advertise = netip.MustParseAddrPort("[::]:7946") },
		"no signer":           func(c *Config) { c.Signer = nil },
		"no verifier":         func(c *Config) { c.Verifier = nil },
		"no chain":            func(c *Config) { c.Signer = &identity{} },
		"records for seconds": func(c *Config) { c.Life = time.Second },
	} {
		cfg := testConfig(t, ca, 0)
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestAnAddressInUseEndsRun(t *testing.T) {
	ca := newAuthority("ca")
	a := newTest(t, testConfig(t, ca, 0))
	start(t, a)
	cfg := testConfig(t, ca, 1)
	cfg.Bind = a.Addr()
	if err := newTest(t, cfg).Run(t.Context()); err == nil || !strings.Contains(err.Error(), fmt.Sprint(a.Addr().Port())) {
		t.Fatalf("error %v", err)
	}
}
