package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func addr(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, byte(n >> 8), byte(n)}) }

// pair is two hosts with a socket for packets each.
func pair(t *testing.T, n *Network) (hosts [2]*Host, conns [2]net.PacketConn) {
	t.Helper()
	for i := range hosts {
		h, err := n.Attach(addr(i))
		if err != nil {
			t.Fatal(err)
		}
		c, err := h.ListenPacket(t.Context(), netip.AddrPortFrom(addr(i), 7))
		if err != nil {
			t.Fatal(err)
		}
		hosts[i], conns[i] = h, c
		t.Cleanup(h.Off)
	}
	return hosts, conns
}

// received is what comes before nothing does for a minute: numbers, and when.
func received(t *testing.T, c net.PacketConn) (numbers []int, bad int, took []time.Duration) {
	t.Helper()
	began := time.Now()
	b := make([]byte, 2048)
	for {
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		n, from, err := c.ReadFrom(b)
		if errors.Is(err, errDeadline) {
			return numbers, bad, took
		}
		if err != nil {
			t.Fatal(err)
		}
		if from.String() != netip.AddrPortFrom(addr(0), 7).String() {
			t.Fatalf("from %v", from)
		}
		if n != 100 || !bytes.Equal(b[4:n], make([]byte, 96)) {
			bad++
			continue
		}
		numbers = append(numbers, int(binary.BigEndian.Uint32(b)))
		took = append(took, time.Since(began))
	}
}

func sendNumbers(t *testing.T, c net.PacketConn, to, count int, every time.Duration) {
	t.Helper()
	p := make([]byte, 100)
	for i := range count {
		binary.BigEndian.PutUint32(p, uint32(i))
		if _, err := c.WriteTo(p, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr(to), 7))); err != nil {
			t.Error(err)
		}
		time.Sleep(every)
	}
}

func about(got, want, slack int) bool { return got >= want-slack && got <= want+slack }

func TestWhatALinkDoesToPackets(t *testing.T) {
	const count = 2000
	for _, tt := range []struct {
		name  string
		link  Link
		check func(t *testing.T, numbers []int, bad int, took []time.Duration)
	}{
		{"nothing", Link{}, func(t *testing.T, numbers []int, _ int, took []time.Duration) {
			if len(numbers) != count || !slices.IsSorted(numbers) || took[0] != 0 {
				t.Errorf("%d came, the first after %v", len(numbers), took[0])
			}
		}},
		{"delay", Link{Delay: 40 * time.Millisecond}, func(t *testing.T, numbers []int, _ int, took []time.Duration) {
			if len(numbers) != count || !slices.IsSorted(numbers) || took[0] != 40*time.Millisecond {
				t.Errorf("%d came, the first after %v", len(numbers), took[0])
			}
		}},
		{"jitter", Link{Jitter: 10 * time.Millisecond}, func(t *testing.T, numbers []int, _ int, took []time.Duration) {
			if len(numbers) != count || slices.IsSorted(numbers) || took[count-1] > count*time.Millisecond+10*time.Millisecond {
				t.Errorf("%d came, in order: %v, the last after %v", len(numbers), slices.IsSorted(numbers), took[count-1])
			}
		}},
		{"loss", Link{Loss: 0.2}, func(t *testing.T, numbers []int, _ int, _ []time.Duration) {
			if !about(len(numbers), 1600, 80) || !slices.IsSorted(numbers) {
				t.Errorf("%d came", len(numbers))
			}
		}},
		{"duplication", Link{Duplicate: 0.5}, func(t *testing.T, numbers []int, _ int, _ []time.Duration) {
			slices.Sort(numbers)
			if !about(len(numbers), 3000, 100) || len(slices.Compact(numbers)) != count {
				t.Errorf("%d came", len(numbers))
			}
		}},
		{"reordering", Link{Reorder: 0.3}, func(t *testing.T, numbers []int, _ int, _ []time.Duration) {
			if len(numbers) != count || slices.IsSorted(numbers) {
				t.Errorf("%d came, in order: %v", len(numbers), slices.IsSorted(numbers))
			}
		}},
		{"corruption", Link{Corrupt: 0.1}, func(t *testing.T, numbers []int, bad int, _ []time.Duration) {
			// Flips within the number itself look whole here.
			if !about(bad, 200, 60) || len(numbers)+bad != count {
				t.Errorf("%d came whole, %d not", len(numbers), bad)
			}
		}},
		{"a cut", Link{Cut: true}, func(t *testing.T, numbers []int, bad int, _ []time.Duration) {
			if len(numbers)+bad != 0 {
				t.Errorf("%d came", len(numbers)+bad)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := NewNetwork(1)
				n.Set(Everywhere(tt.link))
				_, conns := pair(t, n)
				go sendNumbers(t, conns[0], 1, count, time.Millisecond)
				numbers, bad, took := received(t, conns[1])
				tt.check(t, numbers, bad, took)
			})
		})
	}
}

func TestTheSameSeedTheSameFate(t *testing.T) {
	run := func(seed uint64) (numbers []int) {
		synctest.Test(t, func(t *testing.T) {
			n := NewNetwork(seed)
			n.Set(Everywhere(Link{Loss: 0.3, Jitter: 20 * time.Millisecond, Duplicate: 0.1}))
			_, conns := pair(t, n)
			// The other direction has a chance of its own.
			go sendNumbers(t, conns[1], 0, int(10*seed), time.Millisecond)
			go sendNumbers(t, conns[0], 1, 200, time.Millisecond)
			numbers, _, _ = received(t, conns[1])
		})
		return numbers
	}
	if a, b := run(7), run(7); !slices.Equal(a, b) {
		t.Error("seed 7 twice: different")
	}
	if a, b := run(7), run(8); slices.Equal(a, b) {
		t.Error("seeds 7 and 8: the same")
	}
}

func TestAStalledHostTakesLaterWhatFits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(1)
		hosts, conns := pair(t, n)
		hosts[1].Stall(5 * time.Second)
		go sendNumbers(t, conns[0], 1, 400, 0)
		numbers, _, took := received(t, conns[1])
		if want := receiveBuffer / (100 + packetCost); len(numbers) != want || took[0] != 5*time.Second {
			t.Errorf("%d came, the first after %v; want %d after 5s", len(numbers), took[0], want)
		}
		if c := n.Counts(); c.Packets != 400 || c.Full != uint64(400-len(numbers)) {
			t.Errorf("counts %+v", c)
		}
		// What it sends while stalled leaves when it goes on.
		hosts[0].Stall(3 * time.Second)
		began := time.Now()
		go sendNumbers(t, conns[0], 1, 1, 0)
		if _, _, took := received(t, conns[1]); len(took) != 1 || took[0] != 3*time.Second {
			t.Errorf("took %v since %v", took, began)
		}
	})
}

func TestPartitionsAreOneWayOrBoth(t *testing.T) {
	base := Everywhere(Link{Delay: 1})
	half, mute := base.Partition(addr(1), addr(2)), base.Mute(addr(1))
	for _, tt := range []struct {
		name     string
		policy   Policy
		from, to int
		cut      bool
	}{
		{"across", half, 1, 3, true},
		{"back", half, 3, 1, true},
		{"within", half, 1, 2, false},
		{"beyond", half, 3, 4, false},
		{"the mute", mute, 1, 3, true},
		{"to the mute", mute, 3, 1, false},
	} {
		if l := tt.policy(addr(tt.from), addr(tt.to)); l.Cut != tt.cut || l.Delay != 1 {
			t.Errorf("%s: %+v", tt.name, l)
		}
	}
}

func TestStreamsArriveWholeAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(3)
		n.Set(Everywhere(Link{Delay: 10 * time.Millisecond, Jitter: 30 * time.Millisecond, Loss: 0.1, Corrupt: 0.1, Duplicate: 0.2, Reorder: 0.2}))
		hosts, _ := pair(t, n)
		l, err := hosts[1].Listen(t.Context(), netip.AddrPortFrom(addr(1), 0))
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan []byte)
		go func() {
			c, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			b, err := io.ReadAll(c)
			if err != nil {
				t.Error(err)
			}
			got <- b
		}()
		out, err := hosts[0].Dial(t.Context(), l.Addr().(*net.TCPAddr).AddrPort())
		if err != nil {
			t.Fatal(err)
		}
		var want []byte
		for i := range 3000 {
			b := bytes.Repeat([]byte{byte(i)}, 1+i)
			want = append(want, b...)
			if k, err := out.Write(b); err != nil || k != len(b) {
				t.Fatal(k, err)
			}
			if i == 1000 { // what is cut waits
				n.Set(n.Policy().Partition(addr(0)))
				go func() {
					time.Sleep(2 * time.Second)
					n.Set(Everywhere(Link{Delay: time.Millisecond}))
				}()
			}
		}
		out.Close()
		if b := <-got; !bytes.Equal(b, want) {
			t.Errorf("%d bytes arrived, want %d", len(b), len(want))
		}
		if _, err := out.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after close: %v", err)
		}
	})
}

func TestDialsThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(1)
		hosts, _ := pair(t, n)
		dial := func(to int) (time.Duration, error) {
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			_, err := hosts[0].Dial(ctx, netip.AddrPortFrom(addr(to), 80))
			return time.Since(began), err
		}
		if took, err := dial(1); !errors.Is(err, syscall.ECONNREFUSED) || took != 0 {
			t.Errorf("no socket there: %v after %v", err, took)
		}
		var timeout net.Error
		if took, err := dial(2); !errors.As(err, &timeout) || !timeout.Timeout() || took != 2*time.Second {
			t.Errorf("no host there: %v after %v", err, took)
		}
		n.Set(n.Policy().Mute(addr(1)))
		if took, err := dial(1); !errors.As(err, &timeout) || !timeout.Timeout() || took != 2*time.Second {
			t.Errorf("cut: %v after %v", err, took)
		}
	})
}

func TestAHostThatIsOffSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(1)
		hosts, conns := pair(t, n)
		l, err := hosts[1].Listen(t.Context(), netip.AddrPortFrom(addr(1), 80))
		if err != nil {
			t.Fatal(err)
		}
		out, err := hosts[0].Dial(t.Context(), netip.AddrPortFrom(addr(1), 80))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Attach(addr(1)); err == nil {
			t.Error("attached twice")
		}
		hosts[1].Off()
		if _, _, err := conns[1].ReadFrom(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("its packets: %v", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("its listener: %v", err)
		}
		if _, err := out.Write([]byte("hello")); err != nil {
			t.Errorf("to it: %v", err)
		}
		_ = out.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := out.Read(make([]byte, 1)); !errors.Is(err, errDeadline) {
			t.Errorf("from it: %v", err)
		}
		if _, err := n.Attach(addr(1)); err != nil {
			t.Errorf("on again: %v", err)
		}
	})
}
