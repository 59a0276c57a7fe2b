package main

import (
	"reflect"
	"slices"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/gossip"
	"slicewire/shaper"
)

// shaping is how a slice is shaped on this node. The reconcile loop owns it.
type shaping struct {
	part overlay.CeilingPart
	qos  overlay.QoS // in force; what came in is sites times that
	from int         // sites whose packets come in
	set  bool
}

// partsWhole is what a node's part of a ceiling is counted in.
const partsWhole = 1_000_000

// shape has the slice shaped by qos, of which this node has part, a number up to
// 1. from is how many sites may send to it.
func (n *sliceNode) shape(qos overlay.QoS, part float64, from int, now time.Time) {
	part = n.shaping.part.Next(now, part)
	own := qos.Scaled(int(part*partsWhole), partsWhole)
	if s := &n.shaping; !s.set || s.from != from || !reflect.DeepEqual(s.qos, own) {
		s.qos, s.from, s.set = own, from, true
		n.shaper.Set(planOf(own))
		n.outside.Set(policeRate(qos, from))
	}
}

// policeMargin is how much more than its site's ceiling a node may be sent: what
// is charged for a packet is not the same at every MTU and address family.
const policeMargin = 1.1

// policeRate is what may come in from a number of sites, each of which has the
// slice's ceiling.
func policeRate(q overlay.QoS, from int) shaper.Rate {
	return shaper.Rate(float64(q.CeilingKbps) * float64(max(1, from)) * policeMargin * float64(shaper.Kbps))
}

// planOf converts a slice's QoS. The first class is the rest.
func planOf(q overlay.QoS) shaper.Plan {
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
		p.Classify = shaper.ByDSCP(table)
	}
	return p
}

// shape has every slice shaped as the manifests say and as gateways come and go: a
// ceiling is the site's, which its gateways share, by whom all leaves it. Nobody
// tells what it uses: the parts are equal.
func (d *daemon) shape(now time.Time) {
	view := d.view.Load()
	if view == nil {
		return
	}
	d.uplink.Set(shaper.Rate(d.want.file.UplinkKbps) * shaper.Kbps)
	self := d.id.authority().ID
	gone := goneMembers(d.gossip.Members())
	for i := range view.slices {
		v := &view.slices[i]
		if s, known := d.want.mesh.Slice(v.node.name); known {
			part, from := partOf(self, s, v.view.Nodes, gone)
			v.node.shape(s.QoS, part, from, now)
		}
	}
}

// partOf returns the part of a slice's ceiling that node self has, and how many
// others of its site, and other sites, may each send it that ceiling.
func partOf(self overlay.NodeID, s *overlay.Slice, nodes []overlay.Node, gone map[string]bool) (part float64, from int) {
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
		used = append(used, -1)
	}
	if me < 0 {
		return 1, from // the site's gateways see to the ceiling
	}
	return overlay.DivideCeiling(1, used)[me], from
}

func goneMembers(members []gossip.Member) map[string]bool {
	gone := make(map[string]bool)
	for _, m := range slices.DeleteFunc(members, func(m gossip.Member) bool { return m.State != gossip.StateGone }) {
		gone[m.Name] = true
	}
	return gone
}
