package dnsd

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"slicewire/overlay"
)

// What is kept from one view to the next makes no difference to the answers.
func TestAnswersAreThoseOfAServerThatNeverHadAnotherView(t *testing.T) {
	const seed = 3
	rnd := rand.New(rand.NewPCG(seed, 0))
	zones := []string{"slice.local", "clusterset.local", "svc.corp.example"}
	s, err := New(Config{Zones: zones})
	if err != nil {
		t.Fatal(err)
	}
	reach := map[overlay.NodeID]overlay.Reach{{Site: "west", Node: "n"}: {Rank: 3}}
	var all []overlay.ServiceView
	kept := 0
	for step := range 400 {
		all = slices.Clone(all)
		i := rnd.IntN(8)
		x := testService(fmt.Sprintf("s%d", i), overlay.ServiceType(rnd.IntN(2)))
		if x.Type == overlay.Virtual {
			x.Virtual = netip.AddrFrom4([4]byte{198, 18, 0, byte(1 + i)})
		}
		if rnd.IntN(4) == 0 {
			x.DNSNames = append(x.DNSNames, fmt.Sprintf("www%d.example", rnd.IntN(2)))
		}
		for k := range rnd.IntN(4) {
			x.Endpoints = append(x.Endpoints, at([]string{"east", "west"}[k%2], fmt.Sprintf("e%d", k), fmt.Sprintf("10.1.%d.%d", i, k)))
		}
		all = slices.DeleteFunc(all, func(y overlay.ServiceView) bool { return y.Name == x.Name })
		if rnd.IntN(5) > 0 {
			all = append(all, x)
		}
		v := View{Services: all, Reach: reach, Reverse: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("198.18.0.0/15")}}
		switch rnd.IntN(12) {
		case 0:
			reach = map[overlay.NodeID]overlay.Reach{{Site: "west", Node: "n"}: {Rank: uint8(rnd.IntN(4)), Lost: rnd.IntN(2) == 0}}
			v.Reach = reach
		case 1:
			v.Mode = One
		case 2:
			v.StandIns = map[string]StandIn{"shop/s1": {Addrs: addrs("10.96.0.1")}}
		case 3:
			v.Entries = []Entry{{Name: "s2.shop.svc.slice.local", Addrs: addrs("10.9.9.9")}}
		}
		before := s.view.Load()
		s.Set(v)
		for name, r := range before.names {
			if r.svc != nil && s.view.Load().names[name] == r {
				kept++
			}
		}
		fresh, err := New(Config{Zones: zones})
		if err != nil {
			t.Fatal(err)
		}
		fresh.Set(v)
		for i := range 8 {
			for _, name := range []string{fmt.Sprintf("s%d.shop.svc.slice.local", i), fmt.Sprintf("s%d.shop.svc.clusterset.local", i), fmt.Sprintf("s%d.shop.svc.corp.example", i),
				fmt.Sprintf("e0.east.s%d.shop.svc.slice.local", i), fmt.Sprintf("www%d.example", i)} {
				got, _ := s.Lookup(name)
				want, _ := fresh.Lookup(name)
				slices.SortFunc(got, netip.Addr.Compare) // turns may differ
				slices.SortFunc(want, netip.Addr.Compare)
				if v.Mode != One && !slices.Equal(got, want) || len(got) != len(want) {
					t.Fatalf("seed %d, step %d, %s: %v, want %v", seed, step, name, got, want)
				}
			}
			for k := range 4 {
				a := netip.AddrFrom4([4]byte{10, 1, byte(i), byte(k)})
				got, want := s.view.Load().namesOf(a), fresh.view.Load().namesOf(a)
				slices.Sort(got)
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Fatalf("seed %d, step %d, %v: %v, want %v", seed, step, a, got, want)
				}
			}
		}
		if got, want := s.Stats().Names, fresh.Stats().Names; got != want {
			t.Fatalf("seed %d, step %d: %d names, want %d", seed, step, got, want)
		}
	}
	if kept < 1000 {
		t.Errorf("only %d records were kept: this proves nothing", kept)
	}
}
