package simulate

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"slicewire/bench/lab"
	"slicewire/overlay"
)

// gossipWarmUp is how long the nodes have to get to know each other before the
// scenario begins.
const gossipWarmUp = 3 * time.Second

// gossipLook is how often it is asked who knows what.
const gossipLook = 20 * time.Millisecond

// A gossipSim is the real gossip of a scenario's nodes, in real time.
type gossipSim struct {
	world   *world
	network *lab.Network
	nodes   map[overlay.NodeID]*lab.Node
	seeds   []netip.AddrPort
	began   time.Time // of the scenario
	cut     cutting
	news    []*telling
}

// A telling is a start of a node, which makes it tell everything anew.
type telling struct {
	of    overlay.NodeID
	epoch uint64
	at    time.Duration
	knew  map[overlay.NodeID]time.Duration // how long it took, by who knows
	over  bool                             // the node was killed since
}

// runGossip runs the scenario, writes to report when news was known, and
// returns how long it took others to know a node that had joined.
func runGossip(ctx context.Context, w *world, report *Report) (func(observer, origin overlay.NodeID) time.Duration, error) {
	g := &gossipSim{world: w, network: lab.NewNetwork(w.scenario.Seed), nodes: make(map[overlay.NodeID]*lab.Node), cut: make(cutting)}
	g.network.Set(w.policy())
	mesh, err := lab.NewMesh(g.network, w.mesh.Name)
	if err != nil {
		return nil, err
	}
	for _, n := range w.nodes {
		node, err := mesh.Add(n.subject, n.addr)
		if err != nil {
			return nil, err
		}
		if err := node.Tell(n.facts); err != nil {
			return nil, err
		}
		g.nodes[n.id] = node
		if n.subject.Gateway {
			g.seeds = append(g.seeds, node.Addr)
		}
	}
	defer g.stop()
	for _, n := range w.nodes {
		if !n.late {
			if err := g.nodes[n.id].Start(g.seeds...); err != nil {
				return nil, err
			}
		}
	}
	g.began = time.Now().Add(gossipWarmUp)
	if err := g.run(ctx); err != nil {
		return nil, err
	}
	return g.result(report), nil
}

// run lets happen what happens and watches the news spread meanwhile.
func (g *gossipSim) run(ctx context.Context) error {
	events := slices.Clone(g.world.scenario.Events)
	slices.SortStableFunc(events, func(a, b eventSpec) int { return cmp.Compare(a.At, b.At) })
	tick := time.NewTicker(gossipLook)
	defer tick.Stop()
	for {
		now := time.Since(g.began)
		for len(events) > 0 && now >= time.Duration(events[0].At) {
			if err := g.happen(&events[0]); err != nil {
				return err
			}
			events = events[1:]
		}
		g.look()
		if now >= time.Duration(g.world.scenario.Duration) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (g *gossipSim) happen(x *eventSpec) error {
	verb, whom, err := x.verb()
	if err != nil {
		return err
	}
	if verb == "cut" || verb == "heal" {
		g.world.apply(g.cut, x)
		g.network.Set(g.cut.with(g.world.policy()))
		return nil
	}
	n := g.nodes[g.world.byName[whom[0]].id]
	switch verb {
	case "kill":
		for _, t := range g.news {
			t.over = t.over || t.of == n.ID
		}
		return n.Kill()
	case "restart", "join":
		if err := n.Start(g.seeds...); err != nil {
			return err
		}
		g.news = append(g.news, &telling{
			of: n.ID, epoch: n.Gossip().Epoch(), at: time.Since(g.began), knew: make(map[overlay.NodeID]time.Duration),
		})
	case "stall":
		if h := n.Host(); h != nil {
			h.Stall(time.Duration(x.For))
		}
	}
	return nil
}

// look notes who knows of what by now.
func (g *gossipSim) look() {
	now := time.Since(g.began)
	pending := slices.DeleteFunc(slices.Clone(g.news), func(t *telling) bool { return t.over || len(t.knew) == len(g.nodes) })
	if len(pending) == 0 {
		return
	}
	for id, n := range g.nodes {
		gossip := n.Gossip()
		if gossip == nil {
			continue
		}
		epochs := make(map[overlay.NodeID]uint64)
		for _, r := range gossip.Records() {
			epochs[r.Origin] = max(epochs[r.Origin], r.Version.Epoch)
		}
		for _, t := range pending {
			if _, knows := t.knew[id]; !knows && epochs[t.of] >= t.epoch {
				t.knew[id] = now - t.at
			}
		}
	}
}

// result writes down the news and returns how long joins took to be known.
func (g *gossipSim) result(report *Report) func(observer, origin overlay.NodeID) time.Duration {
	joined := make(map[overlay.NodeID]*telling)
	for _, t := range g.news {
		if joined[t.of] == nil {
			joined[t.of] = t
		}
		n := News{AtMs: ms(t.at), Of: t.of.String()}
		first := time.Duration(-1)
		for _, x := range g.world.nodes { // in order: equal times give equal reports
			took, knows := t.knew[x.id]
			switch {
			case x.id == t.of:
			case !knows && g.nodes[x.id].Gossip() != nil:
				n.Missing++
			case knows:
				if first < 0 || took < first {
					first = took
				}
				if ms(took) >= n.LastMs {
					n.LastMs, n.Last = ms(took), x.id.String()
				}
			}
		}
		n.FirstMs = ms(max(first, 0))
		report.News = append(report.News, n)
	}
	return func(observer, origin overlay.NodeID) time.Duration {
		t := joined[origin]
		if t == nil {
			return 0
		}
		if took, knows := t.knew[observer]; knows {
			return took
		}
		return maxScenarioTime // not before the end
	}
}

// stop ends all nodes, each of which may take a second.
func (g *gossipSim) stop() {
	var wg sync.WaitGroup
	for _, n := range g.nodes {
		wg.Go(func() { _ = n.Kill() }) // how it ends says nothing about the scenario
	}
	wg.Wait()
}
