package shaper

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"slicewire/netstack/segment"
	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

// fast is more than anything of this world: what it costs is asking, not waiting.
const fast = 1000 * Gbps

// fourClasses is a plan with classes by DSCP, all of which may have r.
func fourClasses(r Rate) Plan {
	p := Plan{Share: Share{Guaranteed: r / 2, Ceiling: r}}
	var table [64]uint8
	for i := range 4 {
		p.Classes = append(p.Classes, Class{Name: fmt.Sprint(i), Share: Share{Guaranteed: r / 8, Ceiling: r}, Mark: true, DSCP: uint8(8 * i)})
		table[i] = uint8(i)
	}
	p.Classify = ByDSCP(table)
	return p
}

func TestAllocNothingWhenShaped(t *testing.T) {
	for _, tt := range []struct {
		name string
		b    []byte
		r    Rate
	}{
		{"whole packets", buffer(udp(1, 1420), overlay.Meta{}), fast},
		{"packets cut when they leave", buffer(joined(1, 20000), overlay.Meta{Piece: 1380}), fast},
		{"packets cut when they come", buffer(joined(1, 20000), overlay.Meta{Piece: 1380}), cutBelow - 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := New(NewUplink(fast))
			q.Set(fourClasses(tt.r))
			batch := [][]byte{tt.b, tt.b}
			bufs, sizes := room()
			if n := testing.AllocsPerRun(100, func() {
				if err := q.Write(batch); err != nil {
					t.Fatal(err)
				}
				for q.waits() {
					if _, err := q.Read(bufs, sizes); err != nil {
						t.Fatal(err)
					}
				}
			}); n != 0 {
				t.Errorf("%v allocations a batch", n)
			}
		})
	}
}

// waits reports whether anything is in the queue.
func (q *Queue) waits() bool {
	for _, c := range q.tree.classes {
		if c.flows.packets > 0 {
			return true
		}
	}
	return q.cutting != nil
}

// A reader in its own time: the ceiling is kept by Read itself, with its timer.
func TestReadWaitsForTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(NewUplink(80 * Mbps))
		q.Set(Plan{Share: Share{Ceiling: 50 * Mbps, Guaranteed: Mbps}})
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			b := buffer(joined(1, 30000), overlay.Meta{Piece: 1380})
			for {
				select {
				case <-stop:
					_ = q.Close()
					return
				default:
					_ = q.Write([][]byte{b})
					time.Sleep(2 * time.Millisecond) // 120 Mbit/s
				}
			}
		}()
		bufs, sizes := room()
		read := func(d time.Duration) (bits float64) {
			bytes := 0
			for begin := time.Now(); time.Since(begin) < d; {
				n, err := q.Read(bufs, sizes)
				if err != nil {
					t.Fatal(err)
				}
				for i := range n {
					bytes += sizes[i] + outerBytes
				}
			}
			return float64(bytes) * 8 / d.Seconds()
		}
		read(time.Second)
		if got := read(3 * time.Second); off(got, 50e6) > 0.01 || off(got, 50e6) < -0.01 {
			t.Errorf("%.2f Mbit/s at 50", got/1e6)
		}
		q.Set(Plan{Share: Share{Ceiling: 200 * Mbps, Guaranteed: Mbps}}) // now the uplink's rate is less
		read(time.Second)
		if got := read(3 * time.Second); off(got, 80e6) > 0.01 || off(got, 80e6) < -0.01 {
			t.Errorf("%.2f Mbit/s at 80", got/1e6)
		}
		close(stop)
		<-stopped
	})
}

// Two Queues that read at the same time share the Uplink.
func TestQueuesShareAnUplink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := NewUplink(100 * Mbps)
		var queues []*Queue
		var got [2]atomic.Int64
		var all sync.WaitGroup
		for i, g := range []Rate{60 * Mbps, 20 * Mbps} {
			q := New(u)
			q.Set(Plan{Share: Share{Guaranteed: g}})
			queues = append(queues, q)
			all.Go(func() {
				b := buffer(udp(1, 1420), overlay.Meta{})
				for q.Write([][]byte{b, b, b, b, b, b, b, b}) == nil {
					time.Sleep(time.Millisecond) // 95 Mbit/s
				}
			})
			all.Go(func() {
				bufs, sizes := room()
				for {
					n, err := q.Read(bufs, sizes)
					if err != nil {
						return
					}
					for k := range n {
						got[i].Add(int64(sizes[k] + outerBytes))
					}
				}
			})
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		before := []int64{got[0].Load(), got[1].Load()}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		for i, want := range []float64{75e6, 25e6} {
			if bits := float64(got[i].Load()-before[i]) * 8 / 4; off(bits, want) > 0.01 || off(bits, want) < -0.01 {
				t.Errorf("queue %d has %.2f Mbit/s, want %.0f", i, bits/1e6, want/1e6)
			}
		}
		for _, q := range queues {
			_ = q.Close()
		}
		all.Wait()
		if n := len(u.members); n != 0 {
			t.Errorf("%d members of an Uplink without Queues", n)
		}
	})
}

func TestPacketsAreClassifiedAndMarked(t *testing.T) {
	v6 := overlaytest.UDP(netip.MustParseAddrPort("[fd00::1]:1"), netip.MustParseAddrPort("[fd00::2]:2"), make([]byte, 100))
	for _, tt := range []struct {
		name string
		pkt  []byte
	}{{"IPv4", udp(1, 300)}, {"IPv6", v6}, {"several TCP segments", joined(1, 9000)}} {
		t.Run(tt.name, func(t *testing.T) {
			pkt := bytes.Clone(tt.pkt)
			setDSCP(pkt, 46)
			if pkt[0]>>4 == 4 {
				pkt[1] |= 2 // ECT(0), with a checksum that fits
				adjust(pkt, binary.BigEndian.Uint16(pkt)&^2, binary.BigEndian.Uint16(pkt))
			} else {
				pkt[1] |= 2 << 4
			}
			var table [64]uint8
			table[46] = 1
			q := New(nil)
			q.Set(Plan{Share: Share{Ceiling: cutBelow - 1}, Classify: ByDSCP(table), Classes: []Class{{Name: "rest"}, {Name: "gold", Mark: true, DSCP: 34}}})
			meta := overlay.Meta{}
			if len(pkt) > 1500 {
				meta.Piece = 1000
			}
			if err := q.Write([][]byte{buffer(pkt, meta)}); err != nil {
				t.Fatal(err)
			}
			if q.tree.classes[0].flows.packets != 0 || q.tree.classes[1].flows.packets == 0 {
				t.Fatal("in the wrong class")
			}
			bufs, sizes := room()
			n, err := q.Read(bufs, sizes)
			if err != nil || n != max(1, int(len(pkt)/1000)) {
				t.Fatalf("%d packets, %v", n, err)
			}
			for i := range n {
				p := bufs[i][overlay.Headroom:][:sizes[i]]
				traffic := p[1]
				if p[0]>>4 == 6 {
					traffic = p[0]<<4 | p[1]>>4
				}
				if traffic != 34<<2|2 {
					t.Errorf("traffic class %#x, want DSCP 34 and ECT(0)", traffic)
				}
				if segment.IsTCP(p) && !overlaytest.ChecksumsOK(p) || p[0]>>4 == 4 && !headerOK(p) {
					t.Error("a checksum is wrong")
				}
			}
		})
	}
}

// headerOK checks an IPv4 header's checksum.
func headerOK(p []byte) bool {
	sum := uint32(0)
	for i := 0; i < ipv4Header; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	return uint16(sum>>16+sum&0xffff) == 0xffff
}

// What an Uplink costs when Queues of several goroutines ask it at once.
func BenchmarkUplink(b *testing.B) {
	for _, queues := range []int{1, 2, 8} {
		b.Run(fmt.Sprintf("%dqueues", queues), func(b *testing.B) {
			u := NewUplink(fast)
			work := func(n int) {
				q := New(u)
				q.Set(Plan{Share: Share{Guaranteed: Gbps, Ceiling: fast}})
				var batch [][]byte
				for range overlay.BatchSize {
					batch = append(batch, buffer(udp(1, 1420), overlay.Meta{}))
				}
				bufs, sizes := room()
				for range n {
					_ = q.Write(batch)
					for q.waits() {
						if _, err := q.Read(bufs, sizes); err != nil {
							b.Error(err)
							return
						}
					}
				}
				_ = q.Close()
			}
			b.ReportAllocs()
			var all sync.WaitGroup
			for range queues {
				all.Go(func() { work(b.N) })
			}
			all.Wait()
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*overlay.BatchSize*queues), "ns/packet")
		})
	}
}

func BenchmarkShaped(b *testing.B) {
	for _, bb := range []struct {
		name   string
		uplink *Uplink
		plan   Plan
	}{
		{"none", nil, Plan{}},
		{"ceiling", nil, Plan{Share: Share{Ceiling: fast}}},
		{"4classes", nil, fourClasses(fast)},
		{"4classes+uplink", NewUplink(fast), fourClasses(fast)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			q := New(bb.uplink)
			q.Set(bb.plan)
			var batch [][]byte
			for i := range overlay.BatchSize {
				p := buffer(udp(uint16(i%8), 1420), overlay.Meta{})
				setDSCP(p[overlay.Headroom:], uint8(i%4))
				batch = append(batch, p)
			}
			bufs, sizes := room()
			b.ReportAllocs()
			packets := 0
			for b.Loop() {
				if err := q.Write(batch); err != nil {
					b.Fatal(err)
				}
				for q.waits() {
					n, err := q.Read(bufs, sizes)
					if err != nil {
						b.Fatal(err)
					}
					packets += n
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(packets), "ns/packet")
		})
	}
}
