package forward

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// far is a destination on this machine that stands for one on the slice: it
// dials for real and resolves one name.
type far struct {
	addr netip.AddrPort
	name string
}

func (f far) DialTCP(ctx context.Context, dst netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", dst.String())
}

var errNoSuchName = errors.New("no such name")

func (f far) Lookup(_ context.Context, name string) ([]netip.Addr, error) {
	if name != f.name {
		return nil, errNoSuchName
	}
	// The first address answers nobody; the second one does.
	return []netip.Addr{netip.MustParseAddr("127.99.99.99"), f.addr.Addr()}, nil
}

func echo(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// serve runs a Server for the test and returns its local address.
func serve(t *testing.T, host string, port uint16, f far, maxConns int) (addr string, s *Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err = New(Config{Listener: l, Host: host, Port: port, Dialer: f, Resolver: f, Log: slog.New(slog.DiscardHandler), MaxConns: maxConns})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run did not end")
		}
	})
	return l.Addr().String(), s
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func TestBytesGoThereAndBackByNameAndByAddress(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("forwarded", func(t *testing.T) {
		to := echo(t)
		f := far{to, "web.shop.svc.slice.local"}
		for _, host := range []string{f.name, to.Addr().String()} {
			addr, s := serve(t, host, to.Port(), f, 0)
			c := dial(t, addr)
			sent := bytes.Repeat([]byte("slice"), 200_000)
			go func() {
				_, _ = c.Write(sent)
				_ = c.CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("to %s: %d of %d bytes came back, %v", host, len(got), len(sent), err)
			}
			if n := s.Stats(); n.BytesToSlice != uint64(len(sent)) || n.BytesToLocal != uint64(len(sent)) {
				t.Errorf("to %s: counted %+v", host, n)
			}
		}
	})
}

func TestAnUnreachableDestinationResetsAndCounts(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("refused", func(t *testing.T) {
		addr, s := serve(t, "nobody.shop.svc.slice.local", 80, far{name: "web"}, 0)
		// The reset may be quicker than connect's return.
		c, err := net.Dial("tcp", addr)
		if err == nil {
			defer c.Close()
			_, err = c.Read(make([]byte, 1))
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client sees %v, want a reset", err)
		}
		if s.Stats().Failed != 1 {
			t.Errorf("stats say %+v, want one failed", s.Stats())
		}
	})
}

func TestConnectionsBeyondTheLimitAreReset(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("limited", func(t *testing.T) {
		to := echo(t)
		addr, s := serve(t, to.Addr().String(), to.Port(), far{addr: to}, 1)
		first := dial(t, addr)
		if _, err := first.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(first, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		second, err := net.Dial("tcp", addr)
		if err == nil {
			defer second.Close()
			_, err = second.Read(make([]byte, 1))
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the second connection sees %v, want a reset", err)
		}
		if s.Stats().Refused != 1 {
			t.Errorf("stats say %+v, want one refused", s.Stats())
		}
	})
}

func TestConfigNamesWhatIsMissing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	good := Config{Listener: l, Host: "a", Port: 1, Dialer: far{}, Resolver: far{}, Log: slog.New(slog.DiscardHandler)}
	for name, tc := range map[string]struct {
		spoil func(*Config)
		want  string
	}{
		"no listener":    {func(c *Config) { c.Listener = nil }, "listener"},
		"no host":        {func(c *Config) { c.Host = "" }, "host"},
		"no port":        {func(c *Config) { c.Port = 0 }, "port"},
		"negative limit": {func(c *Config) { c.MaxConns = -1 }, "MaxConns"},
	} {
		cfg := good
		tc.spoil(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v does not name %q", name, err, tc.want)
		}
	}
	if _, err := New(good); err != nil {
		t.Errorf("a complete config: %v", err)
	}
}
