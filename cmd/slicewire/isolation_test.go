package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"slicewire/gateway"
	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
	"slicewire/router"
	"slicewire/shaper"
)

// A workbench is a workload's port: what is sent goes in, what comes is counted
// by the slice that it says it is of.
type workbench struct {
	slice     string
	own, own6 netip.Addr
	in        chan [][]byte
	done      chan struct{}
	once      sync.Once

	mu     sync.Mutex
	got    map[string]int // by kind, of its own slice
	alien  int
	sample []byte
}

func (w *workbench) Read(bufs [][]byte, sizes []int) (int, error) {
	select {
	case pkts := <-w.in:
		for i, p := range pkts {
			sizes[i] = copy(bufs[i][overlay.Headroom:], p)
			overlay.PutMeta(bufs[i], overlay.Meta{})
		}
		return len(pkts), nil
	case <-w.done:
		return 0, net.ErrClosed
	}
}

// labelled ends every payload: the slice and the kind of the packet.
func labelled(slice, kind string) []byte { return []byte("<" + slice + ":" + kind + ">") }

func (w *workbench) Write(bufs [][]byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range bufs {
		at := bytes.LastIndexByte(b, '<')
		slice, kind, ok := bytes.Cut(b[at+1:len(b)-1], []byte(":"))
		if at < 0 || !ok || string(slice) != w.slice {
			w.alien++
			w.sample = bytes.Clone(b)
			continue
		}
		w.got[string(kind)]++
	}
	return nil
}

func (w *workbench) Close() error { w.once.Do(func() { close(w.done) }); return nil }

func (w *workbench) count(kind string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.got[kind]
}

const matrixNodes, matrixPorts = 3, 2

// A matrix is slices with the same addresses on three nodes, with two workloads
// of each slice on each node.
type matrix struct {
	t      *testing.T
	slices []string
	router map[string][]*router.Router // by slice and node
	queue  map[string][]*shaper.Queue
	work   map[string][][]*workbench // and port
	gates  []*gateway.Gateway

	state   map[string][]router.State // as the routers have it
	tunnels [][]gateway.Tunnel        // as the gates have them, a slice's each
}

func newMatrix(t *testing.T, names ...string) *matrix {
	t.Helper()
	m := &matrix{t: t, slices: names, router: map[string][]*router.Router{}, queue: map[string][]*shaper.Queue{}, work: map[string][][]*workbench{}, state: map[string][]router.State{}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var at []netip.AddrPort
	for range matrixNodes {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, conn.LocalAddr().(*net.UDPAddr).AddrPort())
		g, err := gateway.New(gateway.Config{Conn: conn, Log: slog.New(slog.DiscardHandler), OuterTOS: gateway.TOSECN})
		if err != nil {
			t.Fatal(err)
		}
		m.gates = append(m.gates, g)
	}
	block := func(i int) (netip.Prefix, netip.Prefix) {
		return netip.MustParsePrefix(fmt.Sprintf("10.1.%d.0/24", i)), netip.MustParsePrefix(fmt.Sprintf("fd00:1:0:%d::/64", i))
	}
	tunnels := make([][]gateway.Tunnel, matrixNodes)
	for _, slice := range names {
		var keys [matrixNodes][32]byte
		for i := range keys {
			var err error
			if keys[i], err = gateway.NewPrivateKey(); err != nil {
				t.Fatal(err)
			}
		}
		for i := range matrixNodes {
			q := shaper.New(shaper.NewUplink(0))
			r, err := router.New(router.Config{Slice: slice, MTU: 1420, Outlet: q})
			if err != nil {
				t.Fatal(err)
			}
			state := router.State{Ports: []router.Port{{Name: router.OutsideName, Role: router.Outside}}}
			tunnel := gateway.Tunnel{Slice: slice, PrivateKey: keys[i], Inside: r.Outside()}
			for j := range matrixNodes {
				if j == i {
					continue
				}
				b4, b6 := block(j)
				p := []netip.Prefix{b4, b6}
				state.Ports[0].Sources = append(state.Ports[0].Sources, p...)
				for _, x := range p {
					state.Routes = append(state.Routes, router.Route{Prefix: x, Port: router.OutsideName})
				}
				tunnel.Peers = append(tunnel.Peers, gateway.Peer{Name: fmt.Sprint(j), PublicKey: gateway.PublicKey(keys[j]), Endpoints: []netip.AddrPort{at[j]}, Prefixes: p})
			}
			var ports []*workbench
			for k := range matrixPorts {
				b4, b6 := block(i)
				w := &workbench{slice: slice, own: b4.Addr(), own6: b6.Addr(), in: make(chan [][]byte), done: make(chan struct{}), got: map[string]int{}}
				for range k + 2 {
					w.own, w.own6 = w.own.Next(), w.own6.Next()
				}
				p := hostPrefixes([]netip.Addr{w.own, w.own6})
				name := fmt.Sprint("work", k)
				state.Ports = append(state.Ports, router.Port{Name: name, Role: router.Inside, Link: w, Sources: p})
				state.Routes = append(state.Routes, router.Route{Prefix: p[0], Port: name}, router.Route{Prefix: p[1], Port: name})
				ports = append(ports, w)
			}
			if err := r.Set(state); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				if err := r.Run(ctx); err != nil {
					t.Error(err)
				}
			})
			m.state[slice] = append(m.state[slice], state)
			m.router[slice], m.queue[slice], m.work[slice] = append(m.router[slice], r), append(m.queue[slice], q), append(m.work[slice], ports)
			tunnels[i] = append(tunnels[i], tunnel)
		}
	}
	for i, g := range m.gates {
		wg.Go(func() {
			if err := g.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		if err := g.Set(tunnels[i]); err != nil {
			t.Fatal(err)
		}
	}
	m.tunnels = tunnels
	t.Cleanup(func() { cancel(); wg.Wait() })
	return m
}

// matrixKinds are what is sent: by name, a packet from one address to another.
var matrixKinds = []struct {
	name string
	v6   bool
	lost bool // nothing of it may arrive
	make func(src, dst netip.Addr, data []byte) []byte
}{
	{"tcp", false, false, func(s, d netip.Addr, data []byte) []byte {
		return overlaytest.TCP(netip.AddrPortFrom(s, 1), netip.AddrPortFrom(d, 2), 1, 1, overlaytest.ACK, nil, data)
	}},
	{"udp", true, false, func(s, d netip.Addr, data []byte) []byte {
		return overlaytest.UDP(netip.AddrPortFrom(s, 1), netip.AddrPortFrom(d, 2), data)
	}},
	{"icmp", false, false, func(s, d netip.Addr, data []byte) []byte { return overlaytest.Echo(s, d, false, 1, 1, data) }},
	{"icmpv6", true, false, func(s, d netip.Addr, data []byte) []byte { return overlaytest.Echo(s, d, false, 1, 1, data) }},
	{"sctp", false, false, func(s, d netip.Addr, data []byte) []byte {
		return overlaytest.AppendIP(nil, s, d, 132, append(make([]byte, 16), data...))
	}},
	{"gre", true, false, func(s, d netip.Addr, data []byte) []byte {
		return overlaytest.AppendIP(nil, s, d, 47, append(make([]byte, 8), data...))
	}},
	{"fragment", false, false, func(s, d netip.Addr, data []byte) []byte {
		p := overlaytest.AppendIP(nil, s, d, 17, append(make([]byte, 24), data...))
		p[6], p[7] = 0, 20
		overlaytest.Fix(p)
		return p
	}},
	{"extension", true, false, func(s, d netip.Addr, data []byte) []byte {
		return overlaytest.AppendIP(nil, s, d, 60, append([]byte{99, 0, 1, 4, 0, 0, 0, 0}, data...))
	}},
	{"multicast", false, true, func(s, _ netip.Addr, data []byte) []byte {
		return overlaytest.UDP(netip.AddrPortFrom(s, 1), netip.MustParseAddrPort("239.1.1.1:2"), data)
	}},
	{"multicast6", true, true, func(s, _ netip.Addr, data []byte) []byte {
		return overlaytest.UDP(netip.AddrPortFrom(s, 1), netip.MustParseAddrPort("[ff05::1]:2"), data)
	}},
}

func (w *workbench) addr(v6 bool) netip.Addr {
	if v6 {
		return w.own6
	}
	return w.own
}

// send hands count packets to a workload's port, in batches that no queue loses.
func (m *matrix) send(from *workbench, pkt []byte, count int, arrived func(sent int) bool) {
	m.t.Helper()
	for sent := 0; sent < count; {
		n := min(32, count-sent)
		batch := make([][]byte, n)
		for i := range batch {
			batch[i] = pkt
		}
		from.in <- batch
		sent += n
		for end := time.Now().Add(patience); !arrived(sent); time.Sleep(50 * time.Microsecond) {
			if time.Now().After(end) {
				return // the count at the end tells
			}
		}
	}
}

// drops is what all routers of a slice, and its queues, have dropped.
func (m *matrix) drops(slice string) map[string]uint64 {
	all := make(map[string]uint64)
	for i, r := range m.router[slice] {
		addDrops(all, r.Counters().Drops)
		addDrops(all, m.queue[slice][i].Drops().Snapshot())
	}
	for _, g := range m.gates {
		for _, s := range g.Status() {
			if s.Slice == slice {
				addDrops(all, s.Drops)
			}
		}
	}
	return all
}

func perCell(t *testing.T) int {
	if s := os.Getenv("SLICEWIRE_CELL"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return 64
}

func TestSlicesWithTheSameAddressesAreIsolated(t *testing.T) {
	m := newMatrix(t, "red", "green", "blue", "white")
	each := perCell(t)
	var wg sync.WaitGroup
	for _, slice := range m.slices {
		for i := range matrixNodes { // the first handshakes
			for j := range matrixNodes {
				if i != j {
					from, to := m.work[slice][i][0], m.work[slice][j][0]
					first := overlaytest.UDP(netip.AddrPortFrom(from.own, 1), netip.AddrPortFrom(to.own, 2), labelled(slice, "hello"))
					eventually(t, "a session", func() bool { from.in <- [][]byte{first}; return to.count("hello") >= 3 })
				}
			}
		}
	}
	before := make(map[string]map[string]uint64)
	for _, slice := range m.slices {
		before[slice] = m.drops(slice)
	}
	sent := make(map[string]int)
	for _, k := range matrixKinds {
		for i := range matrixNodes {
			for j := range matrixNodes {
				for _, slice := range m.slices { // all at once, to the same addresses
					from, to := m.work[slice][i][0], m.work[slice][j][1]
					pkt := k.make(from.addr(k.v6), to.addr(k.v6), labelled(slice, k.name))
					start := to.count(k.name)
					wg.Go(func() {
						m.send(from, pkt, each, func(sent int) bool { return k.lost || to.count(k.name)-start >= sent })
						if got := to.count(k.name) - start; !k.lost && got*1000 < each*999 {
							t.Errorf("%s from node %d to %d on %s: %d of %d arrive", k.name, i, j, slice, got, each)
						}
					})
				}
				wg.Wait()
				sent[k.name] += each
			}
		}
	}
	for _, slice := range m.slices {
		for i := range m.work[slice] {
			for k, w := range m.work[slice][i] {
				if w.alien != 0 {
					t.Errorf("node %d, workload %d of %s: %d foreign packets: %x", i, k, slice, w.alien, w.sample)
				}
			}
		}
		// Nothing is lost without a reason: here only multicast, each one counted.
		lost := m.drops(slice)
		for reason, n := range before[slice] {
			if lost[reason] -= n; lost[reason] == 0 {
				delete(lost, reason)
			}
		}
		if want := map[string]uint64{"multicast": uint64(sent["multicast"] + sent["multicast6"])}; !maps.Equal(lost, want) {
			t.Errorf("%s lost %v, want %v", slice, lost, want)
		}
	}
}

func TestSpoofedSourcesAreDroppedAndCounted(t *testing.T) {
	m := newMatrix(t, "red", "green")
	each := perCell(t)
	from := m.work["red"][0][0]
	want := uint64(0)
	for _, x := range []struct{ name, src, dst string }{
		{"another workload of the node", "10.1.0.3", "10.1.0.2"}, {"a workload of another node", "10.1.1.2", "10.1.0.3"},
		{"its neighbour toward another node", "10.1.0.3", "10.1.1.2"}, {"the node", "10.1.0.1", "10.1.0.3"}, {"nobody's address of the prefix", "10.1.0.77", "10.1.1.2"},
		{"no address of the slice", "192.0.2.1", "10.1.1.2"}, {"loopback", "127.0.0.1", "10.1.0.3"}, {"multicast", "224.0.0.1", "10.1.0.3"},
		{"none", "0.0.0.0", "10.1.0.3"}, {"IPv6: another workload", "fd00:1::3", "fd00:1:0:1::2"}, {"IPv6: of another node", "fd00:1:0:1::2", "fd00:1::3"},
		{"mapped", "::ffff:10.1.0.2", "fd00:1::3"}, {"compatible", "::10.1.0.2", "fd00:1::3"}, {"NAT64", "64:ff9b::a01:2", "fd00:1::3"}, {"link-local", "fe80::1", "fd00:1::3"},
	} {
		src, dst := netip.MustParseAddr(x.src), netip.MustParseAddr(x.dst)
		pkt := overlaytest.AppendIP(nil, src, dst, 99, labelled("red", "spoof"))
		want += uint64(each)
		m.send(from, pkt, each, func(int) bool { return true })
		eventually(t, x.name+" is counted", func() bool { return m.router["red"][0].Counters().Drops["source"] == want })
	}
	for _, slice := range m.slices {
		for i := range m.work[slice] {
			for _, w := range m.work[slice][i] {
				if n := w.count("spoof"); n != 0 || w.alien != 0 {
					t.Errorf("node %d of %s got %d spoofed packets, %d foreign ones", i, slice, n, w.alien)
				}
			}
		}
	}
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}
