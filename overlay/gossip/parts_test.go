package gossip

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"slicewire/overlay"
)

// crowdTest returns two nodes that hold the same of so many others, and one that
// speaks of the last of them.
func crowdTest(t *testing.T, others int) (a, b *Gossip, news []byte, speaker *identity) {
	t.Helper()
	ca := newAuthority("ca")
	a, b = newTest(t, testConfig(t, ca, 0)), newTest(t, testConfig(t, ca, 1))
	for i := range others {
		speaker = ca.issue(t, allowed(2+i))
		for _, v := range []uint64{1, 2} {
			r := sound(v)
			r.Origin = allowed(2 + i).ID
			r.Key = overlay.Key{Kind: overlay.KindNode}
			r.Prefix, r.Node = nil, facts(2 + i)[0].Node
			if news = sealTest(t, speaker, r); v == 2 {
				break
			}
			for _, g := range []*Gossip{a, b} {
				g.handle(recordsTest(t, speaker, news))
			}
		}
	}
	if n := len(a.Records()); n != others || len(b.Records()) != others {
		t.Fatalf("%d and %d records, want %d", n, len(b.Records()), others)
	}
	return a, b, news, speaker
}

func TestManyOriginsAreComparedInAPacket(t *testing.T) {
	a, b, news, speaker := crowdTest(t, 100)
	if state := a.state(); state[1] != typeDigests || len(state) > 1200 {
		t.Errorf("a state of type %d, %d bytes", state[1], len(state))
	}
	if n := ask(t, a, b); n != 1 {
		t.Errorf("%d messages between two that hold the same, want 1", n)
	}
	b.handle(recordsTest(t, speaker, news))
	m, err := decodeMessage(a.state())
	if err != nil {
		t.Fatal(err)
	}
	if answer := b.answerDigests(m); len(answer) != 1 || len(answer[0]) > 600 {
		t.Errorf("the answer to digests of which one differs: %d messages, the first of %d bytes", len(answer), len(answer[0]))
	}
	ask(t, a, b)
	id := overlay.NodeID{}
	if s, err := unseal(news); err == nil {
		id = s.record.Origin
	}
	if r := a.RecordsOf(id); len(r) != 1 || r[0].Version.Seq != 2 {
		t.Errorf("after a comparison %v is known as %v", id, r)
	}
}

// Whatever one side lacks, whoever begins: also an origin that only one has.
func TestDigestsBringTwoTogether(t *testing.T) {
	for _, begins := range []string{"who has less", "who has more"} {
		t.Run(begins, func(t *testing.T) {
			a, b, _, _ := crowdTest(t, 60)
			ca := b.cfg.Verifier.(*authority)
			for i := range 3 {
				id := ca.issue(t, allowed(100+i))
				r := sound(1)
				r.Origin, r.Key, r.Prefix, r.Node = allowed(100+i).ID, overlay.Key{Kind: overlay.KindNode}, nil, facts(1)[0].Node
				b.handle(recordsTest(t, id, sealTest(t, id, r)))
			}
			if begins == "who has less" {
				ask(t, a, b)
			} else {
				ask(t, b, a)
			}
			if len(b.Records()) != 63 || a.ledger.Digests() != b.ledger.Digests() {
				t.Errorf("%d and %d records", len(a.Records()), len(b.Records()))
			}
		})
	}
}

// A newcomer that has sent all it holds does not answer digests, which would
// fetch everything a second time.
func TestANewcomerDoesNotAnswerTheDigestsOfWhoLetsItIn(t *testing.T) {
	a, _, _, _ := crowdTest(t, 60)
	newcomer := newTest(t, testConfig(t, newAuthority("ca"), 24))
	if !newcomer.saidAlready(a.state()) {
		t.Error("it answers digests")
	}
	if newcomer.saidAlready(newcomer.state()) {
		t.Error("it does not answer a summary")
	}
	if a.saidAlready(a.state()) {
		t.Error("who holds much does not answer digests")
	}
}

// Who has just been told much does not ask the next for all the rest, and who
// was asked long ago does not tell everything: by then others have.
func TestNewcomersAreToldOnce(t *testing.T) {
	a, _, _, _ := crowdTest(t, 60)
	digests, err := decodeMessage(a.state())
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority("ca")
		g := newTest(t, testConfig(t, ca, 20))
		id := ca.issue(t, allowed(1))
		g.handle(recordsTest(t, id, sealTest(t, id, sound(1))))
		if len(g.answerDigests(digests)) == 0 {
			t.Error("who was told little does not answer")
		}
		var many [][]byte
		for i := range uint64(fewRecords + 1) {
			many = append(many, sealTest(t, id, sound(2+i)))
		}
		g.handle(recordsTest(t, id, many...))
		if len(g.answerDigests(digests)) != 0 {
			t.Error("who is being told much answers")
		}
		time.Sleep(filling)
		if len(g.answerDigests(digests)) == 0 {
			t.Error("who was told much some time ago does not answer")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		g := newTest(t, testConfig(t, newAuthority("ca"), 0))
		set(t, g, facts(0))
		g.members.set(&memberlist.Node{Name: allowed(1).ID.String(), Addr: []byte{192, 0, 2, 1}}, bytes.Clone)
		question, err := encodeWants(allowed(1).ID, []want{{origin: allowed(0).ID}}, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			after time.Duration
			kind  byte
		}{{answerLate, typeRecords}, {answerLate + 1, typeSummary}} {
			g.handle(question)
			j := <-g.queues.out
			time.Sleep(tt.after)
			if b := j.make(); len(b) != 1 || b[0][1] != tt.kind {
				t.Errorf("after %v: %d messages, want one of type %d", tt.after, len(b), tt.kind)
			}
		}
	})
}
