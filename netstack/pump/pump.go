// Package pump moves bytes between two stream connections until both
// directions have ended: the part that netstack/socks, netstack/publish and
// netstack/forward share.
//
// It never dials, accepts, logs or interprets a byte. A Pump may be used by any
// number of connections at once; each call of Move owns its two connections
// from start to return and closes both. Buffers belong to the Pump and never
// leave it.
package pump

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// waitBytes is the buffer that a direction waits with. An idle connection
	// pins two of these and nothing more.
	waitBytes = 4 << 10
	// bulkBytes is the buffer once data is known to be queued. It is one segment
	// of netstack's, 65,374 bytes at most: of 64 KiB, the last 162 bytes became a
	// packet of their own through all stages. Larger ones only cost memory.
	bulkBytes = 60 << 10
	// halfClosedIdle ends a connection of which one direction has ended while
	// the other says nothing. Keepalive finds dead TCP peers much earlier; this
	// is for unix sockets, where a peer that is gone looks like one that only
	// stopped sending.
	halfClosedIdle = time.Hour
	// renewAfter spares a timer per read: an idle limit that is late by this
	// much is as good.
	renewAfter = time.Minute
)

// Bytes counts what a connection moves, while it moves. The zero value is
// ready; several connections may share one.
type Bytes struct {
	Up   atomic.Uint64 // from the first connection to the second
	Down atomic.Uint64 // from the second to the first
}

// A Pump lends buffers to the connections that it moves. The zero value is
// ready.
type Pump struct {
	waiting, bulk sync.Pool // of *[]byte
}

// Move copies from a to b and from b to a. An end of stream is passed on with
// CloseWrite (a connection without it is closed whole), and the other direction
// goes on. A fault in either direction, or the end of ctx, resets both
// connections. Move closes both before it returns and leaves no goroutine. It
// returns nil if both directions ended with an end of stream, else the first
// fault.
func (p *Pump) Move(ctx context.Context, a, b net.Conn, moved *Bytes) error {
	defer Bind(ctx, a, b)()

	var half atomic.Bool
	back := make(chan error, 1)
	go func() { back <- p.direction(a, b, &half, &moved.Down) }()
	err := p.direction(b, a, &half, &moved.Up)
	errBack := <-back
	a.Close()
	b.Close()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// The direction that did not fail itself reports the connection closed
	// under it; the other one knows why.
	if err == nil || errors.Is(err, net.ErrClosed) && errBack != nil {
		return errBack
	}
	return err
}

// direction copies src to dst and passes on how src ended.
func (p *Pump) direction(dst, src net.Conn, half *atomic.Bool, moved *atomic.Uint64) error {
	if err := p.copy(dst, src, half, moved); err != nil {
		Reset(src)
		Reset(dst)
		return err
	}
	half.Store(true)
	if c, ok := dst.(interface{ CloseWrite() error }); ok {
		// An error here means that dst is gone, which its reader sees too.
		_ = c.CloseWrite()
	} else {
		dst.Close()
	}
	// What remains is the other direction, which reads from dst and may be
	// waiting already.
	_ = dst.SetReadDeadline(time.Now().Add(halfClosedIdle))
	return nil
}

// copy returns nil at src's end of stream. A read that fills its buffer says
// that more is queued, so the next one takes a large buffer; one that does not
// has drained the queue, so the next may wait for long and does it with a small
// buffer.
func (p *Pump) copy(dst, src net.Conn, half *atomic.Bool, moved *atomic.Uint64) error {
	pool := &p.waiting
	buf := lend(pool, waitBytes)
	defer func() { pool.Put(buf) }()
	var renewed time.Time
	for {
		if half.Load() {
			if now := time.Now(); now.Sub(renewed) > renewAfter {
				_ = src.SetReadDeadline(now.Add(halfClosedIdle))
				renewed = now
			}
		}
		n, errRead := src.Read(*buf)
		if n > 0 {
			w, err := dst.Write((*buf)[:n])
			moved.Add(uint64(w))
			if err != nil {
				return err
			}
		}
		if errors.Is(errRead, io.EOF) {
			return nil
		}
		if errRead != nil {
			return errRead
		}
		switch full := n == len(*buf); {
		case full && pool == &p.waiting:
			pool.Put(buf)
			pool = &p.bulk
			buf = lend(pool, bulkBytes)
		case !full && pool == &p.bulk:
			pool.Put(buf)
			pool = &p.waiting
			buf = lend(pool, waitBytes)
		}
	}
}

func lend(pool *sync.Pool, size int) *[]byte {
	if b, ok := pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, size)
	return &b
}

// Bind resets conns when ctx ends, until release is called, which waits for a
// reset that is under way.
func Bind(ctx context.Context, conns ...net.Conn) (release func()) {
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cut)
		for _, c := range conns {
			Reset(c)
		}
	})
	return func() {
		if !stop() {
			<-cut
		}
	}
}

// Reset closes c so that its peer sees a fault and not an end of stream, where
// c can: by Abort if it has one, else with a linger time of zero (RST), else by
// a plain Close. It may be called again and concurrently with reads and writes,
// which it ends.
func Reset(c net.Conn) {
	switch x := c.(type) {
	case interface{ Abort() }:
		x.Abort()
	case interface{ SetLinger(int) error }:
		_ = x.SetLinger(0)
	}
	c.Close()
}
