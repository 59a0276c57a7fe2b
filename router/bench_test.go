package router

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

func BenchmarkForward(b *testing.B) {
	// Few destinations are what a slice sees; 4,096 at random, each in another
	// part of the table, measure the memory of the machine as well.
	for _, c := range []struct{ routes, hosts int }{{10, 1}, {10, 256}, {10_000, 256}, {100_000, 256}, {100_000, 4096}} {
		routes := c.routes
		b.Run(fmt.Sprintf("routes=%d/hosts=%d", routes, c.hosts), func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, 2))
			r, err := New(Config{Slice: "bench", MTU: testMTU, Outlet: newQueue(testMTU)})
			if err != nil {
				b.Fatal(err)
			}
			s := State{Ports: []Port{
				{Name: "a", Link: &discard{}, Role: Inside, Sources: prefixes("10.0.0.0/24", "fd00::/64")},
				{Name: "b", Link: newWire(), Role: Inside},
			}}
			seen := make(map[netip.Prefix]bool)
			var dst []netip.Addr
			for len(s.Routes) < routes {
				a := netip.AddrFrom4([4]byte{byte(16 + rng.IntN(64)), byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32())})
				p, _ := a.Prefix(16 + rng.IntN(13))
				if !seen[p] {
					seen[p] = true
					s.Routes = append(s.Routes, Route{p, "b"})
					dst = append(dst, a)
				}
			}
			if err := r.Set(s); err != nil {
				b.Fatal(err)
			}
			r.ports["b"].link = discard{}
			const n = 4096
			for len(dst) < c.hosts {
				dst = append(dst, dst...)
			}
			rng.Shuffle(len(dst), func(i, j int) { dst[i], dst[j] = dst[j], dst[i] })
			dst = dst[:c.hosts]
			pkts := make([][]byte, n)
			for i := range pkts {
				src := netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + rng.IntN(250))})
				pkts[i] = withHeadroom(overlaytest.UDP(ap(src, 1), ap(dst[rng.IntN(len(dst))], 2), make([]byte, 64)))[0]
			}
			scratch, work := new(batch), make([][]byte, overlay.BatchSize)
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += overlay.BatchSize {
				at := i % n
				for j := range work {
					work[j] = pkts[at+j]
					// A fresh TTL; its sum and the checksum's move together.
					p := work[j][overlay.Headroom:]
					if p[8] < 2 {
						p[8] = 64
						p[10], p[11] = 0, 0
						overlaytest.Fix(p)
					}
				}
				r.forward(r.ports["a"], work, scratch)
			}
			b.StopTimer()
			if got := r.ports["b"].n.outPackets.Load(); got < uint64(b.N) {
				b.Fatalf("%d of %d came out: %v", got, b.N, r.drops.Snapshot())
			}
		})
	}
}

func BenchmarkCheck(b *testing.B) {
	for _, c := range []struct {
		name string
		pkt  []byte
	}{{"tcp4", tcp4()}, {"tcp6", tcp6()}, {"udp4", udp4()}, {"death", overlaytest.PacketOfDeath(ap(here4, 1), ap(there4, 2))}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if _, _, ok := check(c.pkt); ok {
					n++
				}
			}
			if n != 0 && c.name == "death" {
				b.Fatal("the packet of death passed")
			}
		})
	}
}
