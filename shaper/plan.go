package shaper

// A Plan is how a slice's packets are shaped. The zero Plan lets everything go.
type Plan struct {
	Share           // the slice's: its ceiling, and its part of the node's Uplink
	Classes []Class // at most ClassesMax; the first is for what Classify leaves; none: one that may have all
	// Classify returns the class of a packet by its index; any other number is the
	// first. It is called by many goroutines, with the packet as it came, and keeps
	// and changes nothing. Nil: all packets are of the first class.
	Classify func(pkt []byte) int
}

// ClassesMax bounds a slice's classes: every packet's turn is found by looking
// at each of them.
const ClassesMax = 16

// A Class is a part of a slice's packets.
type Class struct {
	Name string // other than the others'; what is queued stays when the Plan changes
	Share
	Mark bool  // set DSCP in its packets
	DSCP uint8 // 0 to 63
}

// ByDSCP returns a Plan's Classify: table has the class of each codepoint.
func ByDSCP(table [64]uint8) func(pkt []byte) int {
	return func(pkt []byte) int {
		switch {
		case len(pkt) >= ipv4Header && pkt[0]>>4 == 4:
			return int(table[pkt[1]>>2])
		case len(pkt) >= ipv6Header && pkt[0]>>4 == 6:
			return int(table[pkt[0]<<2&0x3c|pkt[1]>>6])
		}
		return 0
	}
}

const (
	// cutBelow is the rate under which packets that stand for several are cut when
	// they come, not when they leave: 64 KiB take longer than 0.5 ms there, which
	// another flow's packet would wait. Their writer is then not held back but
	// told by loss, as every other: it would hold back others' packets with its own.
	cutBelow = Gbps
	// A class keeps what it sends in waitMax, at least waitMin bytes: no sender's
	// round trip is longer, and what floods it does not fill the slice's memory.
	waitMin = 256 << 10
	waitMax = 0.25 // s
)

// A class is a Class in force. The Queue's mutex guards it, but what the plan
// says does not change.
type class struct {
	share
	flows
	name    string
	memMax  int
	packets uint64 // that left
	sent    uint64 // bytes charged for them
	lost    uint64 // packets
	gone    bool   // no plan has it any more
}

// tree is a slice's classes: which packet leaves next. It is pure.
type tree struct {
	level
	classes []*class
}

// mem returns the bytes of the buffers of all packets.
func (t *tree) mem() (n int) {
	for _, c := range t.classes {
		n += c.mem
	}
	return n
}

func (t *tree) largest() *class {
	most := t.classes[0]
	for _, c := range t.classes {
		if c.mem > most.mem {
			most = c
		}
	}
	return most
}

func newClass(name string, dropped func(*packet, bool)) *class {
	c := &class{name: name}
	c.dropped = dropped
	return c
}

// limits sets what depends on the rate that the class has at most; 0: no limit.
func (c *class) limits(r Rate) {
	c.control = controlAt(r)
	c.quantum, c.memMax = quantumJoined, memoryMax
	if r > 0 && r < cutBelow {
		c.quantum = quantumCut
		c.memMax = min(max(waitMin, int(float64(r)/8*waitMax*2)), memoryMax) // a packet's buffer is somewhat larger than itself
	}
}

// least returns the lower of two ceilings.
func least(a, b Rate) Rate {
	if a <= 0 || b > 0 && b < a {
		return b
	}
	return a
}
