package overlay

import (
	"slices"
	"strconv"
)

// QoS is a slice's share of a site's uplink. Rates are kbit/s of 1000 bits, as
// KubeSlice and tc write them.
type QoS struct {
	CeilingKbps    int
	GuaranteedKbps int
	Priority       int        // 0 goes first, as in tc
	DSCP           string     // Default, AF11 .. AF43, EF
	Classes        []QoSClass // of its packets; what is in none is in the rest
}

// A QoSClass is a part of a slice's packets.
type QoSClass struct {
	Name           string // RestClass: what no other class has
	Matches        []ClassMatch
	Codepoints     []uint8
	CeilingKbps    int // 0: the slice's
	GuaranteedKbps int
	Priority       int
	DSCP           string // that its packets are marked with; "" or Default: none
}

// A ClassMatch picks packets by who speaks to whom, whichever of both ends sends
// them. It picks what matches all that it names.
type ClassMatch struct {
	From, To PolicyRule  // of which only Anyone and Peers count: who asks, and who is asked
	Ports    []PortRange // of who is asked; none: every one
}

// A ClassRule is a compiled ClassMatch.
type ClassRule struct {
	Class    string
	From, To []Block
	Ports    []PortRange
}

// CompileClasses turns what picks packets into rules over addresses, in the order
// in which they count. It is pure.
func CompileClasses(s *Slice, nodes []Node, known []Known) []ClassRule {
	var rules []ClassRule
	for _, c := range s.QoS.Classes {
		for _, m := range c.Matches {
			rules = append(rules, ClassRule{Class: c.Name, From: m.From.blocks(s, nodes, known), To: m.To.blocks(s, nodes, known), Ports: m.Ports})
		}
	}
	return rules
}

// PicksMembers reports whether CompileClasses has a use for what is known.
func (q QoS) PicksMembers() bool {
	return slices.ContainsFunc(q.Classes, func(c QoSClass) bool { return len(c.Matches) > 0 })
}

// RestClass is the name of the class of packets that are in no other.
const RestClass = "rest"

// DSCP returns the codepoint of a name as dscpClass has it, or CS0 to CS7, or a
// number from 0 to 63.
func DSCP(name string) (codepoint uint8, ok bool) {
	switch {
	case name == "Default":
		return 0, true
	case name == "EF":
		return 46, true
	case len(name) == 4 && name[:2] == "AF" && name[2] >= '1' && name[2] <= '4' && name[3] >= '1' && name[3] <= '3':
		return (name[2]-'0')<<3 | (name[3]-'0')<<1, true
	case len(name) == 3 && name[:2] == "CS" && name[2] >= '0' && name[2] <= '7':
		return (name[2] - '0') << 3, true
	}
	n, err := strconv.ParseUint(name, 10, 8)
	return uint8(n), err == nil && n < 64 && name == strconv.FormatUint(n, 10)
}

// Rest returns the class of what no other class has: the one named so, or one
// with what the others leave of the slice's guarantee, after all of them.
func (q QoS) Rest() QoSClass {
	if i := slices.IndexFunc(q.Classes, func(c QoSClass) bool { return c.Name == RestClass }); i >= 0 {
		return q.Classes[i]
	}
	c := QoSClass{Name: RestClass, GuaranteedKbps: q.GuaranteedKbps, DSCP: q.DSCP}
	for _, x := range q.Classes {
		c.GuaranteedKbps = max(0, c.GuaranteedKbps-x.GuaranteedKbps)
		c.Priority = max(c.Priority, x.Priority)
	}
	return c
}

// Scaled returns the QoS of one of several nodes that share it, of which this
// one has part of a whole.
func (q QoS) Scaled(part, whole int) QoS {
	if part >= whole || whole <= 0 {
		return q
	}
	scale := func(kbps int) int {
		if kbps == 0 {
			return 0
		}
		return max(1, int(int64(kbps)*int64(part)/int64(whole)))
	}
	q.CeilingKbps, q.GuaranteedKbps = scale(q.CeilingKbps), scale(q.GuaranteedKbps)
	q.Classes = slices.Clone(q.Classes)
	for i := range q.Classes {
		c := &q.Classes[i]
		c.CeilingKbps, c.GuaranteedKbps = scale(c.CeilingKbps), scale(c.GuaranteedKbps)
	}
	return q
}
