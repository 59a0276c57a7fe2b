package dnsd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"slicewire/overlay"
)

const (
	// maxQuery is the longest message that is looked into: a question, an OPT
	// with padding and a signature need less.
	maxQuery = 4096
	// maxReaders bounds how many goroutines share a packet socket; more only
	// contend for it.
	maxReaders = 4

	// amplification bounds a reply by UDP in lengths of its query, on a socket of
	// the kernel that others than this machine can reach: there a sender may not
	// be who it says. Inside a slice the router has checked that.
	amplification = 4

	minBackoff = 5 * time.Millisecond
	maxBackoff = time.Second
)

// addrPortConn is what the kernel's UDP sockets offer besides net.PacketConn:
// reading and writing without an allocation for the address.
type addrPortConn interface {
	ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error)
}

func packetReaders() int { return min(runtime.GOMAXPROCS(0), maxReaders) }

// servePackets answers what pc receives, one message after the other: an
// answer takes microseconds, so that a flood fills the socket's own buffer and
// nothing of ours. It returns when ctx ends (nil) or pc is closed by others.
func (s *Server) servePackets(ctx context.Context, pc net.PacketConn) error {
	var (
		in      = make([]byte, maxQuery+1) // one more, to see what is longer
		out     = make([]byte, 0, maxUDP)
		pause   backoff
		udp, ok = pc.(addrPortConn)
		open    = ok && !isLoopback(pc.LocalAddr())
		from    netip.AddrPort
		addr    net.Addr
		n       int
		err     error

		forwards sync.WaitGroup
	)
	defer forwards.Wait()
	for {
		if ok {
			n, from, err = udp.ReadFromUDPAddrPort(in)
		} else {
			n, addr, err = pc.ReadFrom(in)
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("dns: read %v: %w", pc.LocalAddr(), err)
			}
			if pause.first() {
				s.cfg.Log.Warn("dns socket does not read, retrying", "addr", pc.LocalAddr(), "err", err)
			}
			pause.wait(ctx)
			continue
		}
		pause.reset()
		if n > maxQuery {
			s.stats.drops.Add(overlay.DropTooBig, 1)
			continue
		}
		limit := maxUDP
		if open {
			limit = min(limit, amplification*n)
		}
		client := from.Addr().Unmap()
		if !ok {
			client = clientOf(addr)
		}
		if s.wants(s.view.Load(), client, in[:n]) {
			to, toAddr := from, addr
			s.forwardPacket(ctx, &forwards, in[:n], limit, func(reply []byte) {
				var err error
				if ok {
					_, err = udp.WriteToUDPAddrPort(reply, to)
				} else {
					_, err = pc.WriteTo(reply, toAddr)
				}
				if err != nil {
					s.stats.drops.Add(overlay.DropSendError, 1)
				}
			})
			continue
		}
		reply := s.respond(out, in[:n], limit)
		if reply == nil {
			continue
		}
		switch s.limit.judge(client, reply) {
		case fateDrop:
			s.stats.drops.Add(overlay.DropRateLimited, 1)
			continue
		case fateCut:
			s.stats.drops.Add(overlay.DropRateLimited, 1)
			reply = cut(reply)
		}
		if ok {
			_, err = udp.WriteToUDPAddrPort(reply, from)
		} else {
			_, err = pc.WriteTo(reply, addr)
		}
		if err != nil {
			s.stats.drops.Add(overlay.DropSendError, 1)
		}
	}
}

// isLoopback reports whether only this machine reaches a socket.
func isLoopback(a net.Addr) bool {
	u, is := a.(*net.UDPAddr)
	return is && u.IP.IsLoopback()
}

// cut makes a truncated reply of any other: its header and question.
func cut(reply []byte) []byte {
	end := headerBytes
	for binary.BigEndian.Uint16(reply[4:]) > 0 && end < len(reply) && reply[end] != 0 {
		end += 1 + int(reply[end])
	}
	if binary.BigEndian.Uint16(reply[4:]) > 0 {
		end += 5
	}
	reply = reply[:min(end, len(reply))]
	reply[2] |= flagTC >> 8
	clear(reply[6:headerBytes])
	return reply
}

// backoff spaces retries of a socket that fails. The zero value is ready.
type backoff struct{ next time.Duration }

func (b *backoff) first() bool { return b.next == 0 }
func (b *backoff) reset()      { b.next = 0 }

// wait doubles the pause each time. It returns early if ctx ends.
func (b *backoff) wait(ctx context.Context) {
	b.next = min(max(2*b.next, minBackoff), maxBackoff)
	t := time.NewTimer(b.next)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
