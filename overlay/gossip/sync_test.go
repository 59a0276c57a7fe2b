package gossip

import (
	"testing"

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
