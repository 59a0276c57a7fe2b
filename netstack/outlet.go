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

// readBytes is where one read ends. Senders fill the queue as fast as it is
// emptied: without it one read would take a batch of 64 KiB segments, 4 MiB,
// past the queue behind it, which then drops. One segment of full size ends a
// read, and is handed on while it is still in the cache.
const readBytes = 60 << 10

// patience is how long a sender waits for room before its packet is dropped.
// A reader that is slow holds senders back, which costs nothing; one that is
// gone must not hold them for ever.
const patience = 100 * time.Millisecond

// outlet is the queue from the stack to Link.Read. When it is full, whoever
// sends data waits, as a sender waits for a busy network card, and they are let
// in one packet each in the order in which they came: else the flow that runs
// takes what room there is, and others end long after it. Nobody who is handling
// an inbound packet ever waits.
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
	idle   int  // readers that wait on ready
	line   line // senders that wait for room; empty while the ring is

	turns sync.Pool // *turn

	rmu   sync.Mutex // one reader at a time; held while it waits
	took  [overlay.BatchSize]*stack.PacketBuffer
	first int // of took that is not yet read
	end   int
}

func newOutlet(mtu int) *outlet {
	o := new(outlet)
	o.ready.L = &o.mu
	o.turns.New = newTurn
	o.mtu = mtu
	return o
}

// WritePacket implements stack.QueueingDiscipline. It takes a reference of its own.
func (o *outlet) WritePacket(pkt *stack.PacketBuffer) tcpip.Error {
	data := carriesData(pkt)
	limit := outBytes
	if !data {
		limit += outReserve
	}
	o.mu.Lock()
	switch {
	case o.closed:
		o.mu.Unlock()
		return &tcpip.ErrClosedForSend{}
	case o.fitsLocked(pkt, limit) && (o.line.first == nil || !data):
		o.pushLocked(pkt)
		o.mu.Unlock()
		return nil
	case data:
		return o.waitLocked(pkt)
	}
	o.mu.Unlock()
	o.lose(pkt)
	return &tcpip.ErrNoBufferSpace{}
}

// lose counts a packet for which there was no room.
func (o *outlet) lose(pkt *stack.PacketBuffer) {
	o.drops.Add(overlay.DropQueueFull, 1)
	if o.drops.Watched() {
		v := pkt.ToView()
		o.drops.See(overlay.DropQueueFull, 0, v.AsSlice())
		v.Release()
	}
}

func (o *outlet) fitsLocked(pkt *stack.PacketBuffer, limit int) bool {
	return o.n == 0 || o.n < outPackets && o.bytes+pkt.Size() <= limit
}

func (o *outlet) pushLocked(pkt *stack.PacketBuffer) {
	o.ring[(o.head+o.n)%outPackets] = pkt.IncRef()
	o.n++
	o.bytes += pkt.Size()
	if o.idle > 0 {
		o.ready.Signal()
	}
}

// waitLocked waits in line until a reader has queued pkt. It unlocks o.mu.
func (o *outlet) waitLocked(pkt *stack.PacketBuffer) tcpip.Error {
	w := o.turns.Get().(*turn)
	w.pkt = pkt
	o.line.push(w)
	o.mu.Unlock()
	w.timer.Reset(patience)
	var err tcpip.Error
	select {
	case err = <-w.done:
		w.timer.Stop()
	case <-w.timer.C:
		o.mu.Lock()
		here := o.line.remove(w)
		o.mu.Unlock()
		if here {
			o.lose(pkt)
			err = &tcpip.ErrNoBufferSpace{}
		} else {
			err = <-w.done
		}
	}
	w.pkt = nil
	o.turns.Put(w)
	return err
}

// admitLocked lets senders in. It waits until half of the queue is free, so that
// a single sender is not woken for each packet.
func (o *outlet) admitLocked() {
	if o.bytes > outBytes/2 || o.n > outPackets/2 {
		return
	}
	for w := o.line.first; w != nil && o.fitsLocked(w.pkt, outBytes); w = o.line.first {
		o.line.pop()
		o.pushLocked(w.pkt)
		w.done <- nil
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
	for bytes := 0; n < limit && bytes < readBytes; {
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
		bytes += size
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
	o.admitLocked()
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
	for w := o.line.first; w != nil; w = o.line.first {
		o.line.pop()
		w.done <- &tcpip.ErrClosedForSend{}
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
