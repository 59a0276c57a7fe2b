package gateway

import (
	"errors"
	"net/netip"
)

var errInterrupted = errors.New("receive interrupted")

// A transport carries WireGuard messages between nodes. The UDP socket is one;
// what else can carry datagrams fits below the mux in the same way.
type transport interface {
	// receive fills at most len(into) elements and returns how many. Each
	// element's buf is the caller's and holds at least trainBytes. It blocks
	// until there is one; net.ErrClosed after close, errInterrupted between
	// interrupt and resume. One goroutine at a time calls it.
	receive(into []datagram) (int, error)
	// interrupt ends a receive that waits, and all until resume. Any goroutine
	// may call it.
	interrupt()
	resume()
	// send sends messages to one address, in order, and never waits: it returns
	// how many were lost. It keeps no buffer. Any goroutine may call it.
	send(bufs [][]byte, to *endpoint) (lost int)
	// close unblocks receive.
	close() error
}

// A datagram is what arrived from one source: one message, or several of equal
// size (the last may be shorter) that the kernel joined.
type datagram struct {
	buf  *buffer
	n    int // bytes in buf
	size int // of one message; 0 < size <= n when n > 0
	from netip.AddrPort
	tos  uint8 // traffic class, of all of them
}
