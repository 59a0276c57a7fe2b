package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/proxy"
)

// says asks a node for a name over its control socket.
func (l *pathLab) looksUp(n *labNode, name, qtype string) string {
	out, errs, code := program(l.t, "dns", "query", "--socket", n.socket, name, qtype)
	if code != 0 {
		l.t.Logf("dns query on %v: exit %d: %s", n.id, code, errs)
	}
	return out
}

// resolves reports whether a node's answers hold the name's address now.
func (l *pathLab) resolves(n *labNode, name string) bool {
	return strings.Contains(l.looksUp(n, name, "A"), "\tIN\tA\t")
}

const echoName = "echo.lab.svc.slice.local"

// A service whose site, or whose node, dies is out of the answers of the others
// within two seconds, although the link to it was idle; a service with a
// virtual address is reached by that.
func TestADeadSiteLeavesTheAnswers(t *testing.T) {
	l := newPathLab(t, nil, labSite{name: "a", gateways: 1, nodes: 1}, labSite{name: "b", gateways: 1, nodes: 1})
	a, b := l.node("a/g1"), l.node("b/g1")
	l.until("all know each other", l.settled)
	l.until("the name resolves", func() bool { return l.resolves(a, echoName) })

	for name, want := range map[string]string{
		"echo.lab.svc.clusterset.local SRV":        "\tSRV\t0 1 7001 echo.lab.svc.clusterset.local.",
		"_tcp._tcp.echo.lab.svc.slice.local SRV":   "\tSRV\t0 1 7001 echo-0.b.echo.lab.svc.slice.local.",
		"echo.lab.svc.clusterset.local A":          "\tA\t198.1",
		"echo-0.b.echo.lab.svc.slice.local A":      "\tA\t10.190.",
		"echo-0.b.echo.lab.svc.clusterset.local A": "status: NXDOMAIN",
		"g1.b.node.slice.local A":                  "\tA\t10.190.",
		l.echoAddr(a).String() + " PTR":            "echo-0.b.echo.lab.svc.slice.local.",
		"www.example.com A":                        "status: REFUSED",
		"dns-version.clusterset.local TXT":         `"1.0.0"`,
	} {
		ask, qtype, _ := strings.Cut(name, " ")
		if got := l.looksUp(a, ask, qtype); !strings.Contains(got, want) {
			t.Errorf("%s: no %q in\n%s", name, want, got)
		}
	}
	if out, errs, code := program(t, "services", "--socket", a.socket); code != 0 || !strings.Contains(out, "lab/echo") || !strings.Contains(out, "ClusterSetIP") {
		t.Errorf("services: exit %d, %s%s", code, out, errs)
	}
	if out, errs, code := program(t, "dns", "status", "--socket", a.socket); code != 0 || !strings.Contains(out, "clusterset.local") {
		t.Errorf("dns status: exit %d, %s%s", code, out, errs)
	}
	l.echoes(a, "echo.lab.svc.clusterset.local:7001")
	out, errs, code := program(t, "run", "--socket", a.socket, "--slice", "lab", "--", "bash", "-c",
		"exec 3<>/dev/tcp/echo.lab.svc.clusterset.local/7001; echo hello >&3; head -n 1 <&3")
	if code != 0 || strings.TrimSpace(out) != "hello" {
		t.Errorf("a program on the slice, by the virtual address: exit %d, %q, %s", code, out, errs)
	}

	for trial := range 3 {
		start := time.Now()
		b.kill(t)
		l.until("the name is gone", func() bool { return !l.resolves(a, echoName) })
		took := time.Since(start)
		t.Logf("trial %d: out of the answers after %v", trial, took)
		if took > slack*2*time.Second {
			t.Errorf("a dead site was in the answers for %v", took)
		}
		if got := l.looksUp(a, echoName, "A"); !strings.Contains(got, "EDE: 22") {
			t.Errorf("nothing says why:\n%s", got)
		}
		if err := b.start(); err != nil {
			t.Fatal(err)
		}
		l.until("the name resolves again", func() bool { return l.resolves(a, echoName) })
		l.until("all is well again", l.settled)
	}
}

// A node that dies behind a gateway, of which other sites see only the gateway.
func TestADeadNodeBehindAGatewayLeavesTheAnswers(t *testing.T) {
	l := newPathLab(t, nil, labSite{name: "a", gateways: 1, nodes: 1}, labSite{name: "b", gateways: 1, nodes: 2})
	a, b, leaf := l.node("a/g1"), l.node("b/g1"), l.node("b/g2")
	l.until("all know each other", l.settled)
	l.until("the name resolves", func() bool { return l.resolves(a, echoName) && l.resolves(b, echoName) })
	start := time.Now()
	leaf.kill(t)
	l.until("the name is gone at its own site", func() bool { return !l.resolves(b, echoName) })
	near := time.Since(start)
	l.until("the name is gone at the other", func() bool { return !l.resolves(a, echoName) })
	far := time.Since(start)
	t.Logf("out of the answers after %v at its site, %v at the other", near, far)
	if near > slack*2*time.Second || far > slack*2*time.Second {
		t.Errorf("a dead node was in the answers for %v and %v", near, far)
	}
}

// A target that ends while its node lives on is withdrawn, and told again when
// it is back.
func TestADeadTargetIsWithdrawn(t *testing.T) {
	l := newPathLab(t, nil, labSite{name: "a", gateways: 1, nodes: 1}, labSite{name: "b", gateways: 1, nodes: 1})
	a, b := l.node("a/g1"), l.node("b/g1")
	l.until("all know each other", l.settled)
	file, err := os.ReadFile(b.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.config, []byte(strings.Replace(string(file), "backend: echo-0", "backend: echo-0, check: tcp", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := program(t, "reload", "--socket", b.socket); code != 0 {
		t.Fatalf("reload: exit %d, %s", code, errs)
	}
	l.until("the name resolves", func() bool { return l.resolves(a, echoName) })
	addr := l.echo.tcp.Addr().String()
	start := time.Now()
	l.echo.tcp.Close()
	l.until("the name is gone", func() bool { return !l.resolves(a, echoName) })
	took := time.Since(start)
	t.Logf("out of the answers after %v", took)
	if took > slack*2*time.Second {
		t.Errorf("a dead target was in the answers for %v", took)
	}
	// A client of anybody's may have been given the port meanwhile, and gives it
	// back.
	var again net.Listener
	l.until("the target listens again", func() bool {
		var err error
		again, err = net.Listen("tcp", addr)
		return err == nil
	})
	defer again.Close()
	l.until("the name resolves again", func() bool { return l.resolves(a, echoName) })
}

// echoes sends a line to a name on the slice by a node's proxy and wants it back.
func (l *pathLab) echoes(n *labNode, to string) {
	l.t.Helper()
	d, err := proxy.SOCKS5("tcp", n.proxy, nil, &net.Dialer{})
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	c, err := d.(proxy.ContextDialer).DialContext(ctx, "tcp", to)
	if err != nil {
		l.t.Fatalf("dial %s: %v", to, err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		l.t.Fatal(err)
	}
	fmt.Fprintln(c, "hello")
	if got, err := bufio.NewReader(c).ReadString('\n'); err != nil || got != "hello\n" {
		l.t.Errorf("%s echoes %q, %v", to, got, err)
	}
}
