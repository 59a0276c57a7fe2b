package segment

import (
	"bytes"
	"encoding/binary"

	"slicewire/overlay"
)

// A Run is consecutive TCP segments of one flow in one batch, or datagrams of
// one flow and size, which a stack gets as one packet: its cost is per packet
// far more than per byte.
type Run struct {
	First int // index of the packet whose headers stand for all
	Total int // bytes of the joined packet

	shape Shape
	seq   uint32 // of the byte after the last
	size  int    // of the data of every packet but the last
	shut  bool   // takes no more

	member [overlay.BatchSize]uint8
	n      int
}

// flagsAlone are the flags of segments that are never joined to others.
const flagsAlone = SYN | RST | FIN | URG | CWR

// begin makes r the run that starts with pkt. Whether more may follow depends
// on its flags: RFC 9293's data segments only.
func (r *Run) begin(i int, pkt []byte, s Shape) {
	r.First, r.shape, r.Total, r.n = i, s, len(pkt), 1
	r.member[0] = uint8(i)
	r.size = len(pkt) - s.Head
	r.shut = true
	switch {
	case r.size == 0:
	case s.TCP:
		tcp := pkt[s.IP:]
		r.seq = binary.BigEndian.Uint32(tcp[4:]) + uint32(r.size)
		r.shut = tcp[13]&(flagsAlone|PSH) != 0 || tcp[13]&ACK == 0
	case s.Head != 0:
		r.shut = !joinable(pkt[s.IP:])
	}
}

// joinable reports whether a verified datagram, from its UDP header on, has a
// checksum and no bytes after its end.
func joinable(udp []byte) bool {
	return udp[6]|udp[7] != 0 && int(binary.BigEndian.Uint16(udp[4:])) == len(udp)
}

// same reports whether pkt belongs to the flow of the run that starts with head.
func (r *Run) same(head, pkt []byte, s Shape) bool {
	if s.TCP != r.shape.TCP || s.IP != r.shape.IP || !bytes.Equal(head[s.IP:s.IP+4], pkt[s.IP:s.IP+4]) {
		return false
	}
	if s.IP == ipv4Header {
		return bytes.Equal(head[12:20], pkt[12:20])
	}
	return bytes.Equal(head[8:40], pkt[8:40])
}

// join adds packet i to the run if its data follows and nothing in its headers
// but sequence number, PSH, lengths, identification and checksums differs. In
// all other cases the caller shuts the run and begins another.
func (r *Run) join(i int, head, pkt []byte, s Shape) bool {
	data := len(pkt) - s.Head
	if r.shut || s.Head != r.shape.Head || data == 0 || data > r.size || r.Total+data > overlay.MaxPacket {
		return false
	}
	if s.IP == ipv4Header {
		// TOS, flags, TTL: what tells of the path.
		if head[1] != pkt[1] || head[6] != pkt[6] || head[8] != pkt[8] {
			return false
		}
	} else if !bytes.Equal(head[:4], pkt[:4]) || head[7] != pkt[7] {
		return false
	}
	a, b := head[s.IP:s.Head], pkt[s.IP:s.Head]
	if !s.TCP {
		if !joinable(pkt[s.IP:]) {
			return false
		}
		r.add(i, data)
		r.shut = data < r.size
		return true
	}
	if binary.BigEndian.Uint32(b[4:]) != r.seq ||
		!bytes.Equal(a[8:13], b[8:13]) || // acknowledgement, data offset
		a[13] != b[13]&^PSH ||
		!bytes.Equal(a[14:16], b[14:16]) || // window
		!bytes.Equal(a[20:], b[20:]) { // options, timestamps among them
		return false
	}
	r.add(i, data)
	r.seq += uint32(data)
	r.shut = data < r.size || b[13]&PSH != 0
	return true
}

func (r *Run) add(i, data int) {
	r.member[r.n] = uint8(i)
	r.n++
	r.Total += data
}

// Len returns how many packets are in the run, Member which the k-th is.
func (r *Run) Len() int { return r.n }

// Member returns the index of the k-th packet.
func (r *Run) Member(k int) int { return int(r.member[k]) }

// Shape returns the shape of all packets of the run.
func (r *Run) Shape() Shape { return r.shape }

// Size returns the bytes of data of every packet but the last, which may have less.
func (r *Run) Size() int { return r.size }

// Head writes the headers of the joined packet to dst and returns their length:
// those of the first with the new lengths, PSH if the last has it, a right
// IPv4 checksum and, in place of the TCP or UDP checksum, the sum of the
// pseudo-header, as whoever completes a checksum expects it.
func (r *Run) Head(dst []byte, pkts [][]byte) int {
	n, ip := r.shape.Head, r.shape.IP
	dst = dst[:n]
	copy(dst, pkts[r.First])
	l4, proto, addrs := dst[ip:], uint16(protoUDP), dst[8:]
	if ip == ipv4Header {
		addrs = dst[12:20]
		binary.BigEndian.PutUint16(dst[2:], uint16(r.Total))
		dst[10], dst[11] = 0, 0
		binary.BigEndian.PutUint16(dst[10:], ^Sum(dst[:ip], 0))
	} else {
		addrs = addrs[:32]
		binary.BigEndian.PutUint16(dst[4:], uint16(r.Total-ipv6Header))
	}
	at := 6
	if r.shape.TCP {
		proto, at = protoTCP, 16
		l4[13] |= pkts[r.member[r.n-1]][ip+13] & PSH
	} else {
		binary.BigEndian.PutUint16(l4[4:], uint16(r.Total-ip))
	}
	sum := Combine(Sum(addrs, proto), uint16(r.Total-ip))
	binary.BigEndian.PutUint16(l4[at:], sum)
	return n
}

// Fill writes the joined packet to dst, which has r.Total bytes: the headers of
// the first packet with the new length, and the data of all. Checksums are left
// as they were; the packets were verified one by one.
func (r *Run) Fill(dst []byte, pkts [][]byte) {
	n := copy(dst, pkts[r.First])
	for _, i := range r.member[1:r.n] {
		n += copy(dst[n:], pkts[i][r.shape.Head:])
	}
	if r.n == 1 {
		return
	}
	if r.shape.IP == ipv4Header {
		binary.BigEndian.PutUint16(dst[2:], uint16(r.Total))
	} else {
		binary.BigEndian.PutUint16(dst[4:], uint16(r.Total-ipv6Header))
	}
	if !r.shape.TCP {
		binary.BigEndian.PutUint16(dst[r.shape.IP+4:], uint16(r.Total-r.shape.IP))
		return
	}
	last := pkts[r.member[r.n-1]]
	dst[r.shape.IP+13] |= last[r.shape.IP+13] & PSH
}

// Runs sorts the packets of one batch into runs, in the order of their first
// packets; packets of one flow keep their order.
type Runs struct {
	UDP bool // join datagrams too

	list [overlay.BatchSize]Run
	n    int
}

// Reset forgets all runs.
func (rs *Runs) Reset() { rs.n = 0 }

// All returns the runs, which stay as they are until Reset.
func (rs *Runs) All() []Run { return rs.list[:rs.n] }

// lookBack is how many runs back a flow is looked for. More flows than that in
// one batch gain nothing from being joined.
const lookBack = 8

// Add sorts packet i of pkts in. One with the zero Shape stays alone.
func (rs *Runs) Add(i int, pkts [][]byte, s Shape) {
	if s.TCP || rs.UDP && s.Head != 0 {
		for k := rs.n - 1; k >= max(0, rs.n-lookBack); k-- {
			r := &rs.list[k]
			if head := pkts[r.First]; r.same(head, pkts[i], s) {
				if r.join(i, head, pkts[i], s) {
					return
				}
				break // a later one of its flow must not overtake it
			}
		}
	}
	rs.list[rs.n].begin(i, pkts[i], s)
	rs.n++
}
