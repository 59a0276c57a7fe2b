package router

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"

	"slicewire/overlay"
)

// A Classifier says which of a list of rules packets are of. It is immutable: any
// number of goroutines may use it. A nil Classifier knows no rule.
type Classifier struct{ rules *Policy }

// NewClassifier compiles rules; where several fit a packet, the first counts. It
// copies what it keeps. No rules make a nil Classifier.
func NewClassifier(rules []overlay.ClassRule) (*Classifier, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	list := make([]overlay.Rule, len(rules))
	for i, r := range rules {
		list[i] = overlay.Rule{Name: fmt.Sprintf("class %s, match %d", r.Class, i), Subject: r.From, Peer: r.To, Ports: r.Ports}
	}
	p, err := NewPolicy(list)
	if err != nil {
		return nil, err
	}
	return &Classifier{p}, nil
}

// Rule returns the index of the first rule that a packet is of, -1 if there is
// none: one from its From to its To and ports, or one that answers such. Later
// fragments have no ports: they are of rules that name none. It keeps and changes
// nothing; what is no packet is of no rule.
func (c *Classifier) Rule(pkt []byte) int {
	if c == nil {
		return -1
	}
	var p info
	p.group = true
	if _, ok := p.check(pkt); !ok {
		return -1
	}
	var src, dst netip.Addr
	if p.v6 {
		src, dst = netip.AddrFrom16([16]byte(pkt[8:24])), netip.AddrFrom16([16]byte(pkt[24:40]))
	} else {
		src, dst = netip.AddrFrom4([4]byte(pkt[12:16])), netip.AddrFrom4([4]byte(pkt[16:20]))
	}
	var from, to uint16
	if !p.later && (p.proto == protoTCP || p.proto == protoUDP) {
		from, to = binary.BigEndian.Uint16(pkt[p.l4:]), binary.BigEndian.Uint16(pkt[p.l4+2:])
	}
	asks := c.rules.first(src, dst, p.proto, to)
	answers := c.rules.first(dst, src, p.proto, from)
	return int(min(asks, answers)) // -1 is the greatest before it is made an int
}

// first returns the first rule that allows a flow, the greatest number if none does.
func (p *Policy) first(src, dst netip.Addr, proto uint8, port uint16) uint {
	s, ok := p.src.Lookup(src)
	if !ok {
		return ^uint(0)
	}
	d, ok := p.dst.Lookup(dst)
	if !ok {
		return ^uint(0)
	}
	for w := range s {
		for both := s[w] & d[w]; both != 0; both &= both - 1 {
			i := w*64 + bits.TrailingZeros64(both)
			if matchPorts(p.rules[i].Ports, proto, port) {
				return uint(i)
			}
		}
	}
	return ^uint(0)
}
