package overlay

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

var workloadBlock = netip.MustParsePrefix("10.9.8.16/28") // room for 13

func assign(t *testing.T, previous map[string]netip.Addr, backends []string, workloads ...Workload) map[string]BackendAddr {
	t.Helper()
	got, err := assignBoth(workloadBlock, testBlock6, previous, backends, workloads)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestALivingWorkloadKeepsItsAddressWhateverIsPublished(t *testing.T) {
	// Find the address that backend "a" would take, and have a workload live there.
	wanted := assign(t, nil, []string{"n/s/a"})["n/s/a"]
	w := Workload{Slice: "blue", Name: "x", Addr: wanted.Addr}
	got := assign(t, nil, []string{"n/s/a"}, w)
	if got[w.key()] != wanted || got["n/s/a"].Addr == wanted.Addr {
		t.Errorf("the workload had %v; got %v", wanted.Addr, got)
	}
	// A backend that was removed and had that address does not get it back either.
	got = assign(t, map[string]netip.Addr{"n/s/gone": wanted.Addr}, []string{"n/s/a"}, w)
	if got[w.key()] != wanted {
		t.Errorf("moved: %v", got)
	}
}

func TestTheSameNameFindsTheSameAddress(t *testing.T) {
	w := Workload{Slice: "blue", Name: "x"}
	first := assign(t, nil, []string{"n/s/a"}, w)[w.key()]
	if again := assign(t, nil, []string{"n/s/a"}, w, Workload{Slice: "blue", Name: "y", Addr: netip.MustParseAddr("10.9.8.30")})[w.key()]; again != first && first.Addr.String() != "10.9.8.30" {
		t.Errorf("%v, then %v", first, again)
	}
}

func TestAFullBlockKeepsBackendsThenLivingWorkloads(t *testing.T) {
	var backends []string
	for i := range 11 {
		backends = append(backends, fmt.Sprintf("n/s/b%02d", i))
	}
	before := assign(t, nil, backends)
	previous := map[string]netip.Addr{}
	for name, a := range before {
		previous[name] = a.Addr
	}
	one := Workload{Slice: "blue", Name: "zz"} // last by name, but it lives
	one.Addr = assign(t, previous, backends, one)[one.key()].Addr
	got := assign(t, previous, backends, Workload{Slice: "blue", Name: "aa"}, Workload{Slice: "blue", Name: "bb"}, one)
	if len(got) != 13 {
		t.Errorf("%d of 13 addresses are given", len(got))
	}
	if got[one.key()].Addr != one.Addr {
		t.Errorf("the living workload moved from %v: %v", one.Addr, got)
	}
	if _, ok := got["workload:bb"]; ok {
		t.Error("the newcomer without room has an address")
	}
	// Two more backends, and the newcomer's place is theirs.
	got = assign(t, previous, append(backends, "n/s/b11", "n/s/b12"), one)
	if _, ok := got[one.key()]; ok || len(got) != 13 {
		t.Errorf("published services have no room because of a workload: %v", got)
	}
}

// TestWorkloadsAndBackendsNeverCollide lets both come and go at random, as a
// daemon would, against a table of who has which address.
func TestWorkloadsAndBackendsNeverCollide(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	previous := map[string]netip.Addr{}
	living := map[string]netip.Addr{}
	for range 2000 {
		var backends []string
		for i := range 6 {
			if r.IntN(2) == 0 {
				backends = append(backends, fmt.Sprintf("n/s/b%d", i))
			}
		}
		var workloads []Workload
		for i := range 10 {
			name := fmt.Sprintf("w%d", i)
			if r.IntN(3) == 0 {
				delete(living, name)
				continue
			}
			workloads = append(workloads, Workload{Slice: "blue", Name: name, Addr: living[name]})
		}
		r.Shuffle(len(workloads), func(i, j int) { workloads[i], workloads[j] = workloads[j], workloads[i] })
		got := assign(t, previous, backends, workloads...)
		owner := map[netip.Addr]string{}
		for name, a := range got {
			if other, taken := owner[a.Addr]; taken {
				t.Fatalf("%s and %s share %v", name, other, a.Addr)
			}
			owner[a.Addr] = name
			if !workloadBlock.Contains(a.Addr) || !testBlock6.Contains(a.Addr6) || a.Addr == NodeAddr(workloadBlock) {
				t.Fatalf("%s has %v", name, a)
			}
		}
		for _, b := range backends {
			if _, ok := got[b]; !ok {
				t.Fatalf("%s has no address", b)
			}
		}
		for _, w := range workloads {
			a, ok := got[w.key()]
			if !ok {
				if w.Addr.IsValid() && len(got) < 13 {
					t.Fatalf("%s lost its address though there is room", w.Name)
				}
				delete(living, w.Name)
				continue
			}
			if w.Addr.IsValid() && w.Addr != a.Addr {
				t.Fatalf("%s moved from %v to %v", w.Name, w.Addr, a.Addr)
			}
			living[w.Name] = a.Addr
		}
		clear(previous)
		for _, b := range backends {
			previous[b] = got[b].Addr
		}
	}
}

func TestAttachPlacesWorkloadsOnTheirSliceAlone(t *testing.T) {
	a := Attachment{Slice: "blue", Block: workloadBlock, Block6: testBlock6, Addr: NodeAddr(workloadBlock), Addr6: NodeAddr6(testBlock6)}
	all := []Workload{{Slice: "blue", Name: "y"}, {Slice: "red", Name: "y"}, {Slice: "red", Name: "z"}, {Slice: "blue", Name: "x"}}
	if errs := a.addBackends(&Slice{Name: "blue"}, nil, all, nil); errs != nil {
		t.Fatal(errs)
	}
	var names []string
	for _, w := range a.Workloads {
		names = append(names, w.Name)
		if slices.Contains(a.Owned(), w.Addr) {
			t.Errorf("the node itself answers on %v of %s", w.Addr, w.Name)
		}
	}
	if !slices.Equal(names, []string{"x", "y"}) {
		t.Errorf("workloads of blue: %v", names)
	}
	if _, ok := a.Workload("z"); ok {
		t.Error("red's workload is on blue")
	}
	if len(a.Addresses()) != 0 {
		t.Errorf("workloads are remembered beyond their life: %v", a.Addresses())
	}
}
