package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"slicewire/api"
	"slicewire/bench/lab"
)

// A grid is four slices with the same subnet on three nodes, all real daemons,
// each node in a namespace of its own with nothing but the wire between them. On
// each slice each node has workloads of both media, the first node two of each,
// and the first two publish a service.
type grid struct {
	*pathLab
	wired  *wired
	slices []string
	seats  []map[seatID]*seat  // by slice
	sinks  []map[int]*sinkhole // by slice and node
	within map[*seat]*sinkhole
}

type seatID struct {
	node   int
	medium string
	number int
}

const gridSlice = `---
apiVersion: controller.kubeslice.io/v1alpha1
kind: SliceConfig
metadata: {name: %[1]s, namespace: kubeslice-lab%[2]s}
spec:
  sliceSubnet: 10.190.0.0/16
  sliceType: Application
  sliceGatewayProvider: {sliceGatewayType: Wireguard, sliceCaType: Local}
  sliceIpamType: Static
  clusters: [a, b, c]
  standardQosProfileName: profile1
  namespaceIsolationProfile:
    applicationNamespaces: [{namespace: %[1]s, clusters: ['*']}]
---
apiVersion: networking.kubeslice.io/v1beta1
kind: ServiceExport
metadata: {name: sink, namespace: %[1]s}
spec:
  slice: %[1]s
  selector: {matchLabels: {app: sink}}
  ports:
  - {name: udp, containerPort: 7000, protocol: UDP}
  - {name: tcp, containerPort: 7001, protocol: TCP}
`

// gridSinks is the port of the first slice's sink at its node, for UDP; that for
// TCP is the next.
const gridSinks = 9000

// newGrid is a running grid. The annotations are those of slices by name.
func newGrid(t *testing.T, names []string, annotations map[string]string) *grid {
	t.Helper()
	g := &grid{wired: newWired(t, lab.Link{}), slices: names, within: make(map[*seat]*sinkhole)}
	extra := labExtra{slices: names, routes: map[string]string{}}
	for i, name := range names {
		notes := ""
		if a := annotations[name]; a != "" {
			notes = ", annotations: {" + a + "}"
		}
		extra.manifests += fmt.Sprintf(gridSlice, name, notes)
		for _, id := range []string{"a/g1", "b/g1"} {
			if i == 0 {
				extra.routes[id] = "publish:\n"
			}
			extra.routes[id] += fmt.Sprintf("- {slice: %[1]s, namespace: %[1]s, service: sink, backend: sink-0, ports: [{name: udp, target: \"127.0.0.1:%[2]d\"}, {name: tcp, target: \"127.0.0.1:%[3]d\"}]}\n",
				name, gridSinks+2*i, gridSinks+2*i+1)
		}
	}
	g.pathLab = layMore(t, extra, g.wired, nil, labSite{name: "a", gateways: 1, nodes: 1}, labSite{name: "b", gateways: 1, nodes: 1}, labSite{name: "c", gateways: 1, nodes: 1})
	g.start()
	g.until("all links of all slices", g.linked)
	g.sinks = make([]map[int]*sinkhole, len(names))
	for i := range names {
		g.sinks[i] = map[int]*sinkhole{0: g.sink(i, 0), 1: g.sink(i, 1)}
	}
	g.seats = make([]map[seatID]*seat, len(names))
	for i := range names {
		g.seats[i] = make(map[seatID]*seat)
		for k, n := range g.order {
			for _, medium := range []string{mediumTUN, mediumPacket} {
				for number := range 2 {
					if number == 0 || k == 0 {
						g.seats[i][seatID{k, medium, number}] = g.sit(i, n, fmt.Sprint(medium, number), medium)
					}
				}
			}
		}
	}
	for id, s := range g.seats[0] {
		for i := range names {
			if o := g.seats[i][id]; o.addr != s.addr {
				t.Errorf("%v has %v on %s and %v on %s: want the same address", id, s.addr, names[0], o.addr, names[i])
			}
		}
	}
	return g
}

// linked reports whether all links are up on all slices, and the services known.
func (g *grid) linked() bool {
	for _, n := range g.order {
		for _, name := range g.slices {
			s, ok := g.statusOf(n, name)
			if !ok || len(s.Peers) != len(g.order)-1 || len(s.Services) != 1 || len(s.Services[0].Endpoints) != 2 {
				return false
			}
			if slices.ContainsFunc(s.Peers, func(p api.PeerStatus) bool { return p.Link == nil || !p.Link.Up }) {
				return false
			}
		}
	}
	return true
}

// published is the address of a slice's service at a node.
func (g *grid) published(slice, node int) netip.Addr {
	s, _ := g.statusOf(g.order[node], g.slices[slice])
	for _, x := range s.Services {
		for _, e := range x.Endpoints {
			if s.Block.Contains(e.Address) {
				return e.Address
			}
		}
	}
	g.t.Fatalf("%s has no service at %v", g.slices[slice], g.order[node].id)
	return netip.Addr{}
}

// A sinkhole takes datagrams and streams of marks and says nothing.
type sinkhole struct {
	tally
	udp  net.PacketConn
	tcp  net.Listener
	wait sync.WaitGroup
}

// sink is the service behind what a node publishes on a slice.
func (g *grid) sink(slice, node int) *sinkhole {
	at := gridSinks + 2*slice
	return g.drain(slice, func(f func() error) error { return g.wired.do(g.order[node], f) }, fmt.Sprintf("127.0.0.1:%d", at), fmt.Sprintf("127.0.0.1:%d", at+1))
}

// inside is the sinkhole at a workload's own sockets.
func (g *grid) inside(s *seat) *sinkhole {
	g.t.Helper()
	if g.within[s] == nil {
		g.within[s] = g.drain(s.slice, s.space.Do, netip.AddrPortFrom(s.addr, 7000).String(), netip.AddrPortFrom(s.addr, 7001).String())
	}
	return g.within[s]
}

// drain opens a sinkhole in a namespace, until the test ends.
func (g *grid) drain(slice int, do func(func() error) error, udp, tcp string) *sinkhole {
	g.t.Helper()
	s := &sinkhole{tally: tally{slice: slice}}
	err := do(func() (err error) {
		var err2 error
		s.udp, err = net.ListenPacket("udp", udp)
		s.tcp, err2 = net.Listen("tcp", tcp)
		return errors.Join(err, err2)
	})
	if err != nil {
		g.t.Fatal(err)
	}
	s.wait.Go(func() {
		b := make([]byte, 2048)
		for {
			n, _, err := s.udp.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			s.take(b[:max(n, 0)])
		}
	})
	s.wait.Go(func() {
		for {
			c, err := s.tcp.Accept()
			if err != nil {
				return
			}
			s.wait.Go(func() {
				defer c.Close()
				b := make([]byte, markBytes)
				for {
					if _, err := io.ReadFull(c, b); err != nil {
						return
					}
					s.take(b)
				}
			})
		}
	})
	g.t.Cleanup(func() { s.udp.Close(); s.tcp.Close(); s.wait.Wait() })
	return s
}

// bySOCKS opens a connection to an address of a slice through a node's proxy.
func (g *grid) bySOCKS(slice, node int, network string, to netip.AddrPort) (net.Conn, error) {
	n := g.order[node]
	if network == "tcp" {
		return g.dialBy(n, n.proxies(slice), to)
	}
	control, relay := g.associate(n, n.proxies(slice))
	c, err := here{g.pathLab, n}.Dial("udp", relay)
	if err != nil {
		control.Close()
		return nil, err
	}
	head := append([]byte{0, 0, 0, 1}, to.Addr().AsSlice()...)
	return &datagramConn{c, control, binary.BigEndian.AppendUint16(head, to.Port())}, nil
}

// A datagramConn sends by a SOCKS5 association.
type datagramConn struct {
	net.Conn
	control net.Conn
	head    []byte
}

func (c *datagramConn) Write(p []byte) (int, error) {
	_, err := c.Conn.Write(append(slices.Clip(c.head), p...))
	return len(p), err
}

func (c *datagramConn) Close() error { return errors.Join(c.Conn.Close(), c.control.Close()) }

// patientFor is how long a cell waits for packets that do not come.
const patientFor = 5 * time.Second

// gridWindow is how many packets of a cell are under way: what is lost is to be
// lost to a fault, not to a full queue. Those of the eight cells that are sent
// at once fit the kernel's smallest receive buffer of an underlay's socket,
// whose losses nobody counts.
const gridWindow = 16

// paced sends n numbers and waits after each window until they have arrived,
// as far as they do.
func paced(n int, send func(number int) error, arrived func() int) error {
	begin, sent := arrived(), 0
	for sent < n {
		for end := min(n, sent+gridWindow); sent < end; sent++ {
			if err := send(sent); err != nil {
				return err
			}
		}
		if !awaited(func() bool { return arrived()-begin >= sent }) {
			return nil // the count at the end tells
		}
	}
	return nil
}

func awaited(ok func() bool) bool {
	tick := time.NewTicker(100 * time.Microsecond)
	defer tick.Stop()
	for end := time.Now().Add(patientFor); !ok(); <-tick.C {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// aliens reports what came to a slice from another one.
func (g *grid) aliens() {
	g.t.Helper()
	check := func(where string, c *tally) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.alien != 0 {
			g.t.Errorf("%s: %d foreign packets: %x", where, c.alien, c.sample)
		}
	}
	for at, s := range g.within {
		check(fmt.Sprintf("the sockets of %v", at.addr), &s.tally)
	}
	for i := range g.slices {
		for id, s := range g.seats[i] {
			check(fmt.Sprintf("%s %s %v", g.slices[i], strings.Join([]string{g.order[id.node].id.String(), id.medium}, " "), s.addr), &s.tally)
		}
		for node, s := range g.sinks[i] {
			check(fmt.Sprintf("the service of %s at %v", g.slices[i], g.order[node].id), &s.tally)
		}
	}
}
