package overlay

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestWhenKeysAreDue(t *testing.T) {
	day := 24 * time.Hour
	at := time.Date(2026, 5, 20, 12, 0, 0, 0, time.UTC)
	s := Slice{Name: "blue", RotationInterval: 30 * day}
	due := s.DueGeneration("home", at)
	if turn := time.Unix(int64(due), 0); turn.After(at) || !turn.Add(30*day).After(at) {
		t.Fatalf("at %v keys should be of %v", at, turn)
	}
	next := time.Unix(int64(due), 0).Add(30 * day)
	other := Slice{Name: "red", RotationInterval: 30 * day}
	if other.DueGeneration("home", at) == due || s.DueGeneration("away", at) == due {
		t.Error("two slices change at the same moment")
	}
	for _, tc := range []struct {
		name  string
		every time.Duration
		renew time.Time
		now   time.Time
		want  uint64
	}{
		{"within an interval it stays", 30 * day, time.Time{}, next.Add(-time.Second), due},
		{"at its end the next is due", 30 * day, time.Time{}, next, uint64(next.Unix())},
		{"renewing counts from its time on", 30 * day, at.Add(-time.Hour), at, uint64(at.Add(-time.Hour).Unix())},
		{"and not before", 30 * day, at.Add(time.Hour), at, due},
		{"an old renewal is over", 30 * day, time.Unix(int64(due)-5, 0), at, due},
		{"without an interval nothing is due", 0, time.Time{}, at, 0},
		{"but what is renewed", 0, at, at, uint64(at.Unix())},
		{"before 1970 nothing is", 30 * day, time.Time{}, time.Unix(-5, 0), 0},
	} {
		s := Slice{Name: "blue", RotationInterval: tc.every, RenewBefore: tc.renew}
		if got := s.DueGeneration("home", tc.now); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

func TestAChangeOfKeysStepByStep(t *testing.T) {
	const g, h = 1000, 2000
	var (
		steady = Rekeying{Sends: g, Other: g}
		begun  = Rekeying{Sends: g, Other: h}
		moved  = Rekeying{Sends: h, Other: g}
		done   = Rekeying{Sends: h, Other: h}
		old    = PeerKeys{Sends: g, Live: true}
		both   = PeerKeys{Sends: g, Next: h, Live: true, Ready: true}
		gone   = PeerKeys{Sends: g}
		ahead  = PeerKeys{Sends: h, Live: true, Ready: true}
	)
	for _, tc := range []struct {
		name        string
		from        Rekeying
		age         time.Duration // since it began
		spare       time.Duration // since no peer needs the old key; negative: some do
		due, latest uint64
		peers       []PeerKeys
		want        Rekeying // but for its times
	}{
		{"nothing is due", steady, time.Hour, -1, g, g, []PeerKeys{old}, steady},
		{"a key is due", steady, time.Hour, -1, h, 0, []PeerKeys{old}, begun},
		{"a peer has a later one", steady, time.Hour, -1, g, h, []PeerKeys{old}, begun},
		{"a peer has had one too many", steady, time.Second, -1, g, h, []PeerKeys{old}, steady},
		{"but one is due here, too", steady, time.Second, -1, h, h, []PeerKeys{old}, begun},
		{"nobody has ours any more", steady, time.Second, -1, g, h, []PeerKeys{ahead}, begun},
		{"others have to hear of it", begun, time.Second, -1, h, h, []PeerKeys{both}, begun},
		{"all are ready", begun, RekeyAnnounce, -1, h, h, []PeerKeys{both, both}, moved},
		{"one is not", begun, RekeyMove - 1, -1, h, h, []PeerKeys{both, old}, begun},
		{"and is not for long enough", begun, RekeyMove, -1, h, h, []PeerKeys{both, old}, moved},
		{"who is silent is not waited for", begun, RekeyAnnounce, -1, h, h, []PeerKeys{both, gone}, moved},
		{"alone there is nobody to wait for", begun, RekeyAnnounce, -1, h, h, nil, moved},
		{"where nobody has the old one, at once", begun, 0, -1, h, h, []PeerKeys{{Sends: h}}, moved},
		{"a peer sends with the old key", moved, 10 * time.Second, -1, h, h, []PeerKeys{ahead, both}, moved},
		{"none does, since just now", moved, 10 * time.Second, -1, h, h, []PeerKeys{ahead}, moved},
		{"packets are under way", moved, 10 * time.Second, RekeyLinger - 1, h, h, []PeerKeys{ahead}, moved},
		{"they have arrived", moved, 10 * time.Second, RekeyLinger, h, h, []PeerKeys{ahead, gone}, done},
		{"one has not moved in time", moved, RekeyEnd, -1, h, h, []PeerKeys{both}, done},
	} {
		now := time.Unix(5000, 0)
		r := tc.from
		r.Began = now.Add(-tc.age)
		if tc.spare >= 0 {
			r.Spare = now.Add(-tc.spare)
		}
		changed := r.Step(now, tc.due, tc.latest, tc.peers)
		if r.Sends != tc.want.Sends || r.Other != tc.want.Other || changed != (tc.want != tc.from) {
			t.Errorf("%s: sends %d, other %d, changed %v", tc.name, r.Sends, r.Other, changed)
		}
	}
}

// rekeyModel is a slice whose nodes hear of each other late. Packets pass in a
// generation once both nodes have keys of it and have heard of the other's.
type rekeyModel struct {
	rnd   *rand.Rand
	now   time.Time
	lag   time.Duration
	nodes []Rekeying
	heard [][]PeerKeys    // by node: what it knows of each other
	due   [][]time.Time   // by node and other: when the next word of it comes
	word  [][]PeerKeys    // and what it will be
	cut   map[int]bool    // hears nothing and is not heard
	first time.Time       // when the first change began
	until []time.Duration // how long after that each node took the old key
}

func newRekeyModel(rnd *rand.Rand, n int, g uint64, lag time.Duration) *rekeyModel {
	m := &rekeyModel{rnd: rnd, now: time.Unix(1e6, 0), lag: lag, nodes: make([]Rekeying, n), cut: map[int]bool{}, until: make([]time.Duration, n)}
	for i := range m.nodes {
		m.nodes[i] = Rekeying{Sends: g, Other: g}
		row := make([]PeerKeys, n)
		for j := range row {
			row[j] = PeerKeys{Sends: g}
		}
		m.heard, m.due, m.word = append(m.heard, row), append(m.due, make([]time.Time, n)), append(m.word, make([]PeerKeys, n))
	}
	return m
}

func (m *rekeyModel) has(i int, g uint64) bool { return m.nodes[i].Sends == g || m.nodes[i].Other == g }

// passes reports whether packets pass between two nodes in a generation. What a
// node has heard of a key it keeps while it has one of the same itself.
func (m *rekeyModel) passes(i, j int, g uint64) bool {
	knew := func(i, j int) bool {
		h := m.heard[i][j]
		return h.Sends == g || h.Next == g || h.Sends > g // it was told before it moved on
	}
	return !m.cut[i] && !m.cut[j] && m.has(i, g) && m.has(j, g) && knew(i, j) && knew(j, i)
}

func (m *rekeyModel) step(due func(i int) uint64) {
	m.now = m.now.Add(100 * time.Millisecond)
	for i := range m.nodes {
		for j := range m.nodes {
			if i != j && !m.due[i][j].IsZero() && !m.cut[i] && !m.cut[j] && !m.now.Before(m.due[i][j]) {
				m.heard[i][j], m.due[i][j] = m.word[i][j], time.Time{}
			}
		}
	}
	for _, i := range m.rnd.Perm(len(m.nodes)) {
		r := &m.nodes[i]
		var peers []PeerKeys
		latest := uint64(0)
		for j := range m.nodes {
			if i == j {
				continue
			}
			p := m.heard[i][j]
			latest = max(latest, p.Sends, p.Next)
			p.Live, p.Ready = m.passes(i, j, r.Sends), m.passes(i, j, r.Other)
			peers = append(peers, p)
		}
		if !r.Step(m.now, due(i), latest, peers) {
			continue
		}
		if m.first.IsZero() {
			m.first = m.now
		}
		if !r.Changing() {
			m.until[i] = m.now.Sub(m.first)
		}
		for j := range m.nodes {
			if i != j {
				m.word[j][i] = PeerKeys{Sends: r.Sends, Next: r.Next()}
				m.due[j][i] = m.now.Add(time.Duration(m.rnd.Int64N(int64(m.lag))))
			}
		}
	}
}

// refused returns a pair between which packets are sent that are not taken.
func (m *rekeyModel) refused() (i, j int, found bool) {
	for i := range m.nodes {
		for j := range m.nodes {
			if i != j && !m.cut[i] && !m.cut[j] && !m.passes(i, j, m.nodes[i].Sends) {
				return i, j, true
			}
		}
	}
	return 0, 0, false
}

func TestKeysChangeEverywhereWhateverTheDelays(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 60 {
		n := 2 + rnd.IntN(6)
		m := newRekeyModel(rnd, n, 1000, time.Duration(1+rnd.IntN(8))*time.Second)
		knowing := rnd.IntN(n) // whose manifests say so; others may not have them
		due := func(i int) uint64 {
			if i == knowing || i%2 == 0 && m.now.After(time.Unix(1e6+3, 0)) {
				return 2000
			}
			return 1000
		}
		for range 700 {
			m.step(due)
			if i, j, found := m.refused(); found {
				t.Fatalf("seed %d: after %v node %d sends with %+v to %d, which has %+v", seed, m.now.Sub(m.first), i, m.nodes[i], j, m.nodes[j])
			}
		}
		for i, r := range m.nodes {
			if r.Sends != 2000 || r.Changing() || m.until[i] > time.Minute {
				t.Fatalf("seed %d: node %d: %+v, old key taken for %v", seed, i, r, m.until[i])
			}
		}
	}
}

func TestANodeThatWasAwayDuringAChangeComesBack(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 100 {
		m := newRekeyModel(rnd, 4, 1000, 2*time.Second)
		m.cut[3] = true
		due := func(i int) uint64 {
			if i == 0 {
				return 2000
			}
			return 1000
		}
		for range 600 {
			m.step(due)
			if i, j, found := m.refused(); found {
				t.Fatalf("seed %d: between %d and %d", seed, i, j)
			}
		}
		m.cut[3] = false
		begin := m.now
		for _, _, found := m.refused(); found; _, _, found = m.refused() {
			m.step(due)
			if m.now.Sub(begin) > 10*time.Second {
				t.Fatalf("seed %d: still away: %+v", seed, m.nodes)
			}
		}
	}
}
