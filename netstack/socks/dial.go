package socks

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"
)

const (
	// attemptDelay is RFC 8305's "Connection Attempt Delay".
	attemptDelay = 250 * time.Millisecond
	// maxAttempts bounds the addresses that are tried for one request.
	maxAttempts = 8
)

// dial connects to t within DialTimeout.
func (s *Server) dial(ctx context.Context, t target) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.DialTimeout)
	defer cancel()
	addrs, err := s.resolve(ctx, t)
	if err != nil {
		return nil, err
	}
	return s.race(ctx, order(addrs), t.port)
}

// resolve returns the addresses of t that a slice may have; at least one, or an
// error.
func (s *Server) resolve(ctx context.Context, t target) ([]netip.Addr, error) {
	addrs := []netip.Addr{t.addr}
	if t.name != "" {
		var err error
		if addrs, err = s.cfg.Resolver.Lookup(ctx, t.name); err != nil {
			return nil, fmt.Errorf("resolve %q: %w", t.name, err)
		}
		if len(addrs) == 0 {
			return nil, fmt.Errorf("resolve %q: %w", t.name, ErrNoName)
		}
	}
	var good []netip.Addr
	for _, a := range addrs {
		if a = a.Unmap(); routable(a) {
			good = append(good, a)
		}
	}
	if len(good) == 0 {
		return nil, fmt.Errorf("connect to %v: %w", t, ErrNotAllowed)
	}
	return good, nil
}

// routable reports whether an address is another host's. What is not routed
// would reach services of the proxy's own side, or many hosts at once.
func routable(a netip.Addr) bool {
	return a.IsValid() && a.Zone() == "" && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() &&
		!a.IsLinkLocalUnicast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// order alternates the families, beginning with the first address's, so that a
// family that does not work costs one delay (RFC 8305 section 4).
func order(addrs []netip.Addr) []netip.Addr {
	var first, second []netip.Addr
	for _, a := range addrs {
		if a.Is4() == addrs[0].Is4() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	var out []netip.Addr
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			out = append(out, first[i])
		}
		if i < len(second) {
			out = append(out, second[i])
		}
	}
	return out[:min(len(out), maxAttempts)]
}

type attempt struct {
	conn net.Conn
	err  error
}

// race tries one address after the other, the next when one fails or takes
// long, and returns the first connection. Of several errors it returns the one
// that says most.
func (s *Server) race(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	if len(addrs) == 1 {
		return s.cfg.Dialer.DialTCP(ctx, netip.AddrPortFrom(addrs[0], port))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan attempt, len(addrs)) // no attempt ever waits to report
	next, pending := 0, 0
	start := func() {
		dst := netip.AddrPortFrom(addrs[next], port)
		next++
		pending++
		s.wg.Go(func() {
			c, err := s.cfg.Dialer.DialTCP(ctx, dst)
			results <- attempt{c, err}
		})
	}
	// Attempts that are still under way are cancelled and their connections
	// closed, without keeping the winner waiting.
	defer func() {
		left := pending
		s.wg.Go(func() {
			for range left {
				if r := <-results; r.err == nil {
					r.conn.Close()
				}
			}
		})
	}()
	delay := time.NewTimer(attemptDelay)
	defer delay.Stop()
	var worst error
	start()
	for pending > 0 || next < len(addrs) {
		select {
		case r := <-results:
			pending--
			if r.err == nil {
				return r.conn, nil
			}
			if worst == nil || classify(r.err).rank > classify(worst).rank {
				worst = r.err
			}
		case <-delay.C:
		case <-ctx.Done():
			if worst == nil {
				worst = ctx.Err()
			}
			return nil, worst
		}
		if next < len(addrs) {
			start()
			delay.Reset(attemptDelay)
		}
	}
	return nil, worst
}
