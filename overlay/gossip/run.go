package gossip

import (
	"context"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Timing; that of looking for members is in seeds.go. A mesh has few gateways,
// each of which matters: memberlist's WAN defaults, made to notice sooner.
const (
	probeInterval = time.Second
	probeTimeout  = 500 * time.Millisecond
	// Two members that do not get to run for five seconds, one after the other,
	// are not to take each other for dead. In no mesh does anything wait for a
	// member to be dead: paths have probes of their own.
	defaultSuspicion = 6
	// How often a member repeats what it heard of members, times the logarithm of
	// their number. Whoever misses all of it when a suspect speaks up takes that
	// member for dead. If repetitions go to members at random, that is one in 3,000
	// at eight times, which is 60 members with memberlist's 4, one in 160,000 at
	// twelve, and one in nine million at sixteen.
	memberMult     = 8
	gossipInterval = 200 * time.Millisecond
	gossipNodes    = 4
	gossipToDead   = 30 * time.Second
	// A name that died may come back at another address at once: the proof in
	// its metadata says whose it is.
	reclaimTime = time.Second

	leaveTime     = time.Second
	maintainEvery = 5 * time.Second
	senders       = 4

	packetSize = 1400
	// How often a member repeats a record is memberlist's for a mesh of a hundred,
	// at most: relays and digests do the rest. There are as many to be repeated
	// as go out in a minute; the oldest give way.
	broadcastMult = 3
	broadcastFor  = 99
	maxBroadcasts = 256
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
		broadcasts: &memberlist.TransmitLimitedQueue{NumNodes: func() int { return min(g.members.count(), broadcastFor) }, RetransmitMult: broadcastMult},
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
	wg.Go(func() { g.exchangeLoop(joining, n) })
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
	c.SuspicionMult, c.RetransmitMult = g.cfg.Suspicion, memberMult
	c.GossipInterval, c.GossipNodes, c.GossipToTheDeadTime = gossipInterval, gossipNodes, gossipToDead
	c.PushPullInterval = 0 // see exchangeLoop
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
	for _, b := range j.make() {
		send := n.list.SendReliable
		if j.packet || j.fit && len(b) <= n.packetRoom {
			send = n.list.SendBestEffort
		}
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
		g.compare()
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
