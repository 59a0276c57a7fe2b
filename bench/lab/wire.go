package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"slicewire/overlay"
)

// A Device is where a host's IPv4 packets come out and go in: a TUN in a network
// namespace, with the headroom that ports have. Read may be called again after
// an error, but for net.ErrClosed, which it returns after Close.
type Device interface {
	Read(bufs [][]byte, sizes []int) (int, error)
	Write(bufs [][]byte) error
	Close() error
}

// A Wire carries whole IPv4 packets between the devices of hosts, as a Policy
// says. It is the Network of processes: whatever they say to each other crosses
// it, and it looks at every byte of that. New, Plug, then Run.
//
// What is corrupted of a UDP packet is its payload, and the checksum is left
// out, as senders may: the program at the other end gets to see it. All else
// stops at the checksums of the kernel.
type Wire struct {
	chances
	canary  []byte
	policy  atomic.Pointer[Policy]
	blocked atomic.Pointer[map[uint16]bool]
	ends    map[netip.Addr]*wireEnd // complete before Run

	packets, bytes, lost, full, nowhere, closed, canaries atomic.Uint64
}

// WireCounts is what became of a Wire's packets.
type WireCounts struct {
	Packets  uint64 // sent
	Bytes    uint64
	Lost     uint64 // on the way: lost, or the link cut
	Full     uint64 // more under way to one host than wireHolds
	Nowhere  uint64 // to an address without a host, or no IPv4
	Blocked  uint64 // from or to a port that is blocked
	Canaries uint64 // had the canary in them
}

// wireEnd is one host.
type wireEnd struct {
	addr   netip.Addr
	device Device
	in     inbox[[]byte]
}

const (
	// wireHolds bounds what is under way to one host, in bytes: 20 ms of 1 Gbit/s
	// and then some.
	wireHolds = 4 << 20
	// wireBatch is how many packets are read at once, each up to wirePacket long.
	wireBatch  = 16
	wirePacket = 2048
)

// NewWire returns a wire that delivers everything at once until Set says
// otherwise, and counts the packets with the canary in them; nil: none have.
func NewWire(seed uint64, canary []byte) *Wire {
	w := &Wire{chances: chances{seed: seed}, canary: canary, ends: make(map[netip.Addr]*wireEnd)}
	w.Set(Everywhere(Link{}))
	w.Block()
	return w
}

// Plug connects a host, before Run, which then owns the device.
func (w *Wire) Plug(addr netip.Addr, d Device) error {
	if !addr.Is4() || w.ends[addr] != nil {
		return fmt.Errorf("plug %v in: not an IPv4 address, or there already", addr)
	}
	e := &wireEnd{addr: addr, device: d}
	e.in.init()
	w.ends[addr] = e
	return nil
}

// Set states what the links are like from now on. What is under way arrives as
// it was sent.
func (w *Wire) Set(p Policy) { w.policy.Store(&p) }

// Block states from and to which ports, of UDP and TCP, nothing passes from now
// on, between whomever.
func (w *Wire) Block(ports ...uint16) {
	m := make(map[uint16]bool)
	for _, p := range ports {
		m[p] = true
	}
	w.blocked.Store(&m)
}

// Counts returns what became of everything so far.
func (w *Wire) Counts() WireCounts {
	return WireCounts{
		Packets: w.packets.Load(), Bytes: w.bytes.Load(), Lost: w.lost.Load(), Full: w.full.Load(),
		Nowhere: w.nowhere.Load(), Blocked: w.closed.Load(), Canaries: w.canaries.Load(),
	}
}

// Run carries packets until ctx ends or a device fails.
func (w *Wire) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wait sync.WaitGroup
	for _, e := range w.ends {
		end := func(what string, err error) {
			if ctx.Err() == nil {
				cancel(fmt.Errorf("%s of %v: %w", what, e.addr, err))
			}
		}
		wait.Go(func() { end("read", w.read(e)) })
		wait.Go(func() { end("write", e.write()) })
	}
	<-ctx.Done()
	var errs []error
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		errs = append(errs, cause)
	}
	for _, e := range w.ends {
		e.in.close()
		errs = append(errs, e.device.Close())
	}
	wait.Wait()
	return errors.Join(errs...)
}

// read carries what one host sends.
func (w *Wire) read(e *wireEnd) error {
	bufs, sizes := make([][]byte, wireBatch), make([]int, wireBatch)
	for i := range bufs {
		bufs[i] = make([]byte, overlay.Headroom+wirePacket)
	}
	for {
		n, err := e.device.Read(bufs, sizes)
		if err != nil {
			return err
		}
		for i := range n {
			w.carry(e.addr, bufs[i][overlay.Headroom:][:sizes[i]])
		}
	}
}

// carry sends one packet on its way. p is the caller's again afterwards.
func (w *Wire) carry(from netip.Addr, p []byte) {
	w.packets.Add(1)
	w.bytes.Add(uint64(len(p)))
	if len(w.canary) > 0 && bytes.Contains(p, w.canary) {
		w.canaries.Add(1)
	}
	if len(p) < ipHead || p[0]>>4 != 4 {
		w.nowhere.Add(1)
		return
	}
	to := w.ends[netip.AddrFrom4([4]byte(p[16:20]))]
	if to == nil {
		w.nowhere.Add(1)
		return
	}
	if w.isBlocked(p) {
		w.closed.Add(1)
		return
	}
	var arrivals []arrival
	if link := (*w.policy.Load())(from, to.addr); link == (Link{}) {
		arrivals = []arrival{{0, p}}
	} else {
		w.roll(flow{from: from, to: to.addr}, func(rng *rand.Rand) { arrivals = link.carryIPv4(rng, p) })
	}
	if len(arrivals) == 0 {
		w.lost.Add(1)
	}
	now := time.Now()
	for _, a := range arrivals {
		if !to.in.put(now.Add(a.after), bytes.Clone(a.bytes), len(a.bytes)+packetCost, wireHolds) {
			w.full.Add(1)
		}
	}
}

func (w *Wire) isBlocked(p []byte) bool {
	m := *w.blocked.Load()
	head := int(p[0]&15) * 4
	if len(m) == 0 || p[9] != protoUDP && p[9] != protoTCP || len(p) < head+4 {
		return false
	}
	return m[binary.BigEndian.Uint16(p[head:])] || m[binary.BigEndian.Uint16(p[head+2:])]
}

// write delivers what comes to one host when it is due. A packet that the
// device does not take is lost: corrupted ones are.
func (e *wireEnd) write() error {
	buf := make([]byte, overlay.Headroom+overlay.MaxPacket)
	for {
		p, err := e.in.take(func(now, _ time.Time) time.Time { return now })
		if err != nil {
			return err
		}
		n := copy(buf[overlay.Headroom:], p)
		if err := e.device.Write([][]byte{buf[:overlay.Headroom+n]}); errors.Is(err, net.ErrClosed) {
			return err
		}
	}
}

// Of IPv4 and UDP.
const (
	ipHead   = 20
	udpHead  = 8
	protoTCP = 6
	protoUDP = 17
)

// carryIPv4 is carry for an IPv4 packet.
func (l Link) carryIPv4(rng *rand.Rand, p []byte) []arrival {
	const head = ipHead + udpHead
	// Fragments are left alone: only the first has a UDP header.
	if p[0] != 0x45 || len(p) < head || p[9] != protoUDP || binary.BigEndian.Uint16(p[6:])&0x3fff != 0 {
		return l.carry(rng, p)
	}
	payload := p[head:]
	out := l.carry(rng, payload)
	for i, a := range out {
		if bytes.Equal(a.bytes, payload) {
			out[i].bytes = p
			continue
		}
		q := append(bytes.Clone(p[:head]), a.bytes...)
		binary.BigEndian.PutUint16(q[2:], uint16(len(q)))
		binary.BigEndian.PutUint16(q[10:], 0)
		binary.BigEndian.PutUint16(q[10:], ^onesSum(q[:ipHead]))
		binary.BigEndian.PutUint16(q[24:], uint16(len(q)-ipHead))
		binary.BigEndian.PutUint16(q[26:], 0) // no checksum
		out[i].bytes = q
	}
	return out
}

// onesSum is the one's complement sum of an even number of bytes.
func onesSum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}
