package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"slicewire/api"
	"slicewire/netstack/port"
)

// A mark is what the payload of every packet of the matrix begins with: the
// canary, the slice that it is of, its cell and its number there.
const markBytes = len(canary) + 1 + 2 + 4

func mark(slice int, cell uint16, number uint32) []byte {
	b := append(make([]byte, 0, markBytes+9), canary...)
	b = append(b, byte(slice))
	b = binary.BigEndian.AppendUint16(b, cell)
	return binary.BigEndian.AppendUint32(b, number)
}

// A tally is what came to one receiver of a slice.
type tally struct {
	slice int

	mu     sync.Mutex
	seen   map[uint16]map[uint32]bool // by cell: the numbers
	alien  int
	sample []byte
}

// take looks for marks; a kernel or a port may have joined several packets.
func (c *tally) take(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for rest := b; ; {
		i := bytes.Index(rest, []byte(canary))
		if i < 0 || len(rest) < i+markBytes {
			return
		}
		m := rest[i+len(canary):]
		if int(m[0]) != c.slice {
			c.alien++
			c.sample = bytes.Clone(b)
		} else {
			c.noteLocked(binary.BigEndian.Uint16(m[1:]), binary.BigEndian.Uint32(m[3:]))
		}
		rest = rest[i+markBytes:]
	}
}

func (c *tally) noteLocked(cell uint16, number uint32) {
	if c.seen == nil {
		c.seen = make(map[uint16]map[uint32]bool)
	}
	if c.seen[cell] == nil {
		c.seen[cell] = make(map[uint32]bool)
	}
	c.seen[cell][number] = true
}

func (c *tally) count(cell uint16) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.seen[cell])
}

// A seat is a workload on a slice: a namespace with a device, as `slicewire run`
// makes it, and raw sockets on that device which see and send whole packets.
type seat struct {
	tally
	node    *labNode
	medium  string
	addr    netip.Addr
	addr6   netip.Addr
	space   port.Namespace
	conn    *linkConn // the place lasts as long as it
	in, out int       // packet sockets
	to      unix.SockaddrLinklayer
	ended   atomic.Bool
	reader  sync.WaitGroup
}

// sit puts a new namespace on a slice by a medium.
func (x *grid) sit(slice int, n *labNode, name, medium string) *seat {
	x.t.Helper()
	s := &seat{tally: tally{slice: slice}, node: n, medium: medium, space: x.wired.namespace(), in: -1, out: -1}
	x.t.Cleanup(s.leave)
	if err := s.open(x.t, x.slices[slice], name); err != nil {
		x.t.Fatalf("%s of %s at %v: %v", name, x.slices[slice], n.id, err)
	}
	return s
}

func (s *seat) open(t *testing.T, slice, name string) (err error) {
	if s.conn, err = newClient(s.node.socket).workload(t.Context(), api.WorkloadRequest{Kind: api.WorkloadRun, Slice: slice, Name: name}); err != nil {
		return err
	}
	m, _, err := s.conn.receive()
	if err != nil || m.Offer == nil {
		return errors.Join(err, errors.New("no offer: "+m.Error))
	}
	s.addr, s.addr6 = m.Offer.Address, m.Offer.Address6
	var file *os.File
	err = s.space.Do(func() (err error) {
		make := port.OpenPacketFile
		if s.medium == mediumTUN {
			make = port.OpenTUNFile
		}
		if file, err = make(portConfig(*m.Offer, "sw0")); err != nil {
			return err
		}
		if err := quiet(); err != nil {
			return err
		}
		return s.listen()
	})
	if err != nil {
		return err
	}
	err = s.conn.send(linkMessage{Medium: s.medium}, file)
	file.Close()
	if err != nil {
		return err
	}
	if ready, _, err := s.conn.receive(); err != nil || !ready.Ready {
		return errors.Join(err, errors.New("not ready: "+ready.Error))
	}
	s.reader.Go(s.read)
	return nil
}

// quiet has the kernel of a namespace answer nothing by itself.
func quiet() error {
	for _, name := range []string{"ipv4/icmp_echo_ignore_all", "ipv6/icmp/echo_ignore_all"} {
		if err := os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0); err != nil {
			return err
		}
	}
	return nil
}

// listen opens the packet sockets on the workload's end of the device.
func (s *seat) listen() error {
	dev, err := net.InterfaceByName("sw0")
	if err != nil {
		return err
	}
	s.to = unix.SockaddrLinklayer{Ifindex: dev.Index}
	if far, err := net.InterfaceByName("sw0-b"); err == nil {
		s.to.Halen = uint8(copy(s.to.Addr[:], far.HardwareAddr))
	}
	if s.out, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	all := network(unix.ETH_P_ALL)
	if s.in, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	return errors.Join(
		unix.SetsockoptInt(s.in, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptTimeval(s.in, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}),
		unix.Bind(s.in, &unix.SockaddrLinklayer{Protocol: all, Ifindex: dev.Index}))
}

func network(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

func (s *seat) read() {
	b := make([]byte, 1<<16)
	for !s.ended.Load() {
		if n, _, err := unix.Recvfrom(s.in, b, 0); err == nil {
			s.take(b[:n])
		}
	}
}

// send hands a whole packet to the device.
func (s *seat) send(pkt []byte) error {
	to := s.to
	to.Protocol = network(unix.ETH_P_IP)
	if pkt[0]>>4 == 6 {
		to.Protocol = network(unix.ETH_P_IPV6)
	}
	return unix.Sendto(s.out, pkt, 0, &to)
}

func (s *seat) leave() {
	s.ended.Store(true)
	s.reader.Wait()
	for _, fd := range []int{s.in, s.out} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if s.conn != nil {
		s.conn.Close()
	}
}
