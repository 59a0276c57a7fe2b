package publish

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// maxDatagram is UDP's own limit and more.
	maxDatagram = 64 << 10
	// maxPending datagrams wait while the target's name is resolved; more are
	// dropped.
	maxPending = 16
	// maxReadErrors in a row close a port.
	maxReadErrors = 100
)

// A udpPort serves a UDP port: a flow for every member's socket.
type udpPort struct {
	*socket
	pc net.PacketConn

	mu    sync.Mutex
	flows *flowTable[*udpFlow] // guarded by mu
}

// A udpFlow carries one member's datagrams through a socket of its own, so
// that the target's answers are known to be for that member.
type udpFlow struct {
	u      *udpPort
	client netip.AddrPort
	to     net.Addr // the client for WriteTo
	ctx    context.Context
	cancel context.CancelFunc
	used   atomic.Int64 // unix nanoseconds of the last datagram

	mu      sync.Mutex
	conn    net.Conn // guarded by mu; nil until connected
	pending [][]byte // guarded by mu; what came before
	ended   bool     // guarded by mu; takes no more datagrams
}

func newUDPPort(o *socket, pc net.PacketConn) *udpPort {
	return &udpPort{socket: o, pc: pc, flows: newFlowTable[*udpFlow](o.p.cfg.MaxFlows, o.p.cfg.MaxPerClient)}
}

// retire ends the flows that keep does not want, so that their next datagrams
// begin others. keep is called with the lock held.
func (u *udpPort) retire(keep func(*udpFlow) bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for client, e := range u.flows.flows {
		if !keep(e.flow) {
			e.flow.cancel()
			u.flows.remove(client)
		}
	}
}

// living lists the flows of now.
func (u *udpPort) living() []*udpFlow {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := make([]*udpFlow, 0, len(u.flows.flows))
	for _, e := range u.flows.flows {
		out = append(out, e.flow)
	}
	return out
}

// serve carries datagrams from the slice to the target until the port is
// closed.
func (u *udpPort) serve() {
	defer u.pc.Close()
	buf := u.p.lend()
	defer u.p.bufs.Put(buf)
	for failed := 0; ; {
		n, from, err := u.pc.ReadFrom(buf[:])
		if err != nil {
			if u.ctx.Err() != nil {
				return
			}
			if failed++; errors.Is(err, net.ErrClosed) || failed >= maxReadErrors {
				u.p.lost(u.socket, err)
				return
			}
			sleep(u.ctx, minBackoff)
			continue
		}
		failed = 0
		if !u.flow(from).up(buf[:n]) { // it ended while we looked it up
			u.flow(from).up(buf[:n])
		}
	}
}

// flow finds or begins the flow of a member's socket.
func (u *udpPort) flow(from net.Addr) *udpFlow {
	client := addrOf(from)
	u.mu.Lock()
	defer u.mu.Unlock()
	if f, ok := u.flows.use(client); ok {
		return f
	}
	f := &udpFlow{u: u, client: client, to: net.UDPAddrFromAddrPort(client)}
	f.ctx, f.cancel = context.WithCancel(u.ctx)
	f.touch()
	crowded := u.p.flows.Add(1) > int64(u.p.cfg.MaxFlowsInAll)
	if old, full := u.flows.add(client, f, crowded); full {
		old.cancel()
		u.share.evicted.Add(1)
	}
	u.share.accepted.Add(1)
	u.share.flows.Add(1)
	u.p.wg.Go(f.run)
	return f
}

// end takes f out of the table, unless another flow of the same client is there
// already, and then refuses more datagrams.
func (u *udpPort) end(f *udpFlow) {
	u.mu.Lock()
	if e := u.flows.flows[f.client]; e != nil && e.flow == f {
		u.flows.remove(f.client)
	}
	u.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	u.share.dropped.Add(uint64(len(f.pending)))
}

func (f *udpFlow) touch() { f.used.Store(time.Now().UnixNano()) }

// up sends one datagram to the target, or returns false if the flow has ended.
func (f *udpFlow) up(b []byte) bool {
	f.touch()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.ended:
		return false
	case f.conn != nil:
		return f.sendLocked(b)
	case len(f.pending) >= maxPending:
		f.u.share.dropped.Add(1)
	default:
		f.pending = append(f.pending, slices.Clone(b))
	}
	return true
}

// sendLocked returns false if the flow was ended under the caller's hands.
func (f *udpFlow) sendLocked(b []byte) bool {
	n, err := f.conn.Write(b)
	if errors.Is(err, syscall.ECONNREFUSED) {
		// The target's answer to an earlier datagram: this one has not left.
		f.u.share.dialed(err)
		n, err = f.conn.Write(b)
	}
	switch {
	case errors.Is(err, net.ErrClosed):
		return false
	case err != nil:
		f.u.share.dropped.Add(1)
		f.u.share.dialed(err)
	default:
		f.u.share.bytes.Up.Add(uint64(n))
	}
	return true
}

// run connects, and carries answers until the flow is idle or has to end.
func (f *udpFlow) run() {
	s := f.u.share
	defer s.flows.Add(-1)
	defer f.u.p.flows.Add(-1)
	defer f.cancel()
	conn, err := f.u.p.dial(f.ctx, *f.u.target.Load(), f.client.Addr())
	if err != nil {
		if f.ctx.Err() == nil {
			s.dialed(err)
		}
		f.u.end(f)
		return
	}
	cut := make(chan struct{})
	stop := context.AfterFunc(f.ctx, func() { conn.Close(); close(cut) })
	defer func() {
		if !stop() {
			<-cut
		}
		conn.Close()
	}()
	defer f.u.end(f) // before conn is closed, so that no datagram meets that
	f.mu.Lock()
	f.conn = conn
	for _, b := range f.pending {
		_ = f.sendLocked(b) // if the flow was ended meanwhile, so were these
	}
	f.pending = nil
	f.mu.Unlock()
	f.down(conn)
}

// remote returns the far end, nil while there is none.
func (f *udpFlow) remote() net.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn == nil {
		return nil
	}
	return f.conn.RemoteAddr()
}

// down carries the target's answers to the member.
func (f *udpFlow) down(conn net.Conn) {
	idle := f.u.p.cfg.UDPIdle
	for failed := 0; failed < maxReadErrors; {
		end := time.Unix(0, f.used.Load()).Add(idle)
		if !time.Now().Before(end) || conn.SetReadDeadline(end) != nil {
			return
		}
		buf, n, err := f.u.p.receive(conn)
		switch {
		case err == nil:
			failed = 0
			f.touch()
			f.u.share.dialed(nil)
			f.answer(buf[:n])
			f.u.p.bufs.Put(buf)
		case errors.Is(err, os.ErrDeadlineExceeded):
		case errors.Is(err, syscall.ECONNREFUSED): // one per datagram sent; the target may come back
			f.u.share.dialed(err)
			if f.u.p.cfg.Dial != nil {
				return // Dial may know another one
			}
		case f.ctx.Err() != nil, errors.Is(err, net.ErrClosed):
			return
		default:
			failed++
		}
	}
}

func (f *udpFlow) answer(b []byte) {
	if _, err := f.u.pc.WriteTo(b, f.to); err != nil {
		f.u.share.dropped.Add(1)
		return
	}
	f.u.share.bytes.Down.Add(uint64(len(b)))
}

func (p *Publisher) lend() *[maxDatagram]byte {
	if b, ok := p.bufs.Get().(*[maxDatagram]byte); ok {
		return b
	}
	return new([maxDatagram]byte)
}
