package overlay

import "encoding/binary"

// Headroom is how many bytes stand free before every packet in every buffer
// that crosses a Link: packet i of a batch is bufs[i][Headroom:Headroom+n].
//
// It equals the header of a WireGuard transport message, so that a decrypted
// packet goes on to a TUN or to another port in the buffer it was decrypted
// in, and is larger than a virtio_net_hdr (10 or 12 bytes), which a TUN with
// vnet_hdr writes into the same place.
const Headroom = 16

// A Meta is what the headroom says of the packet behind it, on its way from a
// port to the tunnel or to another port.
type Meta struct {
	// Piece is 0 for an ordinary packet. Otherwise the packet stands for several
	// TCP segments or UDP datagrams with Piece bytes of data each, the last with
	// what is left: as a kernel with segmentation offload hands it over, its
	// transport checksum being only begun. Whoever passes it on to what does not
	// understand that cuts it; every header but lengths, sequence and
	// identification holds for all, so that one routing decision does, too.
	Piece uint16
	// Paced says that its writer waits for room and need not lose it.
	Paced bool
	// Flow is a secret hash of the packet's flow, so that nobody need compute
	// another; 0: nobody has.
	Flow uint32
}

// PutMeta writes m into the headroom of buf.
func PutMeta(buf []byte, m Meta) {
	v := uint64(m.Piece) | uint64(m.Flow)<<32
	if m.Paced {
		v |= 1 << 16
	}
	binary.LittleEndian.PutUint64(buf, v)
}

// PutFlow sets the Flow of what is in the headroom of buf.
func PutFlow(buf []byte, flow uint32) { binary.LittleEndian.PutUint32(buf[4:], flow) }

// MetaOf reads the headroom of buf.
func MetaOf(buf []byte) Meta {
	v := binary.LittleEndian.Uint64(buf)
	return Meta{Piece: uint16(v), Paced: v>>16&0xff == 1, Flow: uint32(v >> 32)}
}

// Packets returns how many packets one of size bytes stands for, of which head
// are headers.
func (m Meta) Packets(size, head int) int {
	if m.Piece == 0 || size <= head {
		return 1
	}
	return (size - head + int(m.Piece) - 1) / int(m.Piece)
}

// BatchSize is how many packets at most one Link.Read or Link.Write moves. A
// packet of 64 KiB that stands for several, and a train that UDP_GRO joined, are
// some 46 packets at the usual MTU: one of either is one batch, and is handed
// from goroutine to goroutine as one. wireguard-go keeps two times BatchSize
// buffers of 64 KiB for a slice's life, of which it touches what is used.
const BatchSize = 64

// MaxPacket is the largest packet, without headroom, that any Link carries:
// an IP datagram's length field has 16 bits.
const MaxPacket = 65535

// DefaultMTU is the inner MTU that fits a 1500-byte underlay: 1500 less 40
// (IPv6), 8 (UDP) and 32 (WireGuard), as wg-quick computes it.
const DefaultMTU = 1420
