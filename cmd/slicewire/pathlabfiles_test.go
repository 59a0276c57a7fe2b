package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"slicewire/statedir"
)

// proxies is the proxy of the lab's i-th other slice at a node.
func (n *labNode) proxies(i int) string {
	at := netip.MustParseAddrPort(n.proxy)
	return netip.AddrPortFrom(at.Addr(), at.Port()+uint16(i)+1).String()
}

func (n *labNode) state() string { return strings.TrimSuffix(n.config, ".yaml") }

// in runs slicewire, which has to succeed, where a node is.
func (l *pathLab) in(n *labNode, args ...string) string {
	l.t.Helper()
	var out, errs string
	var code int
	err := l.under.do(n, func() (err error) {
		out, errs, code, err = tryProgram(l.t.Context(), args...)
		return err
	})
	if err != nil || code != 0 {
		l.t.Fatalf("slicewire %s: exit %d, %v: %s", strings.Join(args, " "), code, err, errs)
	}
	return out
}

func (l *pathLab) write(name, text string) {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		l.t.Fatal(err)
	}
}

// certify has the authority sign a node's certificate; index is its block.
func (l *pathLab) certify(authority statedir.Dir, n *labNode, index int) {
	l.t.Helper()
	state := statedir.Dir(n.state())
	request, err := requestIdentity(state)
	if err != nil {
		l.t.Fatal(err)
	}
	s := signing{authority: authority, manifests: []string{filepath.Join(l.dir, "manifests")}, id: n.id, index: index, plain: !n.gateway, life: certLife}
	bundle, err := s.sign(request, time.Now())
	if err == nil {
		_, err = installBundle(state, bundle, time.Now)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// writeConfig writes a node's file; it publishes these services, all of them
// the echo service.
func (l *pathLab) writeConfig(n *labNode, published ...string) {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nmesh: lab\nsite: %s\nnode: %s\nlisten: %s\n", n.id.Site, n.id.Node, n.tunnel)
	fmt.Fprintf(&b, "advertise: [\"%s\"]\n", n.advertise)
	fmt.Fprintf(&b, "gossip:\n  listen: %s\n  join:\n", n.gossip)
	for _, o := range l.order {
		if o != n {
			fmt.Fprintf(&b, "  - %s\n", o.gossip)
		}
	}
	fmt.Fprintf(&b, "metrics: 127.0.0.1:0\nmanifests: [manifests]\nstate: %s\nsocket: %s\nslices:\n  lab: {proxy: \"%s\"}\n", n.state(), n.socket, n.proxy)
	for i, name := range l.slices {
		fmt.Fprintf(&b, "  %s: {proxy: \"%s\"}\n", name, n.proxies(i))
	}
	for i, name := range published {
		if i == 0 {
			b.WriteString("publish:\n")
		}
		fmt.Fprintf(&b, "- {slice: lab, namespace: lab, service: %s, backend: %s-0, ports: [{name: udp, target: \"%s\"}", name, name, l.echo.udp.LocalAddr())
		if name == "echo" {
			fmt.Fprintf(&b, ", {name: tcp, target: \"%s\"}", l.echo.tcp.Addr())
		}
		b.WriteString("]}\n")
	}
	b.WriteString(l.routes[n.id.String()])
	l.write(filepath.Base(n.config), b.String())
}
