package capture

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"slicewire/overlay"
)

// Bounds of a filter's text.
const (
	maxFilter = 1024
	maxDepth  = 32
)

// A Filter decides which packets are wanted. Its text is
//
//	expression = term { "or" term }
//	term       = factor { ["and"] factor }
//	factor     = ["not"] ( "(" expression ")" | primitive )
//	primitive  = [ "src" | "dst" ] ( "host" ADDRESS | "net" PREFIX | "port" N | "portrange" N-N )
//	           | "proto" N | "ip" | "ip6" | "tcp" | "udp" | "icmp" | "icmp6" | "sctp" | "gre" | "esp"
//	           | "in" | "out" | "reason" NAME | "fragment"
//
// with &&, || and ! for and, or and not, as tcpdump has it. A later fragment has
// no ports. In and out are the port's: what the router or the node sends is out.
type Filter struct{ match func(*view) bool }

// view is a packet as filters see it.
type view struct {
	overlay.Sight
	src, dst     netip.Addr
	proto        uint8
	v6, fragment bool
	sport, dport int // -1: none
}

// ParseFilter reads a filter. An empty one wants everything.
func ParseFilter(text string) (*Filter, error) {
	if len(text) > maxFilter {
		return nil, fmt.Errorf("filter: %d bytes, at most %d", len(text), maxFilter)
	}
	p := &parser{words: words(text)}
	if len(p.words) == 0 {
		return &Filter{func(*view) bool { return true }}, nil
	}
	m, err := p.or(0)
	if err == nil && p.at < len(p.words) {
		err = fmt.Errorf("%q is not expected here", p.words[p.at])
	}
	if err != nil {
		return nil, fmt.Errorf("filter, word %d: %w", p.at+1, err)
	}
	return &Filter{m}, nil
}

// words splits a filter; parentheses and ! need no spaces around them.
func words(text string) []string {
	r := strings.NewReplacer("(", " ( ", ")", " ) ", "!", " not ", "&&", " and ", "||", " or ")
	return strings.Fields(r.Replace(text))
}

type parser struct {
	words []string
	at    int
}

type matcher = func(*view) bool

func (p *parser) peek() string {
	if p.at < len(p.words) {
		return p.words[p.at]
	}
	return ""
}

var errEnd = errors.New("the filter ends too early")

func (p *parser) next() (string, error) {
	if p.at == len(p.words) {
		return "", errEnd
	}
	p.at++
	return p.words[p.at-1], nil
}

func (p *parser) or(depth int) (matcher, error) {
	a, err := p.and(depth)
	for err == nil && p.peek() == "or" {
		p.at++
		var b matcher
		x := a
		if b, err = p.and(depth); err == nil {
			a = func(v *view) bool { return x(v) || b(v) }
		}
	}
	return a, err
}

func (p *parser) and(depth int) (matcher, error) {
	a, err := p.factor(depth)
	for err == nil {
		switch p.peek() {
		case "and":
			p.at++
		case "", "or", ")":
			return a, nil
		}
		var b matcher
		x := a
		if b, err = p.factor(depth); err == nil {
			a = func(v *view) bool { return x(v) && b(v) }
		}
	}
	return nil, err
}

func (p *parser) factor(depth int) (matcher, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	switch p.peek() {
	case "not":
		p.at++
		a, err := p.factor(depth + 1)
		return func(v *view) bool { return !a(v) }, err
	case "(":
		p.at++
		a, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		if w, err := p.next(); err != nil || w != ")" {
			return nil, errors.New("a parenthesis is not closed")
		}
		return a, nil
	}
	return p.primitive()
}

var protocols = map[string]uint8{"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "icmp6": 58, "sctp": 132}

func (p *parser) primitive() (matcher, error) {
	w, err := p.next()
	if err != nil {
		return nil, err
	}
	if n, ok := protocols[w]; ok {
		return func(v *view) bool { return v.proto == n }, nil
	}
	switch w {
	case "ip", "ip6":
		want := w == "ip6"
		return func(v *view) bool { return v.v6 == want && v.src.IsValid() }, nil
	case "in", "out":
		want := w == "out"
		return func(v *view) bool { return v.Out == want && v.Point != overlay.PointDrop }, nil
	case "fragment":
		return func(v *view) bool { return v.fragment }, nil
	case "proto":
		return p.protocol()
	case "reason":
		return p.reason()
	case "src", "dst":
		return p.address(w == "src", w == "dst")
	}
	p.at--
	return p.address(true, true)
}

func (p *parser) protocol() (matcher, error) {
	w, err := p.next()
	if err != nil {
		return nil, err
	}
	n, known := protocols[w]
	if !known {
		x, err := strconv.ParseUint(w, 10, 8)
		if err != nil {
			return nil, fmt.Errorf("%q is no protocol", w)
		}
		n = uint8(x)
	}
	return func(v *view) bool { return v.proto == n && v.src.IsValid() }, nil
}

func (p *parser) reason() (matcher, error) {
	w, err := p.next()
	if err != nil {
		return nil, err
	}
	for d := range overlay.NumDrops {
		if d.String() == w {
			return func(v *view) bool { return v.Point == overlay.PointDrop && v.Drop == d }, nil
		}
	}
	return nil, fmt.Errorf("%q is no reason for a drop", w)
}

// address parses what may be said of the source, the destination or either.
func (p *parser) address(src, dst bool) (matcher, error) {
	what, err := p.next()
	if err != nil {
		return nil, err
	}
	switch what {
	case "host", "net", "port", "portrange":
	default:
		p.at--
		return nil, fmt.Errorf("%q is not known", what)
	}
	arg, err := p.next()
	if err != nil {
		return nil, err
	}
	switch what {
	case "host", "net":
		net, err := netip.ParsePrefix(arg)
		if a, e := netip.ParseAddr(arg); e == nil {
			net, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil || what == "host" && !net.IsSingleIP() {
			return nil, fmt.Errorf("%q is no %s", arg, map[string]string{"host": "address", "net": "prefix"}[what])
		}
		return func(v *view) bool { return src && net.Contains(v.src) || dst && net.Contains(v.dst) }, nil
	}
	low, high, ranged := strings.Cut(arg, "-")
	if !ranged {
		high = low
	}
	a, err1 := strconv.ParseUint(low, 10, 16)
	b, err2 := strconv.ParseUint(high, 10, 16)
	if err1 != nil || err2 != nil || a > b || ranged != (what == "portrange") {
		return nil, fmt.Errorf("%q is no %s", arg, what)
	}
	within := func(n int) bool { return n >= int(a) && n <= int(b) }
	return func(v *view) bool { return src && within(v.sport) || dst && within(v.dport) }, nil
}
