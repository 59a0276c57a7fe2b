package overlay

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// Digests follow what is held through everything that can happen to it, and
// differ exactly in the parts whose summaries differ.
func TestPartsDifferWhereSummariesDiffer(t *testing.T) {
	const seed = 7
	rng := rand.New(rand.NewPCG(seed, 1))
	base := time.Unix(1_700_000_000, 0)
	var a, b Ledger
	both := [2]*Ledger{&a, &b}
	for step := range 5000 {
		id := NodeID{Site: fmt.Sprintf("site-%d", rng.IntN(150)), Node: "gw"}
		r := Record{
			Origin: id, Key: Key{Kind: KindService, Slice: "s", Name: fmt.Sprint(rng.IntN(4))},
			Version: Version{1, uint64(step)}, NotAfter: base.Add(time.Duration(rng.IntN(6000)) * time.Second),
		}
		raw := fmt.Appendf(nil, "%v", r)
		switch k := rng.IntN(100); {
		case k < 60:
			a.Offer(r, raw)
			b.Offer(r, raw)
		case k < 80:
			both[rng.IntN(2)].Offer(r, raw)
		case k < 90:
			both[rng.IntN(2)].Drop(func(h Held) bool { return h.Record.Origin == id && h.Record.Key == r.Key })
		case k < 95:
			both[rng.IntN(2)].RaiseFloor(Floor{id, r.Key, r.Version})
		default:
			both[rng.IntN(2)].Expire(base.Add(time.Duration(step) * time.Second))
		}
		if step%50 != 0 {
			continue
		}
		theirs := b.Digests()
		parts := a.Differ(&theirs)
		for i := range Parts {
			want := fmt.Sprint(a.SummaryOf(1<<i)) != fmt.Sprint(b.SummaryOf(1<<i))
			if parts.Has(i) != want {
				t.Fatalf("seed %d, step %d: part %d differs: %v, want %v", seed, step, i, parts.Has(i), want)
			}
		}
	}
}

func TestPartsAreAboutEqual(t *testing.T) {
	var of [Parts]int
	for i := range 100 * Parts {
		of[PartOf(NodeID{Site: fmt.Sprintf("site-%03d", i), Node: "gw"})]++
	}
	for i, n := range of {
		if n < 50 || n > 150 {
			t.Errorf("part %d has %d of %d origins", i, n, 100*Parts)
		}
	}
}

// An origin that holds nothing any more gives way to another, and nothing of it
// stays in the digests.
func TestAForgottenOriginLeavesNoDigest(t *testing.T) {
	var l Ledger
	r := Record{Origin: NodeID{"a", "b"}, Key: Key{Kind: KindNode}, Version: Version{1, 1}, NotAfter: time.Unix(10, 0)}
	l.Offer(r, []byte("raw"))
	if l.Digests() == ([Parts]Digest{}) {
		t.Fatal("nothing is in the digests")
	}
	if l.Expire(time.Unix(20, 0)) != 1 || l.Digests() != ([Parts]Digest{}) {
		t.Error("an expired record is in the digests")
	}
	r.Version.Seq, r.NotAfter = 2, time.Unix(30, 0)
	l.Offer(r, []byte("raw 2"))
	if l.Drop(func(Held) bool { return true }) != 1 || l.Digests() != ([Parts]Digest{}) {
		t.Error("a dropped record is in the digests")
	}
}
