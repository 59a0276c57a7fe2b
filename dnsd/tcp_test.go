package dnsd

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// pipes is a listener whose connections are made by dial, so that time in a
// synctest bubble applies to them.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

type from struct {
	net.Conn
	addr net.Addr
}

func (c from) RemoteAddr() net.Addr { return c.addr }

func (p *pipes) dial(host byte) net.Conn {
	a, b := net.Pipe()
	p.conns <- from{b, &net.TCPAddr{IP: net.IPv4(10, 0, 0, host), Port: 1}}
	return a
}

// streams runs f in a bubble with a served listener.
func streams(t *testing.T, f func(t *testing.T, s *Server, l *pipes)) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		s := newServer(t, Config{Stream: []net.Listener{l}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		f(t, s, l)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
		if n := s.Stats().Streams; n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

func framed(msg []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
}

func TestStreamsAreAnsweredInOrderWhenPipelined(t *testing.T) {
	streams(t, func(t *testing.T, _ *Server, l *pipes) {
		c := l.dial(1)
		defer c.Close()
		names := []string{"v4.shop.svc.slice.local", "big.shop.svc.slice.local", "nope.slice.local", "v4.shop.svc.slice.local"}
		var all []byte
		for i, name := range names {
			q := query(name, typeA)
			q.Id = uint16(i)
			all = append(all, framed(pack(t, q))...)
		}
		go func() {
			for _, b := range all { // one byte at a time
				c.Write([]byte{b})
			}
		}()
		for i, want := range []int{1, 100, 0, 1} {
			var length [2]byte
			if _, err := io.ReadFull(c, length[:]); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, binary.BigEndian.Uint16(length[:]))
			if _, err := io.ReadFull(c, b); err != nil {
				t.Fatal(err)
			}
			var m dns.Msg
			if err := m.Unpack(b); err != nil || m.Id != uint16(i) || len(m.Answer) != want {
				t.Errorf("reply %d: id %d, %d answers, %v", i, m.Id, len(m.Answer), err)
			}
		}
	})
}

func TestSlowAndBrokenStreamsAreCut(t *testing.T) {
	good := framed(pack(t, query("v4.shop.svc.slice.local", typeA)))
	for _, c := range []struct {
		name string
		send func(c net.Conn)
		most time.Duration // until the server hangs up
	}{
		{"silence", func(net.Conn) {}, streamIdle},
		{"half a message", func(c net.Conn) { c.Write(good[:10]) }, streamIdle},
		{"a length without a body", func(c net.Conn) { c.Write([]byte{0x10, 0}) }, streamIdle},
		{"a trickle", func(c net.Conn) {
			for _, b := range good {
				c.Write([]byte{b})
				time.Sleep(time.Second) // virtual
			}
		}, streamIdle},
		{"a length shorter than a header", func(c net.Conn) { c.Write([]byte{0, 11}) }, 0},
		{"a length longer than any query", func(c net.Conn) { c.Write([]byte{0xff, 0xff}) }, 0},
		{"a response", func(c net.Conn) { c.Write(append([]byte{0, 12, 0, 0, 0x80}, make([]byte, 9)...)) }, 0},
		{"a client that does not read", func(c net.Conn) { c.Write(good) }, streamIdle},
	} {
		t.Run(c.name, func(t *testing.T) {
			streams(t, func(t *testing.T, s *Server, l *pipes) {
				conn := l.dial(1)
				defer conn.Close()
				synctest.Wait()
				begin := time.Now()
				sent := make(chan struct{})
				go func() { c.send(conn); close(sent) }()
				for s.Stats().Streams != 0 {
					time.Sleep(time.Second / 10) // virtual
					if time.Since(begin) > c.most+time.Second {
						t.Fatalf("the server is patient for more than %v", c.most)
					}
				}
				<-sent
			})
		})
	}
}

func TestStreamsAreLimitedPerClientAndInAll(t *testing.T) {
	streams(t, func(t *testing.T, s *Server, l *pipes) {
		var open []net.Conn
		defer func() {
			for _, c := range open {
				c.Close()
			}
		}()
		for i := range 200 {
			open = append(open, l.dial(1))
			synctest.Wait()
			if want := min(i+1, maxStreamsPerClient); s.Stats().Streams != want {
				t.Fatalf("one client has %d connections, want %d", s.Stats().Streams, want)
			}
		}
		for host := byte(2); host < 60; host++ {
			for range maxStreamsPerClient {
				open = append(open, l.dial(host))
			}
		}
		synctest.Wait()
		if st := s.Stats(); st.Streams != maxStreams || st.Dropped["rate-limited"] == 0 {
			t.Errorf("stats %+v, want %d connections", st, maxStreams)
		}
		open[0].Close()
		synctest.Wait()
		c := l.dial(1)
		defer c.Close()
		go c.Write(framed(pack(t, query("v4.shop.svc.slice.local", typeA))))
		if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
			t.Errorf("a place that came free is not used: %v", err)
		}
	})
}

func TestAStreamMayAskOnlySoOften(t *testing.T) {
	streams(t, func(t *testing.T, _ *Server, l *pipes) {
		c := l.dial(1)
		defer c.Close()
		q := framed(pack(t, query("nope.example", typeA)))
		go func() {
			for range streamQueries + 1 {
				c.Write(q)
			}
		}()
		n, _ := io.Copy(io.Discard, c)
		if want := int64(streamQueries * len(q)); n != want { // REFUSED is as long as the query
			t.Errorf("%d bytes of answers, want %d", n, want)
		}
	})
}
