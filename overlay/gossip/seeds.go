package gossip

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// How this node looks for members: those it was told of, those that died, and
// now and then any other, to exchange everything.
const (
	joinFirst   = 100 * time.Millisecond
	joinSlowest = 500 * time.Millisecond
	joinMissing = 500 * time.Millisecond // seeds that are not members, while there are others
	// A seed that answered and is no member answers under another address, or the
	// two have taken each other for dead and are about to find out.
	joinAgain = time.Second // doubles up to joinQuiet
	joinQuiet = 15 * time.Second
	// So many members of all look for one that died, in every joinMissing. It may
	// hear them and not be heard: then nothing tells it that it counts as dead,
	// and nobody else would ask until the next exchange of everything.
	lookForLost = 2
	maxSeeds    = 64
	// So many members of all look for a seed, in every joinMissing: it is found
	// within a second in any mesh, and in a mesh of a thousand there are not a
	// thousand that knock at an address where nobody is.
	lookForSeed = 32
	// A seed that has been silent for silentLong is still looked for as often, for
	// it may be the only one that a cut leaves to find: whoever slowed down would
	// take as long to come together once the cut heals. It costs a first packet a
	// second. But of many such seeds so many are tried at a time: in a mesh that
	// was cut, any of them is enough.
	silentLong   = 5 * time.Minute
	silentAtOnce = 8
	// How long this node waits until it exchanges everything with some member, at
	// most: 250 bytes for each member, both ways, so the pause grows with the
	// mesh, and what it costs does not.
	exchangeEvery = 15 * time.Second // in a mesh of exchangeOf members or fewer
	exchangeOf    = 64
)

// joinLoop looks for the seeds: from 100 ms to 500 ms apart while this node is
// alone, and as often for those that are not members, so that two halves of a
// mesh find each other in two seconds once they can. The time that it takes to
// find out that nobody answers counts: a first packet then goes to every seed
// once a second, which repeats it by itself after one.
func (g *Gossip) joinLoop(ctx context.Context, n *network) {
	backoff := joinFirst
	before := make(map[netip.AddrPort]answered)
	for {
		alone := g.members.count() <= 1
		wait := joinMissing
		if alone {
			wait = backoff
			backoff = min(2*backoff, joinSlowest)
		} else {
			backoff = joinFirst
		}
		began := time.Now()
		g.joinMissing(ctx, n, before)
		if alone && g.members.count() > 1 {
			wait = joinMissing
		}
		wait += rand.N(wait / 4)
		timer := time.NewTimer(max(joinFirst, wait-time.Since(began)))
		select {
		case <-timer.C:
		case <-g.queues.join:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// answered is when a seed answered, and for how long it is left alone then.
type answered struct {
	at     time.Time
	quiet  time.Duration
	silent time.Time // since when it has not answered; zero: it has, or was never tried
}

// due chooses which of the addresses that are no members' are tried now, by one
// of so many members: lost was chosen already.
func due(missing map[netip.AddrPort]bool, lost netip.AddrPort, before map[netip.AddrPort]answered, members int, now time.Time) []netip.AddrPort {
	var try, long []netip.AddrPort
	for addr := range missing {
		b := before[addr]
		switch {
		case members > 1 && now.Sub(b.at) < b.quiet, addr != lost && rand.IntN(members) >= lookForSeed:
		case !b.silent.IsZero() && now.Sub(b.silent) > silentLong:
			long = append(long, addr)
		default:
			try = append(try, addr)
		}
	}
	rand.Shuffle(len(long), func(i, j int) { long[i], long[j] = long[j], long[i] })
	return append(try, long[:min(len(long), silentAtOnce)]...)
}

// exchangeLoop exchanges everything with a member, chosen at random, now and
// then: members and what they hold. memberlist's own does so too often for a
// large mesh.
func (g *Gossip) exchangeLoop(ctx context.Context, n *network) {
	for {
		wait := exchangeEvery * time.Duration(max(exchangeOf, g.members.count())) / exchangeOf
		timer := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		for _, name := range g.members.some(g.cfg.Self.String(), 1) {
			to := g.members.find(name)
			if to == nil {
				continue
			}
			if _, err := n.list.Join([]string{addrOf(to).String()}); err != nil {
				g.log.Debug("member does not exchange", "node", name, "err", err)
			}
		}
	}
}

// joinMissing tries every seed that is not a member, and sometimes a member that
// died, all at once.
func (g *Gossip) joinMissing(ctx context.Context, n *network, before map[netip.AddrPort]answered) {
	missing := g.resolveSeeds(ctx)
	delete(missing, n.transport.advertise)
	var lost netip.AddrPort
	if rand.IntN(g.members.count()) < lookForLost {
		if addr, ok := g.members.lost(); ok {
			lost, missing[addr] = addr, true
		}
	}
	g.members.withoutMembers(missing)
	for addr := range before {
		if !missing[addr] {
			delete(before, addr)
		}
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, addr := range due(missing, lost, before, g.members.count(), time.Now()) {
		wg.Go(func() {
			_, err := n.list.Join([]string{addr.String()})
			mu.Lock()
			defer mu.Unlock()
			b := before[addr]
			switch {
			case err == nil:
				b = answered{at: time.Now(), quiet: min(max(2*b.quiet, joinAgain), joinQuiet)}
			case b.silent.IsZero():
				b.silent = time.Now()
			}
			before[addr] = b
			if err != nil {
				g.log.Debug("seed does not answer", "peer", addr.String(), "err", err)
			}
		})
	}
	wg.Wait()
}

// resolveSeeds returns the addresses of the seeds, maxSeeds at most.
func (g *Gossip) resolveSeeds(ctx context.Context) map[netip.AddrPort]bool {
	g.mu.Lock()
	seeds := g.seeds
	g.mu.Unlock()
	out := make(map[netip.AddrPort]bool)
	for _, s := range seeds {
		for _, a := range resolve(ctx, s) {
			if len(out) < maxSeeds {
				out[a] = true
			}
		}
	}
	return out
}

// resolve returns the addresses of one "host:port", none if it has none now.
func resolve(ctx context.Context, seed string) []netip.AddrPort {
	if a, err := netip.ParseAddrPort(seed); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(a.Addr().Unmap(), a.Port())}
	}
	host, service, err := net.SplitHostPort(seed)
	if err != nil {
		return nil
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil
	}
	var out []netip.AddrPort
	for _, a := range addrs {
		out = append(out, netip.AddrPortFrom(a.Unmap(), uint16(port)))
	}
	return out
}
