package netstack

import (
	"io"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"testing"

	"slicewire/netstack/segment"
	"slicewire/overlay"
	"slicewire/overlay/overlaytest"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// cpuSeconds is the processor time of this process so far.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// BenchmarkTCP moves one stream between two stacks in one process and reports
// what both of them and the copying between them cost.
func BenchmarkTCP(b *testing.B) {
	one, two := pair(b, nil)
	near, far := connect(b, one, two, two4)
	const chunk = 64 << 10
	b.SetBytes(chunk)
	done := make(chan int64, 1)
	go func() {
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{far}, make([]byte, chunk))
		done <- n
	}()
	buf := make([]byte, chunk)
	runtime.GC()
	b.ReportAllocs()
	b.ResetTimer()
	start := cpuSeconds()
	for range b.N {
		if _, err := near.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	if err := near.(*conn).CloseWrite(); err != nil {
		b.Fatal(err)
	}
	if n := <-done; n != int64(b.N)*chunk {
		b.Fatalf("%d of %d bytes arrived", n, int64(b.N)*chunk)
	}
	b.StopTimer()
	b.ReportMetric((cpuSeconds()-start)/(float64(b.N)*chunk/1e9), "cpu-s/GB")
	near.Close()
	far.Close()
}

// BenchmarkLinkWrite measures what one packet costs on its way in, to the
// socket and out of it.
func BenchmarkLinkWrite(b *testing.B) {
	st := newStack(b, one4, one6)
	defer st.Close()
	c, err := st.DialUDP(one4, netip.AddrPortFrom(two4, 9))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	at := c.LocalAddr().(*net.UDPAddr).AddrPort()
	bufs := batchOf(overlaytest.UDP(netip.AddrPortFrom(two4, 9), at, make([]byte, 1200)))
	buf := make([]byte, 2048)
	b.ReportAllocs()
	for b.Loop() {
		if err := st.Link().Write(bufs); err != nil {
			b.Fatal(err)
		}
		for range bufs {
			if n, err := c.Read(buf); err != nil || n != 1200 {
				b.Fatalf("%d bytes, %v", n, err)
			}
		}
	}
	perPacket(b, len(bufs))
}

// BenchmarkLinkRead measures the way out from where the stack leaves its
// packets, a super-segment of TCP or datagrams, to a reader's buffers.
func BenchmarkLinkRead(b *testing.B) {
	for _, tcp := range []bool{true, false} {
		b.Run(map[bool]string{true: "TCP", false: "UDP"}[tcp], func(b *testing.B) {
			l := newLeaving(b, tcp)
			b.ReportAllocs()
			for b.Loop() {
				l.read(b)
			}
			perPacket(b, l.packets)
		})
	}
}

func perPacket(b *testing.B, packets int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*packets), "ns/packet")
}

// batchOf is a whole batch of one packet, which is not changed.
func batchOf(pkt []byte) [][]byte {
	bufs := make([][]byte, overlay.BatchSize)
	for i := range bufs {
		bufs[i] = append(make([]byte, overlay.Headroom), pkt...)
	}
	return bufs
}

// leaving is an outlet and what the stack leaves in it, once a round.
type leaving struct {
	out     *outlet
	left    []*stack.PacketBuffer
	packets int // that come out of it, of so many bytes
	bytes   int
	bufs    [][]byte
	sizes   []int
}

func newLeaving(t testing.TB, tcp bool) *leaving {
	l := &leaving{out: newOutlet(testMTU), bufs: batchOf(make([]byte, testMTU)), sizes: make([]int, overlay.BatchSize)}
	leave := func(whole []byte, head int) *stack.PacketBuffer {
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: head, Payload: buffer.MakeWithData(whole[head:])})
		copy(pkt.TransportHeader().Push(head-header.IPv4MinimumSize), whole[header.IPv4MinimumSize:])
		copy(pkt.NetworkHeader().Push(header.IPv4MinimumSize), whole)
		t.Cleanup(pkt.DecRef)
		return pkt
	}
	from, to := netip.AddrPortFrom(one4, 1), netip.AddrPortFrom(two4, 2)
	if tcp {
		const mss, segments = testMTU - 40, 20
		pkt := leave(overlaytest.TCP(from, to, 0, 0, segment.ACK, nil, make([]byte, segments*mss)), 40)
		pkt.TransportProtocolNumber = header.TCPProtocolNumber
		pkt.GSOOptions = stack.GSO{Type: stack.GSOTCPv4, NeedsCsum: true, MSS: mss}
		l.left, l.packets, l.bytes = append(l.left, pkt), segments, segments*testMTU
		return l
	}
	for range overlay.BatchSize {
		pkt := leave(overlaytest.UDP(from, to, make([]byte, 1200)), 28)
		pkt.TransportProtocolNumber = header.UDPProtocolNumber
		l.left = append(l.left, pkt)
	}
	l.packets, l.bytes = overlay.BatchSize, overlay.BatchSize*1228
	return l
}

// read leaves the packets and reads them all.
func (l *leaving) read(t testing.TB) {
	for _, pkt := range l.left {
		if err := l.out.WritePacket(pkt); err != nil {
			t.Fatal(err)
		}
	}
	packets, bytes := 0, 0
	for packets < l.packets {
		n, err := l.out.read(l.bufs, l.sizes)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range l.sizes[:n] {
			bytes += size
		}
		packets += n
	}
	if packets != l.packets || bytes != l.bytes {
		t.Fatalf("%d packets of %d bytes came out, want %d of %d", packets, bytes, l.packets, l.bytes)
	}
}

func TestTheLinkAllocatesNothing(t *testing.T) {
	for _, tcp := range []bool{true, false} {
		l := newLeaving(t, tcp)
		l.read(t)
		if n := testing.AllocsPerRun(200, func() { l.read(t) }); n != 0 {
			t.Errorf("outward, TCP %v: %v allocations for %d packets", tcp, n, l.packets)
		}
	}
	// Inward to an address that is not the stack's: what a socket does with a
	// packet is gVisor's.
	st := newStack(t, one4, one6)
	defer st.Close()
	from, to := netip.AddrPortFrom(two4, 1), netip.AddrPortFrom(two4, 2)
	for name, pkt := range map[string][]byte{
		"UDP": overlaytest.UDP(from, to, make([]byte, 1200)),
		"TCP": overlaytest.TCP(from, to, 0, 0, segment.ACK, nil, make([]byte, 1300)),
	} {
		bufs := batchOf(pkt)
		if n := testing.AllocsPerRun(200, func() { _ = st.Link().Write(bufs) }); n != 0 && !raceEnabled {
			t.Errorf("inward, %s: %v allocations for %d packets", name, n, len(bufs))
		}
	}
}
