package capture

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"slicewire/overlay"
)

// The parts of pcapng (draft-ietf-opsawg-pcapng) that a capture needs.
const (
	blockSection    = 0x0a0d0d0a
	blockInterface  = 1
	blockStatistics = 5
	blockPacket     = 6
	linkRaw         = 101 // LINKTYPE_RAW: packets start with their IP header

	optEnd       = 0
	optComment   = 1
	optIfName    = 2
	optTSResol   = 9
	optAppl      = 4
	optFlags     = 2
	optDropCount = 4
	optIfDrop    = 5
	flagInbound  = 1
	flagOutbound = 2
)

// writer writes pcapng. It keeps its buffer.
type writer struct {
	w     io.Writer
	snap  int
	ports map[string]uint32 // interfaces by name
	b     []byte
}

func newWriter(w io.Writer, snap int) (*writer, error) {
	x := &writer{w: w, snap: snap, ports: make(map[string]uint32)}
	x.begin(blockSection)
	x.b = binary.LittleEndian.AppendUint32(x.b, 0x1a2b3c4d)
	x.b = append(x.b, 1, 0, 0, 0)
	x.b = binary.LittleEndian.AppendUint64(x.b, 1<<64-1) // length: not said
	x.option(optAppl, []byte("slicewire"))
	return x, x.end()
}

func (x *writer) begin(kind uint32) {
	x.b = binary.LittleEndian.AppendUint32(x.b[:0], kind)
	x.b = append(x.b, 0, 0, 0, 0)
}

func (x *writer) pad() {
	for len(x.b)%4 != 0 {
		x.b = append(x.b, 0)
	}
}

func (x *writer) option(code uint16, value []byte) {
	x.b = binary.LittleEndian.AppendUint16(x.b, code)
	x.b = binary.LittleEndian.AppendUint16(x.b, uint16(len(value)))
	x.b = append(x.b, value...)
	x.pad()
}

// end closes the options and the block and writes it.
func (x *writer) end() error {
	x.option(optEnd, nil)
	n := uint32(len(x.b) + 4)
	x.b = binary.LittleEndian.AppendUint32(x.b, n)
	binary.LittleEndian.PutUint32(x.b[4:], n)
	_, err := x.w.Write(x.b)
	return err
}

// port returns the number of an interface, which is declared when it is first seen.
func (x *writer) port(name string) (uint32, error) {
	if id, ok := x.ports[name]; ok {
		return id, nil
	}
	id := uint32(len(x.ports))
	x.ports[name] = id
	x.begin(blockInterface)
	x.b = append(x.b, linkRaw, 0, 0, 0)
	x.b = binary.LittleEndian.AppendUint32(x.b, uint32(x.snap))
	x.option(optIfName, []byte(name))
	x.option(optTSResol, []byte{9})
	return id, x.end()
}

// packet writes one, of which data may be only the start; lost is how many were
// not captured since the one before.
func (x *writer) packet(s overlay.Sight, at time.Time, data []byte, length int, lost uint64) error {
	id, err := x.port(nameOf(s))
	if err != nil {
		return err
	}
	x.begin(blockPacket)
	x.b = binary.LittleEndian.AppendUint32(x.b, id)
	x.stamp(at)
	x.b = binary.LittleEndian.AppendUint32(x.b, uint32(len(data)))
	x.b = binary.LittleEndian.AppendUint32(x.b, uint32(length))
	x.b = append(x.b, data...)
	x.pad()
	switch {
	case s.Point == overlay.PointDrop:
		x.option(optComment, []byte("dropped: "+s.Drop.String()+pieces(s)))
	case s.Piece != 0:
		x.option(optComment, []byte("stands for several"+pieces(s)))
	}
	flags := byte(flagInbound)
	if s.Out {
		flags = flagOutbound
	}
	if s.Point != overlay.PointDrop {
		x.option(optFlags, []byte{flags, 0, 0, 0})
	}
	if lost > 0 {
		x.option(optDropCount, binary.LittleEndian.AppendUint64(nil, lost))
	}
	return x.end()
}

func pieces(s overlay.Sight) string {
	if s.Piece == 0 {
		return ""
	}
	return fmt.Sprintf(" (packets with %d bytes of data each)", s.Piece)
}

func (x *writer) stamp(at time.Time) {
	n := uint64(at.UnixNano())
	x.b = binary.LittleEndian.AppendUint32(x.b, uint32(n>>32))
	x.b = binary.LittleEndian.AppendUint32(x.b, uint32(n))
}

// statistics ends a capture with what was not captured, if there is an interface
// to say it of.
func (x *writer) statistics(at time.Time, lost uint64) error {
	if len(x.ports) == 0 {
		return nil
	}
	x.begin(blockStatistics)
	x.b = append(x.b, 0, 0, 0, 0)
	x.stamp(at)
	x.option(optIfDrop, binary.LittleEndian.AppendUint64(nil, lost))
	return x.end()
}

// nameOf names the interface of a sight: the slice and the port, and whether
// that is where it was lost.
func nameOf(s overlay.Sight) string {
	if s.Point == overlay.PointDrop {
		return s.Slice + " drop " + s.Port
	}
	if s.Point == overlay.PointTunnel {
		return s.Slice + " tunnel"
	}
	return s.Slice + " " + s.Port
}
