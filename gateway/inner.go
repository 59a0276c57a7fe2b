package gateway

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"slicewire/overlay"
)

// innerMax is the longest packet whose encrypted form is still a datagram:
// 65507 bytes less WireGuard's header, tag and padding.
const innerMax = 65507 - 16 - 16 - 15

// A Link moves whole IP packets between two layers, in batches. Packet i is
// bufs[i][overlay.Headroom : overlay.Headroom+sizes[i]].
type Link interface {
	// Read blocks until there is at least one packet and copies packets into
	// bufs, each of which has room for any; net.ErrClosed after Close.
	Read(bufs [][]byte, sizes []int) (n int, err error)
	// Write takes packets: bufs[i] is Headroom bytes of scratch, then exactly
	// one packet. It keeps no buffer, may change their bytes, and drops what
	// does not fit: it never waits. Several goroutines may call it.
	Write(bufs [][]byte) error
	// Close unblocks Read. Again does nothing.
	Close() error
}

// A Waker is a Link that can be asked to have a Read that waits, or else the
// next one that would, return without a packet. Probing needs it.
type Waker interface{ Wake() }

// inner is what a WireGuard device takes for its TUN: the slice's Link, with
// the governor's credits taken and given back.
type inner struct {
	link    Link
	log     *slog.Logger
	drops   *overlay.Drops
	outside *governor // taken when packets are read
	inside  *governor // given back when packets are written
	gate    atomic.Pointer[gate]
	lane    *lane
	tos     byte // what outer datagrams show of the traffic class
	mtu     atomic.Int32

	ready  chan struct{} // closed when the peers are set: before, there is nobody to send to
	done   chan struct{} // closed by Close
	mu     sync.Mutex
	closed bool
	events chan tun.Event // capacity 1; closed by Close, as its reader expects
}

var _ tun.Device = (*inner)(nil)

func newInner(link Link, mtu int, log *slog.Logger, drops *overlay.Drops, outside, inside *governor, lane *lane) *inner {
	t := &inner{
		link: link, log: log, drops: drops, outside: outside, inside: inside, lane: lane,
		events: make(chan tun.Event, 1), ready: make(chan struct{}), done: make(chan struct{}),
	}
	t.mtu.Store(int32(mtu))
	return t
}

// Read pulls packets that go outside straight into WireGuard's buffers. It
// waits here, and only here, when enough is in flight.
func (t *inner) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	if offset != overlay.Headroom {
		return 0, errors.New("gateway: wireguard's headroom is not the links'")
	}
	select {
	case <-t.ready:
	case <-t.done:
		return 0, os.ErrClosed
	}
	if !t.outside.wait(t.done) {
		return 0, os.ErrClosed
	}
	if n, leave := t.lane.fill(bufs, sizes); n > 0 {
		t.outside.take(leave)
		if t.tos != 0 {
			for i, size := range sizes[:n] {
				putOuter(bufs[i], size, 0)
			}
		}
		return n, nil
	}
	n, err := t.link.Read(bufs, sizes)
	if err != nil {
		if !errors.Is(err, net.ErrClosed) {
			t.log.Error("inner link broke", "err", err)
		}
		return 0, os.ErrClosed
	}
	for i, size := range sizes[:n] {
		if size > innerMax {
			t.drops.Lose(overlay.DropTooBig, 1, 0, bufs[i][offset:offset+size])
			sizes[i] = 0
		}
	}
	if g := t.gate.Load(); g != nil {
		g.admit(bufs[:n], sizes[:n], t.drops)
	}
	taken := 0
	for i, size := range sizes[:n] {
		if size > 0 {
			taken++
			if t.tos != 0 {
				putOuter(bufs[i], size, classOf(bufs[i][offset:offset+size])&t.tos)
			}
		}
	}
	t.outside.take(taken)
	t.lane.probes.moved.Add(uint64(taken))
	return n, nil
}

// Write hands on decrypted packets in the buffers they were decrypted in.
func (t *inner) Write(bufs [][]byte, offset int) (int, error) {
	if offset != overlay.Headroom {
		return 0, errors.New("gateway: wireguard's headroom is not the links'")
	}
	n := len(bufs)
	if g := t.gate.Load(); g != nil && n > 0 {
		g.hear(bufs[0][offset:]) // the device writes what came from one peer
	}
	bufs = t.lane.take(bufs)
	if t.tos != 0 {
		bufs = markCongested(bufs, t.drops)
	}
	if len(bufs) > 0 {
		t.lane.probes.moved.Add(uint64(len(bufs)))
		if err := t.link.Write(bufs); err != nil {
			for _, b := range bufs { // WireGuard would log an error, for each batch
				t.drops.Lose(overlay.DropClosed, 1, 0, b[offset:])
			}
		}
	}
	t.inside.give(n)
	return n, nil
}

// refused counts a packet that the device dropped after it was decrypted. Its
// bytes are not known here: captures do not see it.
func (t *inner) refused(reason overlay.Drop) {
	t.drops.Add(reason, 1)
	t.inside.give(1)
}

// setMTU tells the device of another MTU; it matters for padding only.
func (t *inner) setMTU(mtu int) {
	if t.mtu.Swap(int32(mtu)) == int32(mtu) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	select {
	case t.events <- tun.EventMTUUpdate:
	default: // the device has yet to look, and will see the new value
	}
}

// Close ends Read and closes the Link. The device calls it more than once.
func (t *inner) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	close(t.done)
	close(t.events)
	return t.link.Close()
}

func (t *inner) MTU() (int, error)        { return int(t.mtu.Load()), nil }
func (t *inner) Name() (string, error)    { return "inside", nil }
func (t *inner) File() *os.File           { return nil }
func (t *inner) BatchSize() int           { return overlay.BatchSize }
func (t *inner) Events() <-chan tun.Event { return t.events }

// The device's packets lie where a Link expects them.
var _ [overlay.Headroom]byte = [device.MessageTransportHeaderSize]byte{}
