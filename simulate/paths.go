package simulate

import (
	"container/heap"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"slicewire/bench/lab"
	"slicewire/gateway"
	"slicewire/overlay"
)

// warmUp is how long everything has been as at the start before the scenario
// begins.
const warmUp = 10 * time.Second

// A pathSim is the paths of a scenario in virtual time: events one after the
// other, each at its time. What decides is what decides in a daemon; what is
// modelled is the network, and that tunnels need no handshakes.
type pathSim struct {
	world   *world
	report  *Report
	now     time.Duration // since the scenario's beginning
	queue   queue
	number  uint64
	policy  lab.Policy
	cut     cutting
	chance  map[[2]netip.Addr]*rand.Rand
	ends    []*end
	byProbe map[netip.Addr]*end
	hosts   map[netip.Addr]*host
	known   func(observer, origin overlay.NodeID) time.Duration // after a join
	broken  map[[2]*end]time.Duration                           // since when two cannot talk
}

// A host is a machine.
type host struct {
	up     bool
	wakes  time.Duration // stalled until then
	joined time.Duration
}

// A end is a node's part of one slice.
type end struct {
	node    *simulated
	host    *host
	slice   *overlay.Slice
	own     *overlay.Attachment
	watcher *gateway.Watcher // nil while it is down
	fabric  *overlay.Fabric
	ways    map[netip.Prefix]overlay.Tag
	due     time.Duration // of its next step
	leaving bool
	peers   map[overlay.Tag]*end // of the slice, by tag; shared
}

type item struct {
	at     time.Duration
	number uint64 // what is due at once happens in the order in which it was planned
	do     func()
}

type queue []item

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].number < q[j].number
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(v any)   { *q = append(*q, v.(item)) }
func (q *queue) Pop() any {
	old := *q
	v := old[len(old)-1]
	*q = old[:len(old)-1]
	return v
}

// runPaths runs a scenario and writes what becomes of its paths to report.
func runPaths(w *world, report *Report, known func(observer, origin overlay.NodeID) time.Duration) {
	s := &pathSim{
		world: w, report: report, now: -warmUp, policy: w.policy(), cut: make(cutting), known: known,
		chance: make(map[[2]netip.Addr]*rand.Rand), byProbe: make(map[netip.Addr]*end),
		hosts: make(map[netip.Addr]*host), broken: make(map[[2]*end]time.Duration),
	}
	bySlice := make(map[string]map[overlay.Tag]*end)
	for _, n := range w.nodes {
		host := &host{up: !n.late, wakes: -warmUp, joined: -warmUp}
		s.hosts[n.addr] = host
		for i := range n.attachments {
			own := &n.attachments[i]
			slice, _ := w.mesh.Slice(own.Slice)
			if bySlice[slice.Name] == nil {
				bySlice[slice.Name] = make(map[overlay.Tag]*end)
			}
			e := &end{node: n, host: host, slice: slice, own: own, peers: bySlice[slice.Name]}
			e.peers[n.id.Tag()] = e
			s.ends = append(s.ends, e)
			s.byProbe[gateway.ProbeAddr(gateway.PublicKey(n.keys[slice.Name]))] = e
		}
	}
	for _, e := range s.ends {
		if e.host.up {
			s.start(e)
		}
	}
	for i := range w.scenario.Events {
		e := &w.scenario.Events[i]
		s.plan(time.Duration(e.At), func() { s.happen(e) })
	}
	s.plan(0, s.look)
	end := time.Duration(w.scenario.Duration)
	for len(s.queue) > 0 && s.queue[0].at <= end {
		item := heap.Pop(&s.queue).(item)
		s.now = item.at
		item.do()
	}
	s.now = end
	for pair, since := range s.broken {
		s.outage(pair, since, true, false)
	}
	report.sort()
}

func (s *pathSim) plan(at time.Duration, do func()) {
	s.number++
	heap.Push(&s.queue, item{max(at, s.now), s.number, do})
}

// start makes a node's part of a slice what it is after the start of a daemon.
func (s *pathSim) start(e *end) {
	e.watcher = gateway.NewWatcher(func() time.Duration { return s.now + 2*warmUp }) // never before zero
	e.watcher.SetLeaving(e.leaving)
	e.ways = nil
	s.learn(e)
}

// learn has a node look at the records that have come to it.
func (s *pathSim) learn(e *end) {
	if e.watcher == nil {
		return
	}
	var records []overlay.Record
	for _, o := range s.world.nodes {
		joined := s.hosts[o.addr].joined
		switch {
		case !s.hosts[o.addr].up && o.late && joined == -warmUp:
		case o.late && o != e.node && s.now < joined+s.known(e.node.id, o.id):
		default:
			records = append(records, o.facts...)
		}
	}
	v := overlay.Look(e.node.id, e.slice, e.own, records)
	e.fabric = v.Fabric
	t := gateway.Tunnel{Slice: e.slice.Name, Tag: e.node.id.Tag(), PrivateKey: e.node.keys[e.slice.Name]}
	for _, p := range v.Peers {
		t.Peers = append(t.Peers, gateway.Peer{Name: p.ID.String(), PublicKey: p.PublicKey, Tag: p.ID.Tag(), Probe: p.Probe, Standby: p.Standby})
	}
	e.watcher.Set(t)
	s.step(e)
}

// step does what is due at a node, sends what that brings about, and plans the
// next step.
func (s *pathSim) step(e *end) {
	if e.watcher == nil {
		return
	}
	if s.now < e.host.wakes {
		s.at(e, e.host.wakes)
		return
	}
	e.watcher.Busy()
	changed, next := e.watcher.Step()
	for _, p := range e.watcher.Send() {
		s.carry(e, p)
	}
	if changed {
		s.reroute(e)
	}
	s.at(e, next-2*warmUp)
}

func (s *pathSim) at(e *end, when time.Duration) {
	e.due = when
	s.plan(when, func() {
		if e.due == when {
			s.step(e)
		}
	})
}

// carry brings a probe to where it goes.
func (s *pathSim) carry(from *end, p gateway.Probe) {
	to := s.byProbe[p.To]
	if to == nil {
		return
	}
	link := s.link(from, to)
	way := [2]netip.Addr{from.node.addr, to.node.addr}
	if s.chance[way] == nil {
		a, b := way[0].As4(), way[1].As4()
		s.chance[way] = rand.New(rand.NewPCG(s.world.scenario.Seed, uint64(a[2])<<24|uint64(a[3])<<16|uint64(b[2])<<8|uint64(b[3])))
	}
	for _, after := range link.Arrivals(s.chance[way]) {
		s.plan(s.now+after, func() { s.hear(to, p.Packet) })
	}
}

func (s *pathSim) hear(e *end, packet []byte) {
	switch {
	case e.watcher == nil:
	case s.now < e.host.wakes:
		s.plan(e.host.wakes, func() { s.hear(e, packet) })
	default:
		e.watcher.Hear(packet)
		s.step(e)
	}
}

func (s *pathSim) link(a, b *end) lab.Link {
	return s.cut.with(s.policy)(a.node.addr, b.node.addr)
}

// happen lets an event of the scenario happen.
func (s *pathSim) happen(x *eventSpec) {
	verb, whom, _ := x.verb()
	s.report.event(s.now, verb, whom, x)
	if verb == "cut" || verb == "heal" {
		s.world.apply(s.cut, x)
		s.look()
		return
	}
	n := s.world.byName[whom[0]]
	host := s.hosts[n.addr]
	switch verb {
	case "kill":
		host.up = false
	case "restart":
		host.up = true
	case "join":
		host.up, host.joined = true, s.now
	case "stall":
		host.wakes = s.now + time.Duration(x.For)
		s.plan(host.wakes, s.look)
	}
	for _, e := range s.ends {
		if e.node != n {
			if verb == "join" && e.peers[n.id.Tag()] != nil {
				s.plan(s.now+s.known(e.node.id, n.id), func() { s.learn(e) })
			}
			continue
		}
		switch {
		case verb == "kill":
			e.watcher = nil
		case verb == "restart" || verb == "join":
			s.start(e)
		case (verb == "drain" || verb == "undrain") && e.watcher != nil:
			e.leaving = verb == "drain"
			e.watcher.SetLeaving(e.leaving)
			s.step(e)
		}
	}
	s.look()
}

// reroute asks the fabric for a node's paths and reports those that moved.
func (s *pathSim) reroute(e *end) {
	ways := make(map[netip.Prefix]overlay.Tag)
	for peer, prefixes := range e.fabric.Paths(e.watcher.Links()) {
		for _, p := range prefixes {
			ways[p] = peer
		}
	}
	if maps.Equal(ways, e.ways) {
		return
	}
	old := e.ways
	e.ways = ways
	s.report.moved(s.now, e, old)
	s.look()
}

// look finds out who can talk to whom.
func (s *pathSim) look() {
	if s.now < 0 {
		return
	}
	for i, a := range s.ends {
		for _, b := range s.ends[i+1:] {
			if a.slice != b.slice || a.node.id == b.node.id {
				continue
			}
			pair := [2]*end{a, b}
			since, was := s.broken[pair]
			// Nobody misses a node that is not there, or cannot do anything itself.
			ok := !s.works(a) || !s.works(b) || s.reaches(a, b) && s.reaches(b, a)
			switch {
			case !ok && !was:
				s.broken[pair] = s.now
			case ok && was:
				delete(s.broken, pair)
				s.outage(pair, since, false, !s.works(a) || !s.works(b))
			}
		}
	}
}

func (s *pathSim) outage(pair [2]*end, since time.Duration, lasting, gone bool) {
	if s.now > since {
		s.report.outage(since, s.now, pair, lasting, gone)
	}
}

func (s *pathSim) works(e *end) bool { return e.host.up && s.now >= e.host.wakes }

// reaches follows a packet from one node to another as tunnels and routers take
// it: each hop has to know the way on, and takes the packet only from the peer
// that it would send the answer to.
func (s *pathSim) reaches(from, to *end) bool {
	at := from
	for range 4 { // node, gateway, hub, gateway, node
		next := at.peers[at.way(to)]
		if next == nil || !s.works(next) || s.link(at, next).Cut || next.way(from) != at.node.id.Tag() {
			return false
		}
		if next == to {
			return true
		}
		at = next
	}
	return false
}

// way returns the peer that packets for a node go to, 0 if there is none: by the
// node's own block, else by its site's prefix.
func (e *end) way(to *end) overlay.Tag {
	if tag, ok := e.ways[to.own.Block]; ok {
		return tag
	}
	site, _ := e.slice.Site(to.node.id.Site)
	return e.ways[site.Prefix]
}

// changedWays lists the prefixes of ways whose peer differs between two.
func changedWays(old, now map[netip.Prefix]overlay.Tag) []netip.Prefix {
	var out []netip.Prefix
	for p, tag := range now {
		if old[p] != tag {
			out = append(out, p)
		}
	}
	for p := range old {
		if _, still := now[p]; !still {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int { return a.Compare(b) })
	return out
}
