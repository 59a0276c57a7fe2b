package router

import (
	"encoding/binary"
	"net/netip"

	"slicewire/overlay"
)

// The stages flow and policy of a packet, between its source check and the rest.
//
//  1. A packet of a flow that this policy has allowed passes, either way.
//  2. A packet of a flow that an earlier policy allowed, or that allowed it with
//     other ends on this node, has the flow asked about again, as its first
//     packet was.
//  3. Any other has the policy asked about itself, and starts a flow if it may.
//
// A packet that opens a connection never passes as an answer: one end's
// permission to answer is none to ask. An ICMP error passes if what it quotes is
// of a flow. A fragment without ports passes if the first one has passed within
// idleFragment. What only passes through this node is asked about at its ends.

// setPolicy makes t's policy p; what is remembered comes from the table before.
func (t *table) setPolicy(before *table, p *Policy, maxFlows int) {
	t.policy, t.flows, t.policyVersion, t.rules = p, before.flows, before.policyVersion, before.rules
	if p == before.policy {
		return
	}
	t.policyVersion++
	counts := make(map[string]*ruleCount, len(before.rules))
	for _, c := range before.rules {
		counts[c.name] = c
	}
	t.rules = nil
	if p == nil {
		t.flows = nil
		return
	}
	if t.flows == nil {
		t.flows = newFlowTable(maxFlows)
	}
	for _, r := range p.rules {
		c := counts[r.Name]
		if c == nil {
			c = &ruleCount{name: r.Name}
		}
		t.rules = append(t.rules, c)
	}
}

// keyOf is the flow of a checked packet.
func keyOf(pkt []byte, p *info) (k flowKey) {
	if p.v6 {
		_ = pkt[ipv6Header-1]
		k.srcHi, k.srcLo = binary.BigEndian.Uint64(pkt[8:]), binary.BigEndian.Uint64(pkt[16:])
		k.dstHi, k.dstLo = binary.BigEndian.Uint64(pkt[24:]), binary.BigEndian.Uint64(pkt[32:])
		k.last = keyV6
	} else {
		_ = pkt[ipv4Header-1]
		k.srcLo, k.dstLo = uint64(binary.BigEndian.Uint32(pkt[12:])), uint64(binary.BigEndian.Uint32(pkt[16:]))
	}
	k.last |= uint64(p.proto)<<32 | ports(pkt[p.l4:], p)
	return k
}

// ports reads what tells a flow from others between the same ends: both ports,
// or the identifier of an echo as both. Errors are of no flow of their own.
func ports(segment []byte, p *info) uint64 {
	switch {
	case p.later:
		return 0
	case p.proto == protoTCP || p.proto == protoUDP:
		return uint64(binary.BigEndian.Uint32(segment))
	case isEcho(p.proto, segment):
		id := uint64(binary.BigEndian.Uint16(segment[4:]))
		return keyEcho | id<<16 | id
	case isError(p.proto, segment):
		return keyError
	}
	return 0
}

// isEcho reports whether an ICMP message that passed its check is an echo
// request or reply.
func isEcho(proto uint8, segment []byte) bool {
	switch proto {
	case protoICMP:
		return segment[0] == 8 || segment[0] == 0
	case protoICMPv6:
		return segment[0] == 128 || segment[0] == 129
	}
	return false
}

// isError reports whether an ICMP message that passed its check quotes a packet.
func isError(proto uint8, segment []byte) bool {
	switch proto {
	case protoICMP:
		return segment[0] == 3 || segment[0] == 11 || segment[0] == 12
	case protoICMPv6:
		return segment[0] >= 1 && segment[0] <= 4
	}
	return false
}

// opens reports whether the packet asks for a connection, so that it is no answer.
func opens(pkt []byte, p *info) bool {
	switch p.proto {
	case protoTCP:
		return pkt[p.l4+13]&(tcpSYN|tcpACK|tcpRST) == tcpSYN
	case protoICMP:
		return pkt[p.l4] == 8
	case protoICMPv6:
		return pkt[p.l4] == 128
	}
	return false
}

// police decides whether a packet whose source is right and that has a way out
// may pass. When ok is false, drop says why not. It leaves in b which flow
// remembers the packet, or what the policy said.
func (t *table) police(b *batch, in, out *port, pkt []byte, p *info) (drop overlay.Drop, ok bool) {
	b.entry, b.said = nil, verdict{allowed: true, egress: noRule, ingress: noRule}
	srcHere, dstHere := in.role != Outside, out.role != Outside
	if !srcHere && !dstHere {
		return 0, true
	}
	state := stateOf(t.policyVersion, srcHere, dstHere)
	if p.later {
		k := fragmentKey(pkt, p)
		if e, have, _ := t.flows.find(&k); e == nil || have != state || e.expired(b.now) {
			return overlay.DropFragment, false
		}
		return 0, true
	}
	k := keyOf(pkt, p)
	e, have, back := t.flows.find(&k)
	want := state
	if back {
		want = swapEnds(state)
	}
	switch {
	case e != nil && have == want && !e.expired(b.now) && (!back || !opens(pkt, p)):
		b.entry, b.back = e, back
	case isError(p.proto, pkt[p.l4:]):
		if ok = t.related(b, pkt, p) || t.judge(b, &k, state); !ok {
			return overlay.DropPolicy, false
		}
	default:
		if ok = t.ask(b, &k, state, opens(pkt, p)); !ok {
			return overlay.DropPolicy, false
		}
	}
	if b.dry {
		return 0, true
	}
	if b.entry != nil {
		b.entry.touch(b.back, b.now)
		if p.proto == protoTCP {
			b.entry.note(pkt[p.l4+13])
		}
	}
	if p.fragment {
		t.expect(b, pkt, p, state)
	}
	return 0, true
}

// ask decides about a packet that no flow of this policy was seen to hold. Two
// batches may ask about the same flow at once: who is second finds what the
// first one added.
func (t *table) ask(b *batch, k *flowKey, state uint64, opens bool) bool {
	v := t.decide(k, state)
	f := t.flows
	f.mu.Lock()
	defer f.mu.Unlock()
	i, back := f.findLocked(k)
	if i != 0 {
		e := f.at(i)
		first, want := *k, state
		if back {
			first, want = k.reverse(), swapEnds(state)
		}
		if over := e.expired(b.now); !over && (!back || !opens) {
			switch have := e.state.Load(); {
			case have == want:
				b.entry, b.back = e, back
				return true
			case have>>2 > want>>2: // the batch began before the policy changed: it neither learns nor forgets
				b.said = v
				return v.allowed
			}
			if u := t.decide(&first, want); u.allowed {
				b.said = u
				if !b.dry {
					e.judgeLocked(want, t.counts(u))
					b.entry, b.back = e, back
				}
				return true
			}
		} else if !over && !v.allowed {
			i = 0 // that it may not ask back ends nothing
		}
		if i != 0 && !b.dry {
			f.removeLocked(i)
		}
	}
	b.said = v
	switch {
	case b.dry:
	case !v.allowed:
		t.deny(v)
	default:
		b.entry, b.back = f.addLocked(k, state, t.counts(v), b.now), false
	}
	return v.allowed
}

// judge decides about a packet that starts no flow.
func (t *table) judge(b *batch, k *flowKey, state uint64) bool {
	b.said = t.decide(k, state)
	if !b.said.allowed && !b.dry {
		t.deny(b.said)
	}
	return b.said.allowed
}

func (t *table) decide(k *flowKey, state uint64) verdict {
	src, dst := k.addrs()
	return t.policy.decide(src, dst, k.proto(), uint16(k.last), state&1 != 0, state&2 != 0)
}

func (k *flowKey) addrs() (src, dst netip.Addr) {
	if k.last&keyV6 != 0 {
		return addr6(k.srcHi, k.srcLo), addr6(k.dstHi, k.dstLo)
	}
	return addr4(k.srcLo), addr4(k.dstLo)
}

func addr4(lo uint64) netip.Addr {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], uint32(lo))
	return netip.AddrFrom4(a)
}

func addr6(hi, lo uint64) netip.Addr {
	var a [16]byte
	binary.BigEndian.PutUint64(a[:], hi)
	binary.BigEndian.PutUint64(a[8:], lo)
	return netip.AddrFrom16(a)
}

// counts are the rules that a verdict names.
func (t *table) counts(v verdict) (c [2]*ruleCount) {
	if int(v.egress) < len(t.rules) {
		c[0] = t.rules[v.egress]
	}
	if int(v.ingress) < len(t.rules) {
		c[1] = t.rules[v.ingress]
	}
	return c
}

// deny counts a packet for the rule that selected it when nothing allowed it.
func (t *table) deny(v verdict) {
	rule := v.egress
	if v.deniedIngress {
		rule = v.ingress
	}
	if int(rule) < len(t.rules) {
		t.rules[rule].denied.Add(1)
	}
}

// refuse names the reason for a packet that has no way out: the policy's, if it
// would not let it go even if it had one.
func (t *table) refuse(b *batch, pkt []byte, p *info) overlay.Drop {
	if p.later {
		return overlay.DropNoRoute
	}
	if k := keyOf(pkt, p); !t.judge(b, &k, stateOf(0, true, false)) {
		return overlay.DropPolicy
	}
	return overlay.DropNoRoute
}

// related reports whether an ICMP error quotes a packet that its receiver has
// sent, of a flow that this policy allows. Such an error is accounted for
// nowhere. It may come from a router on the way, so which ends are here is not
// for it to say.
func (t *table) related(b *batch, pkt []byte, p *info) bool {
	k, ok := quotedKey(pkt[p.l4+icmpHeader:p.length], p.v6)
	outer := keyOf(pkt, p)
	if !ok || k.srcHi != outer.dstHi || k.srcLo != outer.dstLo {
		return false
	}
	e, have, _ := t.flows.find(&k)
	return e != nil && uint32(have>>2) == t.policyVersion && !e.expired(b.now)
}

// quotedKey reads the flow of a packet that an ICMP error quotes, of which there
// is at least the beginning of the transport header.
func quotedKey(q []byte, v6 bool) (k flowKey, ok bool) {
	var p info
	p.v6 = v6
	if v6 {
		if len(q) < ipv6Header+8 || q[0]>>4 != 6 {
			return k, false
		}
		p.l4, p.proto = ipv6Header, q[6]
	} else {
		if len(q) < ipv4Header+8 || q[0] != 0x45 || binary.BigEndian.Uint16(q[6:])&0x1fff != 0 {
			return k, false
		}
		p.l4, p.proto = ipv4Header, q[9]
	}
	if isError(p.proto, q[p.l4:]) || p.proto == protoFragment {
		return k, false
	}
	return keyOf(q, &p), true
}

// fragmentKey names the packet that a fragment is of.
func fragmentKey(pkt []byte, p *info) flowKey {
	q := info{v6: p.v6, later: true}
	k := keyOf(pkt, &q)
	if p.v6 {
		k.last = keyFragment | keyV6 | uint64(binary.BigEndian.Uint32(pkt[int(p.frag)+4:]))
	} else {
		k.last = keyFragment | uint64(p.proto)<<32 | uint64(binary.BigEndian.Uint16(pkt[4:]))
	}
	return k
}

// expect lets the later fragments of a packet follow its first one.
func (t *table) expect(b *batch, pkt []byte, p *info, state uint64) {
	k := fragmentKey(pkt, p)
	f := t.flows
	f.mu.Lock()
	defer f.mu.Unlock()
	if i, _ := f.findLocked(&k); i != 0 {
		e := f.at(i)
		e.state.Store(state)
		e.seen.Store(b.now)
		return
	}
	f.addLocked(&k, state, [2]*ruleCount{}, b.now)
}
