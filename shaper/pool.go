package shaper

// Sizes of buffers: an ordinary packet, a medium and the largest packet that
// stands for several. What is queued pins a buffer of the size that fits.
var bufferSizes = [...]int{2 << 10, 16 << 10, 64 << 10}

// keptBytes is how many bytes of unused buffers of each size are kept, the most
// recently used on top; the rest goes to the garbage collector.
const keptBytes = 1 << 20

// A pool has packets with their buffers. The queue's lock guards it.
type pool struct {
	free [len(bufferSizes)]*packet
	kept [len(bufferSizes)]int
}

// get returns a packet with room for size bytes, at most overlay.MaxPacket.
func (o *pool) get(size int) *packet {
	k := 0
	for bufferSizes[k] < size {
		k++
	}
	p := o.free[k]
	if p == nil {
		return &packet{mem: make([]byte, bufferSizes[k])}
	}
	o.free[k] = p.next
	o.kept[k]--
	p.next = nil
	return p
}

func (o *pool) put(p *packet) {
	k := 0
	for bufferSizes[k] < len(p.mem) {
		k++
	}
	if (o.kept[k]+1)*bufferSizes[k] > keptBytes {
		return
	}
	p.buf = nil
	p.next = o.free[k]
	o.free[k] = p
	o.kept[k]++
}
