package segment

import (
	"bytes"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

var (
	one4, two4 = netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.0.2")
	one6, two6 = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
)

// large returns a TCP or UDP packet with that much data.
func large(v6, tcp bool, options, data []byte) []byte {
	src, dst := netip.AddrPortFrom(one4, 5), netip.AddrPortFrom(two4, 6)
	if v6 {
		src, dst = netip.AddrPortFrom(one6, 5), netip.AddrPortFrom(two6, 6)
	}
	if tcp {
		return overlaytest.TCP(src, dst, 0xfffff000, 3, ACK|PSH, options, data)
	}
	return overlaytest.UDP(src, dst, data)
}

// A large packet that is cut and joined is what it was, and every piece on the
// way is a packet that a kernel accepts.
func TestCutAndJoinAreInverse(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 2))
	runs := &Runs{UDP: true}
	for i := range 600 {
		v6, tcp := rng.IntN(2) == 0, rng.IntN(2) == 0
		options := bytes.Repeat([]byte{1}, 4*rng.IntN(11))
		data := make([]byte, 1+rng.IntN(44_000))
		for k := range data {
			data[k] = byte(rng.Uint32())
		}
		pkt := large(v6, tcp, options, data)
		mss := len(data)/overlay.BatchSize + 1 + rng.IntN(300)
		var c Cutter
		if !c.Start(pkt, tcp, mss) {
			t.Fatalf("%d: not started", i)
		}
		pieces := make([][]byte, 0, overlay.BatchSize)
		most := c.PieceSize()
		for want := c.Pieces(); c.Busy(); want-- {
			if c.Pieces() != want {
				t.Fatalf("%d: %d pieces left, want %d", i, c.Pieces(), want)
			}
			b := make([]byte, most)
			b = b[:c.Next(b)]
			if !overlaytest.ChecksumsOK(b) {
				t.Fatalf("%d: piece %d is wrong: %x", i, len(pieces), b[:60])
			}
			pieces = append(pieces, b)
		}
		runs.Reset()
		for k, p := range pieces {
			s, v := Verify(p)
			if v != Trusted {
				t.Fatalf("%d: piece %d: verdict %d", i, k, v)
			}
			runs.Add(k, pieces, s)
		}
		if len(runs.All()) != 1 {
			t.Fatalf("%d: %d packets of %d pieces", i, len(runs.All()), len(pieces))
		}
		r := &runs.All()[0]
		joined := make([]byte, r.Total)
		r.Fill(joined, pieces)
		overlaytest.Fix(joined)
		if !bytes.Equal(joined, pkt) {
			t.Fatalf("%d: got\n%x want\n%x", i, joined[:60], pkt[:60])
		}
		// The same by headers alone, with the checksum left to complete.
		head := make([]byte, 100)
		n := r.Head(head, pieces)
		again := append(bytes.Clone(head[:n]), data...)
		at := 6
		if tcp {
			at = 16
		}
		if !Complete(again, r.Shape().IP, at) || !bytes.Equal(again, pkt) {
			t.Fatalf("%d: by headers: got\n%x want\n%x", i, again[:60], pkt[:60])
		}
	}
}

func TestDatagramsAreJoined(t *testing.T) {
	udp := func(port uint16, data string) []byte {
		return overlaytest.UDP(netip.AddrPortFrom(one4, port), netip.AddrPortFrom(two4, 6), []byte(data))
	}
	unsummed := udp(1, "abcd")
	unsummed[26], unsummed[27] = 0, 0
	marked := udp(1, "efgh")
	marked[1] = 3
	overlaytest.Fix(marked)
	padded := append(udp(1, "ab"), 0, 0)
	padded[3] += 2
	fixed := bytes.Clone(padded[:20])
	fixed[10], fixed[11] = 0, 0
	sum := ^Sum(fixed, 0)
	padded[10], padded[11] = byte(sum>>8), byte(sum)
	for _, c := range []struct {
		name string
		in   [][]byte
		want []int // packets in each run
	}{
		{"those of one size are", [][]byte{udp(1, "abcd"), udp(1, "efgh"), udp(1, "ijkl")}, []int{3}},
		{"a short one ends a run", [][]byte{udp(1, "abcd"), udp(1, "ef"), udp(1, "gh")}, []int{2, 1}},
		{"a longer one is not", [][]byte{udp(1, "ab"), udp(1, "cdef")}, []int{1, 1}},
		{"empty ones are not", [][]byte{udp(1, ""), udp(1, "")}, []int{1, 1}},
		{"two flows between each other are", [][]byte{udp(1, "ab"), udp(2, "AB"), udp(1, "cd"), udp(2, "CD")}, []int{2, 2}},
		{"without a checksum they are not", [][]byte{udp(1, "abcd"), unsummed, udp(1, "efgh")}, []int{1, 1, 1}},
		{"with bytes after the end they are not", [][]byte{padded, padded}, []int{1, 1}},
		{"a congestion mark is not", [][]byte{udp(1, "abcd"), marked}, []int{1, 1}},
		{"TCP is another flow", [][]byte{udp(1, "abcd"), large(false, true, nil, []byte("abcd")), udp(1, "efgh")}, []int{2, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			runs := Runs{UDP: true}
			for i, p := range c.in {
				s, v := Verify(p)
				if v != Trusted {
					t.Fatalf("packet %d: verdict %d: %x", i, v, p)
				}
				runs.Add(i, c.in, s)
			}
			var got []int
			for i := range runs.All() {
				got = append(got, runs.All()[i].Len())
			}
			if len(got) != len(c.want) {
				t.Fatalf("runs of %v, want %v", got, c.want)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Fatalf("runs of %v, want %v", got, c.want)
				}
			}
		})
	}
}

// Whatever is to be cut, pieces are whole packets and hold all data once.
func FuzzCut(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		for _, tcp := range []bool{false, true} {
			f.Add(large(v6, tcp, nil, make([]byte, 999)), tcp, 100)
		}
	}
	f.Add(large(false, true, nil, []byte("abc")), true, math.MaxInt)
	f.Add(overlaytest.PacketOfDeath(netip.AddrPortFrom(one4, 1), netip.AddrPortFrom(two4, 2)), true, 1)
	f.Fuzz(func(t *testing.T, pkt []byte, tcp bool, mss int) {
		var c Cutter
		before := bytes.Clone(pkt)
		if !c.Start(pkt, tcp, mss) {
			if c.Busy() {
				t.Fatal("refused and busy")
			}
			return
		}
		b := make([]byte, c.PieceSize())
		data, head := 0, c.head
		for left := c.Pieces(); c.Busy(); left-- {
			n := c.Next(b)
			if n <= head || left == 0 {
				t.Fatalf("a piece of %d bytes, %d left", n, left)
			}
			if !bytes.Equal(b[head:n], pkt[head+data:head+data+n-head]) {
				t.Fatal("other data")
			}
			if pkt[0]>>4 == 6 || pkt[0] == 0x45 {
				if _, v := Verify(b[:n]); v != Trusted {
					t.Fatalf("verdict %d: %x", v, b[:n])
				}
			}
			data += n - head
		}
		if head+data != len(pkt) || !bytes.Equal(before, pkt) {
			t.Fatalf("%d of %d bytes cut", head+data, len(pkt))
		}
	})
}

// BenchmarkCut cuts 64 KiB at the usual size; ns are per packet of 64 KiB.
func BenchmarkCut(b *testing.B) {
	pkt := large(false, true, nil, make([]byte, 65_000))
	buf := make([]byte, 1500)
	var c Cutter
	b.SetBytes(int64(len(pkt)))
	b.ReportAllocs()
	for range b.N {
		if !c.Start(pkt, true, 1380) {
			b.Fatal("not started")
		}
		n := 0
		for c.Busy() {
			n += c.Next(buf) - 40
		}
		if n != 65_000 {
			b.Fatal(n)
		}
	}
}

// batchOf cuts a large packet into a batch.
func batchOf(tb testing.TB, tcp bool) [][]byte {
	tb.Helper()
	var c Cutter
	if !c.Start(large(false, tcp, nil, make([]byte, 32*1300)), tcp, 1300) {
		tb.Fatal("not started")
	}
	var out [][]byte
	for c.Busy() {
		b := make([]byte, 1500)
		out = append(out, b[:c.Next(b)])
	}
	return out
}

// BenchmarkJoin verifies and joins a batch of 32 segments.
func BenchmarkJoin(b *testing.B) {
	for _, tcp := range []bool{true, false} {
		b.Run(map[bool]string{true: "tcp", false: "udp"}[tcp], func(b *testing.B) {
			pkts := batchOf(b, tcp)
			runs := &Runs{UDP: true}
			head := make([]byte, 100)
			b.SetBytes(32 * 1300)
			b.ReportAllocs()
			for range b.N {
				runs.Reset()
				for i, p := range pkts {
					s, _ := Verify(p)
					runs.Add(i, pkts, s)
				}
				if len(runs.All()) != 1 || runs.All()[0].Head(head, pkts) < 28 {
					b.Fatal("not joined")
				}
			}
		})
	}
}

func TestNothingAllocates(t *testing.T) {
	pkt := large(true, true, nil, make([]byte, 32*1300))
	pkts := batchOf(t, true)
	buf, head := make([]byte, 1500), make([]byte, 100)
	var c Cutter
	runs := &Runs{UDP: true}
	if n := testing.AllocsPerRun(100, func() {
		c.Start(pkt, true, 1300)
		for c.Busy() {
			c.Next(buf)
		}
		runs.Reset()
		for i, p := range pkts {
			s, _ := Verify(p)
			runs.Add(i, pkts, s)
		}
		runs.All()[0].Head(head, pkts)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
