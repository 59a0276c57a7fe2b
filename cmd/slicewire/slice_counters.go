package main

import (
	"slices"

	"slicewire/api"
	"slicewire/overlay"
	"slicewire/router"
)

// counters returns what the slice's ports have carried and what was dropped,
// but for what the tunnel did.
func (n *sliceNode) counters() (api.CounterStatus, map[string]uint64) {
	c := n.router.Counters()
	var out api.CounterStatus
	for _, p := range slices.Concat(c.Ports, c.Gone) {
		switch p.Role {
		case router.Outside:
			out.OutsideRxPackets, out.OutsideRxBytes = out.OutsideRxPackets+p.InPackets, out.OutsideRxBytes+p.InBytes
			out.OutsideTxPackets, out.OutsideTxBytes = out.OutsideTxPackets+p.OutPackets, out.OutsideTxBytes+p.OutBytes
		case router.Inside:
			out.InsideRxPackets, out.InsideTxPackets = out.InsideRxPackets+p.InPackets, out.InsideTxPackets+p.OutPackets
		case router.Local:
			out.LocalRxPackets, out.LocalTxPackets = out.LocalRxPackets+p.InPackets, out.LocalTxPackets+p.OutPackets
		}
	}
	addDrops(c.Drops, n.shaper.Drops().Snapshot())
	edge := []*overlay.Drops{n.stack.Drops(), &n.gone, &n.unbound}
	if ports := n.lossy.Load(); ports != nil {
		for _, p := range *ports {
			edge = append(edge, p.Drops())
		}
	}
	for _, d := range edge {
		for reason, packets := range d.Snapshot() {
			c.Drops[reason] += packets
			out.EdgeDrops += packets
		}
	}
	out.ICMPErrors, out.ICMPLimited, out.Cut, out.Fragments = c.Slow.Errors, c.Slow.Limited+c.Slow.Overflow, c.Slow.Cut, c.Slow.Fragments
	out.Copies = c.Copies
	return out, c.Drops
}
