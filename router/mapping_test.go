package router

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

var lanMaps = []Map{
	{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("100.91.101.0/24")},
	{netip.MustParsePrefix("172.16.0.0/13"), netip.MustParsePrefix("100.64.0.0/13")},
	{netip.MustParsePrefix("fd77::/64"), netip.MustParsePrefix("fdd3:f13e:8ff7:bb97::/64")},
	{netip.MustParsePrefix("fd78::/99"), netip.MustParsePrefix("fdd3:aaaa:bbbb:cccc:dddd:eeee:e000:0/99")},
}

func bothFamilies(f func(name string, lan, mapped, far netip.AddrPort)) {
	f("IPv4", netip.MustParseAddrPort("192.168.1.10:80"), netip.MustParseAddrPort("100.91.101.10:80"), netip.MustParseAddrPort("10.1.16.9:4000"))
	f("IPv4, not at a byte", netip.MustParseAddrPort("172.23.255.7:80"), netip.MustParseAddrPort("100.71.255.7:80"), netip.MustParseAddrPort("10.1.16.9:4000"))
	f("IPv6", netip.MustParseAddrPort("[fd77::ab]:80"), netip.MustParseAddrPort("[fdd3:f13e:8ff7:bb97::ab]:80"), netip.MustParseAddrPort("[fd00:1:0:100::9]:4000"))
	f("IPv6, in the lower half", netip.MustParseAddrPort("[fd78::1f00:ab]:80"), netip.MustParseAddrPort("[fdd3:aaaa:bbbb:cccc:dddd:eeee:ff00:ab]:80"), netip.MustParseAddrPort("[fd00:1:0:100::9]:4000"))
}

// quoteIn is an ICMP error from one address to another about a packet.
func quoteIn(src, dst netip.Addr, quote []byte) []byte {
	if src.Is4() {
		return appendError(nil, src, dst, 3, 1, 0, quote)
	}
	return appendError(nil, src, dst, 1, 3, 0, quote)
}

func TestTranslationIsWhatBuildingThePacketWithTheOtherAddressGives(t *testing.T) {
	m := newMapping(lanMaps)
	bothFamilies(func(name string, lan, mapped, far netip.AddrPort) {
		data := []byte("odd bytes")
		make := []struct {
			name string
			pkt  func(src, dst netip.AddrPort) []byte
		}{
			{"TCP", func(s, d netip.AddrPort) []byte { return overlaytest.TCP(s, d, 5, 6, overlaytest.SYN, nil, data) }},
			{"UDP", func(s, d netip.AddrPort) []byte { return overlaytest.UDP(s, d, data) }},
			{"echo", func(s, d netip.AddrPort) []byte { return overlaytest.Echo(s.Addr(), d.Addr(), false, 3, 4, data) }},
			{"SCTP", func(s, d netip.AddrPort) []byte { return overlaytest.AppendIP(nil, s.Addr(), d.Addr(), 132, data) }},
			{"error about UDP", func(s, d netip.AddrPort) []byte { return quoteIn(s.Addr(), d.Addr(), overlaytest.UDP(d, s, data)) }},
			{"error about TCP, cut off before its checksum", func(s, d netip.AddrPort) []byte {
				q := overlaytest.TCP(d, s, 1, 2, overlaytest.SYN, nil, nil)
				return quoteIn(s.Addr(), d.Addr(), q[:len(q)-12])
			}},
			{"error about an echo", func(s, d netip.AddrPort) []byte {
				return quoteIn(s.Addr(), d.Addr(), overlaytest.Echo(d.Addr(), s.Addr(), false, 3, 4, data))
			}},
		}
		for _, c := range make {
			got := withHeadroom(c.pkt(lan, far))
			m.bring(got)
			if want := c.pkt(mapped, far); !bytes.Equal(got[0][overlay.Headroom:], want) {
				t.Errorf("%s, %s, from there:\n%x, want\n%x", name, c.name, got[0][overlay.Headroom:], want)
			}
			got = withHeadroom(c.pkt(far, mapped))
			m.deliver(got)
			if want := c.pkt(far, lan); !bytes.Equal(got[0][overlay.Headroom:], want) {
				t.Errorf("%s, %s, to there:\n%x, want\n%x", name, c.name, got[0][overlay.Headroom:], want)
			}
			same := c.pkt(far, netip.AddrPortFrom(far.Addr().Next(), 5))
			got = withHeadroom(same)
			if m.bring(got); !bytes.Equal(got[0][overlay.Headroom:], same) {
				t.Errorf("%s, %s: what is not mapped changed", name, c.name)
			}
		}
	})
}

func TestTranslationOfHalfDoneAndMissingChecksums(t *testing.T) {
	m := newMapping(lanMaps)
	bothFamilies(func(name string, lan, mapped, far netip.AddrPort) {
		head, at := ipv4Header, 12
		if lan.Addr().Is6() {
			head, at = ipv6Header, 8
		}
		// A TCP packet that stands for several has the sum of its pseudo-header.
		begun := func(src, dst netip.AddrPort) []byte {
			p := overlaytest.TCP(src, dst, 1, 2, 16, nil, bytes.Repeat([]byte{1}, 3000))
			pseudo := uint32(sum(p[at:head], 0)) + protoTCP + uint32(len(p)-head)
			binary.BigEndian.PutUint16(p[head+16:], sum(nil, pseudo))
			return p
		}
		got := withHeadroom(begun(lan, far))
		overlay.PutMeta(got[0], overlay.Meta{Piece: 1000})
		m.bring(got)
		if want := begun(mapped, far); !bytes.Equal(got[0][overlay.Headroom:], want) {
			t.Errorf("%s: one that stands for several: %x, want %x", name, got[0][overlay.Headroom:][:head+20], want[:head+20])
		}
		p := overlaytest.UDP(lan, far, []byte("data"))
		p[head+6], p[head+7] = 0, 0
		got = withHeadroom(p)
		if m.bring(got); got[0][overlay.Headroom+head+6] != 0 || got[0][overlay.Headroom+head+7] != 0 {
			t.Errorf("%s: a checksum where there was none", name)
		}
	})
}

func TestTranslationOfFragments(t *testing.T) {
	m := newMapping(lanMaps)
	bothFamilies(func(name string, lan, mapped, far netip.AddrPort) {
		data := bytes.Repeat([]byte("datagram"), 100)
		got := withHeadroom(cutUp(overlaytest.UDP(far, mapped, data), 400)...)
		m.deliver(got)
		want := cutUp(overlaytest.UDP(far, lan, data), 400)
		if len(got) < 3 || len(got) != len(want) {
			t.Fatalf("%s: %d fragments", name, len(got))
		}
		for i := range got {
			if !bytes.Equal(got[i][overlay.Headroom:], want[i]) {
				t.Errorf("%s: fragment %d: %x, want %x", name, i, got[i][overlay.Headroom:][:48], want[i][:48])
			}
		}
	})
}

// cutUp is a packet in fragments of so many bytes of payload.
func cutUp(pkt []byte, size int) (out [][]byte) {
	v6 := pkt[0]>>4 == 6
	head, proto := ipv4Header, pkt[9]
	if v6 {
		head, proto = ipv6Header, pkt[6]
	}
	for at, body := 0, pkt[head:]; at < len(body); at += size {
		piece := body[at:min(at+size, len(body))]
		more := at+size < len(body)
		p := slices.Clone(pkt[:head])
		if v6 {
			word := uint16(at)
			if more {
				word |= 1
			}
			p[6] = protoFragment
			p = append(p, proto, 0)
			p = binary.BigEndian.AppendUint16(p, word)
			p = append(p, 0, 0, 0, 7)
			binary.BigEndian.PutUint16(p[4:], uint16(len(piece)+8))
		} else {
			word := uint16(at / 8)
			if more {
				word |= 0x2000
			}
			binary.BigEndian.PutUint16(p[2:], uint16(head+len(piece)))
			binary.BigEndian.PutUint16(p[6:], word)
			binary.BigEndian.PutUint16(p[10:], 0)
			binary.BigEndian.PutUint16(p[10:], ^sum(p, 0))
		}
		out = append(out, append(p, piece...))
	}
	return out
}

// equalButZeroes compares packets whose checksums may be either of the two zeroes.
func equalButZeroes(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		if a[i] != b[i] && (i+1 >= len(a) || a[i]+b[i] != 0xff || a[i+1]+b[i+1] != 0xff || a[i] != a[i+1]) {
			return false
		} else if a[i] != b[i] {
			i++
		}
	}
	return true
}

// checkTranslation is what holds of any packet, well-formed or not.
func checkTranslation(t *testing.T, m *mapping, pkt []byte) (changed bool) {
	t.Helper()
	for _, f := range []func([][]byte){m.bring, m.deliver} {
		buf := withHeadroom(pkt)
		f(buf)
		now := buf[0][overlay.Headroom:]
		changed = changed || !bytes.Equal(now, pkt)
		var was, is info
		_, ok := was.check(pkt)
		if _, ok2 := is.check(now); ok != ok2 || was != is {
			t.Fatalf("%x became %x, which is read another way", pkt, now)
		}
		if ok && !was.options && !was.fragment && overlaytest.ChecksumsOK(pkt[:was.length]) && !signOfZero(pkt, &was) && !overlaytest.ChecksumsOK(now[:is.length]) {
			t.Fatalf("%x became %x: its checksums are wrong now", pkt, now)
		}
		f(buf)
		if back := buf[0][overlay.Headroom:]; !equalButZeroes(back, pkt) {
			t.Fatalf("%x became %x and went back to %x", pkt, now, back)
		}
	}
	return changed
}

// signOfZero reports whether a checksum is one of the zeroes.
func signOfZero(pkt []byte, p *info) bool {
	at, known := map[uint8]int{protoTCP: 16, protoUDP: 6, protoICMP: 2, protoICMPv6: 2}[p.proto]
	if !known {
		return false
	}
	c := binary.BigEndian.Uint16(pkt[p.l4+at:])
	return c == 0 || c == 0xffff
}

func lanGenerator(seed uint64) *overlaytest.Generator {
	var here, there []netip.Addr
	bothFamilies(func(_ string, lan, mapped, far netip.AddrPort) {
		here, there = append(here, lan.Addr(), mapped.Addr()), append(there, far.Addr(), lan.Addr(), mapped.Addr())
	})
	return overlaytest.NewGenerator(seed, here, there)
}

func TestTranslationGoesBackAndKeepsChecksums(t *testing.T) {
	const seed = 11
	m, g := newMapping(lanMaps), lanGenerator(seed)
	changed := 0
	for range 100_000 {
		p := g.Valid()
		if changed%2 == 0 {
			p = g.Malformed()
		}
		if checkTranslation(t, m, p) {
			changed++
		}
	}
	if changed < 50_000 {
		t.Errorf("seed %d: only %d changed", seed, changed)
	}
}

func FuzzTranslate(f *testing.F) {
	g := lanGenerator(3)
	for range 30 {
		f.Add(g.Valid())
		f.Add(g.Malformed())
	}
	bothFamilies(func(_ string, lan, mapped, far netip.AddrPort) {
		f.Add(quoteIn(lan.Addr(), far.Addr(), overlaytest.TCP(far, lan, 1, 2, 2, nil, nil)))
		f.Add(cutUp(overlaytest.UDP(lan, far, make([]byte, 500)), 200)[0])
	})
	m := newMapping(lanMaps)
	f.Fuzz(func(t *testing.T, pkt []byte) {
		if len(pkt) > overlay.MaxPacket {
			return
		}
		checkTranslation(t, m, pkt)
	})
}

// newMappedRig is a rig whose workload b leads to a network that is mapped.
func newMappedRig(t testing.TB) *rig {
	g := newRig(t)
	s := g.state
	s.Ports = slices.Clone(s.Ports)
	s.Routes = slices.Clone(s.Routes)
	s.Self4, s.Self6 = netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00:1::1")
	s.Ports[1].Maps = lanMaps
	s.Ports[1].Sources = slices.Clone(s.Ports[1].Sources)
	for _, m := range lanMaps {
		s.Ports[1].Sources = append(s.Ports[1].Sources, m.Mapped)
		s.Routes = append(s.Routes, Route{m.Mapped, "b"})
	}
	if err := g.Set(s); err != nil {
		t.Fatal(err)
	}
	g.state = s
	return g
}

func (g *rig) from(name string, pkts ...[]byte) {
	in := g.outside
	if name != OutsideName {
		in = g.ports[name]
	}
	g.forward(in, withHeadroom(pkts...), new(batch))
}

func TestAMappedNetworkIsReachedByItsMappedFormOnly(t *testing.T) {
	bothFamilies(func(name string, lan, mapped, far netip.AddrPort) {
		g := newMappedRig(t)
		sent := uint64(0)
		drops := func(reason string, packets int) {
			t.Helper()
			sent += uint64(packets)
			if n := g.Counters().Drops[reason]; n != sent {
				t.Errorf("%s: %d dropped as %s, want %d: %v", name, n, reason, sent, g.Counters().Drops)
			}
		}
		data := []byte("hello")
		g.from(OutsideName, overlaytest.UDP(far, mapped, data))
		got := g.b.take()
		if len(got) != 1 || !sameButTTL(got[0], overlaytest.UDP(far, lan, data)) {
			t.Fatalf("%s: there came %x", name, got)
		}
		near := netip.MustParseAddrPort("10.1.0.2:1")
		if lan.Addr().Is6() {
			near = netip.MustParseAddrPort("[fd00:1::2]:1")
		}
		g.from("b", overlaytest.UDP(lan, near, data))
		if got := g.a.take(); len(got) != 1 || !sameButTTL(got[0], overlaytest.UDP(mapped, near, data)) {
			t.Errorf("%s: from there came %x", name, got)
		}
		// Spoofed: what is mapped already, what another may have, from another port.
		g.from("b", overlaytest.UDP(mapped, far, data))
		drops("source", 1)
		g.from("b", overlaytest.UDP(far, mapped, data))
		drops("source", 1)
		g.from("a", overlaytest.UDP(mapped, far, data), overlaytest.UDP(lan, far, data))
		drops("source", 2)
		g.from(OutsideName, overlaytest.UDP(mapped, netip.AddrPortFrom(lan.Addr(), 5), data), overlaytest.UDP(lan, mapped, data))
		drops("source", 2)
		sent = 0
		g.from(OutsideName, overlaytest.UDP(far, lan, data)) // nobody has the real form
		g.drainSlow()
		drops("no-route", 1)
		if got := append(g.a.take(), g.b.take()...); len(got) != 0 {
			t.Errorf("%s: %x went on", name, got)
		}
	})
}

// sameButTTL compares a packet that was forwarded with one that was not.
func sameButTTL(got, sent []byte) bool {
	sent = slices.Clone(sent)
	return decrementTTL(sent, sent[0]>>4 == 6) && bytes.Equal(got, sent)
}

func TestErrorsReachAMappedNetworkInItsOwnWords(t *testing.T) {
	bothFamilies(func(name string, lan, _, far netip.AddrPort) {
		g := newMappedRig(t)
		p := overlaytest.UDP(lan, far, []byte("data"))
		if lan.Addr().Is4() {
			p[8] = 1
		} else {
			p[7] = 1
		}
		overlaytest.Fix(p)
		g.from("b", p)
		g.drainSlow()
		got := g.b.take()
		if len(got) != 1 || !overlaytest.ChecksumsOK(got[0]) || !bytes.HasSuffix(got[0], p) {
			t.Fatalf("%s: %x, want one that quotes %x", name, got, p)
		}
		if _, dst := addresses(got[0], lan.Addr().Is6()); dst != lan.Addr() {
			t.Errorf("%s: it is for %v", name, dst)
		}
	})
}

func TestInjectTakesAddressesOfTheSlice(t *testing.T) {
	bothFamilies(func(name string, _, mapped, _ netip.AddrPort) {
		g := newMappedRig(t)
		to := netip.MustParseAddrPort("10.1.0.2:1")
		if mapped.Addr().Is6() {
			to = netip.MustParseAddrPort("[fd00:1::2]:1")
		}
		p := overlaytest.UDP(mapped, to, []byte("data"))
		if port, ok := g.PortOf(mapped.Addr()); !ok || port != "b" {
			t.Errorf("%s: it is at %q", name, port)
		}
		if tr, ok := g.Trace("b", p); !ok || tr.Out != "a" {
			t.Errorf("%s: traced %+v", name, tr)
		}
		g.Inject("b", p)
		if got := g.a.take(); len(got) != 1 || !sameButTTL(got[0], p) {
			t.Errorf("%s: %x arrived, %v", name, got, g.Counters().Drops)
		}
	})
}

func TestMapsAreChecked(t *testing.T) {
	p := netip.MustParsePrefix
	for _, c := range []struct {
		name string
		port int
		maps []Map
		says string
	}{
		{"lengths differ", 0, []Map{{p("10.7.0.0/16"), p("10.8.0.0/17")}}, "not of one length"},
		{"families differ", 0, []Map{{p("10.7.0.0/16"), p("fd00::/16")}}, "not of one length"},
		{"mapped into itself", 0, []Map{{p("10.7.0.0/16"), p("10.7.0.0/16")}}, "overlaps"},
		{"two overlap", 0, []Map{{p("10.7.0.0/16"), p("10.8.0.0/16")}, {p("10.9.0.0/24"), p("10.7.3.0/24")}}, "overlaps"},
		{"no prefix", 0, []Map{{}}, "not a prefix"},
		{"the node's own stack", 2, []Map{{p("10.7.0.0/16"), p("10.8.0.0/16")}}, "only a workload's"},
	} {
		g := newRig(t)
		s := g.state
		s.Ports = slices.Clone(s.Ports)
		s.Ports[c.port].Maps = c.maps
		if err := g.Set(s); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestTranslateAllocates(t *testing.T) {
	m := newMapping(lanMaps)
	bothFamilies(func(name string, lan, _, far netip.AddrPort) {
		bufs := withHeadroom(overlaytest.TCP(lan, far, 1, 2, 2, nil, nil), quoteIn(lan.Addr(), far.Addr(), overlaytest.UDP(far, lan, nil)))
		if n := testing.AllocsPerRun(100, func() { m.bring(bufs) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	})
}

func BenchmarkTranslate(b *testing.B) {
	for _, maps := range []int{1, 32} {
		for _, v6 := range []bool{false, true} {
			rng := rand.New(rand.NewPCG(1, 1))
			var all []Map
			for i := range maps {
				real, mapped := netip.AddrFrom4([4]byte{172, 16, byte(i), 0}), netip.AddrFrom4([4]byte{100, 64, byte(i), 0})
				bits := 24
				if v6 {
					real, mapped, bits = netip.AddrFrom16([16]byte{0xfd, 1, byte(i)}), netip.AddrFrom16([16]byte{0xfd, 2, byte(i)}), 64
				}
				all = append(all, Map{netip.PrefixFrom(real, bits), netip.PrefixFrom(mapped, bits)})
			}
			far := netip.MustParseAddrPort("10.1.16.9:4000")
			if v6 {
				far = netip.MustParseAddrPort("[fd00:1:0:100::9]:4000")
			}
			b.Run(fmt.Sprintf("maps=%d/v6=%v", maps, v6), func(b *testing.B) {
				m := newMapping(all)
				var bufs [][]byte
				for range overlay.BatchSize {
					src := netip.AddrPortFrom(random(rng, all[rng.IntN(maps)].Real), 80)
					bufs = append(bufs, withHeadroom(overlaytest.TCP(src, far, 1, 2, 16, nil, make([]byte, 100)))...)
				}
				b.ReportAllocs()
				n := 0
				for b.Loop() {
					m.bring(bufs)
					n += len(bufs)
				}
				for _, buf := range bufs {
					if p := buf[overlay.Headroom:]; !overlaytest.ChecksumsOK(p) {
						b.Fatalf("%x", p)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/packet")
			})
		}
	}
}

// BenchmarkForwardMapped is what a packet costs from the tunnel to a workload's
// port, whose networks are mapped or not.
func BenchmarkForwardMapped(b *testing.B) {
	for _, maps := range []bool{false, true} {
		for _, v6 := range []bool{false, true} {
			b.Run(fmt.Sprintf("mapped=%v/v6=%v", maps, v6), func(b *testing.B) {
				g := newMappedRig(b)
				s, out := g.state, new(sink)
				s.Ports = slices.Clone(s.Ports)
				s.Ports[1].Link = out
				if !maps {
					s.Ports[1].Maps = nil
				}
				if err := g.Set(s); err != nil {
					b.Fatal(err)
				}
				src, dst := netip.MustParseAddrPort("10.1.16.9:4000"), netip.MustParseAddrPort("100.91.101.10:80")
				if v6 {
					src, dst = netip.MustParseAddrPort("[fd00:1:0:100::9]:4000"), netip.MustParseAddrPort("[fdd3:f13e:8ff7:bb97::ab]:80")
				}
				whole := overlaytest.TCP(src, dst, 1, 2, 16, nil, make([]byte, 100))
				var bufs [][]byte
				for range overlay.BatchSize {
					bufs = append(bufs, withHeadroom(whole)...)
				}
				head, scratch := whole[:60], new(batch)
				b.ReportAllocs()
				n := 0
				for b.Loop() {
					for _, buf := range bufs {
						copy(buf[overlay.Headroom:], head)
					}
					g.forward(g.outside, bufs, scratch)
					n += len(bufs)
				}
				if out.packets != n {
					b.Fatalf("%d of %d came out: %v", out.packets, n, g.drops.Snapshot())
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/packet")
			})
		}
	}
}
