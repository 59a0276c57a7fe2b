package port

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"slicewire/netstack/segment"
	"slicewire/overlay"
	"slicewire/overlay/overlaytest"

	"golang.org/x/sys/unix"
)

// pipePort is a Port over one end of a socket pair that keeps the bounds of
// packets: the path without the device behind it.
func pipePort(tb testing.TB, fr frame) (*Port, int) {
	tb.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	cfg, err := Config{}.withDefaults()
	if err != nil {
		tb.Fatal(err)
	}
	p, err := newPort(os.NewFile(uintptr(fds[0]), "pair"), fr, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		p.Close()
		unix.Close(fds[1])
	})
	return p, fds[1]
}

// segments returns a batch of segments of one flow, with headroom.
func segments(size int) [][]byte {
	bufs := make([][]byte, overlay.BatchSize)
	src, dst := netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2")
	for i := range bufs {
		pkt := overlaytest.TCP(src, dst, uint32(i*size), 1, segment.ACK, nil, make([]byte, size))
		bufs[i] = append(make([]byte, overlay.Headroom), pkt...)
	}
	return bufs
}

func room(n int) (bufs [][]byte, sizes []int) {
	bufs = make([][]byte, n)
	for i := range bufs {
		bufs[i] = make([]byte, overlay.Headroom+1500)
	}
	return bufs, make([]int, n)
}

// A packet that has more pieces than one Read has room for comes in several,
// and what Write made of a batch, Read takes apart again.
func TestWhatDoesNotFitComesNext(t *testing.T) {
	for _, fr := range []frame{{vnet: true}, {vnet: true, eth: true}} {
		p, far := pipePort(t, fr)
		sent := segments(1300)
		if err := p.Write(sent); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1<<17)
		n, err := unix.Read(far, b)
		if want := fr.len() + 40 + 1300*overlay.BatchSize; err != nil || n != want {
			t.Fatalf("one packet of %d bytes, want %d: %v", n, want, err)
		}
		if n := p.Drops().Snapshot(); len(n) != 0 {
			t.Fatal(n)
		}
		if _, err := unix.Write(far, b[:n]); err != nil {
			t.Fatal(err)
		}
		bufs, sizes := room(7)
		for got := 0; got < len(sent); {
			n, err := p.Read(bufs, sizes)
			if err != nil || n == 0 || n < len(bufs) && got+n < len(sent) {
				t.Fatalf("%d packets after %d: %v", n, got, err)
			}
			for i := range n {
				pkt := bufs[i][overlay.Headroom:][:sizes[i]]
				want := sent[got+i][overlay.Headroom:]
				if !overlaytest.ChecksumsOK(pkt) || string(pkt[20:36]) != string(want[20:36]) || len(pkt) != len(want) {
					t.Fatalf("packet %d: got %x want %x", got+i, pkt[:40], want[:40])
				}
			}
			got += n
		}
	}
}

func TestThePathAllocatesNothing(t *testing.T) {
	for _, fr := range []frame{{vnet: true}, {vnet: true, eth: true}, {}} {
		p, far := pipePort(t, fr)
		out := segments(1300)
		bufs, sizes := room(overlay.BatchSize)
		b := make([]byte, 1<<17)
		if n := testing.AllocsPerRun(100, func() {
			if err := p.Write(out); err != nil {
				t.Fatal(err)
			}
			messages := 1
			if !fr.vnet {
				messages = len(out)
			}
			for range messages {
				n, err := unix.Read(far, b)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := unix.Write(far, b[:n]); err != nil {
					t.Fatal(err)
				}
			}
			for got := 0; got < len(out); {
				n, err := p.Read(bufs, sizes)
				if err != nil {
					t.Fatal(err)
				}
				got += n
			}
		}); n >= 1 {
			t.Errorf("%+v: %v allocations a batch", fr, n)
		}
	}
}

// A kernel that refuses a joined packet costs one refusal and one log line: the
// packets of that run, and all that follow, go alone.
func TestRefusedJoinsGoAlone(t *testing.T) {
	// A timer is a descriptor that can be waited for and refuses all writing
	// in the way in question.
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cfg, err := Config{Log: slog.New(slog.NewJSONHandler(&log, nil))}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPort(os.NewFile(uintptr(fd), "timer"), frame{vnet: true}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range 3 {
		if err := p.Write(segments(100)); err != nil {
			t.Fatal(err)
		}
	}
	if tcp, udp := p.Offloads(); tcp || !udp {
		t.Errorf("offloads: TCP %v, UDP %v", tcp, udp)
	}
	if n := p.Drops().Get(overlay.DropSendError); n != 3*overlay.BatchSize {
		t.Errorf("%d packets counted", n)
	}
	if n := bytes.Count(log.Bytes(), []byte("\n")); n != 1 || !bytes.Contains(log.Bytes(), []byte("refuses")) {
		t.Errorf("log: %s", log.Bytes())
	}

	other, far := pipePort(t, frame{vnet: true})
	other.noTCP.Store(true)
	if err := other.Write(segments(100)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1<<16)
	for range overlay.BatchSize {
		n, err := unix.Read(far, b)
		if err != nil || n != vnetLen+140 || parseVnet(b) != (vnet{}) {
			t.Fatalf("%d bytes, %+v, %v", n, parseVnet(b), err)
		}
	}
}

// BenchmarkRoundTrip writes a batch of 32 segments as one packet to a socket
// and reads and cuts it again; ns and bytes are of both.
func BenchmarkRoundTrip(b *testing.B) {
	p, far := pipePort(b, frame{vnet: true})
	out := segments(1300)
	bufs, sizes := room(overlay.BatchSize)
	whole := make([]byte, 1<<17)
	b.SetBytes(int64(len(out) * 1340))
	b.ReportAllocs()
	for range b.N {
		if err := p.Write(out); err != nil {
			b.Fatal(err)
		}
		n, err := unix.Read(far, whole)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := unix.Write(far, whole[:n]); err != nil {
			b.Fatal(err)
		}
		if n, err := p.Read(bufs, sizes); err != nil || n != len(out) || sizes[n-1] != 1340 {
			b.Fatal(n, err)
		}
	}
}

// BenchmarkTCP moves one stream between two namespaces and reports what that
// costs this process, its clients and the kernel below all of them.
func BenchmarkTCP(b *testing.B) {
	for _, c := range []struct {
		name     string
		one, two opener
		offload  bool
	}{
		{"tun", orPacket(OpenTUN), orPacket(OpenTUN), true},
		{"packet", OpenPacket, OpenPacket, true},
		{"tun-plain", orPacket(OpenTUN), orPacket(OpenTUN), false},
	} {
		b.Run(c.name, func(b *testing.B) {
			one, two, _ := join(b, c.one, c.two, Config{Offload: c.offload})
			near, far := connect(b, one, two)
			const chunk = 1 << 20
			done := make(chan int64, 1)
			go func() {
				n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{far}, make([]byte, chunk))
				done <- n
			}()
			buf := make([]byte, chunk)
			b.SetBytes(chunk)
			b.ReportAllocs()
			b.ResetTimer()
			start := cpuSeconds()
			for range b.N {
				if _, err := near.Write(buf); err != nil {
					b.Fatal(err)
				}
			}
			near.Close()
			if n := <-done; n != int64(b.N)*chunk {
				b.Fatalf("%d of %d bytes", n, int64(b.N)*chunk)
			}
			b.ReportMetric((cpuSeconds()-start)/(float64(b.N)*chunk/1e9), "cpu-s/GB")
		})
	}
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// connect makes a TCP connection between two sites, which the test closes.
func connect(tb testing.TB, from, to *site) (near, far net.Conn) {
	tb.Helper()
	var l net.Listener
	err := to.ns.Do(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(to.v4, 0).String())
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	err = from.ns.Do(func() (err error) {
		near, err = (&net.Dialer{Timeout: patience}).Dial("tcp", l.Addr().String())
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		tb.Fatal(err)
	}
	near.SetDeadline(time.Now().Add(2 * patience))
	tb.Cleanup(func() {
		near.Close()
		far.Close()
	})
	return near, far
}
