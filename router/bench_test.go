package router

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

// load is a router with a table of some size and the IP headers of packets
// that cross it. Only headers: what arrives is copied over the buffers of one
// batch, as a port's Read would, so that the memory of the packets is not what
// is measured, while a table that is not in the cache is.
type load struct {
	r       *Router
	state   State
	in      *port
	scratch *batch
	headers []byte // of all packets, one behind the other
	size    int    // of one of them
	whole   [][]byte
	work    [][]byte
	at      int
	b, c    *sink
}

// sink is a Link that counts and shows what it gets.
type sink struct {
	discard
	packets int
	show    func(pkt []byte)
}

func (s *sink) Write(bufs [][]byte) error {
	s.packets += len(bufs)
	if s.show != nil {
		for _, b := range bufs {
			s.show(b[overlay.Headroom:])
		}
	}
	return nil
}

// random is a random address in p.
func random(rng *rand.Rand, p netip.Prefix) netip.Addr {
	a := p.Addr().AsSlice()
	for i := p.Bits(); i < len(a)*8; i++ {
		a[i/8] |= byte(rng.Uint32()) & (0x80 >> (i % 8))
	}
	addr, _ := netip.AddrFromSlice(a)
	return addr
}

// newLoad makes a table of that many routes, with as many sources if packets
// come in from outside and one if they come from a workload, and traffic of so
// many flows; 0 means that every packet has another source and destination.
func newLoad(t testing.TB, in Role, v6 bool, routes, flows int) *load {
	rng := rand.New(rand.NewPCG(1, 2))
	r, err := New(Config{Slice: "bench", MTU: testMTU, Outlet: newQueue(testMTU)})
	if err != nil {
		t.Fatal(err)
	}
	l := &load{r: r, scratch: new(batch), size: ipv4Header, b: new(sink), c: new(sink)}
	from := Port{Name: "a", Role: Inside, Link: newWire(), Sources: prefixes("10.0.0.0/16", "fd00::/64")}
	if in == Outside {
		from = Port{Name: OutsideName, Role: Outside}
	}
	s := State{Ports: []Port{from, {Name: "b", Link: l.b, Role: Inside}, {Name: "c", Link: l.c, Role: Inside}}}
	way := make(map[netip.Prefix]*sink)
	for len(s.Routes) < routes {
		a := netip.AddrFrom4([4]byte{byte(16 + rng.IntN(64)), byte(rng.Uint32()), byte(rng.Uint32())})
		bits := 16 + rng.IntN(13)
		if v6 {
			a, bits = netip.AddrFrom16([16]byte{0xfd, 1, 2, 3, 4, 5 & byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32())}), 48+rng.IntN(17)
		}
		p, _ := random(rng, netip.PrefixFrom(a, 24)).Prefix(bits)
		if way[p] != nil {
			continue
		}
		name := "b"
		if way[p] = l.b; rng.IntN(2) == 0 {
			name, way[p] = "c", l.c
		}
		s.Routes = append(s.Routes, Route{p, name})
		if in == Outside {
			s.Ports[0].Sources = append(s.Ports[0].Sources, p)
		}
	}
	if err := r.Set(s); err != nil {
		t.Fatal(err)
	}
	l.state = s
	l.in = r.outside
	if in != Outside {
		l.in = r.ports["a"]
	}

	pick := func() (p []byte) {
		sources := s.Ports[0].Sources
		src, dst := sources[0], s.Routes[rng.IntN(routes)].Prefix
		switch {
		case in == Outside:
			src = sources[rng.IntN(routes)]
		case v6:
			src = sources[1]
		}
		return overlaytest.UDP(ap(random(rng, src), 1), ap(random(rng, dst), 2), make([]byte, 64))
	}
	if v6 {
		l.size = ipv6Header
	}
	some := make([][]byte, flows)
	for i := range some {
		some[i] = pick()
	}
	for range 2048 * overlay.BatchSize {
		var p []byte
		if flows == 0 {
			p = pick()
		} else {
			p = some[rng.IntN(flows)]
		}
		l.headers = append(l.headers, p[:l.size]...)
	}
	for range overlay.BatchSize {
		l.whole = append(l.whole, withHeadroom(pick())[0])
	}
	l.work = make([][]byte, overlay.BatchSize)

	// Once through everything, packet by packet against the longest prefix
	// found the slow way.
	for _, s := range []*sink{l.b, l.c} {
		s.show = func(p []byte) {
			if p[0]>>4 == 4 && (p[8] != 63 || !headerSumOK(p)) || p[0]>>4 == 6 && p[7] != 63 {
				t.Fatalf("forwarded as %x", p[:l.size])
			}
			dst, _ := netip.AddrFromSlice(p[l.size-16 : l.size])
			if l.size == ipv4Header {
				dst = netip.AddrFrom4([4]byte(p[16:20]))
			}
			for bits := dst.BitLen(); ; bits-- {
				p, _ := dst.Prefix(bits)
				if way[p] == s {
					return
				}
				if way[p] != nil || bits == 0 {
					t.Fatalf("%v went the wrong way", dst)
				}
			}
		}
	}
	n := len(l.headers) / l.size
	for range n / overlay.BatchSize {
		l.cross()
	}
	if l.packets() != n {
		t.Fatalf("%d of %d came out: %v", l.packets(), n, r.drops.Snapshot())
	}
	l.b.show, l.c.show, l.b.packets, l.c.packets = nil, nil, 0, 0
	return l
}

func (l *load) packets() int { return l.b.packets + l.c.packets }

// cross forwards the next batch.
func (l *load) cross() {
	copy(l.work, l.whole)
	for _, b := range l.work {
		// Of fixed size, so that it is two moves and no call.
		if l.size == ipv4Header {
			*(*[ipv4Header]byte)(b[overlay.Headroom:]) = [ipv4Header]byte(l.headers[l.at:])
		} else {
			*(*[ipv6Header]byte)(b[overlay.Headroom:]) = [ipv6Header]byte(l.headers[l.at:])
		}
		l.at += l.size
	}
	if l.at == len(l.headers) {
		l.at = 0
	}
	l.r.forward(l.in, l.work, l.scratch)
}

func BenchmarkForward(b *testing.B) {
	for _, in := range []Role{Inside, Outside} {
		for _, c := range []struct {
			name  string
			v6    bool
			flows int
		}{{"one flow", false, 1}, {"100 flows", false, 100}, {"100 flows of IPv6", true, 100}, {"all different", false, 0}} {
			for _, routes := range []int{10, 10_000, 100_000} {
				b.Run(fmt.Sprintf("from=%v/%s/routes=%d", in, c.name, routes), func(b *testing.B) {
					l := newLoad(b, in, c.v6, routes, c.flows)
					b.ReportAllocs()
					n := 0
					for b.Loop() {
						l.cross()
						n += overlay.BatchSize
					}
					if l.packets() != n {
						b.Fatalf("%d of %d came out: %v", l.packets(), n, l.r.drops.Snapshot())
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/packet")
				})
			}
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	for _, c := range []struct {
		name string
		pkt  []byte
	}{{"tcp4", tcp4()}, {"tcp6", tcp6()}, {"udp4", udp4()}, {"death", overlaytest.PacketOfDeath(ap(here4, 1), ap(there4, 2))}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			passed := 0
			for b.Loop() {
				var in info
				if _, ok := in.check(c.pkt); ok && in.length == len(c.pkt) {
					passed++
				}
			}
			if c.name == "death" && passed != 0 || c.name != "death" && passed != b.N {
				b.Fatalf("%d of %d passed", passed, b.N)
			}
		})
	}
}
