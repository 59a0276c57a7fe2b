package main

import (
	"cmp"
	"reflect"
	"slices"
	"time"

	"slicewire/api"
	"slicewire/overlay"
	"slicewire/overlay/gossip"
	"slicewire/router"
	"slicewire/shaper"
)

// shaping is how a slice is shaped on this node. The reconcile loop owns it.
type shaping struct {
	part overlay.CeilingPart
	use  overlay.CeilingUse
	qos  overlay.QoS // in force; what came in is sites times that
	from int         // sites whose packets come in
	pick *router.Classifier
	set  bool
}

// partsWhole is what a node's part of a ceiling is counted in.
const partsWhole = 1_000_000

// shape has the slice shaped by qos, of which this node has part, a number up to
// 1. from is how many sites may send to it.
func (n *sliceNode) shape(qos overlay.QoS, part float64, from int, now time.Time) {
	part = n.shaping.part.Next(now, part)
	own := qos.Scaled(int(part*partsWhole), partsWhole)
	if s := &n.shaping; !s.set || s.from != from || s.pick != n.classes.compiled || !reflect.DeepEqual(s.qos, own) {
		s.qos, s.from, s.pick, s.set = own, from, n.classes.compiled, true
		n.rates.Store(&own)
		n.shaper.Set(planOf(own, &n.classes))
		n.outside.Set(policeRate(qos, from))
	}
}

// shapingStatus is for the status; the rates are those last set, by the reconcile loop.
func (n *sliceNode) shapingStatus() api.ShapingStatus {
	s := api.ShapingStatus{Classes: []api.ClassStatus{}}
	if rates := n.rates.Load(); rates != nil {
		s.CeilingKbps, s.GuaranteedKbps = rates.CeilingKbps, rates.GuaranteedKbps
	}
	for _, c := range n.shaper.Stats() {
		s.Classes = append(s.Classes, api.ClassStatus{
			Name: cmp.Or(c.Name, overlay.RestClass), SentPackets: c.Packets, SentBytes: c.Bytes, Drops: c.Drops, Marks: c.Marks,
			Waiting: c.Waiting, WaitingBytes: c.WaitingBytes,
		})
	}
	return s
}

// policeMargin is how much more than its site's ceiling a node may be sent: what
// is charged for a packet is not the same at every MTU and address family.
const policeMargin = 1.1

// policeRate is what may come in from a number of sites, each of which has the
// slice's ceiling.
func policeRate(q overlay.QoS, from int) shaper.Rate {
	return shaper.Rate(float64(q.CeilingKbps) * float64(max(1, from)) * policeMargin * float64(shaper.Kbps))
}

// sliceClasses is who speaks to whom in which class of a slice.
type sliceClasses struct {
	rules    []overlay.ClassRule
	compiled *router.Classifier
}

// renew compiles rules that are others than before.
func (c *sliceClasses) renew(rules []overlay.ClassRule) error {
	if reflect.DeepEqual(c.rules, rules) {
		return nil
	}
	compiled, err := router.NewClassifier(rules)
	*c = sliceClasses{rules, compiled}
	return err
}

// classify returns the way to a packet's class by its index among names: that of
// the first rule that picks it, else byDSCP's. It is for many goroutines.
func (c *sliceClasses) classify(names []shaper.Class, byDSCP func(pkt []byte) int) func(pkt []byte) int {
	if c.compiled == nil {
		return byDSCP
	}
	compiled, of := c.compiled, make([]int, len(c.rules))
	for i, r := range c.rules {
		of[i] = slices.IndexFunc(names, func(x shaper.Class) bool { return x.Name == r.Class })
	}
	return func(pkt []byte) int {
		if rule := compiled.Rule(pkt); rule >= 0 {
			return of[rule]
		}
		return byDSCP(pkt)
	}
}

// planOf converts a slice's QoS. The first class is the rest.
func planOf(q overlay.QoS, pick *sliceClasses) shaper.Plan {
	share := func(guaranteed, ceiling, priority int) shaper.Share {
		return shaper.Share{Guaranteed: shaper.Rate(guaranteed) * shaper.Kbps, Ceiling: shaper.Rate(ceiling) * shaper.Kbps, Priority: priority}
	}
	p := shaper.Plan{Share: share(q.GuaranteedKbps, q.CeilingKbps, q.Priority)}
	var table [64]uint8
	add := func(c overlay.QoSClass) {
		x := shaper.Class{Name: c.Name, Share: share(c.GuaranteedKbps, c.CeilingKbps, c.Priority)}
		if dscp, ok := overlay.DSCP(c.DSCP); ok && dscp != 0 {
			x.Mark, x.DSCP = true, dscp
		}
		for _, codepoint := range c.Codepoints {
			table[codepoint&63] = uint8(len(p.Classes))
		}
		p.Classes = append(p.Classes, x)
	}
	add(q.Rest())
	for _, c := range q.Classes {
		if c.Name != overlay.RestClass {
			add(c)
		}
	}
	if len(p.Classes) > 1 {
		p.Classify = pick.classify(p.Classes, shaper.ByDSCP(table))
	}
	return p
}

// shareLook is how often gateways that share a ceiling look at who wants how much.
// With what a probe takes it is what CeilingHold has to be more than twice of.
const shareLook = 150 * time.Millisecond

// shape has every slice shaped as the manifests say and as gateways come and go: a
// ceiling is the site's, which its gateways share by what each would send.
func (d *daemon) shape(now time.Time) {
	view := d.view.Load()
	if view == nil {
		return
	}
	d.uplink.Set(shaper.Rate(d.want.file.UplinkKbps) * shaper.Kbps)
	self := d.id.authority().ID
	d.sharing = false
	gone := goneMembers(d.gossip.Members())
	for i := range view.slices {
		v := &view.slices[i]
		if s, known := d.want.mesh.Slice(v.node.name); known {
			own := overlay.Demand(0)
			if n := v.node; s.QoS.CeilingKbps > 0 {
				sent, held := n.shaper.Use()
				own = n.shaping.use.Next(now, sent, held, float64(s.QoS.CeilingKbps)*1000/8)
			}
			demands := make(map[string]overlay.Demand)
			for _, p := range d.gateway.Links(s.Name) {
				demands[p.Name] = p.Demand
			}
			demands[self.String()] = own
			part, from, several := partOf(self, s, v.view.Nodes, gone, demands)
			if several && s.QoS.CeilingKbps > 0 {
				d.sharing = true
				d.gateway.SetDemand(s.Name, own)
			}
			v.node.shape(s.QoS, part, from, now)
		}
	}
}

// partOf returns the part of a slice's ceiling that node self has, and how many
// others of its site, and other sites, may each send it that ceiling; several says that
// it has to share. demands is what each node is known to want, by its name.
func partOf(self overlay.NodeID, s *overlay.Slice, nodes []overlay.Node, gone map[string]bool, demands map[string]overlay.Demand) (part float64, from int, several bool) {
	from = len(s.Sites) - 1
	used, me := []float64{}, -1
	for _, x := range nodes {
		if x.ID.Site != self.Site {
			continue
		}
		if x.ID != self {
			from++
		}
		switch {
		case !x.Gateway || x.ID != self && gone[x.ID.String()]:
			continue
		case x.ID == self:
			me = len(used)
		}
		used = append(used, demands[x.ID.String()].Part())
	}
	if me < 0 {
		return 1, from, false // the site's gateways see to the ceiling
	}
	return overlay.DivideCeiling(1, used)[me], from, len(used) > 1
}

func goneMembers(members []gossip.Member) map[string]bool {
	gone := make(map[string]bool)
	for _, m := range slices.DeleteFunc(members, func(m gossip.Member) bool { return m.State != gossip.StateGone }) {
		gone[m.Name] = true
	}
	return gone
}
