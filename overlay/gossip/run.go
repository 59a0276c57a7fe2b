package gossip

import (
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Timing. A mesh has few gateways, each of which matters: memberlist's WAN
// defaults, made to notice sooner.
const (
	probeInterval = time.Second
	probeTimeout  = 500 * time.Millisecond
	// Two members that do not get to run for five seconds, one after the other,
	// are not to take each other for dead. In no mesh does anything wait for a
	// member to be dead: paths have probes of their own.
	suspicionMult    = 6
	gossipInterval   = 200 * time.Millisecond
	gossipNodes      = 4
	pushPullInterval = 15 * time.Second
	gossipToDead     = 30 * time.Second
	// A name that died may come back at another address at once: the proof in
	// its metadata says whose it is.
	reclaimTime = time.Second

	leaveTime   = time.Second
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
	lookForLost   = 2
	maintainEvery = 5 * time.Second
	senders       = 4
	maxSeeds      = 64

	packetSize    = 1400
	maxBroadcasts = 8192
)

// network is what exists while Run runs.
type network struct {
	transport  *transport
	list       *memberlist.Memberlist
	broadcasts *memberlist.TransmitLimitedQueue
	packetRoom int // bytes of the largest message that travels in a packet
}

// Run joins the mesh and serves until ctx ends; then it tells the others that it
// leaves, for a second or two, and returns nil. It is called once.
func (g *Gossip) Run(ctx context.Context) error {
	if g.cfg.Leaf {
		return g.runLeaf(ctx)
	}
	t, err := listen(ctx, g.cfg.Network, g.cfg.Bind, g.cfg.Advertise, g.cfg.Mesh)
	if err != nil {
		return err
	}
	defer func() { _ = t.Shutdown() }()
	n := &network{
		transport: t,
		// What memberlist takes of a packet: label, encryption, checksum, framing.
		packetRoom: packetSize - len(t.label) - cipherBytes - 5 - 2 - 2 - 1,
		broadcasts: &memberlist.TransmitLimitedQueue{NumNodes: g.members.count, RetransmitMult: 4},
	}
	if n.list, err = memberlist.Create(g.listConfig(n)); err != nil {
		return fmt.Errorf("gossip at %v: %w", t.advertise, err)
	}
	t.session = g.serveSession
	t.serve()
	g.net.Store(n)

	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { g.receiveLoop(work) })
	wg.Go(func() { g.maintainLoop(work, n) })
	for range senders {
		wg.Go(func() { g.sendLoop(work, n) })
	}
	joining, stopJoining := context.WithCancel(work)
	defer stopJoining()
	wg.Go(func() { g.joinLoop(joining, n) })
	close(g.ready)
	g.log.Info("gossip up", "node", g.cfg.Self.String())

	<-ctx.Done()
	stopJoining()
	g.sessions.close()
	if err := n.list.Leave(leaveTime); err != nil {
		g.log.Debug("left without a word", "err", err)
	}
	stop()
	err = n.list.Shutdown()
	wg.Wait()
	g.net.Store(nil)
	g.members.reset()
	return err
}

func (g *Gossip) listConfig(n *network) *memberlist.Config {
	d := delegate{g, n}
	c := memberlist.DefaultWANConfig()
	c.Name = g.cfg.Self.String()
	c.Transport = n.transport
	c.Label = g.cfg.Mesh
	c.Keyring = &g.keys.ring
	c.EnableCompression = false
	c.ProtocolVersion = memberlist.ProtocolVersionMax
	c.TCPTimeout = ioTimeout
	c.ProbeInterval, c.ProbeTimeout = probeInterval, probeTimeout
	c.SuspicionMult = suspicionMult
	c.GossipInterval, c.GossipNodes, c.GossipToTheDeadTime = gossipInterval, gossipNodes, gossipToDead
	c.PushPullInterval = pushPullInterval
	c.DeadNodeReclaimTime = reclaimTime
	c.UDPBufferSize = packetSize
	c.Delegate, c.Events, c.Alive, c.Merge, c.Conflict = d, d, d, d, d
	c.Logger = log.New(debugLog{g.log}, "", 0)
	return c
}

func (g *Gossip) receiveLoop(ctx context.Context) {
	for {
		select {
		case b := <-g.queues.in:
			g.queues.taken(len(b))
			g.handle(b)
		case <-ctx.Done():
			return
		}
	}
}

// sendLoop sends what waits. There are several, so that a member that does not
// answer delays some of the others for a while only.
func (g *Gossip) sendLoop(ctx context.Context, n *network) {
	for {
		select {
		case j := <-g.queues.out:
			g.work(n, j)
			g.queues.done(j)
		case <-ctx.Done():
			return
		}
	}
}

func (g *Gossip) work(n *network, j job) {
	to := g.members.find(j.to)
	if to == nil {
		return
	}
	send := n.list.SendReliable
	if j.packet {
		send = n.list.SendBestEffort
	}
	for _, b := range j.make() {
		if err := send(to, b); err != nil {
			g.log.Debug("not sent", "node", j.to, "err", err)
			return
		}
	}
}

// maintainLoop signs what grows old and lets go what is void. When this node
// has another certificate, it also proves its membership anew.
func (g *Gossip) maintainLoop(ctx context.Context, n *network) {
	_, proved := g.ownChain()
	tick := time.NewTicker(maintainEvery)
	defer tick.Stop()
	for {
		g.publish(g.maintain())
		g.compareRevocations(n)
		g.askNewcomers(n)
		g.askSome(n)
		g.checkSessions()
		if _, fp := g.ownChain(); fp != proved {
			proved = fp
			if err := n.list.UpdateNode(leaveTime); err != nil {
				g.log.Debug("new certificate not told yet", "err", err)
			}
		}
		select {
		case <-tick.C:
		case <-g.queues.tend:
		case <-ctx.Done():
			return
		}
	}
}

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
		g.joinMissing(ctx, n, alone, before)
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
	at    time.Time
	quiet time.Duration
}

// joinMissing tries every seed that is not a member, and sometimes a member that
// died, all at once.
func (g *Gossip) joinMissing(ctx context.Context, n *network, alone bool, before map[netip.AddrPort]answered) {
	missing := g.resolveSeeds(ctx)
	delete(missing, n.transport.advertise)
	if rand.IntN(g.members.count()) < lookForLost {
		if addr, ok := g.members.lost(); ok {
			missing[addr] = true
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
	for addr := range missing {
		mu.Lock()
		quiet := !alone && time.Since(before[addr].at) < before[addr].quiet
		mu.Unlock()
		if quiet {
			continue
		}
		wg.Go(func() {
			if _, err := n.list.Join([]string{addr.String()}); err != nil {
				g.log.Debug("seed does not answer", "peer", addr.String(), "err", err)
				return
			}
			mu.Lock()
			before[addr] = answered{time.Now(), min(max(2*before[addr].quiet, joinAgain), joinQuiet)}
			mu.Unlock()
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
