package netstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"slicewire/overlay"

	gvisor "gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// The interfaces of a stack. Both have all its addresses and one queue outward.
// What verify has checked whole comes in by the first, which trusts checksums;
// the rest (fragments, ICMP) comes in by the second, where gVisor checks them.
const (
	nicTrusted  = 1
	nicChecking = 2
)

// Defaults and fixed limits.
const (
	DefaultReceiveBuffer = 8 << 20 // bytes; the most that one TCP connection's window grows to
	DefaultSendBuffer    = 6 << 20 // bytes; the most that one TCP connection holds unacknowledged
	leastBuffer          = 4 << 10
	startBuffer          = 1 << 20
	icmpPerSecond        = 100 // ICMP errors a stack sends; echo replies are not counted
	icmpAtOnce           = 50
)

// Config says what a Stack is for.
type Config struct {
	Slice         string       // names the slice in logs
	MTU           int          // bytes of the longest packet on the slice; 1280 to overlay.MaxPacket
	Log           *slog.Logger // nil means slog.Default
	ReceiveBuffer int          // bytes a TCP connection may buffer inward; 0 means DefaultReceiveBuffer
	SendBuffer    int          // bytes a TCP connection may buffer outward; 0 means DefaultSendBuffer
}

func (c *Config) validate() error {
	switch {
	case c.Slice == "":
		return errors.New("netstack: no slice name")
	case c.MTU < header.IPv6MinimumMTU || c.MTU > overlay.MaxPacket:
		return fmt.Errorf("netstack: slice %s: mtu %d: want %d to %d", c.Slice, c.MTU, header.IPv6MinimumMTU, overlay.MaxPacket)
	case c.ReceiveBuffer != 0 && c.ReceiveBuffer < leastBuffer, c.SendBuffer != 0 && c.SendBuffer < leastBuffer:
		return fmt.Errorf("netstack: slice %s: buffers %d and %d: want 0 or at least %d", c.Slice, c.ReceiveBuffer, c.SendBuffer, leastBuffer)
	}
	return nil
}

// A Stack is the node's own host on one slice.
type Stack struct {
	log    *slog.Logger
	s      *stack.Stack
	in     *inlet
	out    *outlet
	panics atomic.Uint64
	closed atomic.Bool

	mu    sync.Mutex // serialises Set and Close
	addrs atomic.Pointer[[]netip.Addr]

	claims *claims
}

// New makes a Stack without addresses. gVisor starts its TCP workers at once:
// a Stack must be ended by Run or Close.
func New(cfg Config) (*Stack, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	log := cfg.Log
	if log == nil {
		log = slog.Default()
	}
	st := &Stack{log: log.With("slice", cfg.Slice), out: newOutlet(cfg.MTU)}
	st.addrs.Store(new([]netip.Addr))
	gvisor.SetTarget(foreignLog{log}) // there is one for the whole process
	st.s = stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocolWithOptions(quiet6())},
		TransportProtocols: []stack.TransportProtocolFactory{
			tcp.NewProtocolCUBIC, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
		},
		// Packets to our own addresses turn round inside the stack, and packets
		// from outside that claim to be from us are refused.
		HandleLocal: true,
	})
	if err := st.configure(cfg); err != nil {
		st.s.Destroy()
		return nil, err
	}
	return st, nil
}

// quiet6 is IPv6 without the talk of a link: no duplicate address detection, no
// router solicitations, no autoconfiguration. A slice has no links.
func quiet6() ipv6.Options {
	return ipv6.Options{NDPConfigs: ipv6.NDPConfigurations{HandleRAs: ipv6.HandlingRAsDisabled}}
}

func (st *Stack) configure(cfg Config) error {
	receive, send := cfg.ReceiveBuffer, cfg.SendBuffer
	if receive == 0 {
		receive = DefaultReceiveBuffer
	}
	if send == 0 {
		send = DefaultSendBuffer
	}
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	// RFC 6675, not RACK: after a timeout gVisor's RACK enters fast recovery again
	// with the first acknowledgement, counts all that was lost as still under way,
	// and sends nothing until the next timeout. It repairs two packets each 200 ms.
	recovery := tcpip.TCPRecovery(0)
	for _, o := range []tcpip.SettableTransportProtocolOption{
		&sack, &moderate, &recovery,
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: leastBuffer, Default: min(startBuffer, receive), Max: receive},
		&tcpip.TCPSendBufferSizeRangeOption{Min: leastBuffer, Default: min(startBuffer, send), Max: send},
	} {
		if err := st.s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("netstack: set %T: %w", o, fault(err))
		}
	}
	var err error
	if st.claims, err = newClaims(st.s); err != nil {
		return err
	}
	st.s.SetTransportProtocolHandler(tcp.ProtocolNumber, st.calledTCP)
	st.s.SetTransportProtocolHandler(udp.ProtocolNumber, st.calledUDP)
	st.s.SetICMPLimit(icmpPerSecond)
	st.s.SetICMPBurst(icmpAtOnce)
	trusted := &endpoint{mtu: uint32(cfg.MTU), out: st.out, caps: stack.CapabilityRXChecksumOffload}
	checking := &endpoint{mtu: uint32(cfg.MTU), out: st.out}
	for id, e := range map[tcpip.NICID]*endpoint{nicTrusted: trusted, nicChecking: checking} {
		if err := st.s.CreateNICWithOptions(id, e, stack.NICOptions{QDisc: st.out}); err != nil {
			return fmt.Errorf("netstack: make interface: %w", fault(err))
		}
	}
	st.s.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nicTrusted}, {Destination: header.IPv6EmptySubnet, NIC: nicTrusted},
		{Destination: header.IPv4EmptySubnet, NIC: nicChecking}, {Destination: header.IPv6EmptySubnet, NIC: nicChecking},
	})
	st.in = newInlet(st, trusted, checking)
	return nil
}

// Set states the addresses the stack answers on and dials from, IPv4 and IPv6;
// the first of a family is the default source. Connections of an address that
// goes are left to time out.
func (st *Stack) Set(addrs []netip.Addr) error {
	wanted := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return fmt.Errorf("netstack: address %v: not a plain unicast address", a)
		}
		if wanted[a] {
			return fmt.Errorf("netstack: address %v: given twice", a)
		}
		wanted[a] = true
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.closed.Load() {
		return fmt.Errorf("netstack: set addresses: %w", net.ErrClosed)
	}
	old, now := *st.addrs.Load(), slices.Clone(addrs)
	st.addrs.Store(&now)
	had := make(map[netip.Addr]bool, len(old))
	for _, a := range old {
		had[a] = true
	}
	for _, nic := range []tcpip.NICID{nicTrusted, nicChecking} {
		for _, a := range old {
			if !wanted[a] {
				if err := st.s.RemoveAddress(nic, address(a)); err != nil {
					return fmt.Errorf("netstack: remove address %v: %w", a, fault(err))
				}
			}
		}
		for _, a := range now {
			if !had[a] {
				pa := tcpip.ProtocolAddress{Protocol: family(a), AddressWithPrefix: address(a).WithPrefix()}
				if err := st.s.AddProtocolAddress(nic, pa, stack.AddressProperties{}); err != nil {
					return fmt.Errorf("netstack: add address %v: %w", a, fault(err))
				}
			}
		}
	}
	return nil
}

// Run serves until ctx ends, then closes the stack and returns nil.
func (st *Stack) Run(ctx context.Context) error {
	<-ctx.Done()
	return st.Close()
}

// Close ends every connection and listener and waits for all of gVisor's
// goroutines. Again, it does nothing.
func (st *Stack) Close() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.closed.Swap(true) {
		return nil
	}
	st.out.shut() // first: it frees senders that wait for room
	st.claims.close()
	st.s.Destroy()
	return nil
}

// Panics returns how many packets made gVisor panic. Each was dropped; the
// first was logged.
func (st *Stack) Panics() uint64 { return st.panics.Load() }

// Drops counts what the stack's own Link dropped.
func (st *Stack) Drops() *overlay.Drops { return &st.out.drops }

// address and family convert an address that is not zero.
func address(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }

func family(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}
