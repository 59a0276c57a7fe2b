package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"slicewire/overlay"
)

// A numberLab is a book of numbers with a clock and what is revoked.
type numberLab struct {
	t     *testing.T
	book  *podNumbers
	now   time.Time
	void  map[overlay.NodeID]time.Time
	seen  []seenNode
	saved []byte
	first bool
}

func newNumberLab(t *testing.T) *numberLab {
	t.Helper()
	x := &numberLab{t: t, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), void: make(map[overlay.NodeID]time.Time), first: true}
	x.open(nil)
	return x
}

func (x *numberLab) open(data []byte) {
	x.t.Helper()
	var err error
	if x.book, err = openNumbers(data, usualTimes, func(b []byte) error { x.saved = b; return nil }); err != nil {
		x.t.Fatal(err)
	}
}

func podOf(n int) overlay.NodeID { return overlay.NodeID{Site: "a", Node: fmt.Sprintf("web-%012d", n)} }

func (x *numberLab) hold(n, index int) {
	x.t.Helper()
	id := podOf(n)
	if err := x.book.hold(podNumber{Site: id.Site, Node: id.Node, Index: index, Enrolled: x.now, End: x.now.Add(podCertLife)}, x.now); err != nil {
		x.t.Fatal(err)
	}
}

func (x *numberLab) hears(n, index int) {
	x.seen = append(x.seen, seenNode{id: podOf(n), index: index, enrolled: x.now, end: x.now.Add(podCertLife), pod: true})
}

// after lets time pass and returns whose certificates have to be void then.
func (x *numberLab) after(d time.Duration) (out []overlay.NodeID) {
	x.now = x.now.Add(d)
	for _, s := range x.book.look(x.seen, x.now, func(id overlay.NodeID) time.Time { return x.void[id] }, func(string, int) bool { return x.first }) {
		out = append(out, s.id)
	}
	return out
}

// revoke makes a pod's certificates void, and nothing is known of it any more.
func (x *numberLab) revoke(n int) {
	x.void[podOf(n)] = x.now
	x.seen = slices.DeleteFunc(x.seen, func(s seenNode) bool { return s.id == podOf(n) })
}

func (x *numberLab) taken() []int {
	m := make(map[int]bool)
	x.book.mark(m, overlay.NodeID{Site: "a", Node: "asks"})
	return slices.Sorted(maps.Keys(m))
}

func (x *numberLab) want(what string, revoke []overlay.NodeID, taken ...int) {
	x.t.Helper()
	got := x.after(0)
	if !slices.Equal(got, revoke) || !slices.Equal(x.taken(), taken) {
		x.t.Errorf("%s: %v are to be revoked, want %v; numbers %v are taken, want %v", what, got, revoke, x.taken(), taken)
	}
}

func TestANumberIsGivenAwayOnceItsCertificatesAreVoid(t *testing.T) {
	x := newNumberLab(t)
	x.hold(1, 7)
	x.hears(1, 7)
	x.want("it is there", nil, 7)
	x.after(time.Hour)
	x.want("and stays", nil, 7)
	x.seen[0].withdrawn = true
	x.want("it says that it ended", nil, 7)
	x.after(goneFor - time.Second)
	x.want("it may come back", nil, 7)
	x.seen[0].withdrawn = false
	x.want("it comes back", nil, 7)
	x.after(goneFor)
	x.want("and is there", nil, 7)
	x.seen[0].withdrawn = true
	x.after(0)
	x.after(goneFor)
	x.want("it stays away", []overlay.NodeID{podOf(1)}, 7)
	x.want("the revocation could not be made", []overlay.NodeID{podOf(1)}, 7)
	x.revoke(1)
	x.want("it is void, but not everybody knows", nil, 7)
	x.after(restFor - time.Second)
	x.want("nor now", nil, 7)
	x.after(time.Second)
	x.want("it is free", nil)
}

func TestANumberOfAPodThatIsNeverHeardOfIsFreeOnceItCannotSpeak(t *testing.T) {
	x := newNumberLab(t)
	x.hold(1, 0)
	x.after(holdFor - time.Second)
	x.want("it may be on its way", nil, 0)
	x.after(time.Second)
	x.want("it is not", []overlay.NodeID{podOf(1)}, 0)
	x.void[podOf(1)] = x.now.Add(-holdFor)
	x.want("it could not come any more", nil, 0)
	x.after(restFor)
	x.want("free", nil)
}

// Where there is no room for revocations, a number waits for its certificate.
func TestANumberIsFreeWhenItsCertificateHasEnded(t *testing.T) {
	x := newNumberLab(t)
	x.hears(1, 3)
	x.after(0)
	x.seen = nil // killed, and what it told is over
	x.want("it might speak", []overlay.NodeID{podOf(1)}, 3)
	x.after(podCertLife)
	x.want("it cannot", nil, 3)
	x.after(restFor)
	x.want("free", nil)
}

// Gateways keep their certificates whatever the book says.
func TestANumberOfAGatewayIsHeldAndNoMore(t *testing.T) {
	x := newNumberLab(t)
	id := overlay.NodeID{Site: "a", Node: "slicewire-0"}
	if err := x.book.hold(podNumber{Site: id.Site, Node: id.Node, Gateway: true, Enrolled: x.now, End: x.now.Add(time.Hour)}, x.now); err != nil {
		t.Fatal(err)
	}
	x.seen = append(x.seen, seenNode{id: id, enrolled: x.now, end: x.now.Add(time.Hour)})
	x.want("it was let in", nil, 0)
	x.after(holdFor)
	x.want("it is no pod of the book's", nil)
}

// A hold is over once its pod is heard of, however short its life.
func TestAPodThatEndsSoonHoldsItsNumberNoLonger(t *testing.T) {
	x := newNumberLab(t)
	x.hold(1, 0)
	x.hears(1, 0)
	x.after(0)
	x.revoke(1)
	x.want("it is void", nil, 0)
	x.after(restFor)
	x.want("free", nil)
}

// A revocation of what a pod had before it was let in again does not free what it
// has now.
func TestAPodThatIsLetInAgainKeepsItsNumber(t *testing.T) {
	x := newNumberLab(t)
	x.hears(1, 3)
	x.after(time.Minute)
	x.void[podOf(1)] = x.now.Add(-time.Minute)
	x.seen = nil
	x.hold(1, 3)
	x.after(holdFor - time.Second)
	x.want("it is on its way", nil, 3)
	x.after(time.Second)
	x.want("it never came, and its second certificate is good", []overlay.NodeID{podOf(1)}, 3)
}

func TestOneIssuerIsFirstToRevoke(t *testing.T) {
	x := newNumberLab(t)
	x.first = false
	x.hears(1, 3)
	x.seen[0].withdrawn = true
	x.after(0)
	x.after(goneFor)
	x.want("the other issuer does it", nil, 3)
	x.after(restFor)
	x.want("it did not", []overlay.NodeID{podOf(1)}, 3)
}

// A pod that its cluster does not have any more needs no time to come back.
func TestANumberOfAPodThatItsClusterDoesNotHave(t *testing.T) {
	x := newNumberLab(t)
	for n, held := range map[int]bool{1: false, 2: true, 3: false} {
		id := podOf(n)
		if err := x.book.hold(podNumber{Site: id.Site, Node: id.Node, Index: n, Enrolled: x.now, End: x.now.Add(podCertLife), UID: fmt.Sprint("uid-", n), Reviewed: n != 3}, x.now); err != nil {
			t.Fatal(err)
		}
		if !held {
			x.hears(n, n)
		}
	}
	x.after(0)
	ask := func(count int) (out []int) {
		x.now = x.now.Add(time.Second)
		for _, n := range x.book.toAsk(count, x.now) {
			out = append(out, n.Index)
		}
		return out
	}
	if a, b, c := ask(1), ask(1), ask(1); !slices.Equal(slices.Concat(a, b, c), []int{1, 2, 1}) {
		t.Errorf("asked about %v, %v, %v", a, b, c)
	}
	if x.book.died(podOf(1), "uid-of-the-one-before") || !x.book.died(podOf(1), "uid-1") || !x.book.died(podOf(2), "uid-2") || x.book.died(podOf(2), "uid-2") {
		t.Error("who died is not whom the cluster lacks")
	}
	x.want("two are gone", []overlay.NodeID{podOf(1), podOf(2)}, 1, 2, 3)
	x.revoke(1)
	x.revoke(2)
	x.want("they are void", nil, 1, 2, 3)
	x.after(restFor)
	x.want("free", nil, 3)
	if got := ask(3); len(got) != 0 {
		t.Errorf("asked about %v", got)
	}
}

func TestTheBookOfNumbersOutlivesItsIssuer(t *testing.T) {
	x := newNumberLab(t)
	x.hold(1, 4)
	x.hold(2, 5)
	x.hears(2, 5)
	x.after(time.Second)
	if err := x.book.keep(); err != nil {
		t.Fatal(err)
	}
	x.open(x.saved)
	if n, ok := x.book.of(podOf(1)); !ok || n.Index != 4 {
		t.Errorf("the pod that asks again gets %+v, %v", n, ok)
	}
	x.want("held and known", nil, 4, 5)
	x.saved = nil
	if err := x.book.keep(); err != nil || x.saved != nil {
		t.Errorf("saved without a change: %v", err)
	}
	x.book.save = func([]byte) error { return errors.New("full") }
	x.hold(3, 6)
	if err := x.book.keep(); err == nil {
		t.Error("a book that cannot be saved is no matter")
	}
	for _, text := range []string{"", "[]", `{"version":2,"numbers":[]}`, `{"version":1,"numbers":[null]}`, `{"version":1,"numbers":[{"site":"a","node":"b","index":-1}]}`, `{"version":1,"more":1}`} {
		if _, err := openNumbers([]byte(text), usualTimes, nil); err == nil {
			t.Errorf("%q is taken for a book", text)
		}
	}
}

func TestAClockThatGoesBackHoldsNoNumberForYears(t *testing.T) {
	x := newNumberLab(t)
	x.hold(1, 0)
	x.after(-10 * 365 * 24 * time.Hour)
	x.after(holdFor)
	x.want("its time is over", []overlay.NodeID{podOf(1)}, 0)
}

func TestOfTwoNodesWithOneNumberOneKeepsIt(t *testing.T) {
	now := time.Now()
	node := func(name string, age time.Duration, pod bool) seenNode {
		return seenNode{id: overlay.NodeID{Site: "a", Node: name}, index: 1, enrolled: now.Add(-age), pod: pod}
	}
	elsewhere := node("other-site", 0, true)
	elsewhere.id.Site = "b"
	for _, c := range []struct {
		name  string
		seen  []seenNode
		loses []string
	}{
		{"one", []seenNode{node("x", 0, true), elsewhere}, nil},
		{"the later one loses", []seenNode{node("x", time.Minute, true), node("y", time.Hour, true)}, []string{"x"}},
		{"also when told in another order", []seenNode{node("y", time.Hour, true), node("x", time.Minute, true)}, []string{"x"}},
		{"at one time by name", []seenNode{node("y", 0, true), node("x", 0, true)}, []string{"y"}},
		{"a pod before what an operator numbered", []seenNode{node("x", time.Hour, true), node("gw", 0, false)}, []string{"x"}},
		{"what operators number is theirs", []seenNode{node("x", time.Hour, false), node("y", 0, false)}, nil},
		{"three", []seenNode{node("x", 0, true), node("y", time.Hour, true), node("z", time.Minute, true)}, []string{"z", "x"}},
	} {
		var loses []string
		for _, x := range conflicts(c.seen) {
			loses = append(loses, x.loses.id.Node)
		}
		if !slices.Equal(loses, c.loses) {
			t.Errorf("%s: %v lose it, want %v", c.name, loses, c.loses)
		}
	}
}

// Issuers that have not heard of each other's pods give other numbers.
func TestIssuersShareTheNumbers(t *testing.T) {
	issuers := []overlay.NodeID{{Site: "a", Node: "gw-0"}, {Site: "a", Node: "gw-1"}, {Site: "a", Node: "gw-2"}}
	const count = 120
	given := make(map[int]bool)
	shares := make(map[overlay.NodeID]int)
	for n := range count {
		shares[preferred(issuers, "a", n)]++
	}
	for _, self := range issuers {
		if n := shares[self]; n < count/6 {
			t.Errorf("%v has %d of %d numbers", self, n, count)
		}
		taken := make(map[int]bool) // what it knows itself
		for range shares[self] {
			n, ok := freeNumber(taken, count, self, issuers, "a")
			if !ok || given[n] {
				t.Fatalf("%v gives %d, %v", self, n, ok)
			}
			taken[n], given[n] = true, true
		}
		if n, ok := freeNumber(taken, count, self, issuers, "a"); !ok || taken[n] {
			t.Errorf("%v gives none of the others': %d, %v", self, n, ok)
		}
	}
	if _, ok := freeNumber(given, count, issuers[0], issuers, "a"); ok || len(given) != count {
		t.Errorf("%d numbers are given, and one more", len(given))
	}
	if n, ok := freeNumber(map[int]bool{0: true}, 3, issuers[0], issuers[:1], "a"); n != 1 || !ok {
		t.Errorf("the only issuer gives %d, %v", n, ok)
	}
	if n, ok := freeNumber(nil, 1, issuers[0], nil, "a"); n != 0 || !ok {
		t.Errorf("an issuer that is not heard of yet gives %d, %v", n, ok)
	}
}

func TestABookOfNumbersHasAnEnd(t *testing.T) {
	x := newNumberLab(t)
	for i := range maxPods {
		x.hold(i, i)
	}
	id := podOf(maxPods)
	if err := x.book.hold(podNumber{Site: id.Site, Node: id.Node}, x.now); err == nil || !strings.Contains(err.Error(), "wait for some to end") {
		t.Errorf("%d pods and one more: %v", maxPods, err)
	}
}
