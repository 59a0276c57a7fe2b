package dnsd

import "encoding/binary"

// Header bits of RFC 1035 section 4.1.1 and RFC 4035 section 3.2.2.
const (
	flagQR = 1 << 15
	flagAA = 1 << 10
	flagTC = 1 << 9
	flagRD = 1 << 8
	flagCD = 1 << 4

	opcodeMask = 0xf << 11
)

const (
	// plainUDP is what every client takes, maxUDP what passes every path
	// unfragmented (DNS flag day 2020) and what we say that we take.
	plainUDP = 512
	maxUDP   = 1232
	maxTCP   = 65535

	optBytes = 11 // an OPT record without options
	doBit    = 1 << 15

	optionCookie  = 10 // RFC 7873
	optionPadding = 12 // RFC 7830
	optionEDE     = 15 // RFC 8914

	edeBytes = 6 // an extended error without a text
)

// quick answers the query that nearly all clients send: one question of class
// IN for A or AAAA with, at most, one well-formed OPT record of version 0. It
// appends to out, which must be empty, and allocates nothing if out has room.
// It returns false for every other message, which the general path answers;
// where both answer, they say the same. limit is the most bytes that the
// transport carries; UDP clients that say less get less.
func (s *snapshot) quick(out, msg []byte, limit int) ([]byte, bool) {
	if len(msg) < headerBytes {
		return nil, false
	}
	flags := binary.BigEndian.Uint16(msg[2:])
	additional := binary.BigEndian.Uint16(msg[10:])
	if flags&(flagQR|opcodeMask) != 0 || binary.BigEndian.Uint16(msg[4:]) != 1 ||
		binary.BigEndian.Uint32(msg[6:]) != 0 || additional > 1 {
		return nil, false
	}
	var space [maxName]byte
	name, end := readName(space[:0], msg, headerBytes)
	if end < 0 || end+4 > len(msg) {
		return nil, false
	}
	qtype, qclass := binary.BigEndian.Uint16(msg[end:]), binary.BigEndian.Uint16(msg[end+2:])
	if qclass != classIN || qtype != typeA && qtype != typeAAAA {
		return nil, false
	}
	end += 4
	size, do := plainUDP, false
	if additional == 1 {
		var ok bool
		if size, do, ok = readOPT(msg[end:]); !ok {
			return nil, false
		}
	} else if end != len(msg) {
		return nil, false
	}
	limit = replyLimit(limit, size)
	v := s.decide(name, qtype, qclass)
	if additional == 1 {
		limit -= optBytes
		if v.why() != edeNone {
			limit -= edeBytes
		}
	}
	out = append(out, msg[:end]...)
	reply := flagQR | flags&(flagRD|flagCD) | uint16(v.rcode)
	if v.authoritative() {
		reply |= flagAA
	}
	answers, authority := 0, 0
	switch {
	case v.addrs != nil:
		n := v.addrs.count()
		answers = max(0, min(n, (limit-len(out))/(len(v.addrs.packed)/len(v.addrs.addrs))))
		out = v.addrs.appendRotated(out, v.addrs.next(), answers)
		if answers < n {
			reply |= flagTC
		}
	case v.soa > 0:
		if owner := headerBytes + len(name) - v.soa; len(out)+12+len(s.soa) <= limit {
			out = appendRR(out, 0xc000|uint16(owner), typeSOA, s.ttl, s.soa)
			authority = 1
		} else {
			reply |= flagTC
		}
	}
	binary.BigEndian.PutUint16(out[2:], reply)
	binary.BigEndian.PutUint16(out[6:], uint16(answers))
	binary.BigEndian.PutUint16(out[8:], uint16(authority))
	binary.BigEndian.PutUint16(out[10:], additional)
	if additional == 1 {
		out = appendOPT(out, do, v.why())
	}
	return out, true
}

// replyLimit is how long a reply may be on a transport that carries limit bytes,
// to a client that takes size.
func replyLimit(limit, size int) int {
	if limit > maxUDP { // a stream
		return limit
	}
	return min(limit, max(size, plainUDP))
}

// readOPT reads a message's last record. It takes an OPT of version 0 with at
// most options that hold any bytes and that we ignore (RFC 6891 section 6.1);
// those with a grammar of their own are the general path's.
func readOPT(b []byte) (size int, do, ok bool) {
	if len(b) < optBytes || b[0] != 0 || binary.BigEndian.Uint16(b[1:]) != typeOPT ||
		b[5] != 0 || b[6] != 0 || int(binary.BigEndian.Uint16(b[9:])) != len(b)-optBytes {
		return 0, false, false
	}
	for o := b[optBytes:]; len(o) > 0; {
		if len(o) < 4 {
			return 0, false, false
		}
		code, n := binary.BigEndian.Uint16(o), 4+int(binary.BigEndian.Uint16(o[2:]))
		if code != optionCookie && code != optionPadding || n > len(o) {
			return 0, false, false
		}
		o = o[n:]
	}
	return int(binary.BigEndian.Uint16(b[3:])), binary.BigEndian.Uint16(b[7:])&doBit != 0, true
}

func appendOPT(out []byte, do bool, why uint16) []byte {
	var ttl uint32
	if do {
		ttl = doBit
	}
	out = append(out, 0)
	out = binary.BigEndian.AppendUint16(out, typeOPT)
	out = binary.BigEndian.AppendUint16(out, maxUDP)
	out = binary.BigEndian.AppendUint32(out, ttl)
	if why == edeNone {
		return binary.BigEndian.AppendUint16(out, 0)
	}
	out = binary.BigEndian.AppendUint16(out, edeBytes)
	out = binary.BigEndian.AppendUint16(out, optionEDE)
	out = binary.BigEndian.AppendUint16(out, 2)
	return binary.BigEndian.AppendUint16(out, why)
}
