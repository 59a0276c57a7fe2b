package socks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"slicewire/netstack/pump"
	"slicewire/overlay"
)

const (
	// maxDatagram is UDP's own limit and more.
	maxDatagram = 64 << 10
	// relayBuffer is the kernel's queue before an association: the only queue
	// there is, the kernel drops what does not fit.
	relayBuffer = 1 << 20
	// maxPeers bounds how many hosts an association remembers to have sent to;
	// beyond, it forgets one of them, whose answers are then dropped.
	maxPeers = 1024
	// A name keeps its address for as long as the slice says so, and is looked
	// up no more often than this, so that one flow goes to one endpoint.
	nameTTL       = 5 * time.Second
	maxNames      = 64
	lookupTimeout = 2 * time.Second
	// maxReadErrors in a row end an association.
	maxReadErrors = 10
)

// An association relays datagrams between one client and the slice. It ends
// with its control connection, or when idle.
type association struct {
	s      *Server
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	relay  *net.UDPConn // toward the client
	client netip.Addr   // the only host that may use it
	used   atomic.Int64 // unix nanoseconds of the last datagram

	// from is the client's socket: given, or that of its first datagram.
	from atomic.Pointer[netip.AddrPort]

	sockets [2]net.PacketConn // toward the slice, by family; only up touches them
	names   map[string]*cachedName
	dst     netip.AddrPort // the last destination, and the same for WriteTo
	dstAddr *net.UDPAddr

	mu    sync.Mutex
	peers map[netip.Addr]struct{} // guarded by mu; hosts the client has sent to
}

type cachedName struct {
	addr  netip.Addr
	until time.Time
}

// associate serves a UDP ASSOCIATE request. claim is the address that the
// client says it will send from; only its port counts.
func (s *Server) associate(ctx context.Context, c net.Conn, claim target) {
	defer s.stats.associations.Add(-1)
	if s.stats.associations.Add(1) > int64(s.cfg.MaxAssociations) {
		s.refuseSOCKS(c, faultGeneral)
		return
	}
	a, err := s.newAssociation(ctx, c, claim)
	if err != nil {
		s.cfg.Log.Debug("udp association failed", "err", err)
		s.refuseSOCKS(c, faultGeneral)
		return
	}
	defer a.wg.Wait()
	defer func() { _ = a.relay.Close() }()
	defer a.cancel()
	if _, err := c.Write(appendReply(nil, 0, addrPortOf(a.relay.LocalAddr()))); err != nil {
		return
	}
	a.wg.Go(a.up)
	// When the association dies by itself, the client hears of it by its
	// control connection.
	defer pump.Bind(a.ctx, c)()
	a.watch(c)
}

func (s *Server) newAssociation(ctx context.Context, c net.Conn, claim target) (*association, error) {
	// A client on a unix socket is on this host.
	local, client := addrPortOf(c.LocalAddr()).Addr().Unmap(), addrPortOf(c.RemoteAddr()).Addr().Unmap()
	if !local.IsValid() || !client.IsValid() {
		local = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		client = local
	}
	relay, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)))
	if err != nil {
		return nil, fmt.Errorf("open relay socket on %v: %w", local, err)
	}
	_ = relay.SetReadBuffer(relayBuffer) // the kernel gives what it may
	a := &association{s: s, relay: relay, client: client,
		names: make(map[string]*cachedName), peers: make(map[netip.Addr]struct{})}
	a.ctx, a.cancel = context.WithCancel(ctx)
	if claim.port != 0 {
		from := netip.AddrPortFrom(client, claim.port)
		a.from.Store(&from)
	}
	a.touch()
	return a, nil
}

func (a *association) touch() { a.used.Store(time.Now().UnixNano()) }

// watch returns when the control connection ends or no datagram has passed for
// UDPIdle. What the client writes there means nothing.
func (a *association) watch(c net.Conn) {
	idle := a.s.cfg.UDPIdle
	for {
		end := time.Unix(0, a.used.Load()).Add(idle)
		if !time.Now().Before(end) || c.SetDeadline(end) != nil {
			return
		}
		if _, err := io.Copy(io.Discard, struct{ io.Reader }{c}); !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

func (a *association) drop(why overlay.Drop) { a.s.stats.drops.Add(why, 1) }

// up carries datagrams from the client to the slice, one after the other.
func (a *association) up() {
	defer a.cancel()
	defer func() {
		for _, pc := range a.sockets {
			if pc != nil {
				pc.Close()
			}
		}
	}()
	buf := a.s.buffers.datagram()
	defer a.s.buffers.datagrams.Put(buf)
	for {
		n, from, err := a.relay.ReadFromUDPAddrPort(buf[:])
		if err != nil {
			return // closed; a UDP socket that is not connected has no other errors
		}
		if why, ok := a.forward(buf[:n], from); !ok {
			a.drop(why)
		}
	}
}

func (a *association) forward(b []byte, from netip.AddrPort) (why overlay.Drop, ok bool) {
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	if from.Addr() != a.client {
		return overlay.DropSource, false
	}
	known := a.from.Load()
	if known != nil && known.Port() != from.Port() {
		return overlay.DropSource, false
	}
	t, payload, err := parseDatagram(b)
	if errors.Is(err, errFragment) {
		return overlay.DropFragment, false
	}
	if err != nil {
		return overlay.DropMalformed, false
	}
	if known == nil {
		a.from.Store(&from)
	}
	a.touch()
	addr, err := a.lookup(t)
	if err != nil {
		return overlay.DropNoRoute, false
	}
	pc, err := a.socket(addr.Is6())
	if err != nil {
		return overlay.DropNoRoute, false
	}
	a.remember(addr)
	if dst := netip.AddrPortFrom(addr, t.port); dst != a.dst {
		a.dst, a.dstAddr = dst, net.UDPAddrFromAddrPort(dst)
	}
	if _, err := pc.WriteTo(payload, a.dstAddr); err != nil {
		return overlay.DropSendError, false
	}
	a.s.stats.up.Add(1)
	return 0, true
}

// lookup resolves t. A name stays with its address while the slice has it.
func (a *association) lookup(t target) (netip.Addr, error) {
	if t.name == "" {
		if !routable(t.addr) {
			return netip.Addr{}, ErrNotAllowed
		}
		return t.addr, nil
	}
	now := time.Now()
	known := a.names[t.name]
	if known != nil && now.Before(known.until) {
		return known.addr, nil
	}
	ctx, cancel := context.WithTimeout(a.ctx, lookupTimeout)
	defer cancel()
	addrs, err := a.s.resolve(ctx, t)
	if err != nil {
		delete(a.names, t.name)
		return netip.Addr{}, err
	}
	if known == nil {
		if len(a.names) >= maxNames {
			forgetOne(a.names)
		}
		known = &cachedName{}
		a.names[t.name] = known
	}
	if !slices.Contains(addrs, known.addr) {
		known.addr = addrs[0]
	}
	known.until = now.Add(nameTTL)
	return known.addr, nil
}

func forgetOne[K comparable, V any](m map[K]V) {
	for k := range m {
		delete(m, k)
		return
	}
}

func (a *association) remember(peer netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.peers[peer]; ok {
		return
	}
	if len(a.peers) >= maxPeers {
		forgetOne(a.peers)
	}
	a.peers[peer] = struct{}{}
}

// knows reports whether the client has sent to peer: nobody else may send to
// the client, from whatever port.
func (a *association) knows(peer netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.peers[peer]
	return ok
}

// socket returns the slice socket of a family, which is opened when it is first
// needed.
func (a *association) socket(v6 bool) (net.PacketConn, error) {
	i := 0
	if v6 {
		i = 1
	}
	if a.sockets[i] == nil {
		pc, err := a.s.cfg.Dialer.ListenUDP(v6)
		if err != nil {
			return nil, err
		}
		a.sockets[i] = pc
		a.wg.Go(func() { a.down(pc) })
	}
	return a.sockets[i], nil
}

// down carries datagrams from the slice to the client, with their real source.
func (a *association) down(pc net.PacketConn) {
	defer a.cancel()
	buf := a.s.buffers.datagram()
	defer a.s.buffers.datagrams.Put(buf)
	for failed := 0; failed < maxReadErrors; {
		n, addr, err := pc.ReadFrom(buf[maxUDPHeader:])
		if err != nil {
			if a.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			failed++ // such as an ICMP error for a datagram sent before
			continue
		}
		failed = 0
		src := addrPortOf(addr)
		src = netip.AddrPortFrom(src.Addr().Unmap().WithZone(""), src.Port())
		to := a.from.Load()
		if !src.IsValid() || to == nil || !a.knows(src.Addr()) {
			a.drop(overlay.DropSource)
			continue
		}
		a.touch()
		var space [maxUDPHeader]byte
		header := appendAddr(space[:3], src)
		start := maxUDPHeader - len(header)
		copy(buf[start:], header)
		if _, err := a.relay.WriteToUDPAddrPort(buf[start:maxUDPHeader+n], *to); err != nil {
			a.drop(overlay.DropSendError)
			continue
		}
		a.s.stats.down.Add(1)
	}
}

// datagram lends a buffer for any datagram and a header before it.
func (b *buffers) datagram() *[maxDatagram + maxUDPHeader]byte {
	if buf, ok := b.datagrams.Get().(*[maxDatagram + maxUDPHeader]byte); ok {
		return buf
	}
	return new([maxDatagram + maxUDPHeader]byte)
}
