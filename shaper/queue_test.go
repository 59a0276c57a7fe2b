package shaper

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"slicewire/netstack/segment"
	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

var here, there = netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.1.16.3")

func udp(flow uint16, size int) []byte {
	return overlaytest.UDP(netip.AddrPortFrom(here, flow), netip.AddrPortFrom(there, 2), make([]byte, size-28))
}

// joined returns a TCP packet of n bytes of data that stands for several.
func joined(flow uint16, n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i * 7)
	}
	return overlaytest.TCP(netip.AddrPortFrom(here, flow), netip.AddrPortFrom(there, 2), 1000, 5, segment.ACK|segment.PSH, nil, data)
}

func buffer(pkt []byte, m overlay.Meta) []byte {
	b := append(make([]byte, overlay.Headroom), pkt...)
	overlay.PutMeta(b, m)
	return b
}

func room() ([][]byte, []int) {
	bufs := make([][]byte, overlay.BatchSize)
	for i := range bufs {
		bufs[i] = make([]byte, overlay.Headroom+overlay.MaxPacket)
	}
	return bufs, make([]int, overlay.BatchSize)
}

// drain reads what is there.
func drain(t testing.TB, q *Queue) (pkts [][]byte) {
	t.Helper()
	bufs, sizes := room()
	for q.tree.classes[0].flows.packets > 0 || q.cutting != nil {
		n, err := q.Read(bufs, sizes)
		if err != nil || n == 0 {
			t.Fatalf("%d packets: %v", n, err)
		}
		for i := range n {
			pkts = append(pkts, bytes.Clone(bufs[i][overlay.Headroom:][:sizes[i]]))
		}
	}
	return pkts
}

func TestPacketsComeOutAsTheyWent(t *testing.T) {
	q := New(nil)
	var want [][]byte
	for size := 28; size < 1420; size += 13 {
		want = append(want, udp(1, size))
	}
	for _, p := range want {
		if err := q.Write([][]byte{buffer(p, overlay.Meta{})}); err != nil {
			t.Fatal(err)
		}
	}
	got := drain(t, q)
	if len(got) != len(want) {
		t.Fatalf("%d of %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("packet %d differs", i)
		}
	}
}

// A packet that stands for several comes out cut, also over the end of a batch.
func TestWhatStandsForSeveralIsCut(t *testing.T) {
	const piece, data = 700, 60000
	q := New(nil)
	whole := joined(1, data)
	for range 3 {
		if err := q.Write([][]byte{buffer(whole, overlay.Meta{Piece: piece})}); err != nil {
			t.Fatal(err)
		}
	}
	got := drain(t, q)
	each := (data + piece - 1) / piece
	if len(got) != 3*each {
		t.Fatalf("%d packets, want %d", len(got), 3*each)
	}
	var again []byte
	for i, p := range got {
		if !overlaytest.ChecksumsOK(p) || len(p) > 40+piece {
			t.Fatalf("packet %d: %d bytes, wrong", i, len(p))
		}
		again = append(again, p[40:]...)
	}
	if !bytes.Equal(again[:data], whole[40:]) || !bytes.Equal(again[2*data:], whole[40:]) {
		t.Error("the data differs")
	}
	if n := q.drops.Snapshot(); len(n) != 0 {
		t.Error(n)
	}
}

func TestWhatCannotBeCutIsCounted(t *testing.T) {
	q := New(nil)
	bad := joined(1, 5000)
	bad[3]++ // its length is another
	if err := q.Write([][]byte{buffer(bad, overlay.Meta{Piece: 1000}), buffer(udp(2, 100), overlay.Meta{})}); err != nil {
		t.Fatal(err)
	}
	if got := drain(t, q); len(got) != 1 {
		t.Errorf("%d packets", len(got))
	}
	if q.drops.Get(overlay.DropMalformed) == 0 {
		t.Error("not counted")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	for _, tt := range []struct {
		name string
		pkt  []byte
		meta overlay.Meta
	}{
		{"of small packets", udp(1, 28), overlay.Meta{}},
		{"of ordinary ones", udp(1, 1420), overlay.Meta{}},
		{"of such as stand for several", joined(1, 60000), overlay.Meta{Piece: 1380}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := New(nil)
			b := buffer(tt.pkt, tt.meta)
			const sent = 4096
			each := tt.meta.Packets(len(tt.pkt), 20)
			for range sent {
				if err := q.Write([][]byte{b}); err != nil {
					t.Fatal(err)
				}
				if q.tree.mem() > memoryMax {
					t.Fatalf("%d bytes", q.tree.mem())
				}
			}
			there, lost := 0, q.drops.Get(overlay.DropQueueFull)
			for p := q.tree.classes[0].all[flowHash(tt.pkt, q.seed)%flowQueues].head; p != nil; p = p.next {
				there += p.count
			}
			if uint64(there)+lost != uint64(sent*each) || lost == 0 {
				t.Errorf("%d wait, %d counted as lost, of %d", there, lost, sent*each)
			}
		})
	}
}

func TestWakeEndsAWaitAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(nil)
		bufs, sizes := room()
		read := make(chan int)
		go func() {
			for {
				n, err := q.Read(bufs, sizes)
				if err != nil {
					close(read)
					return
				}
				read <- n
			}
		}()
		synctest.Wait()
		q.Wake()
		if n := <-read; n != 0 {
			t.Errorf("a Read that was woken has %d packets", n)
		}
		synctest.Wait()
		_ = q.Write([][]byte{buffer(udp(1, 100), overlay.Meta{})})
		if n := <-read; n != 1 {
			t.Errorf("the next Read has %d packets", n)
		}
		_ = q.Close()
		if n, more := <-read; more {
			t.Errorf("%d packets after Close", n)
		}
		q = New(nil)
		q.Wake() // before anybody waits
		if n, err := q.Read(bufs, sizes); n != 0 || err != nil {
			t.Errorf("%d packets, %v", n, err)
		}
	})
}

func TestPacedWritersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(nil)
		timer := time.NewTimer(time.Hour)
		timer.Stop()
		if !q.WaitRoom(timer, time.Second, true) {
			t.Fatal("no room in an empty queue")
		}
		b := buffer(udp(1, 1420), overlay.Meta{Paced: true})
		for range pacedMax/1420 + 1 {
			_ = q.Write([][]byte{b})
		}
		if q.WaitRoom(timer, 0, true) {
			t.Fatal("room in a full queue")
		}
		begin := time.Now()
		if q.WaitRoom(timer, 50*time.Millisecond, true) || time.Since(begin) != 50*time.Millisecond {
			t.Fatalf("after %v", time.Since(begin))
		}
		go func() {
			bufs, sizes := room()
			for {
				if _, err := q.Read(bufs, sizes); err != nil {
					return
				}
			}
		}()
		if !q.WaitRoom(timer, time.Minute, true) || time.Since(begin) > time.Second {
			t.Error("no room after it was read")
		}
		synctest.Wait()
		if q.paced != 0 {
			t.Errorf("%d bytes counted in an empty queue", q.paced)
		}
		_ = q.Close()
	})
}

func TestOthersWaitOnlyWhenMemoryIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(nil)
		timer := time.NewTimer(time.Hour)
		timer.Stop()
		b := buffer(udp(1, 1420), overlay.Meta{})
		for q.tree.mem() <= drainedTo {
			if !q.WaitRoom(timer, time.Minute, false) {
				t.Fatalf("no room at %d bytes", q.tree.mem())
			}
			_ = q.Write([][]byte{b})
		}
		begin := time.Now()
		if q.WaitRoom(timer, time.Millisecond, false) || time.Since(begin) != time.Millisecond {
			t.Fatalf("after %v", time.Since(begin))
		}
		go func() { // one batch leaves
			time.Sleep(time.Second)
			bufs, sizes := room()
			_, _ = q.Read(bufs, sizes)
		}()
		if !q.WaitRoom(timer, time.Minute, false) || time.Since(begin) > 2*time.Second {
			t.Errorf("no room after a batch left, %v", time.Since(begin))
		}
		if !q.WaitRoom(timer, 0, true) {
			t.Error("a paced writer waits for what is not paced")
		}
		_ = q.Close()
	})
}

func TestCloseEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(nil)
		done := make(chan error)
		go func() {
			bufs, sizes := room()
			_, err := q.Read(bufs, sizes)
			done <- err
		}()
		synctest.Wait()
		_ = q.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read: %v", err)
		}
		if err := q.Write([][]byte{buffer(udp(1, 100), overlay.Meta{})}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write: %v", err)
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	q := New(nil)
	_ = q.Write([][]byte{buffer(udp(1, 100), overlay.Meta{}), buffer(joined(1, 4000), overlay.Meta{Piece: 1000})})
	_ = q.Close()
	if n := q.drops.Get(overlay.DropClosed); n < 5 {
		t.Errorf("%d counted as closed", n)
	}
}

// Several writers, one reader: what was written arrives or is counted.
func TestManyWriters(t *testing.T) {
	q := New(nil)
	const writers, each = 4, 20000
	read := make(chan int)
	go func() {
		bufs, sizes := room()
		total := 0
		for {
			n, err := q.Read(bufs, sizes)
			if err != nil {
				read <- total
				return
			}
			total += n
		}
	}()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			var batch [][]byte
			for range overlay.BatchSize {
				batch = append(batch, buffer(udp(uint16(w), 200), overlay.Meta{}))
			}
			for range each / len(batch) {
				_ = q.Write(batch)
			}
		})
	}
	wg.Wait()
	for { // until the reader has it all
		q.mu.Lock()
		empty := q.tree.classes[0].flows.packets == 0 && q.waiting
		q.mu.Unlock()
		if empty {
			break
		}
	}
	_ = q.Close()
	var lost uint64
	for _, n := range q.drops.Snapshot() {
		lost += n
	}
	if got := <-read; got+int(lost) != writers*(each/overlay.BatchSize)*overlay.BatchSize {
		t.Errorf("%d read, %d lost", got, lost)
	}
}

func TestAllocNothingOnThePath(t *testing.T) {
	for _, tt := range []struct {
		name string
		b    []byte
	}{
		{"whole packets", buffer(udp(1, 1420), overlay.Meta{})},
		{"packets that are cut", buffer(joined(1, 60000), overlay.Meta{Piece: 1380})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := New(nil)
			batch := [][]byte{tt.b, tt.b}
			bufs, sizes := room()
			if n := testing.AllocsPerRun(200, func() {
				if err := q.Write(batch); err != nil {
					t.Fatal(err)
				}
				for q.tree.classes[0].flows.packets > 0 || q.cutting != nil {
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

func FuzzQueue(f *testing.F) {
	f.Add(udp(1, 100), uint16(0))
	f.Add(joined(1, 5000), uint16(1000))
	f.Add(joined(1, 300), uint16(1))
	f.Fuzz(func(t *testing.T, pkt []byte, piece uint16) {
		if len(pkt) > overlay.MaxPacket {
			return
		}
		q := New(nil)
		if err := q.Write([][]byte{buffer(pkt, overlay.Meta{Piece: piece})}); err != nil {
			t.Fatal(err)
		}
		q.tree.classes[0].all[flowHash(pkt, q.seed)%flowQueues].codel = codel{firstAbove: 1, count: 3}
		q.start = q.start.Add(-time.Second) // it has waited long: marking and dropping are tried, too
		bufs, sizes := room()
		for q.tree.classes[0].flows.packets > 0 || q.cutting != nil {
			if _, err := q.takeAll(bufs, sizes); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// takeAll is Read for a queue whose only packet may be dropped, so that there is
// nothing to wait for.
func (q *Queue) takeAll(bufs [][]byte, sizes []int) (int, error) {
	n := q.cutInto(bufs, sizes, 0, len(bufs))
	if n == len(bufs) {
		return n, nil
	}
	k, err := q.takeSome(len(bufs)-n, false)
	for i, p := range q.took[:k] {
		q.took[i] = nil
		n = q.unpack(p, bufs, sizes, n, len(bufs))
	}
	return n, err
}

func BenchmarkQueue(b *testing.B) {
	for _, bb := range []struct {
		name string
		pkt  []byte
		meta overlay.Meta
		n    int // packets it stands for
	}{
		{"64B", udp(1, 64), overlay.Meta{}, 1},
		{"1420B", udp(1, 1420), overlay.Meta{}, 1},
		{"46x1420B", joined(1, 46*1380), overlay.Meta{Piece: 1380}, 46},
	} {
		for _, flows := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/%dflows", bb.name, flows), func(b *testing.B) {
				q := New(nil)
				var batch [][]byte
				for i := range max(flows, overlay.BatchSize/bb.n) {
					p := buffer(bb.pkt, bb.meta)
					p[overlay.Headroom+20] = byte(i % flows) // source port
					batch = append(batch, p)
				}
				batch = batch[:min(len(batch), overlay.BatchSize/bb.n)]
				bufs, sizes := room()
				b.ReportAllocs()
				packets := 0
				for b.Loop() {
					if err := q.Write(batch); err != nil {
						b.Fatal(err)
					}
					for q.tree.classes[0].flows.packets > 0 || q.cutting != nil {
						n, err := q.Read(bufs, sizes)
						if err != nil {
							b.Fatal(err)
						}
						packets += n
					}
				}
				if packets != b.N*len(batch)*bb.n {
					b.Fatalf("%d packets of %d", packets, b.N*len(batch)*bb.n)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(packets), "ns/packet")
			})
		}
	}
}
