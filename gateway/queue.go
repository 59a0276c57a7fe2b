package gateway

const (
	// queuePackets and queueBytes bound what waits for one slice's device:
	// queueBytes counts the buffers that are pinned, not only the bytes in use.
	// 2 MiB are 32 full trains, some 1,400 packets: the burst of several TCP
	// windows, and a bound on the memory that a slice behind its work holds.
	queuePackets = 2048
	queueBytes   = 2 << 20
	// queueReserve further messages are taken when they belong to a handshake,
	// so that a flood of data does not also take away the session.
	queueReserve = 64
)

// A run is a sequence of datagrams that lie one behind the other in a buffer,
// each of size bytes but the last, which may be shorter. It holds one
// reference to the buffer.
type run struct {
	buf  *buffer
	from *endpoint
	off  int32
	end  int32
	size int32
	data bool // all are data messages
	tos  uint8
}

func (r *run) packets() int { return int((r.end - r.off + r.size - 1) / r.size) }

// A queue holds runs for one slice in order of arrival. It is bounded; when it
// is full, what arrives is refused: what already waits is older but is also
// what the session's replay window expects next.
type queue struct {
	runs    []run // a ring of len(runs) places, a power of two
	head    int
	n       int
	packets int
	bytes   int
}

// push takes the run, or reports false and leaves the reference with the caller.
func (q *queue) push(r run) bool {
	packets, bytes := queuePackets, queueBytes
	if !r.data {
		packets, bytes = packets+queueReserve, bytes+queueReserve*smallBytes
	}
	k := r.packets()
	if q.packets+k > packets || q.bytes+len(r.buf.b) > bytes {
		return false
	}
	if q.n == len(q.runs) {
		q.grow()
	}
	q.runs[(q.head+q.n)&(len(q.runs)-1)] = r
	q.n++
	q.packets += k
	q.bytes += len(r.buf.b)
	return true
}

func (q *queue) grow() {
	bigger := make([]run, max(64, 2*len(q.runs)))
	for i := range q.n {
		bigger[i] = q.runs[(q.head+i)&(len(q.runs)-1)]
	}
	q.runs, q.head = bigger, 0
}

// pop moves runs of together at most limit packets to the end of into. When
// the last one is only part of a longer run, both share the buffer.
func (q *queue) pop(into []run, limit int) []run {
	for limit > 0 && q.n > 0 {
		r := &q.runs[q.head]
		k := r.packets()
		if k > limit {
			part := *r
			part.end = part.off + int32(limit)*part.size
			part.buf.retain()
			r.off = part.end
			q.packets -= limit
			return append(into, part)
		}
		into = append(into, *r)
		q.packets -= k
		q.bytes -= len(r.buf.b)
		*r = run{}
		q.head = (q.head + 1) & (len(q.runs) - 1)
		q.n--
		limit -= k
	}
	return into
}
