package netstack

import (
	"net"
	"sync"
	"time"

	"slicewire/overlay"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// The bounds of what waits to be read. Four segments of 64 KiB keep a reader
// busy while a sender is woken; more only makes the queue longer and colder.
// Packets without data (acknowledgements, resets) and replies made while a
// packet comes in may go over it up to the last bound.
const (
	outBytes   = 256 << 10
	outReserve = 64 << 10
	outPackets = 2048
)

// patience is how long a sender waits for room before its packet is dropped.
// A reader that is slow holds senders back, which costs nothing; one that is
// gone must not hold them for ever.
const patience = 100 * time.Millisecond

// outlet is the queue from the stack to Link.Read. When it is full, whoever
// sends data waits, as a sender waits for a busy network card; nobody who is
// handling an inbound packet ever does.
type outlet struct {
	mtu   int
	drops overlay.Drops

	mu     sync.Mutex
	ready  sync.Cond // the queue got a packet or was closed
	ring   [outPackets]*stack.PacketBuffer
	head   int
	n      int
	bytes  int
	closed bool
	idle   int           // readers that wait on ready
	room   chan struct{} // nil unless a sender waits; closed when there is room

	rmu   sync.Mutex // one reader at a time; held while it waits
	took  [overlay.BatchSize]*stack.PacketBuffer
	first int // of took that is not yet read
	end   int
}

func newOutlet(mtu int) *outlet {
	o := new(outlet)
	o.ready.L = &o.mu
	o.mtu = mtu
	return o
}

// WritePacket implements stack.QueueingDiscipline. It takes a reference of its own.
func (o *outlet) WritePacket(pkt *stack.PacketBuffer) tcpip.Error {
	size, data := pkt.Size(), carriesData(pkt)
	limit := outBytes
	if !data {
		limit += outReserve
	}
	waited := false
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.closed && (o.n == outPackets || o.n > 0 && o.bytes+size > limit) {
		if !data || waited {
			o.drops.Add(overlay.DropQueueFull, 1)
			return &tcpip.ErrNoBufferSpace{}
		}
		waited = !o.waitLocked()
	}
	if o.closed {
		return &tcpip.ErrClosedForSend{}
	}
	o.ring[(o.head+o.n)%outPackets] = pkt.IncRef()
	o.n++
	o.bytes += size
	if o.idle > 0 {
		o.ready.Signal()
	}
	return nil
}

// waitLocked waits for room and reports whether there may be some. o.mu is held
// on entry and on return, and not between.
func (o *outlet) waitLocked() bool {
	if o.room == nil {
		o.room = make(chan struct{})
	}
	room := o.room
	o.mu.Unlock()
	defer o.mu.Lock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-room:
		return true
	case <-timer.C:
		return false
	}
}

// carriesData reports whether pkt is one that only a sender's own goroutine or
// TCP's workers make, so that waiting holds up no inbound packet.
func carriesData(pkt *stack.PacketBuffer) bool {
	switch pkt.TransportProtocolNumber {
	case header.TCPProtocolNumber:
		return pkt.Data().Size() > 0
	case header.UDPProtocolNumber:
		return true
	}
	return false
}

// read fills bufs with packets; it waits for the first. One that stands for
// several stays whole; its Meta says so.
func (o *outlet) read(bufs [][]byte, sizes []int) (int, error) {
	o.rmu.Lock()
	defer o.rmu.Unlock()
	limit := min(len(bufs), len(sizes))
	n := 0
	for n < limit {
		if o.first == o.end {
			if err := o.take(n == 0); err != nil {
				return 0, err
			}
			if o.first == o.end {
				break
			}
		}
		pkt := o.took[o.first]
		o.took[o.first] = nil
		o.first++
		size, meta, ok := flatten(bufs[n][overlay.Headroom:], pkt, o.mtu)
		pkt.DecRef()
		if !ok {
			o.drops.Add(overlay.DropMalformed, 1)
			continue
		}
		overlay.PutMeta(bufs[n], meta)
		sizes[n] = size
		n++
		if size > outBytes/4 {
			break // what is handed on together is still in the cache
		}
	}
	return n, nil
}

// take moves packets from the queue to took: about as much as one batch
// holds, so that what was taken stays part of what is bounded. o.rmu is held.
func (o *outlet) take(wait bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for wait && o.n == 0 && !o.closed {
		o.idle++
		o.ready.Wait()
		o.idle--
	}
	if o.closed {
		return net.ErrClosed
	}
	o.first, o.end = 0, 0
	for bytes := 0; o.n > 0 && o.end < len(o.took) && bytes < outReserve; o.n-- {
		pkt := o.ring[o.head]
		o.ring[o.head] = nil
		o.head = (o.head + 1) % outPackets
		bytes += pkt.Size()
		o.bytes -= pkt.Size()
		o.took[o.end] = pkt
		o.end++
	}
	if o.room != nil && o.bytes <= outBytes/2 && o.n <= outPackets/2 {
		close(o.room)
		o.room = nil
	}
	return nil
}

// Close implements stack.QueueingDiscipline; the outlet outlives interfaces.
func (o *outlet) Close() {}

// shut ends reading and writing and releases what is queued.
func (o *outlet) shut() {
	o.mu.Lock()
	o.closed = true
	for ; o.n > 0; o.n-- {
		o.ring[o.head].DecRef()
		o.ring[o.head] = nil
		o.head = (o.head + 1) % outPackets
	}
	o.bytes = 0
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
	o.ready.Broadcast()
	o.mu.Unlock()

	o.rmu.Lock() // a reader that waited has left
	for ; o.first < o.end; o.first++ {
		o.took[o.first].DecRef()
		o.took[o.first] = nil
	}
	o.rmu.Unlock()
}
