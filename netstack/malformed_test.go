package netstack

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"

	"slicewire/netstack/segment"
	"slicewire/overlay"
	"slicewire/overlay/overlaytest"

	"go.uber.org/goleak"
)

// gather returns pkts with headroom in front.
func gather(pkts ...[]byte) [][]byte {
	bufs := make([][]byte, len(pkts))
	for i, p := range pkts {
		bufs[i] = append(make([]byte, overlay.Headroom), p...)
	}
	return bufs
}

func TestAMillionMalformedPacketsWithoutARouter(t *testing.T) {
	const total, writers = 1_000_000, 2
	seed := rand.Uint64()
	st := newStack(t, one4, one6)
	for _, a := range []netip.Addr{one4, one6} { // the generator aims at these
		l, err := st.ListenTCP(netip.AddrPortFrom(a, 80))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		u, err := st.ListenUDP(netip.AddrPortFrom(a, 53))
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
	}
	var reader sync.WaitGroup
	reader.Go(func() { cable(st.Link(), nowhere{}, nil) })
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			g := overlaytest.NewGenerator(seed+uint64(w), []netip.Addr{two4, two6, one4, one6}, []netip.Addr{one4, one6})
			death := overlaytest.PacketOfDeath(netip.AddrPortFrom(two4, 1), netip.AddrPortFrom(one4, 80))
			var batch [][]byte
			for i := range total / writers {
				p := g.Malformed()
				if i%1000 == 0 {
					p = death
				}
				if batch = append(batch, p); len(batch) == overlay.BatchSize || i == total/writers-1 {
					if err := st.Link().Write(gather(batch...)); err != nil {
						t.Error(err)
					}
					batch = batch[:0]
				}
			}
		})
	}
	wg.Wait()
	if _, err := st.Ping(within(t), one4); err != nil {
		t.Errorf("the stack is no longer well: %v", err)
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
	reader.Wait()
	if n := st.Panics(); n != 0 {
		t.Errorf("seed %d: %d panics", seed, n)
	}
	t.Logf("seed %d: dropped %v", seed, st.Drops().Snapshot())
	goleak.VerifyNone(t)
}

// nowhere is a Link that swallows everything.
type nowhere struct{}

func (nowhere) Read([][]byte, []int) (int, error) { select {} }
func (nowhere) Write([][]byte) error              { return nil }
func (nowhere) Close() error                      { return nil }

func TestAPanicLosesOnePacketOnly(t *testing.T) {
	var log bytes.Buffer
	st := newStack(t, one4)
	defer st.Close()
	st.log = jsonLog(&log)
	for range 3 {
		func() {
			defer st.in.survive([]byte{0xde, 0xad})
			panic("a bug")
		}()
	}
	if st.Panics() != 3 || bytes.Count(log.Bytes(), []byte("\n")) != 1 || !bytes.Contains(log.Bytes(), []byte("dead")) {
		t.Errorf("%d panics, logged %s", st.Panics(), log.Bytes())
	}
}

func FuzzVerify(f *testing.F) {
	g := overlaytest.NewGenerator(2, []netip.Addr{one4, one6}, []netip.Addr{two4, two6})
	f.Add(overlaytest.PacketOfDeath(netip.AddrPortFrom(one4, 1), netip.AddrPortFrom(two4, 2)))
	for range 50 {
		f.Add(g.Valid())
		f.Add(g.Malformed())
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		s, v := segment.Verify(p)
		if v != segment.Trusted {
			return
		}
		if s.Head > len(p) || s.IP >= s.Head {
			t.Fatalf("trusted with headers of %d bytes: %x", s.Head, p)
		}
		var rs segment.Runs
		rs.Add(0, [][]byte{p}, s)
		dst := make([]byte, rs.All()[0].Total)
		rs.All()[0].Fill(dst, [][]byte{p})
		if !bytes.Equal(dst, p) {
			t.Fatalf("a packet alone changed: %x", p)
		}
	})
}
