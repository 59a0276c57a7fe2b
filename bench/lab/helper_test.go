package lab

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/pki"
)

// seedVariable chooses the seed of all stories, to see one again.
const seedVariable = "LAB_SEED"

func seedOf(t testing.TB) uint64 {
	seed := uint64(1)
	if s := os.Getenv(seedVariable); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d (%s)", seed, seedVariable)
	return seed
}

const slice = "water"

func nodeID(i int) overlay.NodeID {
	return overlay.NodeID{Site: fmt.Sprintf("site-%03d", i), Node: "gw"}
}

// prefixes are node i's on the slice.
func prefixes(i int) []netip.Prefix {
	return []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, byte(i >> 8), byte(i)}), 56),
	}
}

func subject(i int) pki.Subject {
	return pki.Subject{ID: nodeID(i), Gateway: true, Grants: []overlay.Grant{{Slice: slice, Prefixes: prefixes(i)}}}
}

// facts are what node i has to say, with a number that changes.
func facts(i, number int) []overlay.Record {
	endpoint := netip.AddrPortFrom(addr(i), uint16(10_000+number))
	web := &overlay.ServiceBody{
		Ports:     []overlay.ServicePort{{Name: "http", Port: 80, Protocol: overlay.TCP}},
		Endpoints: []overlay.Endpoint{{Name: "pod-a", Addr: prefixes(i)[0].Addr().Next(), Addr6: prefixes(i)[1].Addr().Next()}},
	}
	return []overlay.Record{
		{Key: overlay.Key{Kind: overlay.KindNode}, Node: &overlay.NodeBody{Endpoints: []netip.AddrPort{endpoint}}},
		{Key: overlay.Key{Kind: overlay.KindKey, Slice: slice}, WGKey: &overlay.KeyBody{PublicKey: sha256.Sum256([]byte(nodeID(i).String()))}},
		{Key: overlay.Key{Kind: overlay.KindPrefix, Slice: slice}, Prefix: &overlay.PrefixBody{Prefixes: prefixes(i)}},
		{Key: overlay.Key{Kind: overlay.KindService, Slice: slice, Name: "default/web"}, Service: web},
	}
}

// world is a mesh under test.
type world struct {
	*testing.T
	net   *Network
	mesh  *Mesh
	nodes []*Node
}

// story runs f in virtual time in a mesh of so many nodes, which are down.
func story(t *testing.T, nodes int, f func(w *world)) {
	seed := seedOf(t)
	synctest.Test(t, func(t *testing.T) {
		net := NewNetwork(seed)
		net.Set(Everywhere(Link{Delay: 10 * time.Millisecond, Jitter: 10 * time.Millisecond}))
		mesh, err := NewMesh(net, "lab")
		if err != nil {
			t.Fatal(err)
		}
		w := &world{T: t, net: net, mesh: mesh}
		for i := range nodes {
			w.add(i, facts(i, 0))
		}
		defer w.over()
		f(w)
	})
}

func (w *world) add(i int, tell []overlay.Record) *Node {
	w.Helper()
	n, err := w.mesh.Add(subject(i), addr(i))
	if err != nil {
		w.Fatal(err)
	}
	if err := n.Tell(tell); err != nil {
		w.Fatal(err)
	}
	w.nodes = append(w.nodes, n)
	return n
}

// over ends everything that runs.
func (w *world) over() {
	var wg sync.WaitGroup
	for _, n := range w.nodes {
		wg.Go(func() {
			if err := n.Kill(); err != nil {
				w.Errorf("%v: %v", n.ID, err)
			}
		})
	}
	wg.Wait()
	time.Sleep(time.Minute) // memberlist's prober outlives it by a probe
}

// start starts nodes that all look for the first three.
func (w *world) start(nodes ...*Node) {
	w.Helper()
	var seeds []netip.AddrPort
	for _, n := range w.nodes[:min(3, len(w.nodes))] {
		seeds = append(seeds, n.Addr)
	}
	for _, n := range nodes {
		if err := n.Start(seeds...); err != nil {
			w.Fatal(err)
		}
	}
}

func (w *world) kill(nodes ...*Node) {
	w.Helper()
	for _, n := range nodes {
		if err := n.Kill(); err != nil {
			w.Fatal(err)
		}
	}
}

// within waits until ok, for d at most, and returns how long it took.
func (w *world) within(d time.Duration, what string, ok func() bool) time.Duration {
	w.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > d {
			w.Fatalf("not within %v: %s", d, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	took := time.Since(began)
	w.Logf("%s after %v", what, took)
	return took
}

// equal reports whether the nodes hold the same, count records each.
func equal(nodes []*Node, count int) bool {
	var first []overlay.Record
	for i, n := range nodes {
		r := n.Gossip().Records()
		if len(r) != count {
			return false
		}
		if i == 0 {
			first = r
			continue
		}
		for j := range r {
			if r[j].Origin != first[j].Origin || r[j].Key != first[j].Key || r[j].Version != first[j].Version {
				return false
			}
		}
	}
	return true
}

// numbered reports whether all nodes know node i's number.
func numbered(nodes []*Node, i, number int) bool {
	for _, n := range nodes {
		if numberAt(n, i) != number {
			return false
		}
	}
	return true
}

// numberAt is node i's number as n knows it, -1 if it does not know it.
func numberAt(n *Node, i int) int {
	for _, r := range n.Gossip().RecordsOf(nodeID(i)) {
		if r.Node != nil {
			return int(r.Node.Endpoints[0].Port()) - 10_000
		}
	}
	return -1
}

// alive counts the members that n takes to be alive.
func alive(n *Node) (count int) {
	for _, m := range n.Gossip().Members() {
		if m.State != "gone" {
			count++
		}
	}
	return count
}

func addrs(nodes []*Node) (out []netip.Addr) {
	for _, n := range nodes {
		out = append(out, n.Addr.Addr())
	}
	return out
}
