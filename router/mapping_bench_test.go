package router

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

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
