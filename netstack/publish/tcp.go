package publish

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/pires/go-proxyproto"

	"slicewire/netstack/pump"
)

const (
	minBackoff = 5 * time.Millisecond
	maxBackoff = time.Second
)

// accept serves a TCP port until it is closed.
func (o *socket) accept(l net.Listener) {
	defer l.Close()
	for pause := minBackoff; ; {
		c, err := l.Accept()
		switch {
		case err == nil:
		case o.ctx.Err() != nil:
			return
		case errors.Is(err, net.ErrClosed):
			// The stack is gone, or took the listener away: the next Set or
			// retry opens another.
			o.p.lost(o, err)
			return
		default:
			sleep(o.ctx, pause)
			pause = min(2*pause, maxBackoff)
			continue
		}
		pause = minBackoff
		client := addrOf(c.RemoteAddr()).Addr()
		if !o.admit(client) {
			o.share.refused.Add(1)
			pump.Reset(c)
			continue
		}
		o.share.accepted.Add(1)
		o.p.wg.Go(func() {
			defer o.release(client)
			o.carry(c)
		})
	}
}

// lost forgets an open socket that closed by itself.
func (p *Publisher) lost(o *socket, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open[o.key] != o {
		return
	}
	delete(p.open, o.key)
	p.failed[o.key] = err
	o.close()
	p.cfg.Log.Warn("port was closed from outside, retrying", "addr", o.key.String(), "err", err)
}

// admit counts a connection in, unless a limit is reached.
func (o *socket) admit(client netip.Addr) bool {
	cfg := &o.p.cfg
	if o.p.conns.Add(1) > int64(cfg.MaxConns) {
		o.p.conns.Add(-1)
		return false
	}
	o.share.mu.Lock()
	defer o.share.mu.Unlock()
	if o.share.conns.Load() >= int64(cfg.MaxConnsPerBackend) || o.share.clients[client] >= cfg.MaxPerClient {
		o.p.conns.Add(-1)
		return false
	}
	o.share.conns.Add(1)
	o.share.clients[client]++
	return true
}

func (o *socket) release(client netip.Addr) {
	o.p.conns.Add(-1)
	o.share.mu.Lock()
	defer o.share.mu.Unlock()
	o.share.conns.Add(-1)
	if o.share.clients[client]--; o.share.clients[client] == 0 {
		delete(o.share.clients, client)
	}
}

// carry connects to the target and moves bytes until both sides are done.
func (o *socket) carry(c net.Conn) {
	to := *o.target.Load()
	up, err := o.p.dial(o.ctx, to, addrOf(c.RemoteAddr()).Addr())
	if o.ctx.Err() == nil {
		o.share.dialed(err)
	}
	if err != nil {
		o.p.cfg.Log.Debug("target not reached", "target", to.addr, "err", err)
		pump.Reset(c)
		return
	}
	if to.proxied {
		if err := introduce(up, c, o.p.cfg.DialTimeout); err != nil {
			o.p.cfg.Log.Debug("target does not take the PROXY header", "target", to.addr, "err", err)
			up.Close()
			pump.Reset(c)
			return
		}
	}
	if err := o.p.pump.Move(o.ctx, c, up, &o.share.bytes); err != nil {
		o.p.cfg.Log.Debug("published connection broke", "target", to.addr, "err", err)
	}
}

// introduce tells a target who its client is. The header is far shorter than
// what a new connection takes without waiting.
func introduce(target, client net.Conn, wait time.Duration) error {
	if err := target.SetWriteDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	from, to := addrOf(client.RemoteAddr()), addrOf(client.LocalAddr())
	h := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(from), net.TCPAddrFromAddrPort(to))
	if _, err := h.WriteTo(target); err != nil {
		return err
	}
	return target.SetWriteDeadline(time.Time{})
}

func (p *Publisher) dial(ctx context.Context, to target, member netip.Addr) (net.Conn, error) {
	if p.cfg.Dial == nil {
		d := net.Dialer{Timeout: p.cfg.DialTimeout}
		return d.DialContext(ctx, to.network, to.addr)
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.DialTimeout)
	defer cancel()
	return p.cfg.Dial(ctx, to.network, to.addr, member)
}

func addrOf(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
