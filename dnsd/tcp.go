package dnsd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"slicewire/overlay"
)

const (
	// RFC 7766 section 6.2: clients keep a connection for several queries, and
	// the server may end it when it is idle or has served enough.
	streamIdle    = 10 * time.Second // for one whole message, so that a trickle does not count
	streamQueries = 1000
	// Limits over all listeners; one client gets few, so that it takes many
	// of them to keep others out.
	maxStreams          = 128
	maxStreamsPerClient = 8
)

// streamLimits knows the open connections.
type streamLimits struct {
	mu     sync.Mutex
	conns  int
	client map[netip.Addr]int
}

// clientOf returns a peer's address, or the zero Addr for all that have none.
func clientOf(a net.Addr) netip.Addr {
	if a == nil {
		return netip.Addr{}
	}
	ap, _ := netip.ParseAddrPort(a.String())
	return ap.Addr().Unmap()
}

func (l *streamLimits) admit(client netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns >= maxStreams || client.IsValid() && l.client[client] >= maxStreamsPerClient {
		return false
	}
	if l.client == nil {
		l.client = make(map[netip.Addr]int)
	}
	l.conns++
	l.client[client]++
	return true
}

func (l *streamLimits) release(client netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns--
	if l.client[client]--; l.client[client] == 0 {
		delete(l.client, client)
	}
}

func (l *streamLimits) open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conns
}

// serveStreams accepts until ctx ends (nil) or l is closed by others, and
// returns after its last connection.
func (s *Server) serveStreams(ctx context.Context, l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	var pause backoff
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("dns: accept on %v: %w", l.Addr(), err)
			}
			if pause.first() {
				s.cfg.Log.Warn("dns listener does not accept, retrying", "addr", l.Addr(), "err", err)
			}
			pause.wait(ctx)
			continue
		}
		pause.reset()
		client := clientOf(c.RemoteAddr())
		if !s.streams.admit(client) {
			s.stats.drops.Add(overlay.DropRateLimited, 1)
			c.Close()
			continue
		}
		wg.Go(func() {
			defer s.streams.release(client)
			defer c.Close()
			defer closeWith(ctx, c)()
			s.serveStream(ctx, c, client)
		})
	}
}

// closeWith closes c when ctx ends. The caller calls done before it returns, so
// that nothing of c goes on behind its back.
func closeWith(ctx context.Context, c net.Conn) (done func()) {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.Close()
		close(closed)
	})
	return func() {
		if !stop() {
			<-closed
		}
	}
}

// serveStream answers queries in order, pipelined or not, until the client is
// done, idle, broken or has had enough.
func (s *Server) serveStream(ctx context.Context, c net.Conn, client netip.Addr) {
	r := bufio.NewReaderSize(c, 2+maxPlainQuery)
	var in, out []byte
	for range streamQueries {
		if c.SetReadDeadline(time.Now().Add(streamIdle)) != nil {
			return
		}
		var length [2]byte
		if _, err := io.ReadFull(r, length[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(length[:]))
		if n < headerBytes || n > maxQuery {
			s.stats.drops.Add(overlay.DropMalformed, 1)
			return
		}
		if n > cap(in) {
			in = make([]byte, max(n, maxPlainQuery))
		}
		if _, err := io.ReadFull(r, in[:n]); err != nil {
			return
		}
		if out == nil {
			out = make([]byte, 2, 2+plainUDP)
		}
		var reply []byte
		if s.wants(s.view.Load(), client, in[:n]) {
			reply = s.safely(in[:n], func() []byte { return s.forwarded(ctx, in[:n], maxTCP) })
		} else {
			reply = s.respond(out[2:2], in[:n], maxTCP)
		}
		if reply == nil {
			return
		}
		out = append(out[:2], reply...) // in place if reply is in out already
		binary.BigEndian.PutUint16(out, uint16(len(reply)))
		if c.SetWriteDeadline(time.Now().Add(streamIdle)) != nil {
			return
		}
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

// maxPlainQuery holds a question of the longest name and an OPT; buffers start
// with that and grow to maxQuery for who needs it.
const maxPlainQuery = 512
