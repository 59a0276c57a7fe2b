package main

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/proxy"

	"slicewire/overlay"
)

// A pathLab is a mesh of sites with several nodes each, all real daemons on
// loopback, with one slice and one echo service behind the last node of the
// last site.
type pathLab struct {
	t     *testing.T
	dir   string
	nodes map[string]*labNode // by site/node
	order []*labNode
	echo  *echoService
}

type labNode struct {
	*demoNode
	id      overlay.NodeID
	gateway bool
	proxy   string
}

// labSite is a site with so many nodes g1, g2 ..., the first of them gateways.
type labSite struct {
	name            string
	gateways, nodes int
}

const labSlice = "lab"

func newPathLab(t *testing.T, topology string, sites ...labSite) *pathLab {
	t.Helper()
	t.Setenv(asProgram, "1")
	dir, err := os.MkdirTemp("", "swlab") // short: sockets are made below it
	if err != nil {
		t.Fatal(err)
	}
	l := &pathLab{t: t, dir: dir, nodes: make(map[string]*labNode), echo: newEchoService(t)}
	t.Cleanup(l.close)
	var names []string
	for _, s := range sites {
		names = append(names, s.name)
	}
	l.write("manifests/lab.yaml", fmt.Sprintf(labManifests, strings.Join(names, ", "), topology))
	authority := stateDir(filepath.Join(dir, "ca"))
	if err := initAuthority(authority, "lab", time.Now()); err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, s := range sites {
		count += s.nodes
	}
	ports, err := freePorts(3 * count)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sites {
		for i := range s.nodes {
			at := 3 * len(l.order)
			l.addNode(authority, ports[at:at+3], overlay.NodeID{Site: s.name, Node: fmt.Sprintf("g%d", i+1)}, i, i < s.gateways)
		}
	}
	for i, n := range l.order {
		l.writeConfig(n, i == len(l.order)-1)
	}
	for _, n := range l.order {
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

const labManifests = `apiVersion: controller.kubeslice.io/v1alpha1
kind: SliceConfig
metadata: {name: lab, namespace: kubeslice-lab}
spec:
  sliceSubnet: 10.190.0.0/16
  sliceType: Application
  sliceGatewayProvider: {sliceGatewayType: Wireguard, sliceCaType: Local}
  sliceIpamType: Static
  clusters: [%s]
  standardQosProfileName: profile1
  namespaceIsolationProfile:
    applicationNamespaces: [{namespace: lab, clusters: ['*']}]
%s
---
apiVersion: controller.kubeslice.io/v1alpha1
kind: SliceQoSConfig
metadata: {name: profile1, namespace: kubeslice-lab}
spec: {queueType: HTB, priority: 1, tcType: BANDWIDTH_CONTROL, bandwidthCeilingKbps: 500000, bandwidthGuaranteedKbps: 20000, dscpClass: AF11}
---
apiVersion: networking.kubeslice.io/v1beta1
kind: ServiceExport
metadata: {name: echo, namespace: lab}
spec:
  slice: lab
  selector: {matchLabels: {app: echo}}
  ports:
  - {name: udp, containerPort: 7000, protocol: UDP}
  - {name: tcp, containerPort: 7001, protocol: TCP}
`

func (l *pathLab) write(name, text string) {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		l.t.Fatal(err)
	}
}

func (l *pathLab) addNode(authority stateDir, ports []string, id overlay.NodeID, index int, gateway bool) {
	l.t.Helper()
	base := filepath.Join(l.dir, id.Site+"-"+id.Node)
	n := &labNode{
		demoNode: &demoNode{site: id.String(), config: base + ".yaml", socket: base + ".sock", logFile: base + ".log", tunnel: ports[0], gossip: ports[1]},
		id:       id, gateway: gateway, proxy: ports[2],
	}
	state := stateDir(base)
	request, err := requestIdentity(state)
	if err != nil {
		l.t.Fatal(err)
	}
	s := signing{authority: authority, manifests: []string{filepath.Join(l.dir, "manifests")}, id: id, index: index, plain: !gateway, life: certLife}
	bundle, err := s.sign(request, time.Now())
	if err == nil {
		_, err = installBundle(state, bundle, time.Now())
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.nodes[id.String()] = n
	l.order = append(l.order, n)
}

func (l *pathLab) writeConfig(n *labNode, publish bool) {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nmesh: lab\nsite: %s\nnode: %s\nlisten: %s\n", n.id.Site, n.id.Node, n.tunnel)
	fmt.Fprintf(&b, "gossip:\n  listen: %s\n  join:\n", n.gossip)
	for _, o := range l.order {
		if o != n {
			fmt.Fprintf(&b, "  - %s\n", o.gossip)
		}
	}
	fmt.Fprintf(&b, "manifests: [manifests]\nstate: %s\nsocket: %s\nslices:\n  lab: {proxy: \"%s\"}\n", strings.TrimSuffix(n.config, ".yaml"), n.socket, n.proxy)
	if publish {
		fmt.Fprintf(&b, "publish:\n- {slice: lab, namespace: lab, service: echo, backend: echo-0, ports: [{name: udp, target: \"%s\"}, {name: tcp, target: \"%s\"}]}\n", l.echo.udp.LocalAddr(), l.echo.tcp.Addr())
	}
	l.write(filepath.Base(n.config), b.String())
}

func (l *pathLab) close() {
	for _, n := range l.order {
		n.interrupt()
	}
	for _, n := range l.order {
		if err := n.wait(); err != nil {
			l.t.Errorf("close: %v", err)
		}
	}
	l.echo.close()
	if l.t.Failed() {
		for _, n := range l.order {
			l.t.Logf("log of %v:\n%s", n.id, n.tail())
		}
	}
	if err := os.RemoveAll(l.dir); err != nil {
		l.t.Error(err)
	}
}

// until asks again and again until ok says yes.
func (l *pathLab) until(what string, ok func() bool) {
	l.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			l.t.Fatalf("waited %v in vain: %s", patience, what)
		case <-tick.C:
		}
	}
}

func (l *pathLab) node(name string) *labNode { return l.nodes[name] }

func (l *pathLab) status(n *labNode) (SliceStatus, bool) {
	s, err := newClient(n.socket).status(l.t.Context())
	if err != nil || len(s.Slices) != 1 {
		return SliceStatus{}, false
	}
	return s.Slices[0], true
}

// settled reports whether all nodes know each other and all links are up.
func (l *pathLab) settled() bool {
	for _, n := range l.order {
		s, ok := l.status(n)
		if !ok || len(s.Peers) == 0 {
			return false
		}
		for _, p := range s.Peers {
			if p.Link != nil && !p.Link.Up {
				return false
			}
		}
		if n != l.order[len(l.order)-1] && len(s.Services) == 0 {
			return false
		}
	}
	// Every node has all that it peers with.
	for _, n := range l.order {
		s, _ := l.status(n)
		want := 0
		for _, o := range l.order {
			if o != n && (o.id.Site == n.id.Site || o.gateway && n.gateway) {
				want++
			}
		}
		if len(s.Peers) != want {
			return false
		}
	}
	return true
}

// carrier returns the gateway of its own site through which a node reaches an
// address.
func (l *pathLab) carrier(n *labNode, addr netip.Addr) *labNode {
	s, _ := l.status(n)
	best, bits := "", -1
	for _, p := range s.Peers {
		for _, x := range p.Prefixes {
			if x.Contains(addr) && x.Bits() > bits {
				best, bits = p.Site+"/"+p.Node, x.Bits()
			}
		}
	}
	return l.nodes[best]
}

// echoAddr returns the address of the echo service.
func (l *pathLab) echoAddr(n *labNode) netip.Addr {
	s, _ := l.status(n)
	for _, x := range s.Services {
		for _, e := range x.Endpoints {
			return e.Address
		}
	}
	return netip.Addr{}
}

func (n *labNode) kill(t *testing.T) {
	t.Helper()
	if err := n.process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-n.done
	n.exited = nil // its exit code is the signal's
}

// arrivals are the times at which numbered packets came, and their numbers.
type arrivals struct {
	mu   sync.Mutex
	at   []time.Time
	seq  []uint64
	last uint64
}

func (a *arrivals) add(seq uint64) {
	a.mu.Lock()
	a.at, a.seq = append(a.at, time.Now()), append(a.seq, seq)
	a.last = max(a.last, seq)
	a.mu.Unlock()
}

func (a *arrivals) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.at)
}

// since returns the longest silence after a time, how many numbers are missing
// of those that arrived after it, and how many came late or twice.
func (a *arrivals) since(begin time.Time) (dark time.Duration, lost, odd int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.at, func(at time.Time) bool { return at.After(begin) })
	if i < 0 {
		return time.Since(begin), -1, 0
	}
	prev, highest := begin, uint64(0)
	if i > 0 {
		prev, highest = a.at[i-1], a.seq[i-1]
	}
	first, got := highest, 0
	for ; i < len(a.at); i++ {
		dark = max(dark, a.at[i].Sub(prev))
		prev = a.at[i]
		if a.seq[i] <= highest {
			odd++
			continue
		}
		highest = a.seq[i]
		got++
	}
	return max(dark, time.Since(prev)), int(highest-first) - got, odd
}

// echoService is what the slice's service leads to: over UDP it notes what
// comes and sends its own numbered packets back to whoever sent last, over TCP
// it returns what it gets.
type echoService struct {
	udp  net.PacketConn
	tcp  net.Listener
	came arrivals
	done chan struct{}
	wait sync.WaitGroup
}

// probeEvery is the pace of a probe stream, each way.
const probeEvery = 10 * time.Millisecond

func newEchoService(t *testing.T) *echoService {
	t.Helper()
	e := &echoService{done: make(chan struct{})}
	var err error
	if e.udp, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if e.tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	back := make(chan net.Addr, 1)
	e.wait.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := e.udp.ReadFrom(buf)
			if err != nil {
				return
			}
			if n == 8 {
				e.came.add(binary.BigEndian.Uint64(buf))
			}
			select {
			case back <- from:
			default:
			}
		}
	})
	e.wait.Go(func() {
		var to net.Addr
		pace(e.done, func(seq uint64) {
			select {
			case to = <-back:
			default:
			}
			if to != nil {
				_, _ = e.udp.WriteTo(binary.BigEndian.AppendUint64(nil, seq), to)
			}
		})
	})
	e.wait.Go(func() {
		for {
			c, err := e.tcp.Accept()
			if err != nil {
				return
			}
			e.wait.Go(func() {
				defer c.Close()
				go func() { <-e.done; c.Close() }()
				_, _ = io.Copy(c, c)
			})
		}
	})
	return e
}

func (e *echoService) close() {
	close(e.done)
	e.udp.Close()
	e.tcp.Close()
	e.wait.Wait()
}

// pace calls send with 1, 2, 3 ... every probeEvery until done is closed.
func pace(done <-chan struct{}, send func(uint64)) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for seq := uint64(1); ; seq++ {
		select {
		case <-done:
			return
		case <-tick.C:
			send(seq)
		}
	}
}

// A stream sends numbered packets from a node to the echo service, and notes
// what comes back.
type stream struct {
	came arrivals
	stop func()
}

// stream begins one through the node's SOCKS5 proxy.
func (l *pathLab) stream(n *labNode, to netip.AddrPort) *stream {
	l.t.Helper()
	control, relay := l.associate(n)
	conn, err := net.Dial("udp", relay)
	if err != nil {
		l.t.Fatal(err)
	}
	head := append([]byte{0, 0, 0, 1}, to.Addr().AsSlice()...)
	head = binary.BigEndian.AppendUint16(head, to.Port())
	s := &stream{}
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		pace(done, func(seq uint64) { _, _ = conn.Write(binary.BigEndian.AppendUint64(slices.Clip(head), seq)) })
	})
	wait.Go(func() {
		buf := make([]byte, 2048)
		for {
			k, err := conn.Read(buf)
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				continue
			}
			if k == len(head)+8 {
				s.came.add(binary.BigEndian.Uint64(buf[len(head):]))
			}
		}
	})
	s.stop = sync.OnceFunc(func() { close(done); conn.Close(); control.Close(); wait.Wait() })
	l.t.Cleanup(s.stop)
	return s
}

// associate asks a proxy for UDP; the association lives as long as control.
func (l *pathLab) associate(n *labNode) (control net.Conn, relay string) {
	l.t.Helper()
	c, err := net.Dial("tcp", n.proxy)
	if err != nil {
		l.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	answer := make([]byte, 12)
	_, err1 := c.Write([]byte{5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0})
	_, err2 := io.ReadFull(c, answer)
	if err := cmp.Or(err1, err2); err != nil || answer[3] != 0 {
		l.t.Fatalf("udp associate: %v, % x", err, answer)
	}
	_ = c.SetDeadline(time.Time{})
	return c, fmt.Sprintf("%v:%d", netip.AddrFrom4([4]byte(answer[6:10])), binary.BigEndian.Uint16(answer[10:]))
}

// dial opens a TCP connection to the echo service through a node's proxy.
func (l *pathLab) dial(n *labNode, to netip.AddrPort) net.Conn {
	l.t.Helper()
	d, err := proxy.SOCKS5("tcp", n.proxy, nil, proxy.Direct)
	if err != nil {
		l.t.Fatal(err)
	}
	c, err := d.Dial("tcp", to.String())
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}
