package socks

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"slicewire/netstack/pump"
)

const (
	// maxRequest bounds an HTTP request header; a SOCKS5 request has at most
	// 262 bytes.
	maxRequest = 8 << 10
	// A client that is refused gets this long, and may send this much, to read
	// why: closing earlier would reset the connection and lose the reply.
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)

var errTooLong = errors.New("request is too long")

// An intake collects what a client sends before its request is complete.
type intake struct {
	c   net.Conn
	buf [maxRequest]byte
	n   int
}

func (in *intake) more() error {
	if in.n == len(in.buf) {
		return errTooLong
	}
	n, err := in.c.Read(in.buf[in.n:])
	in.n += n
	if n > 0 {
		return nil
	}
	return err
}

// take removes the first n bytes.
func (in *intake) take(n int) { in.n = copy(in.buf[:], in.buf[n:in.n]) }

// read parses until f has all that it needs, and removes that.
func read[T any](in *intake, f func([]byte) (T, int, error)) (T, error) {
	for {
		v, n, err := f(in.buf[:in.n])
		if err == nil {
			in.take(n)
			return v, nil
		}
		if errors.Is(err, errShort) {
			err = in.more()
		}
		if err != nil {
			return v, err
		}
	}
}

// buffers lends intakes, which live only as long as a handshake, and datagram
// buffers.
type buffers struct{ intakes, datagrams sync.Pool }

func (b *buffers) intake(c net.Conn) *intake {
	in, ok := b.intakes.Get().(*intake)
	if !ok {
		in = new(intake)
	}
	in.c, in.n = c, 0
	return in
}

func (b *buffers) giveBack(in *intake) {
	in.c = nil
	b.intakes.Put(in)
}

// serve does everything for one client.
func (s *Server) serve(ctx context.Context, c net.Conn) {
	defer c.Close()
	defer pump.Bind(ctx, c)()
	if k, ok := c.(interface {
		SetKeepAliveConfig(net.KeepAliveConfig) error
	}); ok { // finds clients that vanished while idle, and nothing else ends those
		_ = k.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4})
	}
	if c.SetDeadline(time.Now().Add(s.cfg.HandshakeTimeout)) != nil {
		return
	}
	in := s.buffers.intake(c)
	defer func() {
		if in != nil {
			s.buffers.giveBack(in)
		}
	}()
	if err := in.more(); err != nil {
		s.stats.fail("handshake")
		return
	}
	var up net.Conn
	switch first := in.buf[0]; {
	case first == version5:
		up = s.serveSOCKS(ctx, c, in)
	case first == 4:
		s.stats.fail("socks4")
		s.refuse(c, []byte{0, 0x5b, 0, 0, 0, 0, 0, 0}) // "request rejected or failed"
	case 'A' <= first && first <= 'Z' || 'a' <= first && first <= 'z':
		up = s.serveHTTP(ctx, c, in)
	default:
		s.stats.fail("malformed")
	}
	if up == nil {
		return
	}
	// Clients that do not wait for the reply have sent a part of their stream.
	// It fits into any new connection's send buffer.
	if in.n > 0 {
		_ = up.SetWriteDeadline(time.Now().Add(s.cfg.HandshakeTimeout))
		n, err := up.Write(in.buf[:in.n])
		s.stats.bytes.Up.Add(uint64(n))
		if err != nil {
			pump.Reset(up)
			pump.Reset(c)
			return
		}
		_ = up.SetWriteDeadline(time.Time{})
	}
	s.buffers.giveBack(in)
	in = nil
	if c.SetDeadline(time.Time{}) != nil {
		up.Close()
		return
	}
	if err := s.pump.Move(ctx, c, up, &s.stats.bytes); err != nil {
		s.cfg.Log.Debug("proxied connection broke", "err", err)
	}
}

// serveSOCKS returns the connection that the client now has, or nil if all is
// done.
func (s *Server) serveSOCKS(ctx context.Context, c net.Conn, in *intake) net.Conn {
	noAuth, err := read(in, parseGreeting)
	if err != nil {
		s.stats.fail("handshake")
		return nil
	}
	if !noAuth {
		s.stats.fail("authentication")
		s.refuse(c, []byte{version5, methodNoAcceptable})
		return nil
	}
	if _, err := c.Write([]byte{version5, methodNone}); err != nil {
		return nil
	}
	r, err := read(in, parseRequest)
	switch {
	case errors.Is(err, errAddressType):
		s.refuseSOCKS(c, faultAddrType)
		return nil
	case errors.Is(err, errMalformed):
		s.stats.fail("malformed")
		s.refuse(c, appendReply(nil, faultGeneral.code, netip.AddrPort{}))
		return nil
	case err != nil:
		s.stats.fail("handshake")
		return nil
	}
	switch r.cmd {
	case cmdConnect:
	case cmdUDPAssociate:
		s.associate(ctx, c, r.target)
		return nil
	default:
		s.refuseSOCKS(c, faultCommand)
		return nil
	}
	up, err := s.connect(ctx, c, r.target)
	if err != nil {
		s.refuseSOCKS(c, classify(err))
		return nil
	}
	if _, err := c.Write(appendReply(nil, 0, addrPortOf(up.LocalAddr()))); err != nil {
		up.Close()
		return nil
	}
	return up
}

// serveHTTP is serveSOCKS for CONNECT.
func (s *Server) serveHTTP(ctx context.Context, c net.Conn, in *intake) net.Conn {
	t, err := read(in, parseConnect)
	if errors.Is(err, errTooLong) {
		err = errHeaderSize
	}
	var bad *httpError
	switch {
	case errors.As(err, &bad):
		s.stats.fail("http")
		s.refuse(c, httpReply(bad.status, bad.text, ""))
		return nil
	case err != nil:
		s.stats.fail("handshake")
		return nil
	}
	up, err := s.connect(ctx, c, t)
	if err != nil {
		f := classify(err)
		s.stats.fail(f.name)
		s.refuse(c, httpReply(f.status, f.text, f.proxyStatus))
		return nil
	}
	if _, err := io.WriteString(c, established); err != nil {
		up.Close()
		return nil
	}
	return up
}

// connect dials. The handshake's deadline is over then: what is left is that
// of replying.
func (s *Server) connect(ctx context.Context, c net.Conn, t target) (net.Conn, error) {
	up, err := s.dial(ctx, t)
	if err != nil {
		s.cfg.Log.Debug("proxy request failed", "service", t.String(), "err", err)
	}
	_ = c.SetDeadline(time.Now().Add(s.cfg.HandshakeTimeout))
	return up, err
}

func (s *Server) refuseSOCKS(c net.Conn, f fault) {
	s.stats.fail(f.name)
	s.refuse(c, appendReply(nil, f.code, netip.AddrPort{}))
}

// refuse sends a last word and sees that the client can read it.
func (s *Server) refuse(c net.Conn, reply []byte) {
	if _, err := c.Write(reply); err != nil {
		return
	}
	if half, ok := c.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		return
	}
	if c.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		_, _ = io.CopyN(io.Discard, c, lingerBytes)
	}
}

func addrPortOf(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.AddrPort()
	case *net.UDPAddr:
		return a.AddrPort()
	}
	return netip.AddrPort{}
}
