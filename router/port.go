package router

import "sync/atomic"

// port is a Port while it exists. Everything in it is fixed but the counters;
// its sources are in the table, which changes as a whole.
type port struct {
	name string
	role Role
	link Link // for the outside port, the queue toward the tunnel
	n    *counts
}

// counts are a port's counters. They outlive a change of its Link.
type counts struct {
	inPackets, inBytes   atomic.Uint64
	outPackets, outBytes atomic.Uint64
}

// PortCount says what went through a port since the Router was made. In is
// what the router took from the port, before any drop; out is what it handed
// to the port's Link, which may still have dropped it.
type PortCount struct {
	Name                 string
	Role                 Role
	InPackets, InBytes   uint64
	OutPackets, OutBytes uint64
}

// Counters is what a Router has counted since it was made.
type Counters struct {
	Ports []PortCount       // of the ports that exist, by name
	Drops map[string]uint64 // packets lost, by overlay.Drop name
	Slow  SlowCount
}

func (p *port) count() PortCount {
	return PortCount{
		Name: p.name, Role: p.role,
		InPackets: p.n.inPackets.Load(), InBytes: p.n.inBytes.Load(),
		OutPackets: p.n.outPackets.Load(), OutBytes: p.n.outBytes.Load(),
	}
}
