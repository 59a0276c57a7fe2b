package gossip

import (
	"bytes"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"slicewire/overlay"
)

// ask runs one summary of from past to, and all that follows between the two,
// and returns how many messages that took.
func ask(t *testing.T, from, to *Gossip) int {
	t.Helper()
	type letter struct {
		b  []byte
		to *Gossip
	}
	letters := []letter{{from.state(), to}}
	n := 0
	for ; len(letters) > 0; n++ {
		if n > 20 {
			t.Fatal("the two never come to an end")
		}
		l := letters[0]
		letters = letters[1:]
		m, err := decodeMessage(l.b)
		if err != nil {
			t.Fatal(err)
		}
		var answers [][]byte
		switch m.kind {
		case typeRecords:
			l.to.takeRecords(m)
		case typeDigests:
			answers = l.to.answerDigests(m)
		case typeSummary, typePart:
			answers = l.to.answerSummary(m)
		case typeWant:
			answers = l.to.answerWants(m)
		}
		other := from
		if l.to == from {
			other = to
		}
		for _, b := range answers {
			letters = append(letters, letter{b, other})
		}
	}
	return n
}

func TestOneSummaryIsEnoughForBothSides(t *testing.T) {
	ca := newAuthority("ca")
	full := newTest(t, testConfig(t, ca, 1))
	set(t, full, append(facts(1), service(1, "big", 100)))
	for _, direction := range []string{"who lacks something tells", "who has something tells"} {
		part := newTest(t, testConfig(t, ca, 0))
		set(t, part, facts(0))
		id := ca.issue(t, allowed(1))
		part.handle(recordsTest(t, id, full.ledger.Of(allowed(1).ID)[1].Raw))
		if direction == "who lacks something tells" {
			ask(t, part, full)
		} else {
			ask(t, full, part)
		}
		if n, m := len(part.Records()), len(full.Records()); n != 9 || m != 9 {
			t.Errorf("%s: %d and %d records, want 9", direction, n, m)
		}
	}
}

func TestWhatIsRefusedIsNotAskedForWithoutEnd(t *testing.T) {
	ca := newAuthority("ca")
	a, b := newTest(t, testConfig(t, ca, 0)), newTest(t, testConfig(t, ca, 2))
	id := ca.issue(t, allowed(1))
	other := sound(5)
	other.Prefix = &overlay.PrefixBody{Prefixes: other.Prefix.Prefixes[:1]}
	a.handle(recordsTest(t, id, sealTest(t, id, sound(5))))
	b.handle(recordsTest(t, id, sealTest(t, id, other)))
	ask(t, a, b)
	if a.Refused()[RefusedClone]+b.Refused()[RefusedClone] == 0 {
		t.Error("nobody noticed the clone")
	}
}

// News comes without the certificate it was signed with once all should have it.
// Who has not asks whoever says it, once, and only a member.
func TestNewsWithoutItsCertificateIsAskedFor(t *testing.T) {
	ca := newAuthority("ca")
	g, teller := newTest(t, testConfig(t, ca, 0)), newTest(t, testConfig(t, ca, 1))
	set(t, teller, facts(1))
	held := teller.ledger.Of(allowed(1).ID)
	bare, err := encodeRecords(nil, [][]byte{held[0].Raw})
	if err != nil {
		t.Fatal(err)
	}
	g.handle(bare)
	if len(g.queues.out) != 0 || len(g.Records()) != 0 {
		t.Fatalf("%d questions to who is no member, %d records", len(g.queues.out), len(g.Records()))
	}
	g.members.set(&memberlist.Node{Name: allowed(1).ID.String(), Addr: []byte{192, 0, 2, 1}}, bytes.Clone)
	g.handle(bare)
	g.handle(bare)
	if n := len(g.queues.out); n != 1 {
		t.Fatalf("%d questions, want 1", n)
	}
	j := <-g.queues.out
	for _, b := range j.make() {
		m, err := decodeMessage(b)
		if err != nil || j.to != allowed(1).ID.String() {
			t.Fatalf("a question to %s: %v", j.to, err)
		}
		for _, answer := range teller.answerWants(m) {
			g.handle(answer)
		}
	}
	if n := len(g.Records()); n != len(held) {
		t.Errorf("%d records after the answer, want %d", n, len(held))
	}
}

func TestWhatIsPassedOnHasABound(t *testing.T) {
	g := newTest(t, testConfig(t, newAuthority("ca"), 0))
	now, passed := begin, 0
	for range 10_000 { // in ten seconds
		if g.mayRelay(1, now) {
			passed++
		}
		now = now.Add(time.Millisecond)
	}
	if want := relayBurst + 10*relayPerSecond; passed < want-2 || passed > want+2 {
		t.Errorf("%d records passed on in ten seconds, want %d", passed, want)
	}
	if g.mayRelay(relayBurst, now.Add(time.Minute)) != true || g.mayRelay(1, now.Add(time.Minute)) {
		t.Error("a minute without news is not a burst")
	}
}
