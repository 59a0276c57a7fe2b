package overlay

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"testing"
	"time"
)

func TestPoolFollowsKubeSlicesOrderOfChoice(t *testing.T) {
	t0 := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p := Pool{Subnet: netip.MustParsePrefix("10.1.0.0/16"), Bits: 24}
	join := func(site string, now time.Time, want string) {
		t.Helper()
		next, got, err := p.Join(site, now)
		if err != nil || got.String() != want {
			t.Errorf("%s at %v: got %v, %v, want %s", site, now.Sub(t0), got, err, want)
		}
		p = next
	}
	if p.Capacity() != 256 || p.Available() != 256 {
		t.Errorf("capacity %d, available %d", p.Capacity(), p.Available())
	}
	join("a", t0, "10.1.0.0/24")
	join("b", t0, "10.1.1.0/24")
	join("a", t0, "10.1.0.0/24") // what it has
	before := p
	p = p.Leave("a", t0)
	if before.Allocations[0].Status != SubnetAllocated {
		t.Error("Leave changed the state it was called on")
	}
	if p.Available() != 255 {
		t.Errorf("available after leaving: %d", p.Available())
	}
	join("c", t0.Add(ReclaimAfter-time.Second), "10.1.2.0/24") // too early to reclaim: the lowest unused
	join("a", t0.Add(ReclaimAfter-time.Second), "10.1.0.0/24") // its own again
	p = p.Leave("a", t0)
	join("d", t0.Add(ReclaimAfter), "10.1.0.0/24") // reclaimed before a never-used one
	join("a", t0.Add(ReclaimAfter), "10.1.3.0/24") // its own is gone
	p = p.Leave("b", t0)
	join("b", t0.Add(1000*time.Hour), "10.1.1.0/24") // its own, however old
	p = p.Leave("nobody", t0)
}

func TestAPoolRunsOut(t *testing.T) {
	now := time.Unix(0, 0)
	p := Pool{Subnet: netip.MustParsePrefix("10.1.0.0/28"), Bits: 30}
	for i := range 4 {
		next, _, err := p.Join("s"+strconv.Itoa(i), now)
		if err != nil {
			t.Fatal(err)
		}
		p = next
	}
	if _, _, err := p.Join("one-more", now); !errors.Is(err, ErrNoSubnets) {
		t.Errorf("got %v, want %v", err, ErrNoSubnets)
	}
	if _, err := p.NthSubnet(4); !errors.Is(err, ErrNoSubnets) {
		t.Errorf("subnet 4 of 4: %v", err)
	}
	if s, err := p.NthSubnet(3); err != nil || s.String() != "10.1.0.12/30" {
		t.Errorf("subnet 3: %v, %v", s, err)
	}
}

func TestPoolSubnetsStayDisjointOverAnyHistory(t *testing.T) {
	const seed = 11
	r := rand.New(rand.NewPCG(seed, 0))
	p := Pool{Subnet: netip.MustParsePrefix("192.168.0.0/20"), Bits: 24}
	now := time.Unix(1e9, 0)
	for range 3000 {
		now = now.Add(time.Duration(r.IntN(7200)) * time.Second)
		site := "s" + strconv.Itoa(r.IntN(24))
		if r.IntN(2) == 0 {
			p = p.Leave(site, now)
		} else if next, _, err := p.Join(site, now); err == nil {
			p = next
		} else if p.Available() > 0 && len(p.Allocations) < p.Capacity() {
			t.Fatalf("seed %d: %v with unused subnets", seed, err)
		}
		var all []netip.Prefix
		for _, a := range p.Allocations {
			all = append(all, a.Prefix)
		}
		checkDisjointInside(t, p.Subnet, all)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}
