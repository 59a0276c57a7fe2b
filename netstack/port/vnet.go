package port

import (
	"encoding/binary"

	"slicewire/netstack/segment"
)

// vnetLen is the size of struct virtio_net_hdr, in the byte order of the host.
const vnetLen = 10

// Flags and kinds of a virtio_net_hdr.
const (
	vnetNeedsCsum = 1

	gsoNone  = 0
	gsoTCPv4 = 1
	gsoTCPv6 = 4
	gsoUDP   = 5 // UDP_L4, not the older UFO, which makes fragments
	gsoECN   = 0x80
)

// vnet is a virtio_net_hdr.
type vnet struct {
	flags, gso            uint8
	headLen, gsoSize      uint16
	csumStart, csumOffset uint16
}

func parseVnet(b []byte) vnet {
	_ = b[vnetLen-1]
	return vnet{
		flags: b[0], gso: b[1],
		headLen:   binary.NativeEndian.Uint16(b[2:]),
		gsoSize:   binary.NativeEndian.Uint16(b[4:]),
		csumStart: binary.NativeEndian.Uint16(b[6:]), csumOffset: binary.NativeEndian.Uint16(b[8:]),
	}
}

func (v vnet) put(b []byte) {
	_ = b[vnetLen-1]
	b[0], b[1] = v.flags, v.gso
	binary.NativeEndian.PutUint16(b[2:], v.headLen)
	binary.NativeEndian.PutUint16(b[4:], v.gsoSize)
	binary.NativeEndian.PutUint16(b[6:], v.csumStart)
	binary.NativeEndian.PutUint16(b[8:], v.csumOffset)
}

// vnetOf describes a packet of shape s that stands for several with size bytes of
// data each, behind link bytes of link header.
func vnetOf(s segment.Shape, v6 bool, size, link int) vnet {
	v := vnet{
		flags: vnetNeedsCsum, gso: gsoUDP,
		headLen: uint16(link + s.Head), gsoSize: uint16(size),
		csumStart: uint16(link + s.IP), csumOffset: 6,
	}
	if s.TCP {
		v.csumOffset, v.gso = 16, gsoTCPv4
		if v6 {
			v.gso = gsoTCPv6
		}
	}
	return v
}

// whole reports whether the packet behind v is to be handed on as one.
func (v vnet) whole() bool { return v.gso&^gsoECN == gsoNone }

// finish completes the checksum of a whole packet, which starts link bytes
// after the place that v counts from. It reports false for nonsense.
func (v vnet) finish(pkt []byte, link int) bool {
	if v.flags&vnetNeedsCsum == 0 {
		return true
	}
	return segment.Complete(pkt, int(v.csumStart)-link, int(v.csumOffset))
}

// cut begins to cut a packet that is not whole. Only kind and size are taken
// from v; where headers end is read from the packet itself.
func (v vnet) cut(c *segment.Cutter, pkt []byte) bool {
	if len(pkt) == 0 {
		return false
	}
	switch kind, version := v.gso&^gsoECN, pkt[0]>>4; {
	case kind == gsoTCPv4 && version == 4, kind == gsoTCPv6 && version == 6:
		return c.Start(pkt, true, int(v.gsoSize))
	case kind == gsoUDP:
		return c.Start(pkt, false, int(v.gsoSize))
	}
	return false
}
