package overlay

// Headroom is how many bytes stand free before every packet in every buffer
// that crosses a Link: packet i of a batch is bufs[i][Headroom:Headroom+n].
//
// It equals the header of a WireGuard transport message, so that a decrypted
// packet goes on to a TUN or to another port in the buffer it was decrypted
// in, and is larger than a virtio_net_hdr (10 or 12 bytes), which a TUN with
// vnet_hdr writes into the same place.
const Headroom = 16

// BatchSize is how many packets at most one Link.Read or Link.Write moves.
// Larger batches buy little once system calls are shared by 32 packets, and
// wireguard-go keeps BatchSize buffers of 64 KiB per reader for life.
const BatchSize = 32

// MaxPacket is the largest packet, without headroom, that any Link carries:
// an IP datagram's length field has 16 bits.
const MaxPacket = 65535

// DefaultMTU is the inner MTU that fits a 1500-byte underlay: 1500 less 40
// (IPv6), 8 (UDP) and 32 (WireGuard), as wg-quick computes it.
const DefaultMTU = 1420
