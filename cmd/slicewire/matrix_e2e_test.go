package main

import (
	"flag"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"slicewire/overlay/overlaytest"
)

// cellSize is how many packets each cell of the matrix has; `make matrix` can
// have more.
var cellSize = flag.Int("matrix-cell", 1000, "packets of each cell of the isolation matrix")

// cellKinds are what is sent: whole packets with a mark in them.
var cellKinds = []struct {
	name  string
	v6    bool
	group netip.Addr // the destination, if it is not the other workload
	make  func(src, dst netip.Addr, number int, mark []byte) []byte
}{
	{name: "TCP", make: cellTCP},
	{name: "TCP6", v6: true, make: cellTCP},
	{name: "UDP", make: cellUDP},
	{name: "UDP6", v6: true, make: cellUDP},
	{name: "ICMP", make: cellEcho},
	{name: "ICMPv6", v6: true, make: cellEcho},
	{name: "SCTP", make: cellSCTP},
	{name: "GRE", make: cellGRE},
	{name: "GRE6", v6: true, make: cellGRE},
	{name: "fragments", make: cellFragment},
	{name: "fragments6", v6: true, make: cellFragment6},
	{name: "extension headers", v6: true, make: cellExtension},
	{name: "multicast", group: netip.MustParseAddr("239.1.1.1"), make: cellUDP},
	{name: "multicast6", v6: true, group: netip.MustParseAddr("ff05::1:1"), make: cellUDP},
}

func cellTCP(s, d netip.Addr, n int, mark []byte) []byte { // a reset asks for no answer
	return overlaytest.TCP(netip.AddrPortFrom(s, 1000), netip.AddrPortFrom(d, 2000), uint32(n), 1, overlaytest.RST, nil, mark)
}

func cellUDP(s, d netip.Addr, _ int, mark []byte) []byte {
	return overlaytest.UDP(netip.AddrPortFrom(s, 1000), netip.AddrPortFrom(d, 2000), mark)
}

func cellEcho(s, d netip.Addr, n int, mark []byte) []byte {
	return overlaytest.Echo(s, d, false, 1, uint16(n), mark)
}

func cellSCTP(s, d netip.Addr, _ int, mark []byte) []byte {
	return overlaytest.AppendIP(nil, s, d, 132, append(make([]byte, 28), mark...))
}

func cellGRE(s, d netip.Addr, _ int, mark []byte) []byte {
	return overlaytest.AppendIP(nil, s, d, 47, append(make([]byte, 4), mark...))
}

// cellFragment is the first or the second fragment of a datagram, each with a
// mark of its own.
func cellFragment(s, d netip.Addr, n int, mark []byte) []byte {
	p := overlaytest.AppendIP(nil, s, d, 99, append(make([]byte, 48-len(mark)), mark...))
	p[4], p[5] = byte(n>>9), byte(n>>1)
	p[6], p[7] = 0x20, 0
	if n%2 == 1 {
		p[6], p[7] = 0, 6
	}
	overlaytest.Fix(p)
	return p
}

func cellFragment6(s, d netip.Addr, n int, mark []byte) []byte {
	h := []byte{99, 0, 0, 1, 0, 0, byte(n >> 9), byte(n >> 1)}
	if n%2 == 1 {
		h[2], h[3] = 0, 48
	}
	return overlaytest.AppendIP(nil, s, d, 44, append(append(h, make([]byte, 48-len(mark))...), mark...))
}

func cellExtension(s, d netip.Addr, _ int, mark []byte) []byte {
	return overlaytest.AppendIP(nil, s, d, 60, append([]byte{99, 0, 1, 4, 0, 0, 0, 0}, mark...))
}

// A cellWay is from whom to whom a cell's packets go.
type cellWay struct{ from, to seatID }

// cellWays are those of one medium: within a node, and every ordered pair of
// nodes.
func cellWays(medium string, same bool) []cellWay {
	if same {
		return []cellWay{{seatID{0, medium, 0}, seatID{0, medium, 1}}}
	}
	var out []cellWay
	for from := range 3 {
		for to := range 3 {
			if from != to {
				out = append(out, cellWay{seatID{from, medium, 0}, seatID{to, medium, 0}})
			}
		}
	}
	return out
}

// Four slices with the same subnet, with all that the system has: what is sent
// on one arrives there and on no other, whatever it is and however it is sent,
// and nothing of it can be read on the underlay.
func TestIsolationMatrix(t *testing.T) {
	if !inOwnNamespaces(t) {
		return
	}
	names := []string{"red", "green", "blue", "white"}
	const asks = 3 // the slice that has multicast
	g := newGrid(t, names, map[string]string{names[asks]: `slicewire.io/multicast: "239.0.0.0/8, ff05::/16"`})
	begun := time.Now()
	cell, packets := uint16(0), 0
	var wait sync.WaitGroup
	for _, medium := range []string{mediumTUN, mediumPacket} {
		for _, same := range []bool{true, false} {
			ways := cellWays(medium, same)
			each := (*cellSize + len(ways) - 1) / len(ways)
			for k := range cellKinds {
				cell++
				for i := range names { // all at once, to the same addresses
					wait.Go(func() {
						for w, way := range ways {
							what := fmt.Sprintf("%s by %s from %v to %v on %s", cellKinds[k].name, medium, way.from, way.to, names[i])
							g.sendCell(what, k, i, cell, w*each, each, way, i == asks)
						}
					})
				}
				wait.Wait()
				packets += each * len(ways) * len(names)
			}
		}
	}
	t.Logf("%d packets of %d cells by devices in %v", packets, cell, time.Since(begun))
	packets += g.sockets(cell)
	t.Logf("%d packets in %v", packets, time.Since(begun))
	g.aliens()
	g.balance(names...)
}

// sendCell sends n packets of a cell one way, and for IPv6, where each slice has
// its own addresses, as many to the workload of the same place on every other
// slice.
func (g *grid) sendCell(what string, kind, slice int, cell uint16, first, n int, way cellWay, asks bool) {
	k := cellKinds[kind]
	from, to := g.seats[slice][way.from], g.seats[slice][way.to]
	addrs := func(s *seat) netip.Addr {
		if k.v6 {
			return s.addr6
		}
		return s.addr
	}
	put := func(dst netip.Addr, number int) error {
		return from.send(k.make(addrs(from), dst, number, mark(slice, cell, uint32(number))))
	}
	arrived := func() int { return to.count(cell) }
	before, dst := arrived(), addrs(to)
	if k.group.IsValid() {
		if dst = k.group; !asks {
			g.lost(what, slice, from, to, cell, n, func(i int) error { return put(dst, first+i) })
			return
		}
	}
	if err := paced(n, func(i int) error { return put(dst, first+i) }, arrived); err != nil {
		g.t.Errorf("%s: %v", what, err)
	}
	if got := arrived() - before; got*1000 < n*999 {
		g.t.Errorf("%s: %d of %d arrive", what, got, n)
	}
	if !k.v6 || k.group.IsValid() {
		return
	}
	for o := range g.slices {
		if o != slice {
			foreign := addrs(g.seats[o][way.to])
			g.lost(what+" to "+g.slices[o], slice, from, to, cell, n, func(i int) error { return put(foreign, first+i) })
		}
	}
}

// fence is the cell of the packets after which all that were sent before have
// been decided about.
const fence = 1 << 15

// lost sends n packets that must not arrive anywhere.
func (g *grid) lost(what string, slice int, from, to *seat, cell uint16, n int, send func(int) error) {
	before := to.count(cell)
	for i := 0; i < n; {
		for end := min(n, i+gridWindow); i < end; i++ {
			if err := send(i); err != nil {
				g.t.Errorf("%s: %v", what, err)
			}
		}
		mine := to.count(fence)
		number := uint32(time.Now().UnixNano())
		if err := from.send(cellUDP(from.addr, to.addr, 0, mark(slice, fence, number))); err != nil {
			g.t.Errorf("%s: %v", what, err)
		}
		if !awaited(func() bool { return to.count(fence) > mine }) {
			g.t.Errorf("%s: what comes after them does not arrive", what)
			return
		}
	}
	if got := to.count(cell) - before; got != 0 {
		g.t.Errorf("%s: %d of %d arrive", what, got, n)
	}
}

// sockets sends what SOCKS5 and published services carry, and returns how much:
// by the proxy to a workload's sockets, and from those to a published service.
func (g *grid) sockets(cell uint16) (packets int) {
	var wait sync.WaitGroup
	for _, same := range []bool{true, false} {
		for _, network := range []string{"tcp", "udp"} {
			port := map[string]uint16{"udp": 7000, "tcp": 7001}[network]
			for _, medium := range []string{mediumTUN, mediumPacket} {
				cell += 2
				way := cellWays(medium, same)[0]
				for i := range g.slices {
					from, to := g.seats[i][way.from], g.seats[i][way.to]
					inside, service := g.inside(to), netip.AddrPortFrom(g.published(i, way.to.node), port)
					wait.Go(func() {
						c, err := g.bySOCKS(i, way.from.node, network, netip.AddrPortFrom(to.addr, port))
						g.stream(fmt.Sprintf("%s by SOCKS5 to %v on %s", network, way.to, g.slices[i]), c, err, i, cell, &inside.tally)
					})
					wait.Go(func() {
						var c net.Conn
						err := from.space.Do(func() (err error) { c, err = net.DialTimeout(network, service.String(), patience); return err })
						g.stream(fmt.Sprintf("%s by %v to the service at %d on %s", network, way.from, way.to.node, g.slices[i]), c, err, i, cell+1, &g.sinks[i][way.to.node].tally)
					})
				}
				wait.Wait()
				packets += 2 * *cellSize * len(g.slices)
			}
		}
	}
	return packets
}

// stream sends a cell's marks by a connection.
func (g *grid) stream(what string, c net.Conn, err error, slice int, cell uint16, at *tally) {
	if err != nil {
		g.t.Errorf("%s: %v", what, err)
		return
	}
	defer c.Close()
	err = paced(*cellSize, func(i int) error {
		_, err := c.Write(mark(slice, cell, uint32(i)))
		return err
	}, func() int { return at.count(cell) })
	if got := at.count(cell); err != nil || got*1000 < *cellSize*999 {
		g.t.Errorf("%s: %d of %d arrive, %v", what, got, *cellSize, err)
	}
}
