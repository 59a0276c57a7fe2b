package netstack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"slicewire/netstack/segment"
	"slicewire/overlay"
	"slicewire/overlay/overlaytest"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// superData is the data of the longest segment that gVisor hands over uncut.
const superData = superSegment - header.TCPTotalHeaderMaximumSize - 1

// outgoing is a TCP segment with size bytes of data as gVisor hands it over. The
// first two bytes of its data, if any, are id.
func outgoing(id uint16, size int) *stack.PacketBuffer {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * 7)
	}
	if size > 1 {
		binary.BigEndian.PutUint16(data, id)
	}
	head := seg(1000, 5, segment.ACK, nil, "")
	binary.BigEndian.PutUint16(head[2:], uint16(len(head)+size))
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: len(head), Payload: buffer.MakeWithData(data)})
	copy(pkt.TransportHeader().Push(header.TCPMinimumSize), head[header.IPv4MinimumSize:])
	ip := header.IPv4(pkt.NetworkHeader().Push(header.IPv4MinimumSize))
	copy(ip, head)
	ip.SetChecksum(0)
	ip.SetChecksum(^ip.CalculateChecksum())
	pkt.NetworkProtocolNumber, pkt.TransportProtocolNumber = header.IPv4ProtocolNumber, header.TCPProtocolNumber
	pkt.GSOOptions = stack.GSO{Type: stack.GSOTCPv4, NeedsCsum: true, MSS: testMTU - 40}
	return pkt
}

// put writes a segment of its own to o.
func put(o *outlet, id uint16, size int) tcpip.Error {
	pkt := outgoing(id, size)
	defer pkt.DecRef()
	return o.WritePacket(pkt)
}

func readRoom() ([][]byte, []int) {
	bufs := make([][]byte, overlay.BatchSize)
	for i := range bufs {
		bufs[i] = make([]byte, overlay.Headroom+overlay.MaxPacket)
	}
	return bufs, make([]int, len(bufs))
}

// ids reads once and returns the ids of what came.
func ids(t *testing.T, o *outlet) (got []uint16) {
	t.Helper()
	bufs, sizes := readRoom()
	n, err := o.read(bufs, sizes)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		got = append(got, binary.BigEndian.Uint16(bufs[i][overlay.Headroom+40:]))
	}
	return got
}

// A read that took all that waits would take what senders add meanwhile, too, and
// carry it past every bound behind.
func TestOneReadIsOneFullSegment(t *testing.T) {
	o := newOutlet(testMTU)
	defer o.shut()
	const waiting = outBytes / superSegment
	for i := range uint16(waiting) {
		if err := put(o, i, superData); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint16(waiting) {
		if got := ids(t, o); len(got) != 1 || got[0] != i {
			t.Fatalf("read %d: segments %d", i, got)
		}
	}
}

func TestSendersAreLetInInTheOrderTheyCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutlet(testMTU)
		defer o.shut()
		const fits, senders = outBytes / superSegment, 5
		for range fits {
			if err := put(o, 0, superData); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		line := func(id uint16, size int) {
			wg.Go(func() {
				if err := put(o, id, size); err != nil {
					t.Errorf("sender %d: %v", id, err)
				}
			})
			synctest.Wait() // it is in line
		}
		for id := range uint16(senders) {
			line(id+1, superData)
		}
		got := ids(t, o)
		line(senders+1, 100) // there would be room, and others were here before
		for len(got) < fits+senders+1 {
			got = append(got, ids(t, o)...)
		}
		wg.Wait()
		for i, id := range got[fits:] {
			if int(id) != i+1 {
				t.Fatalf("the order is %d", got)
			}
		}
	})
}

func TestWhoeverIsInNoSendersWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutlet(testMTU)
		var full int
		for ; o.bytes+superSegment <= outBytes; full++ {
			if err := put(o, 0, superData); err != nil {
				t.Fatal(err)
			}
		}
		results := make(chan tcpip.Error, 1)
		go func() { results <- put(o, 1, superData) }()
		synctest.Wait()
		acks := 0
		for put(o, 0, 0) == nil { // an acknowledgement does not wait
			acks++
		}
		if lost := o.drops.Get(overlay.DropQueueFull); acks < outReserve/40 || lost != 1 {
			t.Errorf("%d acknowledgements found room, %d were lost", acks, lost)
		}
		if _, ok := (<-results).(*tcpip.ErrNoBufferSpace); !ok || o.line.first != nil {
			t.Error("a sender waited longer than its patience")
		}
		go func() { results <- put(o, 1, superData) }()
		go func() { results <- put(o, 2, superData) }()
		synctest.Wait()
		o.shut()
		for range 2 {
			if _, ok := (<-results).(*tcpip.ErrClosedForSend); !ok {
				t.Error("a sender was not told of the end")
			}
		}
		if _, err := o.read(readRoom()); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

// whole is what BenchmarkLinkRead and the test of its allocations do: a segment of
// full size goes out and is read as it is.
func whole(t testing.TB) (step func(), check func()) {
	st := newStack(t, one4)
	t.Cleanup(func() { st.Close() })
	pkt := outgoing(7, superData)
	t.Cleanup(pkt.DecRef)
	bufs, sizes := readRoom()
	l := st.Link()
	n := 0
	step = func() {
		if err := st.out.WritePacket(pkt); err != nil {
			t.Fatal(err)
		}
		var err error
		if n, err = l.Read(bufs, sizes); err != nil || n != 1 {
			t.Fatalf("%d packets, %v", n, err)
		}
	}
	return step, func() {
		got := bufs[0][overlay.Headroom:][:sizes[0]]
		if m := overlay.MetaOf(bufs[0]); m.Piece != testMTU-40 || len(got) != 40+superData {
			t.Fatalf("%d bytes, %+v", len(got), m)
		}
		var cut segment.Cutter
		if !cut.Start(got, true, testMTU-40) {
			t.Fatal("it cannot be cut")
		}
		var data []byte
		for b := make([]byte, testMTU); cut.Busy(); {
			piece := b[:cut.Next(b)]
			if !overlaytest.ChecksumsOK(piece) {
				t.Fatal("a piece has a wrong checksum")
			}
			data = append(data, piece[40:]...)
		}
		if !bytes.Equal(data, got[40:]) || binary.BigEndian.Uint16(data) != 7 {
			t.Fatal("the pieces have other data")
		}
	}
}

func TestReadingAllocatesNothing(t *testing.T) {
	step, check := whole(t)
	if n := testing.AllocsPerRun(200, step); n != 0 {
		t.Errorf("%v allocations a segment", n)
	}
	check()
}

// BenchmarkLinkRead measures what an uncut segment of full size costs on its way
// out of the stack.
func BenchmarkLinkRead(b *testing.B) {
	step, check := whole(b)
	b.SetBytes(superData)
	b.ReportAllocs()
	for b.Loop() {
		step()
	}
	check()
}
