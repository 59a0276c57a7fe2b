package gossip

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/hashicorp/memberlist"
)

// Members come, go and move; who is chosen at random is always one of them, each
// of them sometimes, and none twice.
func TestMembersChosenAtRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	var m members
	m.init()
	there := make(map[string]netip.AddrPort)
	for step := range 2000 {
		name := fmt.Sprintf("site-%d/gw", rng.IntN(20))
		n := &memberlist.Node{Name: name, Addr: []byte{192, 0, 2, byte(rng.IntN(4))}, Port: 7946, Meta: []byte{1}}
		if rng.IntN(3) > 0 {
			m.set(n, bytes.Clone)
			there[name] = addrOf(n)
		} else {
			m.remove(n)
			delete(there, name)
		}
		want := rng.IntN(25)
		self := fmt.Sprintf("site-%d/gw", rng.IntN(20))
		others := len(there)
		if _, ok := there[self]; ok {
			others--
		}
		got := m.some(self, want)
		seen := make(map[string]bool)
		for _, name := range got {
			if _, ok := there[name]; !ok || name == self || seen[name] {
				t.Fatalf("step %d: %v of %v, self %s", step, got, there, self)
			}
			seen[name] = true
		}
		if len(got) != min(want, others) {
			t.Fatalf("step %d: %d members, want %d of %d", step, len(got), want, others)
		}
		set := make(map[netip.AddrPort]bool)
		for i := range 4 {
			set[netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 7946)] = true
		}
		m.withoutMembers(set)
		for _, addr := range there {
			if set[addr] {
				t.Fatalf("step %d: %v is a member's", step, addr)
			}
		}
		inUse := make(map[netip.AddrPort]bool)
		for _, addr := range there {
			inUse[addr] = true
		}
		if len(set) != 4-len(inUse) {
			t.Fatalf("step %d: %d addresses are no member's, want %d", step, len(set), 4-len(inUse))
		}
	}
	chosen := make(map[string]int)
	for range 1000 * len(there) {
		chosen[m.some("", 1)[0]]++
	}
	for name := range there {
		if n := chosen[name]; n < 800 || n > 1200 {
			t.Errorf("%s was chosen %d times, want about 1000", name, n)
		}
	}
}
