package netstack

import (
	"bytes"
	"encoding/binary"

	"slicewire/overlay"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// A run is consecutive TCP segments of one flow in one batch, which the stack
// gets as one segment: its cost is per segment far more than per byte.
type run struct {
	first int // index of the packet whose headers stand for all
	shape shape
	seq   uint32 // of the byte after the last
	size  int    // of the data of every packet but the last
	total int    // bytes of the joined packet
	shut  bool   // takes no more

	member [overlay.BatchSize]uint8
	n      int
}

// flagsAlone are the flags of segments that are never joined to others.
const flagsAlone = tcpSYN | tcpRST | tcpFIN | tcpURG | tcpCWR

// begin makes r the run that starts with pkt. Whether more may follow depends
// on its flags: RFC 9293's data segments only.
func (r *run) begin(i int, pkt []byte, s shape) {
	r.first, r.shape, r.total, r.n = i, s, len(pkt), 1
	r.member[0] = uint8(i)
	r.size = len(pkt) - s.head
	r.shut = true
	if s.tcp && r.size > 0 {
		tcp := pkt[s.ip:]
		r.seq = binary.BigEndian.Uint32(tcp[4:]) + uint32(r.size)
		r.shut = tcp[13]&(flagsAlone|tcpPSH) != 0 || tcp[13]&tcpACK == 0
	}
}

// same reports whether pkt belongs to the flow of the run that starts with head.
func (r *run) same(head, pkt []byte, s shape) bool {
	if !s.tcp || !r.shape.tcp || s.ip != r.shape.ip || !bytes.Equal(head[s.ip:s.ip+4], pkt[s.ip:s.ip+4]) {
		return false
	}
	if s.ip == header.IPv4MinimumSize {
		return bytes.Equal(head[12:20], pkt[12:20])
	}
	return bytes.Equal(head[8:40], pkt[8:40])
}

// join adds packet i to the run if its data follows and nothing in its headers
// but sequence number, PSH, lengths, identification and checksums differs. In
// all other cases the caller shuts the run and begins another.
func (r *run) join(i int, head, pkt []byte, s shape) bool {
	data := len(pkt) - s.head
	if r.shut || s.head != r.shape.head || data == 0 || data > r.size || r.total+data > header.IPv4MaximumPayloadSize {
		return false
	}
	if s.ip == header.IPv4MinimumSize {
		// TOS, flags, TTL: what tells of the path.
		if head[1] != pkt[1] || head[6] != pkt[6] || head[8] != pkt[8] {
			return false
		}
	} else if !bytes.Equal(head[:4], pkt[:4]) || head[7] != pkt[7] {
		return false
	}
	a, b := head[s.ip:s.head], pkt[s.ip:s.head]
	if binary.BigEndian.Uint32(b[4:]) != r.seq ||
		!bytes.Equal(a[8:13], b[8:13]) || // acknowledgement, data offset
		a[13] != b[13]&^tcpPSH ||
		!bytes.Equal(a[14:16], b[14:16]) || // window
		!bytes.Equal(a[20:], b[20:]) { // options, timestamps among them
		return false
	}
	r.member[r.n] = uint8(i)
	r.n++
	r.seq += uint32(data)
	r.total += data
	r.shut = data < r.size || b[13]&tcpPSH != 0
	return true
}

// fill writes the joined packet to dst, which has r.total bytes: the headers of
// the first packet with the new length, and the data of all. Checksums are left
// as they were; the packets were verified one by one.
func (r *run) fill(dst []byte, pkts [][]byte) {
	n := copy(dst, pkts[r.first])
	for _, i := range r.member[1:r.n] {
		n += copy(dst[n:], pkts[i][r.shape.head:])
	}
	if r.n == 1 {
		return
	}
	if r.shape.ip == header.IPv4MinimumSize {
		binary.BigEndian.PutUint16(dst[2:], uint16(r.total))
	} else {
		binary.BigEndian.PutUint16(dst[4:], uint16(r.total-header.IPv6MinimumSize))
	}
	last := pkts[r.member[r.n-1]]
	dst[r.shape.ip+13] |= last[r.shape.ip+13] & tcpPSH
}

// runs sorts the packets of one batch into runs, in the order of their first
// packets; packets of one flow keep their order.
type runs struct {
	list [overlay.BatchSize]run
	n    int
}

// lookBack is how many runs back a flow is looked for. More flows than that in
// one batch gain nothing from being joined.
const lookBack = 8

// add sorts packet i of pkts in.
func (rs *runs) add(i int, pkts [][]byte, s shape) {
	if s.tcp {
		for k := rs.n - 1; k >= max(0, rs.n-lookBack); k-- {
			r := &rs.list[k]
			if head := pkts[r.first]; r.same(head, pkts[i], s) {
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
