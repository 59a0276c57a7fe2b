package netstack

import (
	"bytes"
	"encoding/binary"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"testing"

	"slicewire/netstack/segment"
	"slicewire/overlay"
	"slicewire/overlay/overlaytest"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

func jsonLog(w io.Writer) *slog.Logger { return slog.New(slog.NewJSONHandler(w, nil)) }

// joined sorts packets into runs and returns the joined packets.
func joined(t *testing.T, pkts [][]byte) [][]byte {
	t.Helper()
	var rs segment.Runs
	for i, p := range pkts {
		s, v := segment.Verify(p)
		if v != segment.Trusted {
			t.Fatalf("not trusted: %x", p)
		}
		rs.Add(i, pkts, s)
	}
	var out [][]byte
	for i := range rs.All() {
		b := make([]byte, rs.All()[i].Total)
		rs.All()[i].Fill(b, pkts)
		out = append(out, b)
	}
	return out
}

func seg(src uint16, seq int, flags uint8, options []byte, data string) []byte {
	return overlaytest.TCP(netip.AddrPortFrom(one4, src), netip.AddrPortFrom(two4, 80), uint32(seq), 7, flags, options, []byte(data))
}

func TestSegmentsAreJoined(t *testing.T) {
	const a, p, f = segment.ACK, segment.PSH, segment.FIN
	stamp := func(v byte) []byte { return []byte{1, 1, 8, 10, 0, 0, 0, v, 0, 0, 0, 1} }
	other := func(pkt []byte, at int, v byte) []byte {
		pkt[at] = v
		overlaytest.Fix(pkt)
		return pkt
	}
	for _, c := range []struct {
		name string
		in   [][]byte
		want []int // how many data bytes each joined packet has
	}{
		{"consecutive ones are", [][]byte{seg(1, 0, a, nil, "abcd"), seg(1, 4, a, nil, "efgh"), seg(1, 8, a, nil, "ij")}, []int{10}},
		{"a short one ends a run", [][]byte{seg(1, 0, a, nil, "abcd"), seg(1, 4, a, nil, "ef"), seg(1, 6, a, nil, "gh")}, []int{6, 2}},
		{"a push ends a run", [][]byte{seg(1, 0, a, nil, "ab"), seg(1, 2, a|p, nil, "cd"), seg(1, 4, a, nil, "ef")}, []int{4, 2}},
		{"a longer one is not", [][]byte{seg(1, 0, a, nil, "ab"), seg(1, 2, a, nil, "cde")}, []int{2, 3}},
		{"a gap is not closed", [][]byte{seg(1, 0, a, nil, "ab"), seg(1, 3, a, nil, "cd")}, []int{2, 2}},
		{"a FIN stays alone", [][]byte{seg(1, 0, a, nil, "ab"), seg(1, 2, a|f, nil, "cd")}, []int{2, 2}},
		{"acknowledgements stay alone", [][]byte{seg(1, 0, a, nil, ""), seg(1, 0, a, nil, "")}, []int{0, 0}},
		{"other timestamps are not", [][]byte{seg(1, 0, a, stamp(1), "ab"), seg(1, 2, a, stamp(2), "cd")}, []int{2, 2}},
		{"equal timestamps are", [][]byte{seg(1, 0, a, stamp(1), "ab"), seg(1, 2, a, stamp(1), "cd")}, []int{4}},
		{"another window is not", [][]byte{seg(1, 0, a, nil, "ab"), other(seg(1, 2, a, nil, "cd"), 34, 1)}, []int{2, 2}},
		{"another acknowledgement is not", [][]byte{seg(1, 0, a, nil, "ab"), other(seg(1, 2, a, nil, "cd"), 31, 9)}, []int{2, 2}},
		{"a congestion mark is not", [][]byte{seg(1, 0, a, nil, "ab"), other(seg(1, 2, a, nil, "cd"), 1, 3)}, []int{2, 2}},
		{"two flows between each other are", [][]byte{seg(1, 0, a, nil, "ab"), seg(2, 0, a, nil, "AB"), seg(1, 2, a, nil, "cd"), seg(2, 2, a, nil, "CD")}, []int{4, 4}},
		{"order within a flow stays", [][]byte{seg(1, 0, a, nil, "ab"), seg(1, 9, a, nil, "xy"), seg(1, 2, a, nil, "cd")}, []int{2, 2, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := joined(t, c.in)
			if len(out) != len(c.want) {
				t.Fatalf("%d packets, want %d", len(out), len(c.want))
			}
			for i, p := range out {
				head := 20 + int(p[32]>>4)*4
				if len(p)-head != c.want[i] || int(binary.BigEndian.Uint16(p[2:])) != len(p) {
					t.Errorf("packet %d: %x", i, p)
				}
			}
		})
	}
}

// A super-segment that is cut and joined again is what it was, and every piece
// on the way is a packet that a kernel would accept.
func TestCutAndJoinAreInverse(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 9))
	for i := range 2000 {
		v6 := rng.IntN(2) == 0
		src, dst := netip.AddrPortFrom(one4, 5), netip.AddrPortFrom(two4, 6)
		ip := 20
		if v6 {
			src, dst, ip = netip.AddrPortFrom(one6, 5), netip.AddrPortFrom(two6, 6), 40
		}
		options := make([]byte, 4*rng.IntN(11))
		for k := range options {
			options[k] = 1
		}
		data := make([]byte, 1+rng.IntN(40_000))
		for k := range data {
			data[k] = byte(rng.Uint32())
		}
		super := overlaytest.TCP(src, dst, rng.Uint32(), 3, segment.ACK|segment.PSH, options, data)
		mss := 1 + rng.IntN(1400)
		if len(data)/mss >= overlay.BatchSize {
			mss = len(data)/overlay.BatchSize + 1
		}
		var pieces [][]byte
		cut(t, super, ip, 20+len(options), mss, testMTU, func(p []byte) { pieces = append(pieces, bytes.Clone(p)) })
		for _, p := range pieces {
			if len(p) > testMTU || !overlaytest.ChecksumsOK(p) {
				t.Fatalf("%d: a piece is %d bytes, checksums right %v", i, len(p), overlaytest.ChecksumsOK(p))
			}
		}
		for len(pieces) > overlay.BatchSize {
			pieces = pieces[:overlay.BatchSize]
			super = nil // options left less room than mss; the pieces were checked
		}
		if out := joined(t, pieces); super != nil {
			if len(out) != 1 {
				t.Fatalf("%d: %d packets after joining %d", i, len(out), len(pieces))
			}
			overlaytest.Fix(out[0])
			if !bytes.Equal(out[0], super) {
				t.Fatalf("%d: got\n%x want\n%x", i, out[0][:80], super[:80])
			}
		}
	}
}

// cut flattens and cuts one packet as the stack would hand it over.
func cut(t testing.TB, super []byte, ip, tcp, mss, mtu int, each func([]byte)) {
	t.Helper()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: ip + tcp,
		Payload:            buffer.MakeWithData(super[ip+tcp:]),
	})
	copy(pkt.TransportHeader().Push(tcp), super[ip:])
	copy(pkt.NetworkHeader().Push(ip), super[:ip])
	pkt.TransportProtocolNumber = header.TCPProtocolNumber
	pkt.GSOOptions = stack.GSO{Type: stack.GSOTCPv4, NeedsCsum: true, MSS: uint16(mss)}
	flat := make([]byte, overlay.MaxPacket)
	size, meta, ok := flatten(flat, pkt, mtu)
	pkt.DecRef()
	if !ok {
		t.Fatal("not taken")
	}
	if meta.Piece == 0 {
		each(flat[:size])
		return
	}
	var c segment.Cutter
	if !c.Start(flat[:size], true, int(meta.Piece)) {
		t.Fatal("cannot be cut")
	}
	b := make([]byte, mtu)
	for c.Busy() {
		each(b[:c.Next(b)])
	}
}

func TestThePathAllocatesNothing(t *testing.T) {
	data := make([]byte, 1300)
	var pkts [][]byte
	for i := range 32 {
		pkts = append(pkts, seg(1, i*len(data), segment.ACK, nil, string(data)))
	}
	rs := new(segment.Runs)
	dst := make([]byte, 65535)
	if n := testing.AllocsPerRun(200, func() {
		rs.Reset()
		for i, p := range pkts {
			s, v := segment.Verify(p)
			if v != segment.Trusted {
				t.Fatal("not trusted")
			}
			rs.Add(i, pkts, s)
		}
		rs.All()[0].Fill(dst[:rs.All()[0].Total], pkts)
	}); n != 0 || len(rs.All()) != 1 {
		t.Errorf("inward: %v allocations, %d runs", n, len(rs.All()))
	}

	super := overlaytest.TCP(netip.AddrPortFrom(one4, 1), netip.AddrPortFrom(two4, 2), 0, 0, segment.ACK, nil, make([]byte, 40_000))
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: 40, Payload: buffer.MakeWithData(super[40:])})
	copy(pkt.TransportHeader().Push(20), super[20:])
	copy(pkt.NetworkHeader().Push(20), super[:20])
	pkt.GSOOptions = stack.GSO{Type: stack.GSOTCPv4, NeedsCsum: true, MSS: 1380}
	defer pkt.DecRef()
	b := make([]byte, overlay.MaxPacket)
	if n := testing.AllocsPerRun(200, func() {
		if _, meta, ok := flatten(b, pkt, testMTU); !ok || meta.Piece != 1380 {
			t.Fatal("not taken")
		}
	}); n != 0 {
		t.Errorf("outward: %v allocations a super-segment", n)
	}
}

func BenchmarkCut(b *testing.B) {
	super := overlaytest.TCP(netip.AddrPortFrom(one4, 1), netip.AddrPortFrom(two4, 2), 0, 0, segment.ACK, nil, make([]byte, 60_000))
	b.SetBytes(60_000)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		cut(b, super, 20, 20, 1380, testMTU, func(p []byte) { n += len(p) - 40 })
		if n != 60_000 {
			b.Fatalf("%d bytes came out", n)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	p := seg(1, 0, segment.ACK, nil, string(make([]byte, 1380)))
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if _, v := segment.Verify(p); v != segment.Trusted {
			b.Fatal("not trusted")
		}
	}
}
