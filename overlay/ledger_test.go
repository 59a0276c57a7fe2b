package overlay

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

func ledgerRecord(node string, name string, epoch, seq uint64) (Record, []byte) {
	r := Record{
		Origin: NodeID{"site", node}, Key: Key{KindService, "water", name}, Version: Version{epoch, seq},
		NotAfter: testNow.Add(time.Hour), Service: &ServiceBody{},
	}
	return r, fmt.Appendf(nil, "%s %s %d %d", node, name, epoch, seq)
}

func offer(l *Ledger, node, name string, epoch, seq uint64) Verdict {
	return l.Offer(ledgerRecord(node, name, epoch, seq))
}

func TestTheNewestVersionOfAKeyWins(t *testing.T) {
	var l Ledger
	for _, step := range []struct {
		what       string
		node, name string
		epoch, seq uint64
		want       Verdict
	}{
		{"the first", "a", "x", 1, 5, New},
		{"the same again", "a", "x", 1, 5, Same},
		{"an older one", "a", "x", 1, 4, Old},
		{"a newer one", "a", "x", 1, 6, New},
		{"another key, older", "a", "y", 1, 2, New},
		{"another node", "b", "x", 1, 1, New},
		{"a new epoch", "a", "x", 2, 1, New},
		{"the epoch before", "a", "x", 1, 9, Old},
	} {
		if got := offer(&l, step.node, step.name, step.epoch, step.seq); got != step.want {
			t.Errorf("%s: %v, want %v", step.what, got, step.want)
		}
	}
	r, _ := ledgerRecord("a", "x", 2, 1)
	if v := l.Offer(r, []byte("other bytes")); v != Conflict {
		t.Errorf("other bytes: %v", v)
	}
	var got []string
	for _, r := range l.Records(testNow) {
		got = append(got, fmt.Sprint(r.Origin.Node, r.Key.Name, r.Version))
	}
	if want := []string{"ax{2 1}", "ay{1 2}", "bx{1 1}"}; !slices.Equal(got, want) {
		t.Errorf("holds %v, want %v", got, want)
	}
	if v := l.Newest(NodeID{"site", "a"}); v != (Version{2, 1}) {
		t.Errorf("newest %v", v)
	}
}

func TestFloorsOutliveRecords(t *testing.T) {
	var l Ledger
	offer(&l, "a", "x", 1, 5)
	r, raw := ledgerRecord("a", "x", 1, 6)
	r.Deleted, r.Service = true, nil
	if v := l.Offer(r, raw); v != New {
		t.Fatal(v)
	}
	if len(l.Records(testNow)) != 0 || len(l.Of(r.Origin)) != 1 {
		t.Error("the tombstone is shown, or not kept")
	}
	if n := l.Expire(testNow.Add(time.Hour)); n != 1 || len(l.Summary()) != 0 {
		t.Errorf("%d expired, summary %v", n, l.Summary())
	}
	if v := offer(&l, "a", "x", 1, 5); v != Old {
		t.Errorf("the old record comes back: %v", v)
	}
	var next Ledger
	for _, f := range l.Floors() {
		next.RaiseFloor(f)
	}
	if v := offer(&next, "a", "x", 1, 5); v != Old {
		t.Errorf("the old record comes back after a restart: %v", v)
	}
	if v := offer(&next, "a", "x", 1, 7); v != New {
		t.Errorf("a newer one: %v", v)
	}
	if !reflect.DeepEqual(next.Newest(r.Origin), Version{1, 7}) {
		t.Errorf("newest %v", next.Newest(r.Origin))
	}
}

func TestFloorsAreBounded(t *testing.T) {
	var l Ledger
	now := testNow
	const n = 3 * maxFloorsPerOrigin
	for i := range n {
		r, raw := ledgerRecord("a", fmt.Sprint(i), 1, uint64(i+1))
		r.NotAfter = now.Add(time.Second)
		if v := l.Offer(r, raw); v != New {
			t.Fatalf("record %d: %v", i, v)
		}
		if i%500 == 499 {
			now = now.Add(2 * time.Second)
			l.Expire(now)
		}
	}
	if f := l.Floors(); len(f) > maxFloorsPerOrigin+1 || f[0].Key != (Key{}) {
		t.Errorf("%d floors, the first %v", len(f), f[0])
	}
	for _, i := range []int{0, 100, n / 2, n - 2} {
		if v := offer(&l, "a", fmt.Sprint(i), 1, uint64(i)); v != Old {
			t.Errorf("record %d in an older version: %v", i, v)
		}
	}
}

func TestLimitsOfOneOrigin(t *testing.T) {
	var l Ledger
	for i := range MaxRecordsPerOrigin {
		if v := offer(&l, "a", fmt.Sprint(i), 1, 1); v != New {
			t.Fatalf("record %d: %v", i, v)
		}
	}
	if v := offer(&l, "a", "one more", 1, 1); v != Full {
		t.Errorf("one more: %v", v)
	}
	if v := offer(&l, "a", "7", 1, 2); v != New {
		t.Errorf("a newer version of one: %v", v)
	}
	if v := offer(&l, "b", "7", 1, 1); v != New {
		t.Errorf("another origin: %v", v)
	}
	r, _ := ledgerRecord("c", "x", 1, 1)
	if v := l.Offer(r, make([]byte, MaxBytesPerOrigin)); v != New {
		t.Errorf("as many bytes as may be: %v", v)
	}
	r.Key.Name = "y"
	if v := l.Offer(r, []byte{1}); v != Full {
		t.Errorf("a byte more: %v", v)
	}
	r.Key.Name, r.Version.Seq = "x", 2
	if v := l.Offer(r, make([]byte, MaxBytesPerOrigin+1)); v != Full {
		t.Errorf("a larger version: %v", v)
	}
	if v := l.Offer(r, []byte{1}); v != New {
		t.Errorf("a smaller version: %v", v)
	}
}

func TestOriginsAreBounded(t *testing.T) {
	var l Ledger
	for i := range MaxOrigins {
		offer(&l, fmt.Sprint(i), "x", 1, 1)
	}
	if v := offer(&l, "one more", "x", 1, 1); v != Full {
		t.Errorf("one more: %v", v)
	}
	l.Expire(testNow.Add(2 * time.Hour))
	if v := offer(&l, "one more", "x", 1, 1); v != New || len(l.Origins()) != MaxOrigins {
		t.Errorf("after the others expired: %v, %d origins", v, len(l.Origins()))
	}
}

// Two ledgers that hear different halves of what is said hold the same after
// they have exchanged what Compare and Missing tell them to.
func TestLedgersConverge(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var a, b Ledger
		for range 300 {
			node, name := fmt.Sprint(rng.IntN(6)), fmt.Sprint(rng.IntN(20))
			r, raw := ledgerRecord(node, name, 1+rng.Uint64N(3), rng.Uint64N(10))
			r.Deleted = r.Version.Seq == 9
			if rng.IntN(3) > 0 {
				a.Offer(r, raw)
			}
			if rng.IntN(3) > 0 {
				b.Offer(r, raw)
			}
		}
		byRaw := make(map[string]Record)
		for _, l := range []*Ledger{&a, &b} {
			for _, id := range l.Origins() {
				for _, h := range l.Of(id) {
					byRaw[string(h.Raw)] = h.Record
				}
			}
		}
		tell := func(from, to *Ledger, id NodeID, marks []Mark) {
			for _, raw := range from.Missing(id, marks) {
				if v := to.Offer(byRaw[string(raw)], raw); v != New {
					t.Fatalf("seed %d: told what is %v", seed, v)
				}
			}
		}
		push, pull := a.Compare(b.Summary(), AllParts)
		for _, id := range a.Origins() {
			if got, want := a.Lacks(id, b.Marks(id)), len(b.Missing(id, a.Marks(id))) > 0; got != want {
				t.Fatalf("seed %d: lacks %v, would be told something %v", seed, got, want)
			}
		}
		for _, id := range push {
			tell(&a, &b, id, nil)
		}
		for _, id := range pull {
			tell(&b, &a, id, a.Marks(id))
		}
		_, pull = b.Compare(a.Summary(), AllParts)
		for _, id := range pull {
			tell(&a, &b, id, b.Marks(id))
		}
		if !reflect.DeepEqual(a.Summary(), b.Summary()) || !reflect.DeepEqual(a.Records(testNow), b.Records(testNow)) {
			t.Fatalf("seed %d: %v and %v", seed, a.Summary(), b.Summary())
		}
		if push, pull := a.Compare(b.Summary(), AllParts); len(push)+len(pull) != 0 {
			t.Fatalf("seed %d: still %v and %v to exchange", seed, push, pull)
		}
	}
}

func TestAClonesRecordIsToldToo(t *testing.T) {
	var a, b Ledger
	r, raw := ledgerRecord("x", "s", 1, 1)
	a.Offer(r, raw)
	b.Offer(r, []byte("other bytes"))
	if m := a.Missing(r.Origin, b.Marks(r.Origin)); len(m) != 1 {
		t.Errorf("%d records told", len(m))
	}
}
