package socks

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestFamiliesAlternate(t *testing.T) {
	list := func(s ...string) (out []netip.Addr) {
		for _, a := range s {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	for _, c := range []struct {
		name     string
		in, want []netip.Addr
	}{
		{"one family keeps its order", list("10.0.0.1", "10.0.0.2"), list("10.0.0.1", "10.0.0.2")},
		{"the first address stays first", list("fd00::1", "10.0.0.1", "10.0.0.2", "fd00::2"), list("fd00::1", "10.0.0.1", "fd00::2", "10.0.0.2")},
		{"a lone other family comes second", list("10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1"), list("10.0.0.1", "fd00::1", "10.0.0.2", "10.0.0.3")},
	} {
		if got := order(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if got := order(make([]netip.Addr, 100)); len(got) != maxAttempts {
		t.Errorf("%d attempts", len(got))
	}
}

// script is a Dialer whose addresses behave as their last byte says.
type script struct {
	mu     sync.Mutex
	opened []*tracked
}

type tracked struct {
	net.Conn
	closed bool
}

func (c *tracked) Close() error { c.closed = true; return c.Conn.Close() }

func (d *script) ListenUDP(bool) (net.PacketConn, error) { return nil, errors.ErrUnsupported }

// The last bytes: 1 refused at once, 2 nothing until the context ends, 3 works
// at once, 4 works after a second whatever the context says.
func (d *script) DialTCP(ctx context.Context, dst netip.AddrPort) (net.Conn, error) {
	switch b := dst.Addr().AsSlice(); b[len(b)-1] {
	case 1:
		return nil, syscall.ECONNREFUSED
	case 2:
		<-ctx.Done()
		return nil, ctx.Err()
	case 4:
		time.Sleep(time.Second) // virtual
	}
	a, b := net.Pipe()
	b.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	c := &tracked{Conn: a}
	d.opened = append(d.opened, c)
	return c, nil
}

func TestTheFirstAddressThatAnswersWins(t *testing.T) {
	for _, c := range []struct {
		name  string
		addrs []byte
		took  time.Duration
		err   error
	}{
		{"one that works", []byte{3}, 0, nil},
		{"a refusal costs nothing", []byte{1, 3}, 0, nil},
		{"silence costs one delay", []byte{2, 3}, attemptDelay, nil},
		{"much silence costs a delay each", []byte{2, 2, 2, 3}, 3 * attemptDelay, nil},
		{"silence to the end", []byte{2, 2}, defaultDialTimeout, context.DeadlineExceeded},
		{"a refusal says more than silence", []byte{2, 1, 2}, defaultDialTimeout, syscall.ECONNREFUSED},
		{"all refuse", []byte{1, 1, 1}, 0, syscall.ECONNREFUSED},
		{"a late one is closed again", []byte{4, 2, 3}, 2 * attemptDelay, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &script{}
				s := &Server{cfg: Config{Dialer: d, DialTimeout: defaultDialTimeout}}
				var addrs []netip.Addr
				for i, b := range c.addrs {
					addrs = append(addrs, netip.AddrFrom4([4]byte{10, 0, byte(i), b}))
				}
				begin := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), defaultDialTimeout)
				defer cancel()
				conn, err := s.race(ctx, addrs, 1)
				if !errors.Is(err, c.err) || (conn == nil) != (err != nil) {
					t.Errorf("%v, %v, want error %v", conn, err, c.err)
				}
				if got := time.Since(begin); got != c.took {
					t.Errorf("took %v, want %v", got, c.took)
				}
				s.wg.Wait()
				for _, o := range d.opened {
					if o.closed == (o == conn) {
						t.Errorf("closed %v, but it won: %v", o.closed, o == conn)
					}
				}
			})
		})
	}
}
