package main

import (
	"net"
	"net/netip"
	"sync"
	"testing"
)

// A cable is the underlay on loopback, where everybody is. It lies between the
// tunnels' sockets of a lab: every node is advertised
// at a socket of the cable, which passes on what comes there and answers in the
// name of who is spoken to. So it always knows who sends to whom, and can be
// cut in one direction.
type cable struct {
	t     *testing.T
	wait  sync.WaitGroup
	mu    sync.Mutex
	names map[netip.AddrPort]string  // nodes' own sockets
	own   map[string]netip.AddrPort  // and the other way round
	front map[string]*net.UDPConn    // where a node is advertised
	stand map[[2]string]*net.UDPConn // from, to: where from is seen by to
	isCut map[[2]string]bool         // from, to
	all   []*net.UDPConn
}

func newCable(t *testing.T) *cable {
	return &cable{
		t: t, names: make(map[netip.AddrPort]string), own: make(map[string]netip.AddrPort),
		front: make(map[string]*net.UDPConn), stand: make(map[[2]string]*net.UDPConn), isCut: make(map[[2]string]bool),
	}
}

func (c *cable) listen() *net.UDPConn {
	s, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		c.t.Fatal(err)
	}
	// The wire itself loses nothing: a machine that is busy for a moment must not.
	if err := s.SetReadBuffer(4 << 20); err != nil {
		c.t.Fatal(err)
	}
	c.all = append(c.all, s)
	return s
}

func (c *cable) lay(nodes []*labNode) {
	ports, err := freePorts(3 * len(nodes))
	if err != nil {
		c.t.Fatal(err)
	}
	for i, n := range nodes {
		n.tunnel, n.gossip, n.proxy = ports[3*i], ports[3*i+1], ports[3*i+2]
		n.advertise = c.plug(n.id.String(), n.tunnel)
	}
}

func (c *cable) do(_ *labNode, f func() error) error { return f() }

// plug connects a node's socket and returns where it is to be advertised.
func (c *cable) plug(name, own string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := netip.MustParseAddrPort(own)
	s := c.listen()
	c.names[at], c.own[name], c.front[name] = name, at, s
	c.carry(s, func(from netip.AddrPort) (string, string) { return c.names[from], name })
	return s.LocalAddr().String()
}

// carry passes on what comes to a socket; who says from whom to whom that is.
func (c *cable) carry(s *net.UDPConn, who func(netip.AddrPort) (from, to string)) {
	c.wait.Go(func() {
		buf := make([]byte, 65536)
		for {
			n, at, err := s.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			c.mu.Lock()
			from, to := who(netip.AddrPortFrom(at.Addr().Unmap(), at.Port()))
			if from != "" && to != "" && !c.isCut[[2]string{from, to}] {
				_, _ = c.standLocked(from, to).WriteToUDPAddrPort(buf[:n], c.own[to])
			}
			c.mu.Unlock()
		}
	})
}

// standLocked returns the socket that is one node to another.
func (c *cable) standLocked(from, to string) *net.UDPConn {
	key := [2]string{from, to}
	s := c.stand[key]
	if s == nil {
		s = c.listen()
		c.stand[key] = s
		c.carry(s, func(at netip.AddrPort) (string, string) {
			if c.names[at] != to {
				return "", ""
			}
			return to, from
		})
	}
	return s
}

// cut breaks one direction of the tunnels; gossip goes on.
func (c *cable) cut(from, to *labNode) {
	c.mu.Lock()
	c.isCut[[2]string{from.id.String(), to.id.String()}] = true
	c.mu.Unlock()
}

func (c *cable) close() {
	c.mu.Lock()
	for _, s := range c.all {
		s.Close()
	}
	c.mu.Unlock()
	c.wait.Wait()
}
