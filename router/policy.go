package router

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"slicewire/overlay"
)

// MaxRules bounds the rules of one Policy.
const MaxRules = 4096

// noRule stands for a rule where none decided.
const noRule = 0xffff

// A Policy is an immutable set of compiled rules. It answers by two lookups,
// however many rules there are: each address has a set of the rules that speak
// of it, as whose subject or as whose peer depends on which end it is, and the
// rules that both ends have in common are those that match.
//
// A nil Policy allows everything and remembers no flows.
type Policy struct {
	rules []overlay.Rule
	words int
	src   bart.Fast[ruleSet]           // of egress the subjects, of ingress the peers
	dst   bart.Fast[ruleSet]           // of egress the peers, of ingress the subjects
	masks [overlay.NumTiers][2]ruleSet // by tier: egress, ingress
	none  ruleSet
}

// A ruleSet has a bit for each rule.
type ruleSet []uint64

// NewPolicy compiles rules. Their order decides which one is named where several
// allow the same. It copies what it keeps.
func NewPolicy(rules []overlay.Rule) (*Policy, error) {
	if len(rules) > MaxRules {
		return nil, fmt.Errorf("router: policy of %d rules: at most %d", len(rules), MaxRules)
	}
	p := &Policy{rules: slices.Clone(rules), words: (len(rules) + 63) / 64}
	p.none = make(ruleSet, p.words)
	for t := range p.masks {
		p.masks[t] = [2]ruleSet{make(ruleSet, p.words), make(ruleSet, p.words)}
	}
	names := make(map[string]bool, len(rules))
	var src, dst [][]overlay.Block
	for i, r := range rules {
		if r.Name == "" || names[r.Name] {
			return nil, fmt.Errorf("router: rule %d: its name %q is empty or another's", i, r.Name)
		}
		names[r.Name] = true
		if r.Tier >= overlay.NumTiers {
			return nil, fmt.Errorf("router: rule %s: unknown tier %d", r.Name, r.Tier)
		}
		for _, b := range slices.Concat(r.Subject, r.Peer) {
			for _, x := range append([]netip.Prefix{b.Prefix}, b.Except...) {
				if err := validPrefix(x); err != nil {
					return nil, fmt.Errorf("router: rule %s: %v: %w", r.Name, x, err)
				}
			}
		}
		dir := 0
		if r.Ingress {
			dir = 1
			src, dst = append(src, r.Peer), append(dst, r.Subject)
		} else {
			src, dst = append(src, r.Subject), append(dst, r.Peer)
		}
		p.masks[r.Tier][dir].set(i)
	}
	p.fill(&p.src, src)
	p.fill(&p.dst, dst)
	return p, nil
}

func (s ruleSet) set(i int) { s[i/64] |= 1 << (i % 64) }

// fill builds the table of one end: for every prefix that any rule mentions, the
// rules whose blocks hold an address inside it. No mentioned prefix lies between
// an address and the longest one that holds it, so that one answers for it.
func (p *Policy) fill(t *bart.Fast[ruleSet], blocks [][]overlay.Block) {
	type mention struct {
		prefix netip.Prefix
		rule   int
		change int
	}
	var all []mention
	for i, list := range blocks {
		for _, b := range list {
			in := b.Prefix.Masked()
			all = append(all, mention{in, i, 1})
			for _, x := range outermost(in, b.Except) {
				all = append(all, mention{x, i, -1})
			}
		}
	}
	slices.SortFunc(all, func(a, b mention) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()))
	})
	// Sorted like this, a prefix comes after those around it. count is how many
	// blocks of each rule hold the addresses of the prefix at hand.
	type around struct {
		prefix netip.Prefix
		count  []int
	}
	var stack []around
	seen := make(map[string]ruleSet)
	for at := 0; at < len(all); {
		prefix := all[at].prefix
		for len(stack) > 0 && !covers(stack[len(stack)-1].prefix, prefix) {
			stack = stack[:len(stack)-1]
		}
		count := make([]int, len(blocks))
		if len(stack) > 0 {
			copy(count, stack[len(stack)-1].count)
		}
		for ; at < len(all) && all[at].prefix == prefix; at++ {
			count[all[at].rule] += all[at].change
		}
		stack = append(stack, around{prefix, count})
		set := make(ruleSet, p.words)
		for i, n := range count {
			if n > 0 {
				set.set(i)
			}
		}
		key := make([]byte, 0, 8*p.words)
		for _, w := range set {
			key = binary.NativeEndian.AppendUint64(key, w)
		}
		if same, ok := seen[string(key)]; ok {
			set = same
		}
		seen[string(key)] = set
		t.Insert(prefix, set)
	}
}

// covers reports whether every address of p lies inside q.
func covers(q, p netip.Prefix) bool {
	return q.Addr().Is4() == p.Addr().Is4() && q.Bits() <= p.Bits() && q.Contains(p.Addr())
}

// outermost returns the excepted prefixes that lie in a block, without those
// that lie in another: each takes its addresses out once.
func outermost(in netip.Prefix, except []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, x := range except {
		x = x.Masked()
		if covers(x, in) {
			x = in // all of it
		}
		if !covers(in, x) {
			continue
		}
		if slices.ContainsFunc(out, func(y netip.Prefix) bool { return covers(y, x) }) {
			continue
		}
		out = append(slices.DeleteFunc(out, func(y netip.Prefix) bool { return covers(x, y) }), x)
	}
	return out
}

// A Flow says what a policy decides about: the first packet of a connection.
type Flow struct {
	Src, Dst         netip.Addr
	Proto            uint8
	SrcPort, DstPort uint16 // of ICMP echo: the identifier, both; else 0
}

// A Verdict is what a policy says of a flow, and who said it.
type Verdict struct {
	Allowed bool
	// Egress and Ingress name the rule that decided for each direction that was
	// asked: the one that allowed it or, when it was denied, the first that
	// selects the address. Empty: nothing selects it, or the direction is
	// another node's to ask.
	Egress, Ingress string
	Denied          string // "egress" or "ingress", when it is not allowed
}

// Decide asks about a flow. The direction is asked for an end that is on this
// node: egress for a source, ingress for a destination.
func (p *Policy) Decide(f Flow, srcHere, dstHere bool) Verdict {
	v := p.decide(f.Src, f.Dst, f.Proto, f.DstPort, srcHere, dstHere)
	return p.explain(v)
}

// verdict is a Verdict in numbers.
type verdict struct {
	allowed         bool
	egress, ingress uint16 // rules; noRule: none
	deniedIngress   bool
}

func (p *Policy) explain(v verdict) Verdict {
	out := Verdict{Allowed: v.allowed, Egress: p.name(v.egress), Ingress: p.name(v.ingress)}
	switch {
	case v.allowed:
	case v.deniedIngress:
		out.Denied = "ingress"
	default:
		out.Denied = "egress"
	}
	return out
}

func (p *Policy) name(rule uint16) string {
	if p == nil || int(rule) >= len(p.rules) {
		return ""
	}
	return p.rules[rule].Name
}

// decide is Decide: what the fast path asks about the first packet of a flow.
func (p *Policy) decide(src, dst netip.Addr, proto uint8, port uint16, srcHere, dstHere bool) verdict {
	v := verdict{allowed: true, egress: noRule, ingress: noRule}
	if p == nil {
		return v
	}
	s, ok := p.src.Lookup(src)
	if !ok {
		s = p.none
	}
	d, ok := p.dst.Lookup(dst)
	if !ok {
		d = p.none
	}
	for t := range p.masks {
		if srcHere {
			allowed, rule := p.ask(s, d, s, p.masks[t][0], proto, port)
			if rule != noRule {
				v.egress = rule
			}
			if !allowed {
				v.allowed = false
				return v
			}
		}
		if dstHere {
			allowed, rule := p.ask(s, d, d, p.masks[t][1], proto, port)
			if rule != noRule {
				v.ingress = rule
			}
			if !allowed {
				v.allowed, v.deniedIngress = false, true
				return v
			}
		}
	}
	return v
}

// ask looks at the rules of one tier and direction, which are mask: subject is
// the set of the end that they may select.
func (p *Policy) ask(s, d, subject, mask ruleSet, proto uint8, port uint16) (allowed bool, rule uint16) {
	first := uint16(noRule)
	for w, m := range mask {
		selected := subject[w] & m
		if selected == 0 {
			continue
		}
		if first == noRule {
			first = uint16(w*64 + bits.TrailingZeros64(selected))
		}
		for both := s[w] & d[w] & m; both != 0; both &= both - 1 {
			i := w*64 + bits.TrailingZeros64(both)
			if matchPorts(p.rules[i].Ports, proto, port) {
				return true, uint16(i)
			}
		}
	}
	return first == noRule, first
}

func matchPorts(ports []overlay.PortRange, proto uint8, port uint16) bool {
	for _, r := range ports {
		if r.Matches(proto, port) {
			return true
		}
	}
	return len(ports) == 0
}
