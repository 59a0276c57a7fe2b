package gossip

import (
	"net/netip"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// twins are two running nodes with one identity, and a friend that both know.
func twins(t *testing.T, epochs [2]uint64) (twins [2]*Gossip, friend *Gossip) {
	t.Helper()
	ca := newAuthority("ca")
	friend = newTest(t, testConfig(t, ca, 0))
	set(t, friend, facts(0))
	start(t, friend)
	for n, epoch := range epochs {
		cfg := testConfig(t, ca, 1)
		cfg.Epoch = epoch
		twins[n] = newTest(t, cfg)
		mine := facts(1)
		mine[0].Node.Endpoints[0] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(n)}), 51820)
		set(t, twins[n], mine)
		twins[n].SetSeeds([]string{friend.Addr().String()})
		start(t, twins[n])
	}
	return twins, friend
}

// A state folder that was copied and started a second time, later: its twin's
// records are of a later life than its own.
func TestALaterCloneIsNoticed(t *testing.T) {
	leakCheck(t)
	twins, friend := twins(t, [2]uint64{8, 9})
	eventually(t, "the friend knows the node", func() bool { return len(of(friend.Records(), allowed(1).ID)) == 4 })
	twins[1].publish(ownRaws(twins[1])) // as whenever something changes
	eventually(t, "an alarm", func() bool { return twins[0].Refused()[RefusedClone] > 0 })
}

func ownRaws(g *Gossip) (raws [][]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, h := range g.ledger.Of(g.cfg.Self) {
		raws = append(raws, h.Raw)
	}
	return raws
}

// One that was started at the very same moment says other things in the same
// versions.
func TestACloneOfTheSameEpochIsNoticed(t *testing.T) {
	leakCheck(t)
	twins, friend := twins(t, [2]uint64{7, 7})
	eventually(t, "the friend knows the node", func() bool { return len(of(friend.Records(), allowed(1).ID)) == 4 })
	for _, g := range twins {
		g.publish(ownRaws(g))
	}
	eventually(t, "an alarm", func() bool { return friend.Refused()[RefusedClone] > 0 })
}

// One that has nothing new to say is noticed all the same: it wants to be
// reached elsewhere.
func TestAQuietCloneIsNoticedByItsAddress(t *testing.T) {
	ca := newAuthority("ca")
	g, clone := newTest(t, testConfig(t, ca, 0)), newTest(t, testConfig(t, ca, 1))
	set(t, clone, facts(1))
	if _, err := g.Restore(clone.Snapshot()); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, tt := range []struct {
		name  string
		after []time.Duration
		alarm bool
	}{
		{"a node that starts again elsewhere", []time.Duration{0, time.Second, 5 * time.Second, 12 * time.Second}, false},
		{"one that does so twice", []time.Duration{0, 5 * time.Second, 3 * time.Minute, 3*time.Minute + 5*time.Second}, false},
		{"two of them", []time.Duration{0, 15 * time.Second, 30 * time.Second}, true},
		{"two that are seen seldom", []time.Duration{0, 50 * time.Second, 100 * time.Second}, true},
	} {
		alarm := false
		for _, d := range tt.after {
			alarm = g.members.twin(tt.name, now.Add(d))
		}
		if alarm != tt.alarm {
			t.Errorf("%s: alarm %v, want %v", tt.name, alarm, tt.alarm)
		}
	}
	d := delegate{g, nil}
	at := netip.MustParseAddrPort("127.0.0.1:7946")
	node := &memberlist.Node{Name: allowed(1).ID.String(), Addr: at.Addr().AsSlice(), Port: at.Port(), Meta: clone.meta(at)}
	g.members.twins[node.Name] = seenTwice(30 * time.Second)
	forged := *node
	forged.Port++
	d.NotifyConflict(node, &forged)
	if n := g.Refused()[RefusedClone]; n != 0 {
		t.Errorf("%d alarms by somebody without the key", n)
	}
	d.NotifyConflict(node, node)
	if n := g.Refused()[RefusedClone]; n != 1 {
		t.Errorf("%d alarms, want 1", n)
	}
}

func seenTwice(ago time.Duration) twin {
	return twin{first: time.Now().Add(-ago), last: time.Now(), count: 2}
}
