package router

import (
	"net/netip"
	"slices"
	"time"

	"slicewire/overlay"
)

// A FlowInfo is a flow that policy has allowed. Forth is the way of its first
// packet. Counts are of packets that went on, and exact but for one that crossed
// in the moment in which its flow was forgotten.
type FlowInfo struct {
	Flow
	Forth, Back struct{ Packets, Bytes uint64 }
	Age, Idle   time.Duration // in steps of 100 ms
	Egress      string        // rules that allowed it; empty: none had to
	Ingress     string
	SrcHere     bool // the end is on this node
	DstHere     bool
	Replied     bool
	Stale       bool // the policy has changed since its latest packet
}

// Flows lists the flows that are remembered, in no order.
func (r *Router) Flows() []FlowInfo {
	t := r.table.Load()
	if t.flows == nil {
		return nil
	}
	now := ticks(r.clock())
	var out []FlowInfo
	t.flows.each(func(e *flowEntry) {
		k := e.key()
		if k.last&keyFragment != 0 || e.expired(now) {
			return
		}
		x := FlowInfo{
			Flow: k.flow(),
			Age:  time.Duration(now-e.born) * tick, Idle: time.Duration(now-e.seen.Load()) * tick,
			Replied: e.marks.Load()&markReplied != 0,
		}
		x.Forth.Packets, x.Forth.Bytes = e.count[0].packets.Load(), e.count[0].bytes.Load()
		x.Back.Packets, x.Back.Bytes = e.count[1].packets.Load(), e.count[1].bytes.Load()
		x.Egress, x.Ingress = e.rules[0].String(), e.rules[1].String()
		state := e.state.Load()
		x.SrcHere, x.DstHere, x.Stale = state&1 != 0, state&2 != 0, uint32(state>>2) != t.policyVersion
		out = append(out, x)
	})
	return out
}

func (c *ruleCount) String() string {
	if c == nil {
		return ""
	}
	return c.name
}

func (k *flowKey) flow() Flow {
	f := Flow{Proto: k.proto(), SrcPort: uint16(k.last >> 16), DstPort: uint16(k.last)}
	f.Src, f.Dst = k.addrs()
	return f
}

// each calls f for every flow, some at a time under the lock.
func (t *flowTable) each(f func(e *flowEntry)) {
	for at, more := 1, true; more; at += chunkSize {
		t.mu.Lock()
		for i := at; i < at+chunkSize && i <= t.used; i++ {
			if e := t.at(uint32(i)); e.seq.Load()&1 == 0 {
				f(e)
			}
		}
		more = at+chunkSize <= t.used
		t.mu.Unlock()
	}
}

// A RuleCount is what one rule of the policy has decided since it is there.
type RuleCount struct {
	Name           string
	Flows          uint64 // that it allowed, ever
	Packets, Bytes uint64 // of those, both ways
	Denied         uint64 // packets of what it selects that no rule allowed; the first that selects counts
}

// Rules returns the counters of the policy's rules, in their order.
func (r *Router) Rules() []RuleCount {
	t := r.table.Load()
	if t.flows == nil {
		return nil
	}
	t.flows.each((*flowEntry).creditLocked)
	out := make([]RuleCount, len(t.rules))
	for i, c := range t.rules {
		out[i] = RuleCount{c.name, c.flows.Load(), c.packets.Load(), c.bytes.Load(), c.denied.Load()}
	}
	return out
}

// A Trace says what would happen to a packet, stage by stage.
type Trace struct {
	Out      string // the port it would leave by; empty: it would be dropped
	Reason   string // of the drop, as it is counted
	SourceOK bool   // the port may send from its source address
	Known    bool   // a flow remembers it; the rules are those that allowed that flow
	Back     bool   // it goes against that flow's first packet
	Asked    bool   // the policy was asked
	Policy   Verdict
	SrcHere  bool
	DstHere  bool
}

// Trace asks what would happen to a packet from a port, of the same functions and
// the same State that the next real one meets. It changes nothing and counts
// nothing. ok is false if there is no such port.
func (r *Router) Trace(from string, pkt []byte) (tr Trace, ok bool) {
	r.mu.Lock()
	in := r.ports[from]
	r.mu.Unlock()
	if from == OutsideName {
		in = r.outside
	}
	if in == nil {
		return tr, false
	}
	t := r.table.Load()
	b := &batch{dry: true, said: verdict{allowed: true, egress: noRule, ingress: noRule}}
	b.flows.renew(t.version, in)
	if t.policy != nil {
		b.now = ticks(r.clock())
	}
	out, _, drop := r.route(t, t.sources[in], in, b, slices.Clone(pkt), overlay.Meta{})
	tr.SrcHere, tr.SourceOK = in.role != Outside, true
	if out != nil {
		tr.Out, tr.DstHere = out.name, out.role != Outside
	} else {
		tr.Reason = drop.String()
		tr.SourceOK = drop != overlay.DropSource
	}
	tr.Policy = t.policy.explain(b.said)
	tr.Asked = t.policy != nil && b.entry == nil
	if e := b.entry; e != nil {
		tr.Known, tr.Back = true, b.back
		t.flows.mu.Lock()
		tr.Policy.Egress, tr.Policy.Ingress = e.rules[0].String(), e.rules[1].String()
		t.flows.mu.Unlock()
	}
	return tr, true
}

// PortOf returns the port that packets from an address come by: a workload's or
// the node's own before the tunnel.
func (r *Router) PortOf(src netip.Addr) (string, bool) {
	t := r.table.Load()
	found, ok := "", false
	for p, set := range t.sources {
		if set.Contains(src) && (!ok || p.role != Outside) {
			found, ok = p.name, true
		}
	}
	return found, ok
}

// Inject sends a packet as if it had come from a port, which counts it.
func (r *Router) Inject(from string, pkt []byte) bool {
	r.mu.Lock()
	in := r.ports[from]
	r.mu.Unlock()
	if in == nil {
		return false
	}
	buf := append(make([]byte, overlay.Headroom, overlay.Headroom+len(pkt)), pkt...)
	r.forward(in, [][]byte{buf}, new(batch))
	return true
}

// Permits asks the policy about a flow between two addresses of this node that
// no port will see. One that is denied counts as a dropped packet.
func (r *Router) Permits(f Flow) bool {
	t := r.table.Load()
	v := t.policy.decide(f.Src, f.Dst, f.Proto, f.DstPort, true, true)
	if !v.allowed {
		t.deny(v)
		r.drops.Add(overlay.DropPolicy, 1)
	}
	return v.allowed
}
