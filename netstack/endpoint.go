package netstack

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// superSegment is the longest TCP segment that the stack hands over uncut. It
// leaves room for headers below the 65535 bytes an IP packet can say it has.
const superSegment = 65535

// endpoint is gVisor's view of one of our interfaces. Its packets go to the
// outlet, one by one, by way of the interface's queueing discipline.
type endpoint struct {
	mtu  uint32
	caps stack.LinkEndpointCapabilities
	out  *outlet
	up   atomic.Pointer[stack.NetworkDispatcher] // nil before and after the interface's life
}

var (
	_ stack.LinkEndpoint       = (*endpoint)(nil)
	_ stack.GSOEndpoint        = (*endpoint)(nil)
	_ stack.QueueingDiscipline = (*outlet)(nil)
)

// deliver hands an inbound packet to the stack, which may keep it.
func (e *endpoint) deliver(pkt *stack.PacketBuffer) {
	if d := e.up.Load(); d != nil {
		(*d).DeliverNetworkPacket(pkt.NetworkProtocolNumber, pkt)
	}
}

func (e *endpoint) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		e.up.Store(nil)
		return
	}
	e.up.Store(&d)
}

func (e *endpoint) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for i, pkt := range pkts.AsSlice() {
		if err := e.out.WritePacket(pkt); err != nil {
			return i, err
		}
	}
	return pkts.Len(), nil
}

func (e *endpoint) SupportedGSO() stack.SupportedGSO             { return stack.HostGSOSupported }
func (e *endpoint) GSOMaxSize() uint32                           { return superSegment }
func (e *endpoint) IsAttached() bool                             { return e.up.Load() != nil }
func (e *endpoint) MTU() uint32                                  { return e.mtu }
func (e *endpoint) Capabilities() stack.LinkEndpointCapabilities { return e.caps }
func (e *endpoint) MaxHeaderLength() uint16                      { return 0 }
func (e *endpoint) LinkAddress() tcpip.LinkAddress               { return "" }
func (e *endpoint) ARPHardwareType() header.ARPHardwareType      { return header.ARPHardwareNone }
func (e *endpoint) ParseHeader(*stack.PacketBuffer) bool         { return true }

// The rest has no meaning for an interface without a link layer.
func (e *endpoint) SetMTU(uint32)                    {}
func (e *endpoint) SetLinkAddress(tcpip.LinkAddress) {}
func (e *endpoint) AddHeader(*stack.PacketBuffer)    {}
func (e *endpoint) SetOnCloseAction(func())          {}
func (e *endpoint) Wait()                            {}
func (e *endpoint) Close()                           {}
