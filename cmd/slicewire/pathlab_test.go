package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"slicewire/api"
	"slicewire/overlay"
	"slicewire/statedir"
)

// A pathLab is a mesh of sites with several nodes each, all real daemons, with
// one slice and one echo service behind the last node of the last site. What
// lies between them is its underlay.
type pathLab struct {
	t     *testing.T
	dir   string
	nodes map[string]*labNode // by site/node
	order []*labNode
	echo  *echoService
	hubs  []string
	sites []string
	under underlay

	labExtra
}

// labExtra is what a lab may have besides its sites.
type labExtra struct {
	siteRoutes string            // the annotation
	routes     map[string]string // by site/node: the node file's routes, or more of it
	manifests  string            // of more slices
	slices     []string          // their names
}

type labNode struct {
	*demoNode
	id        overlay.NodeID
	gateway   bool
	proxy     string
	advertise string // where others send to its tunnels
	under     underlay
}

// start runs the daemon where the node is.
// start starts the daemon where the node is. The thread that does is kept until
// the daemon has ended: Linux takes the end of that thread for its parent's, and
// threads that have been in namespaces come to an end.
func (n *labNode) start() error {
	started := make(chan error, 1)
	go func() {
		err := n.under.do(n, func() error {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if err := n.demoNode.start(); err != nil {
				return err
			}
			done := n.done
			started <- nil
			<-done
			return nil
		})
		if err != nil {
			started <- err
		}
	}()
	return <-started
}

// An underlay is where the nodes of a lab are, and what lies between them.
type underlay interface {
	lay(nodes []*labNode)                // gives all of them their sockets
	do(n *labNode, f func() error) error // calls f where a node is
	cut(from, to *labNode)               // one way
	close()
}

// labSite is a site with so many nodes g1, g2 ..., the first of them gateways.
type labSite struct {
	name            string
	gateways, nodes int
	joins           bool // later, by token: it is not certified and not started
}

// newPathLab is a running lab on loopback.
func newPathLab(t *testing.T, hubs []string, sites ...labSite) *pathLab {
	t.Helper()
	l := layLab(t, newCable(t), hubs, sites...)
	l.start()
	return l
}

// newRoutedLab is newPathLab with networks behind its sites.
func newRoutedLab(t *testing.T, siteRoutes string, routes map[string]string, hubs []string, sites ...labSite) *pathLab {
	t.Helper()
	l := layRouted(t, siteRoutes, routes, newCable(t), hubs, sites...)
	l.start()
	return l
}

// layLab prepares everything but the daemons.
func layLab(t *testing.T, under underlay, hubs []string, sites ...labSite) *pathLab {
	t.Helper()
	return layRouted(t, "", nil, under, hubs, sites...)
}

func layRouted(t *testing.T, siteRoutes string, routes map[string]string, under underlay, hubs []string, sites ...labSite) *pathLab {
	t.Helper()
	return layMore(t, labExtra{siteRoutes: siteRoutes, routes: routes}, under, hubs, sites...)
}

func layMore(t *testing.T, extra labExtra, under underlay, hubs []string, sites ...labSite) *pathLab {
	t.Helper()
	t.Setenv(asProgram, "1")
	dir, err := os.MkdirTemp("", "swlab") // short: sockets are made below it
	if err != nil {
		t.Fatal(err)
	}
	l := &pathLab{t: t, dir: dir, nodes: make(map[string]*labNode), hubs: hubs, under: under, labExtra: extra}
	t.Cleanup(l.close)
	for _, s := range sites {
		l.sites = append(l.sites, s.name)
		for i := range s.nodes {
			id := overlay.NodeID{Site: s.name, Node: fmt.Sprintf("g%d", i+1)}
			base := filepath.Join(dir, id.Site+"-"+id.Node)
			l.order = append(l.order, &labNode{
				demoNode: &demoNode{site: id.String(), config: base + ".yaml", socket: base + ".sock", logFile: base + ".log"},
				id:       id, gateway: i < s.gateways, under: under,
			})
			l.nodes[id.String()] = l.order[len(l.order)-1]
		}
	}
	under.lay(l.order)
	last := l.order[len(l.order)-1]
	l.echo = newEchoService(t, func(f func() error) error { return under.do(last, f) })
	topology := ""
	if len(hubs) > 0 {
		topology = fmt.Sprintf("  topology: {mode: HubAndSpoke, hubs: [%s]}", strings.Join(hubs, ", "))
	}
	l.write("manifests/lab.yaml", fmt.Sprintf(labManifests, l.siteRoutes, strings.Join(l.sites, ", "), topology))
	if l.manifests != "" {
		l.write("manifests/more.yaml", l.manifests)
	}
	authority := statedir.Dir(filepath.Join(dir, "ca"))
	if err := initAuthority(authority, "lab", time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, s := range sites {
		for i := range s.nodes {
			if n := l.node(fmt.Sprintf("%s/g%d", s.name, i+1)); !s.joins {
				l.certify(authority, n, i)
			}
		}
	}
	for _, n := range l.order {
		if n == last {
			l.writeConfig(n, "echo")
		} else {
			l.writeConfig(n)
		}
	}
	return l
}

// start starts the daemons of all who are certified.
func (l *pathLab) start() {
	l.t.Helper()
	for _, n := range l.order {
		if _, err := os.Stat(filepath.Join(n.state(), statedir.FileNodeCert)); err != nil {
			continue
		}
		if err := n.start(); err != nil {
			l.t.Fatal(err)
		}
	}
}

const labManifests = `apiVersion: controller.kubeslice.io/v1alpha1
kind: SliceConfig
metadata: {name: lab, namespace: kubeslice-lab, annotations: {slicewire.io/site-routes: "%s"}}
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
metadata: {name: echo, namespace: lab, annotations: {slicewire.io/service-type: ClusterSetIP}}
spec:
  slice: lab
  selector: {matchLabels: {app: echo}}
  ports:
  - {name: udp, containerPort: 7000, protocol: UDP}
  - {name: tcp, containerPort: 7001, protocol: TCP}
---
apiVersion: networking.kubeslice.io/v1beta1
kind: ServiceExport
metadata: {name: spare, namespace: lab}
spec:
  slice: lab
  selector: {matchLabels: {app: spare}}
  ports:
  - {name: udp, containerPort: 7000, protocol: UDP}
`

func (l *pathLab) close() {
	for _, n := range l.order {
		n.interrupt()
	}
	for _, n := range l.order {
		l.ended(n)
	}
	if l.echo != nil {
		l.echo.close()
	}
	l.under.close()
	if l.t.Failed() {
		for _, n := range l.order {
			l.t.Logf("log of %v:\n%s", n.id, n.tail())
		}
	}
	if err := os.RemoveAll(l.dir); err != nil {
		l.t.Error(err)
	}
}

// ended waits for the end of a node that was told to. How long that may take is
// not what these tests are about.
func (l *pathLab) ended(n *labNode) {
	l.t.Helper()
	if n.exited == nil {
		return // killed
	}
	select {
	case err := <-n.exited:
		if err != nil {
			l.t.Errorf("the daemon of %v: %v", n.id, err)
		}
	case <-time.After(patience):
		l.t.Errorf("the daemon of %v does not end", n.id)
		_ = n.process.Process.Kill()
	}
	n.exited = nil
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

func (l *pathLab) status(n *labNode) (api.SliceStatus, bool) {
	return l.statusOf(n, "lab")
}

// statusOf is the status of one of a node's slices.
func (l *pathLab) statusOf(n *labNode, slice string) (api.SliceStatus, bool) {
	s, err := newClient(n.socket).status(l.t.Context())
	if err != nil {
		return api.SliceStatus{}, false
	}
	i := slices.IndexFunc(s.Slices, func(x api.SliceStatus) bool { return x.Name == slice })
	if i < 0 {
		return api.SliceStatus{}, false
	}
	return s.Slices[i], true
}

// running lists the nodes whose daemons were started.
func (l *pathLab) running() (out []*labNode) {
	for _, n := range l.order {
		if n.process != nil {
			out = append(out, n)
		}
	}
	return out
}

// settled reports whether all running nodes know each other and all links are up.
func (l *pathLab) settled() bool {
	for _, n := range l.running() {
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
	for _, n := range l.running() {
		s, _ := l.status(n)
		want := 0
		for _, o := range l.running() {
			adjacent := len(l.hubs) == 0 || slices.Contains(l.hubs, o.id.Site) || slices.Contains(l.hubs, n.id.Site)
			if o != n && (o.id.Site == n.id.Site || o.gateway && n.gateway && adjacent) {
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

// carried returns how many bytes a node has exchanged with each of its peers.
func (l *pathLab) carried(n *labNode) map[string]uint64 {
	out := make(map[string]uint64)
	s, _ := l.status(n)
	for _, p := range s.Peers {
		out[p.Site+"/"+p.Node] = p.RxBytes + p.TxBytes
	}
	return out
}

// echoAddr returns the address of the echo service.
func (l *pathLab) echoAddr(n *labNode) netip.Addr { return l.serviceAddr(n, "echo") }

// serviceAddr returns the address of a service as a node knows it; the zero one
// if it does not.
func (l *pathLab) serviceAddr(n *labNode, name string) netip.Addr {
	s, _ := l.status(n)
	for _, x := range s.Services {
		if x.Name != name {
			continue
		}
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
