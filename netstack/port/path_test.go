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

// segments returns segments of one flow that may be joined, with headroom.
func segments(size int) [][]byte {
	bufs := make([][]byte, overlay.MaxPacket/(size+40))
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
		bufs[i] = make([]byte, overlay.Headroom+overlay.MaxPacket)
	}
	return bufs, make([]int, n)
}

// What Write makes of a batch, Read hands over as the one packet that it is; cut,
// it is the batch again, and written, the device gets the same bytes.
func TestWhatWriteJoinsStaysWhole(t *testing.T) {
	for _, fr := range []frame{{vnet: true}, {vnet: true, eth: true}} {
		p, far := pipePort(t, fr)
		sent := segments(1300)
		if err := p.Write(sent); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1<<17)
		n, err := unix.Read(far, b)
		if want := fr.len() + 40 + 1300*len(sent); err != nil || n != want {
			t.Fatalf("one packet of %d bytes, want %d: %v", n, want, err)
		}
		if n := p.Drops().Snapshot(); len(n) != 0 {
			t.Fatal(n)
		}
		if _, err := unix.Write(far, b[:n]); err != nil {
			t.Fatal(err)
		}
		bufs, sizes := room(7)
		if n, err := p.Read(bufs, sizes); n != 1 || err != nil {
			t.Fatalf("%d packets: %v", n, err)
		}
		joined := bufs[0][:overlay.Headroom+sizes[0]]
		meta := overlay.MetaOf(joined)
		if got := meta.Packets(sizes[0], 40); meta.Piece != 1300 || got != len(sent) {
			t.Fatalf("%+v, stands for %d", meta, got)
		}
		var cut segment.Cutter
		if !cut.Start(joined[overlay.Headroom:], true, int(meta.Piece)) {
			t.Fatal("cannot be cut")
		}
		piece := make([]byte, 1500)
		for i := range sent {
			got, want := piece[:cut.Next(piece)], sent[i][overlay.Headroom:]
			if !overlaytest.ChecksumsOK(got) || string(got[20:36]) != string(want[20:36]) || len(got) != len(want) {
				t.Fatalf("packet %d: got %x want %x", i, got[:40], want[:40])
			}
		}
		if err := p.Write([][]byte{joined}); err != nil {
			t.Fatal(err)
		}
		again := make([]byte, 1<<17)
		if m, err := unix.Read(far, again); err != nil || !bytes.Equal(b[:n], again[:m]) {
			t.Fatalf("%v: wrote %x, read %x", err, again[:64], b[:64])
		}
	}
}

// A device that takes no joined packets gets the pieces.
func TestWhatStandsForSeveralIsCutForAPlainDevice(t *testing.T) {
	whole, far := pipePort(t, frame{vnet: true})
	sent := segments(1300)
	if err := whole.Write(sent); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1<<17)
	n, err := unix.Read(far, b)
	if err != nil {
		t.Fatal(err)
	}
	joined := append(make([]byte, overlay.Headroom), b[vnetLen:n]...)
	overlay.PutMeta(joined, overlay.Meta{Piece: 1300})
	plain, end := pipePort(t, frame{})
	if err := plain.Write([][]byte{joined}); err != nil {
		t.Fatal(err)
	}
	for i := range sent {
		n, err := unix.Read(end, b)
		if want := sent[i][overlay.Headroom:]; err != nil || n != len(want) || !overlaytest.ChecksumsOK(b[:n]) || string(b[20:36]) != string(want[20:36]) {
			t.Fatalf("piece %d: %d bytes: %v", i, n, err)
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
			for got := 0; got < messages; {
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
	if n := p.Drops().Get(overlay.DropSendError); n != uint64(3*len(segments(100))) {
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

// BenchmarkRoundTrip writes segments as one packet to a socket and reads it
// again; ns and bytes are of both.
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
		if n, err := p.Read(bufs, sizes); err != nil || n != 1 || sizes[0] != 40+1300*len(out) {
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
