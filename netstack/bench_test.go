package netstack

import (
	"io"
	"net/netip"
	"runtime"
	"syscall"
	"testing"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
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

// BenchmarkLinkWrite measures what one packet costs on its way in.
func BenchmarkLinkWrite(b *testing.B) {
	st := newStack(b, one4, one6)
	defer st.Close()
	at := netip.AddrPortFrom(one4, 7)
	l, err := st.ListenUDP(at)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	pkt := append(make([]byte, overlay.Headroom), overlaytest.UDP(netip.AddrPortFrom(two4, 9), at, make([]byte, 1200))...)
	bufs := make([][]byte, overlay.BatchSize)
	for i := range bufs {
		bufs[i] = pkt
	}
	b.ReportAllocs()
	for i := 0; i < b.N; i += len(bufs) {
		if err := st.Link().Write(bufs); err != nil {
			b.Fatal(err)
		}
	}
	if n := st.Drops().Get(overlay.DropMalformed); n != 0 {
		b.Fatalf("%d packets refused", n)
	}
}
