package netstack

import (
	"fmt"
	"net/netip"
	"slices"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// An Oracle is gVisor's stack as a plain router with legs: what it does with a
// packet is what another router, which shares nothing with ours, does. It is
// for tests of the router, and not for concurrent use.
type Oracle struct {
	s    *stack.Stack
	legs []*leg
}

// A Leg is one of an Oracle's interfaces.
type Leg struct {
	Addrs  []netip.Addr   // of the router there
	Routes []netip.Prefix // what is behind it
}

// leg keeps what is sent by it.
type leg struct {
	endpoint
	got [][]byte
}

func (l *leg) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for _, pkt := range pkts.AsSlice() {
		v := pkt.ToView()
		l.got = append(l.got, slices.Clone(v.AsSlice()))
		v.Release()
	}
	return pkts.Len(), nil
}

// NewOracle makes one. Close it.
func NewOracle(mtu int, legs ...Leg) (*Oracle, error) {
	o := &Oracle{s: stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocolWithOptions(quiet6())},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})}
	// No error is held back.
	o.s.SetICMPLimit(1e12)
	o.s.SetICMPBurst(1 << 30)
	var routes []tcpip.Route
	for i, want := range legs {
		l := &leg{endpoint: endpoint{mtu: uint32(mtu)}}
		id := tcpip.NICID(i + 1)
		if err := o.s.CreateNIC(id, l); err != nil {
			o.s.Destroy()
			return nil, fmt.Errorf("oracle: leg %d: %w", i, fault(err))
		}
		o.legs = append(o.legs, l)
		for _, a := range want.Addrs {
			pa := tcpip.ProtocolAddress{Protocol: family(a), AddressWithPrefix: address(a).WithPrefix()}
			if err := o.s.AddProtocolAddress(id, pa, stack.AddressProperties{}); err != nil {
				o.s.Destroy()
				return nil, fmt.Errorf("oracle: address %v: %w", a, fault(err))
			}
		}
		for _, p := range want.Routes {
			sub := tcpip.AddressWithPrefix{Address: address(p.Addr()), PrefixLen: p.Bits()}.Subnet()
			routes = append(routes, tcpip.Route{Destination: sub, NIC: id})
		}
	}
	o.s.SetRouteTable(routes)
	for _, p := range []tcpip.NetworkProtocolNumber{ipv4.ProtocolNumber, ipv6.ProtocolNumber} {
		if err := o.s.SetForwardingDefaultAndAllNICs(p, true); err != nil {
			o.s.Destroy()
			return nil, fmt.Errorf("oracle: forwarding: %w", fault(err))
		}
	}
	return o, nil
}

// Route gives the router a packet by a leg, and returns what it sends by each.
// Some malformed packets make gVisor panic: that is said instead.
func (o *Oracle) Route(from int, pkt []byte) (out [][][]byte, panicked any) {
	defer func() { panicked = recover() }()
	if len(pkt) > 0 {
		pb := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(pkt)})
		pb.NetworkProtocolNumber = header.IPv4ProtocolNumber
		if pkt[0]>>4 == 6 {
			pb.NetworkProtocolNumber = header.IPv6ProtocolNumber
		}
		o.legs[from].deliver(pb)
		pb.DecRef()
	}
	out = make([][][]byte, len(o.legs))
	for i, l := range o.legs {
		out[i], l.got = l.got, nil
	}
	return out, nil
}

// Close ends the stack.
func (o *Oracle) Close() { o.s.Destroy() }
