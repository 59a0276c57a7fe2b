package cluster

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"slicewire/overlay"
)

// refs lists what a plan wants of a kind.
func (p *plan) refs(kind Kind) (out []string) {
	for i := range p.wants {
		if p.wants[i].Kind == kind && p.wants[i].whole != nil {
			out = append(out, p.wants[i].String())
		}
	}
	return out
}

func TestWhichServicesAreImported(t *testing.T) {
	two := view(overlay.Headless, "east/web-7f9c-abcde", "west/web-7f9c-fghij")
	elsewhere := view(overlay.Headless, "west/web")
	elsewhere.Namespace = "metrics"
	for _, c := range []struct {
		name    string
		objects string
		state   *State
		want    string
	}{
		{"one in a namespace that is bound and exists", namespace("shop"), red(two), "[shop/web]"},
		{"none where the namespace does not exist", namespace("other"), red(two), "[]"},
		{"none in an allowed namespace: it belongs to no slice", namespace("metrics"), red(elsewhere), "[]"},
		{"one without endpoints as long as it is exported", namespace("shop"), red(view(overlay.Headless)), "[shop/web]"},
		{"none that nobody exports", namespace("shop"), red(), "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := work(read(t, c.objects), c.state, here(), nil)
			for _, kind := range []Kind{KindImport, KindMCSImport} {
				if got := fmt.Sprint(p.refs(kind)); got != c.want {
					t.Errorf("%s: got %s, want %s", here().kinds[kind].resource.Group, got, c.want)
				}
			}
		})
	}
}

// An imported service has a Service without a selector, this pod as its only
// endpoint, at ports of its own, and names that lead there.
func TestADerivedService(t *testing.T) {
	o := read(t, namespace("shop"))
	v := view(overlay.Virtual, "west/web-7f9c-abcde")
	v.Affinity = 60
	v.Ports = append(v.Ports, overlay.ServicePort{Port: 53, Protocol: overlay.UDP})
	v.DNSNames = append(v.DNSNames, "shop.example")
	state := red(v)
	p := work(o, state, here(), nil)
	name := "slicewire-" + short("shop", "web")
	s := p.wanted(KindService, "shop", name)
	if s == nil {
		t.Fatal("no Service is wanted")
	}
	if got := text(s.whole().Object, "metadata", "labels", "multicluster.kubernetes.io/service-name"); got != "web" {
		t.Errorf("label of the service: %q", got)
	}
	if field(s.whole().Object, "spec", "selector") != nil || text(s.whole().Object, "spec", "sessionAffinity") != "ClientIP" {
		t.Errorf("spec %v", s.whole().Object["spec"])
	}
	e := p.wanted(KindEndpointSlice, "shop", name+"-"+short("10.244.0.2")[:8])
	if e == nil {
		t.Fatalf("no EndpointSlice is wanted, but %v", p.refs(KindEndpointSlice))
	}
	if got := text(objectsIn(e.whole().Object, "endpoints")[0], "x"); got != "" || texts(objectsIn(e.whole().Object, "endpoints")[0], "addresses")[0] != "10.244.0.2" {
		t.Errorf("endpoints %v", e.whole().Object["endpoints"])
	}
	if len(p.result.Doors) != 2 {
		t.Fatalf("doors %v", p.result.Doors)
	}
	for i, d := range p.result.Doors {
		port := objectsIn(e.whole().Object, "ports")[i]
		if int64(d.Listen) != number(port, "port") || d.Host() != "web.shop.svc.slice.local" || d.Slice != "red" {
			t.Errorf("door %+v, EndpointSlice %v", d, port)
		}
	}
	if got := text(objectsIn(s.whole().Object, "spec", "ports")[1], "name"); got != "p53-udp" {
		t.Errorf("a port without a name is called %q", got)
	}

	later := work(p.with(t, o), state, here(), nil)
	if n := len(later.result.Imports); n != 1 {
		t.Fatalf("%d imports, want 1", n)
	}
	at := later.objects.Get(Ref{KindService, "shop", name}).Service.ClusterIP
	if m := &later.result.Imports[0]; len(at) != 1 || !slices.Equal(m.Addrs, at) || m.View.Name != "web" || m.Endpoints != nil || m.Names() != 3 {
		t.Errorf("pods are told %+v, want the address %v", m, at)
	}
	if !slices.Equal(later.result.Doors, p.result.Doors) {
		t.Errorf("doors changed from %v to %v with nothing remembered", p.result.Doors, later.result.Doors)
	}
}

// The endpoints of a headless service that a StatefulSet has named have Services
// and names of their own.
func TestNamesOfAStatefulSet(t *testing.T) {
	o := read(t, namespace("shop"))
	state := red(view(overlay.Headless, "east/web-0", "west/web-0", "west/web-1"))
	p := work(o, state, here(), nil)
	if n := len(p.refs(KindService)); n != 4 {
		t.Fatalf("%d Services, want 4: %v", n, p.refs(KindService))
	}
	later := work(p.with(t, o), state, here(), nil)
	m := later.result.Imports[0]
	if len(m.Addrs) != 1 || len(m.Endpoints) != 3 || m.Names() != 8 {
		t.Fatalf("pods are told %+v", m)
	}
	addrs := map[netip.Addr]string{m.Addrs[0]: "web"}
	for _, n := range []string{"web-0.east", "web-0.west", "web-1.west"} {
		at := m.Endpoints[n]
		if len(at) != 1 || addrs[at[0]] != "" {
			t.Errorf("%s has %v, and so has %q", n, at, addrs[at[0]])
			continue
		}
		addrs[at[0]] = n
	}
	var hosts []string
	for _, d := range p.result.Doors {
		hosts = append(hosts, d.Host())
	}
	if want := "web-1.west.web.shop.svc.slice.local"; !slices.Contains(hosts, want) {
		t.Errorf("no door leads to %s: %v", want, hosts)
	}
	mixed := view(overlay.Headless, "east/web-0", "west/web-7f9c-abcde")
	p = work(o, red(mixed), here(), nil)
	later = work(p.with(t, o), red(mixed), here(), nil)
	if m := later.result.Imports[0]; len(m.Endpoints) != 1 || len(m.Endpoints["web-0.east"]) != 1 {
		t.Errorf("endpoints with names that are not random: %v", m.Endpoints)
	}
}

func TestWhichPodsHaveNamesOfTheirOwn(t *testing.T) {
	for name, want := range map[string]bool{
		"web-0": true, "web-12": true, "db-set-3": true, "web": false, "web-": false, "-0": false,
		"web-6d5f9c7b8-24567": false, "web-6d5f9c7b8-x7k2p": false, "web-a": false, "pod-0a1b": false,
	} {
		if got := ordinal(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// A service that nobody has a ready endpoint of refuses connections at once.
func TestAServiceWithoutEndpoints(t *testing.T) {
	p := work(read(t, namespace("shop")), red(view(overlay.Virtual)), here(), nil)
	e := p.wanted(KindEndpointSlice, "shop", "slicewire-"+short("shop", "web")+"-"+short("10.244.0.2")[:8])
	if n := len(objectsIn(e.whole().Object, "endpoints")); n != 0 {
		t.Errorf("%d endpoints, want none", n)
	}
}

func TestDoorPortsStay(t *testing.T) {
	var keys []string
	for i := range 2000 {
		keys = append(keys, fmt.Sprintf("shop/web%d//80/TCP", i))
	}
	first := doorPorts(nil, keys)
	used := make(map[uint16]bool)
	for _, k := range keys {
		p := first[k]
		if p < firstDoor || p >= firstDoor+numDoors || used[p] {
			t.Fatalf("%s has port %d", k, p)
		}
		used[p] = true
	}
	if again := doorPorts(nil, keys); !maps.Equal(first, again) {
		t.Error("the same keys have other ports")
	}
	more := doorPorts(first, append([]string{"a/a//1/TCP"}, keys[1000:]...))
	for _, k := range keys[1000:] {
		if more[k] != first[k] {
			t.Fatalf("%s moved from %d to %d", k, first[k], more[k])
		}
	}
	for i := range numDoors {
		keys = append(keys, fmt.Sprintf("full/%d", i))
	}
	if full := doorPorts(first, keys); len(full) != numDoors {
		t.Errorf("%d ports are given, there are %d", len(full), numDoors)
	}
}

// What belongs to other slicewire pods stays while these are there.
func TestWhatIsRemoved(t *testing.T) {
	state := red(view(overlay.Virtual, "west/web-7f9c-abcde"))
	gone := view(overlay.Virtual, "west/x")
	gone.Name = "gone"
	before := work(read(t, namespace("shop")), red(state.Slices[0].Services[0], gone), here(), nil)
	other := here()
	other.self = netip.MustParseAddr("10.244.0.3")
	peers := work(read(t, namespace("shop")), state, other, nil)
	foreign := `{apiVersion: networking.kubeslice.io/v1beta1, kind: ServiceImport, metadata: {name: theirs, namespace: shop}, spec: {slice: red}}`
	for _, c := range []struct {
		name, pod string
		want      []string
	}{
		{"another pod that is there", pod("slicewire-system", "r2", "slicewire", "10.244.0.3"), nil},
		{"another pod that is gone", "", []string{"shop/slicewire-" + short("shop", "web") + "-" + short("10.244.0.3")[:8]}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := before.with(t, peers.with(t, read(t, namespace("shop"), foreign, c.pod)))
			p := work(o, state, here(), nil)
			var got []string
			for _, x := range p.unwanted(here()) {
				got = append(got, x.String())
			}
			slices.Sort(got)
			name := "shop/slicewire-" + short("shop", "gone")
			want := append([]string{"shop/gone", "shop/gone", name, name + "-" + short("10.244.0.2")[:8]}, c.want...)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("removed %v, want %v", got, want)
			}
		})
	}
}

// Only pods of namespaces that the slice binds are let in, and no node.
func TestWhoIsAdmitted(t *testing.T) {
	o := read(t, namespace("shop"), pod("shop", "a", "x", "10.244.1.1"), pod("metrics", "b", "x", "10.244.1.2"), pod("other", "c", "x", "10.244.1.3"),
		pod("shop", "node", "x", "10.0.0.1", "hostNetwork: true"), strings.Replace(pod("shop", "over", "x", "10.244.1.5"), "Running", "Succeeded", 1))
	a := NewAdmission(o, red())
	for ip, want := range map[string]bool{
		"10.244.1.1": true, "::ffff:10.244.1.1": true, "10.244.1.2": true, "10.244.1.3": false, "10.0.0.1": false, "10.244.1.5": false, "192.0.2.1": false,
	} {
		if got := a.Admits("red", netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s: %v, want %v", ip, got, want)
		}
	}
	if a.Admits("blue", netip.MustParseAddr("10.244.1.1")) {
		t.Error("a slice that is not there lets somebody in")
	}
}
