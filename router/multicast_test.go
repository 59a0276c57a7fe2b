package router

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

// newCaster is a rig whose slice has some groups, with two other nodes.
func newCaster(t testing.TB) *rig {
	g := newRig(t)
	g.state.Self4, g.state.Self6 = netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00:1::1")
	g.state.Multicast = Multicast{
		Groups: prefixes("239.0.0.0/8", "224.0.0.251/32", "255.255.255.255/32", "ff02::/16", "ff05::/16", "ff01::/16"),
		Nodes: []Member{
			{netip.MustParseAddr("10.1.16.1"), prefixes("10.1.16.0/24", "fd00:1:0:100::/64")},
			{netip.MustParseAddr("10.1.17.1"), prefixes("10.1.17.0/24", "fd00:1:0:101::/64")},
		},
	}
	if err := g.Set(g.state); err != nil {
		t.Fatal(err)
	}
	return g
}

func groupUDP(src, dst string, ttl byte, size int) []byte {
	p := overlaytest.UDP(netip.AddrPortFrom(netip.MustParseAddr(src), 5), netip.AddrPortFrom(netip.MustParseAddr(dst), 6), make([]byte, size))
	if p[0]>>4 == 4 {
		p[8] = ttl
	} else {
		p[7] = ttl
	}
	overlaytest.Fix(p)
	return p
}

// places lists where copies went, the sorted names of ports.
func places(got map[string][][]byte) string {
	var out []string
	for name, pkts := range got {
		for range pkts {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestWhatIsSentToAGroup(t *testing.T) {
	for _, c := range []struct {
		name, from string
		pkt        []byte
		want, drop string
	}{
		{"goes to all workloads and nodes", "a", groupUDP("10.1.0.2", "239.1.1.1", 8, 10), "b outside outside", ""},
		{"goes there as IPv6", "a", groupUDP("fd00:1::2", "ff05::1:1", 8, 10), "b outside outside", ""},
		{"stays on the node with a TTL of one", "a", groupUDP("10.1.0.2", "239.1.1.1", 1, 10), "b", ""},
		{"stays there if the group is a link's", "a", groupUDP("10.1.0.2", "224.0.0.251", 255, 10), "b", ""},
		{"stays there if the group is a link's, as IPv6", "b", groupUDP("fd00:1::3", "ff02::fb", 255, 10), "a", ""},
		{"stays there as a broadcast", "a", groupUDP("10.1.0.2", "255.255.255.255", 64, 10), "b", ""},
		{"leaves no machine if the group is a machine's", "a", groupUDP("fd00:1::2", "ff01::1", 64, 10), "", "multicast"},
		{"is dropped if the slice has not that group", "a", groupUDP("10.1.0.2", "224.0.1.1", 64, 10), "", "multicast"},
		{"is dropped from a neighbour's address", "a", groupUDP("10.1.0.3", "239.1.1.1", 64, 10), "", "source"},
		{"is dropped from outside if no node sent it", OutsideName, groupUDP("10.1.16.2", "239.1.1.1", 64, 10), "", "multicast"},
		{"is dropped if nothing wraps it", "a", groupUDP("10.1.0.2", "239.1.1.1", 64, testMTU-20-8), "", "too-big"},
		{"fills a packet that is wrapped", "a", groupUDP("10.1.0.2", "239.1.1.1", 64, testMTU-20-20-8), "b outside outside", ""},
		{"comes as it was to the link", "a", groupUDP("10.1.0.2", "224.0.0.251", 1, testMTU-20-8), "b", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newCaster(t)
			g.put(c.from, bytes.Clone(c.pkt))
			got := g.got()
			if places(got) != c.want {
				t.Errorf("went to %q, want %q", places(got), c.want)
			}
			want := map[string]uint64{}
			if c.drop != "" {
				want[c.drop] = 1
			}
			if d := g.Counters().Drops; !maps.Equal(d, want) {
				t.Errorf("drops %v, want %v", d, want)
			}
			for _, name := range []string{"a", "b"} {
				if p := got[name]; p != nil && !bytes.Equal(p[0], c.pkt) {
					t.Errorf("%s got %x, want it as it was sent: %x", name, p[0], c.pkt)
				}
			}
			in, out := uint64(0), uint64(0)
			for _, p := range g.Counters().Ports {
				in, out = in+p.InPackets, out+p.OutPackets
			}
			if made := g.Counters().Copies; c.drop == "" && in+made != out {
				t.Errorf("%d came, %d made, %d went", in, made, out)
			}
		})
	}
}

// What one node wraps another one unwraps, and hands to its workloads with a TTL
// of one less; it believes a node only its own addresses.
func TestACopyCrossesToAnotherNode(t *testing.T) {
	here, there := newCaster(t), newCaster(t)
	there.state.Self4 = netip.MustParseAddr("10.1.16.1")
	there.state.Ports[0].Sources, there.state.Ports[1].Sources = prefixes("10.1.16.2/32", "fd00:1:0:100::2/128"), prefixes("10.1.16.3/32", "fd00:1:0:100::3/128")
	there.state.Ports[3].Sources = prefixes("10.1.0.0/24", "fd00:1::/64", "10.1.17.0/24", "fd00:1:0:101::/64")
	there.state.Multicast.Nodes[0] = Member{netip.MustParseAddr("10.1.0.1"), prefixes("10.1.0.0/24", "fd00:1::/64")}
	there.state.Ports[2].Sources = prefixes("10.1.16.1/32")
	there.state.Routes = []Route{{netip.MustParsePrefix("10.1.16.1/32"), "node"}, {netip.MustParsePrefix("10.1.0.0/24"), OutsideName}}
	if err := there.Set(there.state); err != nil {
		t.Fatal(err)
	}
	cross := func(pkt []byte) map[string][][]byte {
		here.put("a", bytes.Clone(pkt))
		out := here.got()[OutsideName]
		i := slices.IndexFunc(out, func(p []byte) bool { return netip.AddrFrom4([4]byte(p[16:20])) == there.state.Self4 })
		if i < 0 || !overlaytest.ChecksumsOK(out[i]) {
			t.Fatalf("no copy for the node, or a wrong one: %x", out)
		}
		there.put(OutsideName, out[i])
		return there.got()
	}
	for _, pkt := range [][]byte{groupUDP("10.1.0.2", "239.1.1.1", 8, 10), groupUDP("fd00:1::2", "ff05::7", 8, 10)} {
		want := bytes.Clone(pkt)
		decrementTTL(want, want[0]>>4 == 6)
		got := cross(pkt)
		if places(got) != "a b" || !bytes.Equal(got["a"][0], want) || !bytes.Equal(got["b"][0], want) {
			t.Errorf("%v: %x, want %x", places(got), got, want)
		}
	}
	if n := there.Counters(); len(n.Drops) != 0 || n.Copies != 2 {
		t.Errorf("dropped %v, made %d copies", n.Drops, n.Copies)
	}
	wrap := func(node, src, dst string) []byte {
		inner := groupUDP(src, dst, 8, 10)
		b := appendOuter(nil, netip.MustParseAddr(node), inner, inner[0]>>4 == 6)
		putDestination(b, there.state.Self4)
		return b
	}
	for _, c := range []struct{ name, node, src, dst, drop string }{
		{"the address of another node's workload", "10.1.0.1", "10.1.17.2", "239.1.1.1", "source"},
		{"an address of the node that gets it", "10.1.0.1", "10.1.16.2", "239.1.1.1", "source"},
		{"a workload that wraps by itself", "10.1.0.2", "10.1.0.2", "239.1.1.1", "protocol"},
		{"a link's group", "10.1.0.1", "10.1.0.2", "224.0.0.251", "multicast"},
		{"a workload's address as the group", "10.1.0.1", "10.1.0.2", "10.1.16.2", "multicast"},
		{"no packet", "10.1.0.1", "", "", "malformed"},
	} {
		before := there.Counters().Drops[c.drop]
		pkt := overlaytest.AppendIP(nil, netip.MustParseAddr(c.node), there.state.Self4, protoIPv4, nil)
		if c.src != "" {
			pkt = wrap(c.node, c.src, c.dst)
		}
		there.put(OutsideName, pkt)
		if got := there.got(); places(got) != "" && c.drop != "protocol" || there.Counters().Drops[c.drop] != before+1 {
			t.Errorf("%s: went to %q, dropped %v", c.name, places(got), there.Counters().Drops)
		}
	}
}

func TestCopiesAreBounded(t *testing.T) {
	g := newCaster(t)
	now := time.Second
	g.clock = func() time.Duration { return now }
	const sent = 3 * copyBurst
	pkt := groupUDP("10.1.0.2", "239.1.1.1", 1, 10)
	for range sent {
		g.put("a", bytes.Clone(pkt))
	}
	got, drops := len(g.b.take()), g.Counters().Drops["rate-limited"]
	if got != copyBurst/2 || drops != uint64(sent-got) { // each takes a token for both workloads
		t.Errorf("of %d, %d were copied and %d dropped", sent, got, drops)
	}
	now += time.Second / copyRate * 100
	for range sent {
		g.put("a", bytes.Clone(pkt))
	}
	if got := len(g.b.take()); got != 50 {
		t.Errorf("%d copied with 100 tokens", got)
	}
}

func TestPolicyIsAskedForEachReceiver(t *testing.T) {
	g := newCaster(t)
	g.police(t, overlay.Rule{Name: "b", Ingress: true, Subject: just("10.1.0.3/32")})
	g.put("a", groupUDP("10.1.0.2", "239.1.1.1", 8, 10))
	if got := places(g.got()); got != "outside outside" {
		t.Errorf("where b may get nothing: %q", got)
	}
	g.police(t, overlay.Rule{Name: "a", Subject: just("10.1.0.2/32")})
	g.put("a", groupUDP("10.1.0.2", "239.1.1.1", 8, 10))
	if got := places(g.got()); got != "" || g.Counters().Drops["policy"] != 1 {
		t.Errorf("where a may send nothing: %q, %v", got, g.Counters().Drops)
	}
}

func TestAWrongGroupIsRefused(t *testing.T) {
	g := newRig(t)
	for _, p := range []string{"10.0.0.0/8", "192.0.0.0/2", "255.255.255.0/24", "fd00::/8", "fe00::/7"} {
		g.state.Multicast.Groups = prefixes(p)
		if err := g.Set(g.state); err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// Ports that are no more go on counting in what the router reports.
func TestPortsThatAreGoneStayInTheBooks(t *testing.T) {
	g := newRig(t)
	g.put("a", groupUDP("10.1.0.2", "10.1.0.3", 8, 10), groupUDP("10.1.0.2", "10.1.0.3", 8, 10))
	for i := range goneKept + 5 { // more ports than are remembered one by one
		g.state.Ports[0].Link = newWire()
		g.state.Ports[0].Name = fmt.Sprint("a", i)
		for k := range g.state.Routes[:3] {
			g.state.Routes[k].Port = g.state.Ports[0].Name
		}
		if err := g.Set(g.state); err != nil {
			t.Fatal(err)
		}
		g.forward(g.ports[g.state.Ports[0].Name], withHeadroom(groupUDP("10.1.0.2", "10.1.0.3", 8, 10)), new(batch))
	}
	in := g.Counters().Gone[Inside].InPackets + g.ports[g.state.Ports[0].Name].n.inPackets.Load()
	if want := uint64(2 + goneKept + 5); in != want {
		t.Errorf("%d packets came in, want %d", in, want)
	}
}
