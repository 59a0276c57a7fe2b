package shaper

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// turn is how long one Queue has the uplink before it is looked whose turn it
	// is now.
	turn     = 250 * time.Microsecond
	grantMin = onePacket
	grantMax = 64 << 10
	// staleAfter is how long a grant is good for: what a Queue that fell silent has
	// left does not add up with the others'.
	staleAfter = 50 * time.Millisecond
)

// An Uplink is what a node's slices share when its rate is known: each Queue has
// its guarantee first, and the rest is divided as a level does. Queues ask for a
// turn when they have something to send and their own ceiling lets it go; one
// that is made to wait is told when it was granted its turn by another's asking,
// so that who gets how much does not depend on who asks first.
//
// All methods may be called concurrently.
type Uplink struct {
	start   time.Time
	limited atomic.Bool // it has a rate

	mu      sync.Mutex
	level   level // under the rate; its shares are the members'
	rate    Rate
	members []*member
}

// A member is one Queue's part of an Uplink.
type member struct {
	share
	uplink *Uplink
	conf   Share
	signal func()
	want   int // bytes that it has asked for beyond grant
	grant  int // bytes, not yet taken over into credit

	// The Queue's own, guarded by its lock.
	credit int // bytes; below zero when the last packet was more than was left
	since  time.Duration
}

// NewUplink makes an Uplink of rate r; 0 has no limit, and then guarantees say
// nothing.
func NewUplink(r Rate) *Uplink {
	u := &Uplink{start: time.Now(), rate: r}
	u.limited.Store(r > 0)
	u.level.ceiling.setCeiling(0, r)
	return u
}

// Set changes the rate from now on.
func (u *Uplink) Set(r Rate) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if r == u.rate {
		return
	}
	u.rate = r
	u.limited.Store(r > 0)
	u.divide(time.Since(u.start))
	for _, m := range u.members { // it may be waiting for what it may have now
		m.signal()
	}
}

// divide is called with mu held after anything has changed.
func (u *Uplink) divide(now time.Duration) {
	shares, conf := make([]*share, len(u.members)), make([]Share, len(u.members))
	for i, m := range u.members {
		shares[i], conf[i] = &m.share, Share{Guaranteed: m.conf.Guaranteed, Priority: m.conf.Priority} // the Queue sees to its ceiling itself
	}
	u.level.set(now, u.rate, shares, conf)
}

func (u *Uplink) join(signal func()) *member {
	m := &member{uplink: u, signal: signal}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.members = append(u.members, m)
	u.divide(time.Since(u.start))
	return m
}

func (m *member) leave() {
	u := m.uplink
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, x := range u.members {
		if x == m {
			u.members = append(u.members[:i:i], u.members[i+1:]...)
			break
		}
	}
	u.divide(time.Since(u.start))
}

func (m *member) set(now time.Duration, s Share) {
	m.uplink.mu.Lock()
	defer m.uplink.mu.Unlock()
	m.conf = s
	m.uplink.divide(now)
}

// ask fills credit if there is any for the member, which has want bytes to send,
// and returns 0, or else for how long it need not ask again. Its Queue's lock is
// held.
func (m *member) ask(now time.Duration, want int) time.Duration {
	u := m.uplink
	u.mu.Lock()
	defer u.mu.Unlock()
	m.want = want - m.credit - m.grant
	m.eager = m.want > 0
	u.grantTurns(now, m)
	if m.grant == 0 {
		d, _ := u.level.pause()
		return max(d, 1)
	}
	m.credit += m.grant
	m.grant, m.since = 0, now
	if m.credit <= 0 {
		return 1 // the last packet was more than this
	}
	return 0
}

// grantTurns grants turns while the rate allows it and anybody waits.
func (u *Uplink) grantTurns(now time.Duration, asking *member) {
	l, turn := &u.level, u.turn()
	l.open(now)
	for {
		which, owed := l.pick()
		if which < 0 {
			break
		}
		m := u.members[which]
		n := min(turn, m.want)
		if m.grant == 0 && m != asking {
			m.signal()
		}
		m.grant += n
		m.want -= n
		m.eager = m.want > 0
		l.charge(which, owed, n)
	}
	l.settle(now)
}

// turn returns how many bytes are granted at once.
func (u *Uplink) turn() int {
	if u.rate <= 0 {
		return grantMax
	}
	return min(max(grantMin, int(float64(u.rate)/8*turn.Seconds())), grantMax)
}

// quiet gives up what is left of a grant that is too old.
func (m *member) quiet(now time.Duration) {
	if m.credit > 0 && now-m.since > staleAfter {
		m.credit = 0
	}
}
