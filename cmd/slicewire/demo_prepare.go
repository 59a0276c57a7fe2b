package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"slicewire/overlay"
	"slicewire/statedir"
)

// demoNodeName is the name of the only node of each demo site.
const demoNodeName = "gw"

// prepare makes the authority, unpacks the manifests and writes three node
// files, with certificates made as an operator would.
func (d *demo) prepare() error {
	d.services = new(demoServices)
	if err := d.services.prepare(); err != nil {
		return err
	}
	manifests := filepath.Join(d.dir, "manifests")
	if err := unpackManifests(manifests); err != nil {
		return err
	}
	authority := statedir.Dir(filepath.Join(d.dir, "ca"))
	if err := initAuthority(authority, "demo", time.Now()); err != nil {
		return err
	}
	ports, err := freePorts(len(demoSites) * 6)
	if err != nil {
		return err
	}
	next := func() string { p := ports[0]; ports = ports[1:]; return p }
	for _, site := range demoSites {
		n := &demoNode{
			site: site, config: filepath.Join(d.dir, site+".yaml"), socket: filepath.Join(d.dir, site+".sock"),
			logFile: filepath.Join(d.dir, site+".log"), tunnel: next(), gossip: next(),
			slices: map[string]demoSlice{"blue": {proxy: next(), dns: next()}},
		}
		if site != "worker-3" {
			n.slices["iperf-slice"] = demoSlice{proxy: next(), dns: next()}
		}
		d.nodes[site] = n
	}
	if d.client().forward, err = oneFreePort(); err != nil {
		return err
	}
	for _, site := range demoSites {
		state := statedir.Dir(filepath.Join(d.dir, site))
		if err := d.certify(authority, state, manifests, site); err != nil {
			return fmt.Errorf("certificate of %s: %w", site, err)
		}
		if err := os.WriteFile(d.nodes[site].config, []byte(d.nodeFile(d.nodes[site], state)), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func oneFreePort() (string, error) {
	p, err := freePorts(1)
	if err != nil {
		return "", err
	}
	return p[0], nil
}

func (d *demo) certify(authority, state statedir.Dir, manifests, site string) error {
	request, err := requestIdentity(state)
	if err != nil {
		return err
	}
	s := signing{authority: authority, manifests: []string{manifests}, id: overlay.NodeID{Site: site, Node: demoNodeName}, life: certLife}
	bundle, err := s.sign(request, time.Now())
	if err != nil {
		return err
	}
	_, err = installBundle(state, bundle, time.Now)
	return err
}

// nodeFile is a node's configuration as a person would write it.
func (d *demo) nodeFile(n *demoNode, state statedir.Dir) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nmesh: demo\nsite: %s\nnode: %s\nlisten: %s\n", n.site, demoNodeName, n.tunnel)
	fmt.Fprintf(&b, "gossip:\n  listen: %s\n  join:\n", n.gossip)
	for _, site := range demoSites {
		if site != n.site {
			fmt.Fprintf(&b, "  - %s\n", d.nodes[site].gossip)
		}
	}
	fmt.Fprintf(&b, "metrics: off\nmanifests: [manifests]\nstate: %s\nsocket: %s\nslices:\n", state, n.socket)
	for name, s := range n.slices {
		fmt.Fprintf(&b, "  %s: {proxy: \"%s\", dns: \"%s\"}\n", name, s.proxy, s.dns)
	}
	if n.forward != "" {
		fmt.Fprintf(&b, "forward:\n- {slice: iperf-slice, listen: \"%s\", to: \"iperf-server.iperf.svc.slice.local:5201\"}\n", n.forward)
	}
	if n == d.server() {
		b.WriteString("publish:\n")
		for _, p := range []struct{ slice, namespace, service, target string }{
			{"iperf-slice", "iperf", "iperf-server", d.services.target},
			{"iperf-slice", "iperf", "web", addrOf(d.services.listen["iperf-slice"])},
			{"blue", "shop", "web", addrOf(d.services.listen["blue"])},
		} {
			fmt.Fprintf(&b, "- {slice: %s, namespace: %s, service: %s, backend: %s-0, target: \"%s\"}\n", p.slice, p.namespace, p.service, p.service, p.target)
		}
	}
	return b.String()
}

func addrOf(l net.Listener) string { return l.Addr().String() }
