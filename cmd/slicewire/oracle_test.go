package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"slicewire/netstack"
	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
	"slicewire/router"
)

const oracleMTU = 1420

// gather is a Link, and an Outlet, that keeps what it gets.
type gather struct {
	mu   sync.Mutex
	got  [][]byte
	done chan struct{}
	once sync.Once
}

func newGather() *gather { return &gather{done: make(chan struct{})} }

func (g *gather) Read([][]byte, []int) (int, error) { <-g.done; return 0, net.ErrClosed }
func (g *gather) Write(bufs [][]byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range bufs {
		g.got = append(g.got, slices.Clone(b[overlay.Headroom:]))
	}
	return nil
}
func (g *gather) Close() error                                   { g.once.Do(func() { close(g.done) }); return nil }
func (g *gather) WaitRoom(*time.Timer, time.Duration, bool) bool { return true }
func (g *gather) Wake()                                          {}
func (g *gather) take() [][]byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	x := g.got
	g.got = nil
	return x
}

// subject is our router with two legs: outside, which packets come in by, and a
// workload, which is to get them.
type subject struct {
	*router.Router
	near, far *gather
	drops     map[string]uint64
}

func newSubject(t testing.TB) *subject {
	s := &subject{near: newGather(), far: newGather()}
	var err error
	if s.Router, err = router.New(router.Config{Slice: "red", MTU: oracleMTU, Outlet: s.near, ErrorRate: 1e7}); err != nil {
		t.Fatal(err)
	}
	p := netip.MustParsePrefix
	if err := s.Set(router.State{
		Self4: netip.MustParseAddr("10.1.0.1"), Self6: netip.MustParseAddr("fd00:1::1"),
		Ports: []router.Port{
			{Name: router.OutsideName, Role: router.Outside, Sources: []netip.Prefix{p("10.1.0.0/16"), p("fd00:1::/32")}},
			{Name: "far", Role: router.Inside, Link: s.far},
		},
		Routes: []router.Route{
			{Prefix: p("10.1.0.0/16"), Port: router.OutsideName}, {Prefix: p("fd00:1::/32"), Port: router.OutsideName},
			{Prefix: p("10.2.0.0/16"), Port: "far"}, {Prefix: p("fd00:2::/32"), Port: "far"},
		},
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// route gives the router a packet and returns what it sent near and far, or why
// it dropped it.
func (s *subject) route(pkt []byte) (near, far [][]byte, reason string) {
	_ = s.Outside().Write([][]byte{append(make([]byte, overlay.Headroom), pkt...)})
	c := s.Counters()
	for c.Slow.Waiting != 0 {
		runtime.Gosched()
		c = s.Counters()
	}
	for d, n := range c.Drops {
		if n != s.drops[d] {
			reason = d
		}
	}
	s.drops = maps.Clone(c.Drops)
	return s.near.take(), s.far.take(), reason
}

// A dealer makes packets that come in by the near leg: well-formed ones and
// others, with what routers decide by set to where it matters.
type dealer struct {
	rng *rand.Rand
	gen *overlaytest.Generator
}

func newDealer(seed uint64) *dealer {
	addrs := func(s ...string) (out []netip.Addr) {
		for _, x := range s {
			out = append(out, netip.MustParseAddr(x))
		}
		return out
	}
	return &dealer{
		rng: rand.New(rand.NewPCG(seed, 77)),
		gen: overlaytest.NewGenerator(seed, addrs("10.1.0.2", "10.1.9.9", "fd00:1::2", "fd00:1:9::9"),
			addrs("10.2.0.2", "10.2.9.9", "10.9.0.1", "fd00:2::2", "fd00:2:9::9", "fd00:9::1")),
	}
}

func (d *dealer) next() []byte {
	p := d.gen.Valid()
	if d.rng.IntN(2) == 0 {
		p = d.gen.Malformed()
	}
	if len(p) < 40 || d.rng.IntN(2) == 0 {
		return p
	}
	v4 := p[0]>>4 == 4
	if d.rng.IntN(3) == 0 { // about the MTU
		src, dst := netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.2.0.2")
		head := 20
		if !v4 {
			src, dst, head = netip.MustParseAddr("fd00:1::2"), netip.MustParseAddr("fd00:2::2"), 40
		}
		size := oracleMTU - 3 + d.rng.IntN(7)
		if d.rng.IntN(4) == 0 {
			size = oracleMTU + d.rng.IntN(4000)
		}
		p = overlaytest.AppendIP(nil, src, dst, []byte{17, 132, 47, 99}[d.rng.IntN(4)], bytes.Repeat([]byte{0x5a}, size-head))
		if proto := p[9]; v4 && proto == 17 || !v4 && p[6] == 17 {
			binary.BigEndian.PutUint16(p[head+4:], uint16(size-head))
		}
	}
	ttl := []byte{0, 1, 2, 3, 64, 255}[d.rng.IntN(6)]
	if v4 {
		p[1] = byte(d.rng.Uint32())
		binary.BigEndian.PutUint16(p[4:], uint16(d.rng.Uint32()))
		p[6] = []byte{0, 0x40, 0x40, 0x20}[d.rng.IntN(4)]
		p[8] = ttl
	} else {
		p[7] = ttl
		p[1] = byte(d.rng.Uint32())
	}
	if d.rng.IntN(8) != 0 {
		overlaytest.Fix(p)
	}
	return p
}

// stricter are the reasons for which ours drops what a plain router need not:
// it has rules of its own there, each of them told in docs/routing.md. Whatever
// another does with such a packet says nothing about ours.
var stricter = []string{"source", "options", "fragment", "protocol", "multicast", "malformed"}

// A verdict is what became of a packet, in a form to compare: what went on, or
// the error that went back, without what routers are free in.
type verdict struct {
	far string // packets, one behind the other
	err string // type, code, MTU and what is quoted
}

func (v verdict) String() string { return fmt.Sprintf("far %x error %x", v.far, v.err) }

func verdictOf(near, far [][]byte) verdict {
	var v verdict
	for _, p := range far {
		v.far += string(unclamped(p))
	}
	for _, p := range near {
		v.err += errorOf(p)
	}
	return v
}

// errorOf is what an ICMP error says. Its own header is its router's: source,
// TTL, identification, traffic class. Of the packet it quotes 8 bytes behind
// the IP header are owed; more is not compared.
func errorOf(p []byte) string {
	head, most := 20, 28
	if p[0]>>4 == 6 {
		head, most = 40, 48
	}
	if len(p) < head+8 {
		return string(p)
	}
	h := slices.Clone(p[head:])
	h[2], h[3] = 0, 0
	return string(h[:min(len(h), 8+most)])
}

// unclamped zeroes the MSS of a SYN and the checksum over it: ours lowers it, as
// nobody but a router of tunnels does.
func unclamped(p []byte) []byte {
	head, proto := 20, p[9]
	if p[0]>>4 == 6 {
		head, proto = 40, p[6]
		for len(p) >= head+8 && (proto == 0 || proto == 44 || proto == 60) {
			size := 8
			if proto == 44 && binary.BigEndian.Uint16(p[head+2:])&0xfff8 != 0 {
				return p
			}
			if proto != 44 {
				size = int(p[head+1])*8 + 8
			}
			proto, head = p[head], head+size
		}
	} else if binary.BigEndian.Uint16(p[6:])&0x1fff != 0 {
		return p
	}
	if proto != 6 || len(p) < head+20 || p[head+13]&2 == 0 || len(p) < head+int(p[head+12]>>4)*4 || p[head+12]>>4 < 5 {
		return p
	}
	p = slices.Clone(p)
	p[head+16], p[head+17] = 0, 0
	for o := p[head+20 : min(len(p), head+int(p[head+12]>>4)*4)]; len(o) > 1 && o[0] != 0; {
		if o[0] == 1 {
			o = o[1:]
			continue
		}
		n := int(o[1])
		if n < 2 || n > len(o) {
			break
		}
		if o[0] == 2 && n == 4 {
			o[2], o[3] = 0, 0
		}
		o = o[n:]
	}
	return p
}

// packetsToTry is how many packets an oracle is asked about: few in an ordinary
// run, as many as SLICEWIRE_ORACLE says in a long one.
func packetsToTry(t *testing.T, few int) int {
	if s := os.Getenv("SLICEWIRE_ORACLE"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return few
}

func TestRouterAgreesWithGVisor(t *testing.T) {
	const seed = 5
	o, err := netstack.NewOracle(oracleMTU,
		netstack.Leg{
			Addrs:  []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00:1::1")},
			Routes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/32")},
		},
		netstack.Leg{
			Addrs:  []netip.Addr{netip.MustParseAddr("10.2.0.1"), netip.MustParseAddr("fd00:2::1")},
			Routes: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16"), netip.MustParsePrefix("fd00:2::/32")},
		})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	compareRouters(t, seed, packetsToTry(t, 30_000), func(p []byte, reason string, passed bool) (near, far [][]byte, skip string) {
		out, panicked := o.Route(0, p)
		switch {
		case panicked == nil:
			return out[0], out[1], ""
		case reason != "" && !passed:
			return nil, nil, "gVisor panics, ours drops: " + reason
		case len(p) >= 40 && p[0]>>4 == 6 && (p[6] == 59 || p[6] == 60):
			return nil, nil, "gVisor panics at IPv6 without a next header, or with destination options it does not like"
		}
		t.Fatalf("%x: gVisor panics: %v; ours passes it", p, panicked)
		return nil, nil, ""
	}, excuseGVisor)
}

// compareRouters gives packets to our router and to another, and demands the
// same of both but for what excuse explains.
func compareRouters(t *testing.T, seed uint64, packets int, other func(p []byte, reason string, passed bool) (near, far [][]byte, skip string),
	excuse func(p []byte, reason string, ours, their verdict) string) {
	t.Helper()
	s, d := newSubject(t), newDealer(seed)
	counts, differ := make(map[string]int), 0
	for i := range packets {
		p := d.next()
		near, far, reason := s.route(slices.Clone(p))
		near2, far2, skip := other(slices.Clone(p), reason, len(near)+len(far) > 0)
		if skip != "" {
			counts[skip]++
			continue
		}
		ours, their := verdictOf(near, far), verdictOf(near2, far2)
		if ours == their {
			counts["same: "+reasonOr(reason)]++
		} else if why := excuse(p, reason, ours, their); why != "" {
			counts[why]++
		} else {
			if differ++; differ > 5 {
				t.Fatal("and more")
			}
			t.Errorf("seed %d packet %d: %x\nours (%s): %v\ntheirs: %v", seed, i, p[:min(len(p), 120)], reason, inBrief(ours), inBrief(their))
		}
	}
	told := exceptions(t)
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%8d %s", counts[k], k)
		why, _, _ := strings.Cut(k, ": ")
		if why != "same" && !told[why] {
			t.Errorf("the exception %q is not in docs/routing.md", why)
		}
	}
}
