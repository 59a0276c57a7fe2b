package overlay

import (
	"container/heap"
	"math/rand/v2"
	"testing"
	"time"
)

// A testLink carries probes of one Health in model time: hours in a moment.
type testLink struct {
	h     Health
	rtt   time.Duration
	loss  float64                  // of one way
	whole func(time.Duration) bool // nil: always
	busy  bool
	rnd   *rand.Rand
	now   time.Duration
	probe time.Duration // when Step is to be called
	back  answers
	sent  int
}

type answer struct {
	at  time.Duration
	seq uint32
}
type answers []answer

func (a answers) Len() int           { return len(a) }
func (a answers) Less(i, j int) bool { return a[i].at < a[j].at }
func (a answers) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *answers) Push(x any)        { *a = append(*a, x.(answer)) }
func (a *answers) Pop() any          { o := *a; x := o[len(o)-1]; *a = o[:len(o)-1]; return x }

// run goes on until the given time and returns when the link went up or down.
func (l *testLink) run(until time.Duration) (changed []time.Duration) {
	for {
		at := l.probe
		if len(l.back) > 0 && l.back[0].at < at {
			at = l.back[0].at
		}
		if at > until {
			l.now = until
			return changed
		}
		was := l.h.Up()
		l.now = at
		if len(l.back) > 0 && l.back[0].at == at {
			l.h.Heard(at, heap.Pop(&l.back).(answer).seq)
			// It may have to probe sooner now.
		}
		seq, send, next := l.h.Step(at, l.busy)
		l.probe = next
		if send {
			l.sent++
			if (l.whole == nil || l.whole(at)) && l.rnd.Float64() >= l.loss && l.rnd.Float64() >= l.loss {
				heap.Push(&l.back, answer{at + l.rtt + time.Duration(l.rnd.Int64N(int64(l.rtt)/8+1)), seq})
			}
		}
		if l.h.Up() != was {
			changed = append(changed, at)
		}
	}
}

func newTestLink(t *testing.T, rtt time.Duration) *testLink {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return &testLink{rtt: rtt, busy: true, rnd: rand.New(rand.NewPCG(seed, 1))}
}

func TestALinkThatBreaksIsDownAfterThreeMisses(t *testing.T) {
	for _, rtt := range []time.Duration{200 * time.Microsecond, 20 * time.Millisecond, 150 * time.Millisecond} {
		l := newTestLink(t, rtt)
		if up := l.run(10 * time.Second); len(up) != 1 || up[0] > 2*rtt {
			t.Fatalf("rtt %v: it came up at %v", rtt, up)
		}
		breaks := l.now + time.Duration(l.rnd.Int64N(int64(ProbeInterval)))
		l.whole = func(at time.Duration) bool { return at < breaks }
		down := l.run(20 * time.Second)
		// An answer may be under way yet; then three probes, the last of which waits.
		most := 3*ProbeInterval + max(ProbeInterval, 2*rtt) + rtt
		if len(down) != 1 || down[0]-breaks > most || down[0]-breaks < 200*time.Millisecond {
			t.Errorf("rtt %v: down after %v of breaking, want one within %v", rtt, down[0]-breaks, most)
		}
	}
}

func TestAnIdleLinkIsProbedSeldomAndStillJudged(t *testing.T) {
	l := newTestLink(t, time.Millisecond)
	l.busy = false
	l.run(5 * time.Second)
	before := l.sent
	l.run(65 * time.Second)
	if n := l.sent - before; n < 55 || n > 65 {
		t.Errorf("%d probes in a minute", n)
	}
	l.whole = func(time.Duration) bool { return false }
	if down := l.run(70 * time.Second); len(down) != 1 || down[0] > 65*time.Second+1500*time.Millisecond {
		t.Errorf("down at %v", down)
	}
	before = l.sent
	l.run(130 * time.Second)
	if n := l.sent - before; n > 150 {
		t.Errorf("%d probes in a minute to a link that is down: WireGuard keeps each", n)
	}
}

func TestALossyLinkStaysUp(t *testing.T) {
	l := newTestLink(t, 10*time.Millisecond)
	l.loss = 0.3 // each way: half of all probes
	l.run(20 * time.Second)
	if changed := l.run(20*time.Second + 10*time.Minute); len(changed) > 2 {
		t.Errorf("it changed %d times in ten minutes", len(changed))
	}
	l.whole = func(time.Duration) bool { return false }
	begin := l.now
	if down := l.run(begin + 10*time.Second); len(down) == 0 && l.h.Up() || len(down) > 0 && down[0]-begin > 3*time.Second {
		t.Errorf("it broke and went down at %v", down)
	}
}

func TestALossyLinkThatBreaksIsDownAboutAsSoon(t *testing.T) {
	for _, loss := range []float64{0.01, 0.05, 0.1} {
		var most time.Duration
		for range 20 {
			l := newTestLink(t, 40*time.Millisecond)
			l.loss = loss
			broken := 30*time.Second + time.Duration(l.rnd.Int64N(int64(ProbeInterval)))
			l.whole = func(now time.Duration) bool { return now < broken }
			if l.run(broken); !l.h.Up() {
				continue // it is while its loss is not known yet that it may be taken for broken
			}
			changed := l.run(broken + 5*time.Second)
			if len(changed) != 1 {
				t.Fatalf("with %v lost each way, broken at %v, it changed at %v", loss, broken, changed)
			}
			most = max(most, changed[0]-broken)
		}
		t.Logf("with %v lost each way it is down after %v at most", loss, most)
		if most > 550*time.Millisecond {
			t.Error("that is too late")
		}
	}
}

func TestAFlappingLinkIsDamped(t *testing.T) {
	l := newTestLink(t, time.Millisecond)
	l.run(5 * time.Second)
	l.whole = func(at time.Duration) bool { return at/time.Second%2 == 0 || at > 65*time.Second }
	if changed := l.run(65 * time.Second); len(changed) > 10 {
		t.Errorf("it changed %d times in a minute", len(changed))
	}
	if l.run(65*time.Second + holdMax + time.Second); !l.h.Up() {
		t.Error("it does not come up again")
	}
}

func TestALinkThatWasUpForLongComesBackSoon(t *testing.T) {
	l := newTestLink(t, time.Millisecond)
	for i := range 5 { // an outage every two minutes is not flapping
		begin := time.Duration(i) * 2 * time.Minute
		l.whole = func(at time.Duration) bool { return at < begin+110*time.Second || at > begin+112*time.Second }
		changed := l.run(begin + 2*time.Minute)
		if i > 0 && (len(changed) != 2 || changed[1]-begin > 114*time.Second) {
			t.Errorf("round %d: %v", i, changed)
		}
	}
}

func TestALinkThatComesUpLateIsNoLossyLink(t *testing.T) {
	l := newTestLink(t, time.Millisecond)
	l.whole = func(at time.Duration) bool { return at > 750*time.Millisecond && at < 3*time.Second }
	if changed := l.run(4 * time.Second); len(changed) != 2 || changed[1] > 3*time.Second+500*time.Millisecond {
		t.Errorf("it changed at %v, want soon after 3s", changed)
	}
}

func TestProbesThatWaitedForAHandshakeSayNothingOfTheRoundTrip(t *testing.T) {
	l := newTestLink(t, time.Millisecond)
	var seqs []uint32
	for l.now < 500*time.Millisecond {
		seq, send, next := l.h.Step(l.now, true)
		if send {
			seqs = append(seqs, seq)
		}
		l.now = next
	}
	for _, seq := range seqs { // the session is there, and all of them go at once
		l.h.Heard(l.now, seq)
	}
	l.probe = l.now
	l.run(time.Second)
	if rtt := l.h.RTT(); rtt > 2*time.Millisecond {
		t.Errorf("round trip %v", rtt)
	}
}

func TestWhoIsLateDoesNotBlameTheLink(t *testing.T) {
	l := newTestLink(t, time.Millisecond)
	l.run(2 * time.Second)
	// The processor is busy: every step comes 150 ms late, and answers are read
	// only after it.
	var came []uint32
	for range 100 {
		l.now += ProbeInterval + 150*time.Millisecond
		seq, send, _ := l.h.Step(l.now, true)
		for _, x := range came {
			l.h.Heard(l.now+time.Millisecond, x)
		}
		came = came[:0]
		if send {
			came = append(came, seq)
		}
		if !l.h.Up() {
			t.Fatal("it is down")
		}
	}
	// Late or not, a link that is broken goes down.
	for i := 0; l.h.Up(); i++ {
		if i > 10 {
			t.Fatal("it stays up without an answer")
		}
		l.now += ProbeInterval + 150*time.Millisecond
		l.h.Step(l.now, true)
	}
}

func TestAnAnswerThatCannotBeIsIgnored(t *testing.T) {
	var h Health
	seq, send, _ := h.Step(0, true)
	if !send || h.Heard(time.Millisecond, seq+1) || h.Up() {
		t.Error("an answer to a probe never sent")
	}
	if !h.Heard(time.Millisecond, seq) || !h.Up() {
		t.Error("the first answer brings it up")
	}
	if h.Heard(2*time.Millisecond, seq) {
		t.Error("the same answer again")
	}
}

func TestOneWhoIsHeardAgainIsProbedAtOnce(t *testing.T) {
	l := newTestLink(t, time.Millisecond)
	l.run(time.Second)
	l.whole = func(time.Duration) bool { return false }
	l.run(30 * time.Second)
	l.whole = nil
	l.h.Noticed(l.now)
	_, send, _ := l.h.Step(l.now, true)
	if !send {
		t.Error("no probe")
	}
}
