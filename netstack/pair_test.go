package netstack

import (
	"context"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"slicewire/netstack/segment"
	"slicewire/overlay"

	"go.uber.org/goleak"
	"gvisor.dev/gvisor/pkg/refs"
)

func TestMain(m *testing.M) {
	refs.SetLeakMode(refs.LeaksPanic)
	code := m.Run()
	if code == 0 {
		refs.DoLeakCheck()
	}
	os.Exit(code)
}

var (
	one4, two4 = netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.16.1")
	one6, two6 = netip.MustParseAddr("fd00:1::1"), netip.MustParseAddr("fd00:1:0:100::1")
)

const testMTU = 1420

// testPatience is how long a test waits for what should take no time.
const testPatience = 20 * time.Second

func newStack(t testing.TB, addrs ...netip.Addr) *Stack {
	t.Helper()
	st, err := New(Config{Slice: "red", MTU: testMTU})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Set(addrs); err != nil {
		t.Fatal(err)
	}
	return st
}

// pair is two stacks joined by a cable. Its filter, if any, says whether a
// packet passes.
func pair(t testing.TB, filter func(pkt []byte) bool) (one, two *Stack) {
	t.Helper()
	one, two = newStack(t, one4, one6), newStack(t, two4, two6)
	var wg sync.WaitGroup
	wg.Go(func() { cable(one.Link(), two.Link(), filter) })
	wg.Go(func() { cable(two.Link(), one.Link(), filter) })
	t.Cleanup(func() {
		_ = one.Close()
		_ = two.Close()
		wg.Wait()
		if n := one.Panics() + two.Panics(); n != 0 {
			t.Errorf("%d panics", n)
		}
		if _, bench := t.(*testing.B); !bench { // its harness has goroutines of its own
			goleak.VerifyNone(t)
		}
	})
	return one, two
}

// cable carries packets one way until the reader is closed. What stands for
// several is cut, as on the way through a tunnel.
func cable(from, to Link, filter func([]byte) bool) {
	whole, sizes := make([][]byte, overlay.BatchSize), make([]int, overlay.BatchSize)
	for i := range whole {
		whole[i] = make([]byte, overlay.Headroom+overlay.MaxPacket)
	}
	var cut segment.Cutter
	pieces := make([][]byte, overlay.MaxPacket/500)
	for i := range pieces {
		pieces[i] = make([]byte, overlay.Headroom+2048)
	}
	for {
		n, err := from.Read(whole, sizes)
		if err != nil {
			return
		}
		var bufs [][]byte
		pass := func(b []byte) {
			if filter == nil || filter(b[overlay.Headroom:]) {
				bufs = append(bufs, b)
			}
		}
		for i := range n {
			b := whole[i][:overlay.Headroom+sizes[i]]
			m := overlay.MetaOf(b)
			if m.Piece == 0 {
				pass(b)
				continue
			}
			cut.Start(b[overlay.Headroom:], true, int(m.Piece))
			for k := 0; cut.Busy(); k++ {
				size := cut.Next(pieces[k][overlay.Headroom:])
				pass(pieces[k][:overlay.Headroom+size])
			}
			if to.Write(bufs) != nil { // before pieces are used again
				return
			}
			bufs = bufs[:0]
		}
		if to.Write(bufs) != nil {
			return
		}
	}
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testPatience)
	t.Cleanup(cancel)
	return ctx
}
