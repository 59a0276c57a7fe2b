package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"slicewire/overlay"
)

// testDevice is a device whose host is the test.
type testDevice struct {
	out  chan []byte // what the host sends
	in   chan []byte // what it gets
	done chan struct{}
	once sync.Once
}

func newTestDevice() *testDevice {
	return &testDevice{out: make(chan []byte), in: make(chan []byte, 10_000), done: make(chan struct{})}
}

func (d *testDevice) Read(bufs [][]byte, sizes []int) (int, error) {
	select {
	case p := <-d.out:
		sizes[0] = copy(bufs[0][overlay.Headroom:], p)
		return 1, nil
	case <-d.done:
		return 0, net.ErrClosed
	}
}

func (d *testDevice) Write(bufs [][]byte) error {
	for _, b := range bufs {
		d.in <- bytes.Clone(b[overlay.Headroom:])
	}
	return nil
}

func (d *testDevice) Close() error { d.once.Do(func() { close(d.done) }); return nil }

// udpPacket is a packet from host 0 to host 1 with a sound header.
func udpPacket(port uint16, payload []byte) []byte {
	p := append(make([]byte, ipHead+udpHead), payload...)
	p[0], p[8], p[9] = 0x45, 64, protoUDP
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	from, to := addr(0).As4(), addr(1).As4()
	copy(p[12:], from[:])
	copy(p[16:], to[:])
	binary.BigEndian.PutUint16(p[10:], ^onesSum(p[:ipHead]))
	binary.BigEndian.PutUint16(p[20:], port)
	binary.BigEndian.PutUint16(p[22:], 7)
	binary.BigEndian.PutUint16(p[24:], uint16(udpHead+len(payload)))
	binary.BigEndian.PutUint16(p[26:], 0xbeef)
	return p
}

// wired runs f with a running wire between two hosts, in virtual time.
func wired(t *testing.T, f func(w *Wire, a, b *testDevice)) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWire(1, []byte("canary!!"))
		a, b := newTestDevice(), newTestDevice()
		if err := errors.Join(w.Plug(addr(0), a), w.Plug(addr(1), b)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		f(w, a, b)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// send sends so many packets, one a millisecond, and waits for all.
func send(d *testDevice, count int) {
	for i := range count {
		d.out <- udpPacket(9, binary.BigEndian.AppendUint64(bytes.Repeat([]byte{0}, 92), uint64(i)))
		time.Sleep(time.Millisecond)
	}
	time.Sleep(time.Second)
	synctest.Wait()
}

func TestAWireDoesWhatItsPolicySays(t *testing.T) {
	const count = 4000
	for _, tt := range []struct {
		name                              string
		link                              Link
		came, bad, late                   float64 // shares of what was sent
		took                              time.Duration
		differs, lateDiffers, cameDiffers float64
	}{
		{name: "nothing", came: 1},
		{name: "a cut", link: Link{Cut: true}},
		{name: "loss", link: Link{Loss: 0.2}, came: 0.8, cameDiffers: 0.03},
		{name: "duplicates", link: Link{Duplicate: 1}, came: 2, late: 1, lateDiffers: 0.06},
		{name: "corruption", link: Link{Corrupt: 0.1}, came: 1, bad: 0.1, differs: 0.03},
		{name: "reordering", link: Link{Reorder: 0.5}, came: 1, late: 0.49, lateDiffers: 0.06},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wired(t, func(w *Wire, a, b *testDevice) {
				w.Set(Everywhere(tt.link))
				send(a, count)
				came, bad, late, last := 0, 0, 0, -1
				for len(b.in) > 0 {
					p := <-b.in
					came++
					if onesSum(p[:ipHead]) != 0xffff || int(binary.BigEndian.Uint16(p[2:])) != len(p) || int(binary.BigEndian.Uint16(p[24:])) != len(p)-ipHead {
						t.Fatalf("a header that no kernel takes: % x", p[:28])
					}
					sum := binary.BigEndian.Uint16(p[26:])
					if whole := len(p) == ipHead+udpHead+100 && bytes.Equal(p[28:120], make([]byte, 92)); !whole && sum != 0 {
						t.Fatalf("damaged, and the checksum says so: % x", p)
					}
					if sum == 0 {
						bad++
						continue
					}
					n := int(binary.BigEndian.Uint64(p[120:]))
					if n <= last {
						late++
					}
					last = max(last, n)
				}
				near := func(what string, got int, want, by float64) {
					if share := float64(got) / count; share < want-by || share > want+by {
						t.Errorf("%s: %d of %d, want a share of %v", what, got, count, want)
					}
				}
				near("came", came, tt.came, tt.cameDiffers)
				near("damaged", bad, tt.bad, tt.differs)
				near("late or again", late, tt.late, tt.lateDiffers)
				if c := w.Counts(); c.Packets != count || c.Full != 0 {
					t.Errorf("%+v", c)
				}
			})
		})
	}
}

func TestAWireTakesItsTime(t *testing.T) {
	wired(t, func(w *Wire, a, b *testDevice) {
		w.Set(Everywhere(Link{Delay: 20 * time.Millisecond, Jitter: 10 * time.Millisecond}))
		for range 100 {
			began := time.Now()
			a.out <- udpPacket(9, nil)
			<-b.in
			if took := time.Since(began); took < 20*time.Millisecond || took > 30*time.Millisecond {
				t.Fatalf("took %v", took)
			}
		}
	})
}

func TestAWireCutsOneWayAndPorts(t *testing.T) {
	wired(t, func(w *Wire, a, b *testDevice) {
		back := udpPacket(9, nil)
		copy(back[12:20], append(bytes.Clone(back[16:20]), back[12:16]...))
		comes := func(what string, from, to *testDevice, p []byte, want int) {
			t.Helper()
			from.out <- p
			synctest.Wait()
			if got := len(to.in); got != want {
				t.Errorf("%s: %d came, want %d", what, got, want)
			}
			for len(to.in) > 0 {
				<-to.in
			}
		}
		w.Set(Everywhere(Link{}).Mute(addr(0)))
		comes("from the mute", a, b, udpPacket(9, nil), 0)
		comes("to the mute", b, a, back, 1)
		w.Set(Everywhere(Link{}))
		comes("healed", a, b, udpPacket(9, nil), 1)
		w.Block(7946)
		comes("another port", a, b, udpPacket(9, nil), 1)
		comes("the blocked port", a, b, udpPacket(7946, nil), 0)
		w.Block()
		comes("open again", a, b, udpPacket(7946, nil), 1)
		stray := udpPacket(9, nil)
		stray[19] = 99
		comes("nobody's address", a, b, stray, 0)
		comes("no packet", a, b, []byte{0x45}, 0)
		if c := w.Counts(); c.Blocked != 1 || c.Nowhere != 2 || c.Lost != 1 || c.Canaries != 0 {
			t.Errorf("%+v", c)
		}
		comes("a canary", a, b, udpPacket(9, []byte("so canary!! so")), 1)
		if w.Counts().Canaries != 1 {
			t.Error("the canary was not seen")
		}
	})
}

func TestAWireHoldsNoMoreThanItMay(t *testing.T) {
	wired(t, func(w *Wire, a, b *testDevice) {
		w.Set(Everywhere(Link{Delay: time.Minute}))
		const count = 2 * wireHolds / (packetCost + 1400)
		p := udpPacket(9, make([]byte, 1400-ipHead-udpHead))
		for range count {
			a.out <- p
		}
		synctest.Wait()
		if c := w.Counts(); c.Full == 0 || c.Full > c.Packets*6/10 {
			t.Errorf("%+v", c)
		}
	})
}

func TestPlugsThatAreRefused(t *testing.T) {
	w := NewWire(1, nil)
	if err := w.Plug(addr(0), newTestDevice()); err != nil {
		t.Fatal(err)
	}
	for _, a := range []netip.Addr{addr(0), netip.IPv6LinkLocalAllNodes()} {
		if w.Plug(a, newTestDevice()) == nil {
			t.Errorf("%v is plugged in", a)
		}
	}
}
