package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/proxy"
)

// A speaker is a target that answers every line, and every datagram, with its name.
type speaker struct {
	name string
	tcp  net.Listener
	udp  net.PacketConn
}

func newSpeaker(t *testing.T, name string) *speaker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &speaker{name, l, pc}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 2048)
		for {
			_, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo([]byte(name), from)
		}
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(t.Context(), func() { c.Close() })
			wg.Go(func() {
				defer c.Close()
				for in := bufio.NewScanner(c); in.Scan(); {
					fmt.Fprintln(c, name)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); pc.Close(); wg.Wait() })
	return s
}

// speaks has a node publish a speaker as the echo service.
func (l *pathLab) speaks(n *labNode, s *speaker) {
	l.t.Helper()
	l.writeConfig(n, "echo")
	file, err := os.ReadFile(n.config)
	if err == nil {
		text := strings.NewReplacer(l.echo.udp.LocalAddr().String(), s.udp.LocalAddr().String(), l.echo.tcp.Addr().String(), s.tcp.Addr().String()).Replace(string(file))
		err = os.WriteFile(n.config, []byte(text), 0o600)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// A heldConn is a connection on the slice that stays.
type heldConn struct {
	net.Conn
	in *bufio.Reader
}

// hold connects to a name on the slice by a node's proxy.
func (l *pathLab) hold(n *labNode, to string) (heldConn, error) {
	d, err := proxy.SOCKS5("tcp", n.proxy, nil, &net.Dialer{})
	if err != nil {
		return heldConn{}, err
	}
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	c, err := d.(proxy.ContextDialer).DialContext(ctx, "tcp", to)
	if err != nil {
		return heldConn{}, err
	}
	l.t.Cleanup(func() { c.Close() })
	return heldConn{c, bufio.NewReader(c)}, nil
}

// who asks a held connection who is at its end.
func (c heldConn) who() (string, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(c, "who"); err != nil {
		return "", err
	}
	s, err := c.in.ReadString('\n')
	return strings.TrimSpace(s), err
}

// A heldFlow is one client's datagrams to an address on the slice.
type heldFlow struct {
	net.Conn
	header []byte
}

func (l *pathLab) flow(n *labNode, to string) heldFlow {
	l.t.Helper()
	out := l.looksUp(n, to, "A")
	_, addr, ok := strings.Cut(out, "\tIN\tA\t")
	ip := net.ParseIP(strings.Fields(addr + " -")[0]).To4()
	if !ok || ip == nil {
		l.t.Fatalf("%s has no address:\n%s", to, out)
	}
	control, relay := l.associate(n, n.proxy)
	l.t.Cleanup(func() { control.Close() })
	c, err := net.Dial("udp", relay)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	return heldFlow{c, append(append([]byte{0, 0, 0, 1}, ip...), 7000>>8, 7000&0xff)}
}

// who asks until somebody answers and says who it is; "" if nobody does for long.
func (f heldFlow) who(long time.Duration) string {
	buf := make([]byte, 2048)
	for end := time.Now().Add(long); time.Now().Before(end); {
		_, _ = f.Write(append(append([]byte(nil), f.header...), "who"...))
		_ = f.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := f.Read(buf); err == nil && n > len(f.header) {
			return string(buf[len(f.header):n])
		}
	}
	return ""
}

// The death of a site is out of the answers, by its name and behind its virtual
// address, within two seconds; what is connected with others stays as it is,
// and datagrams of whoever was with the dead go to the living.
func TestHeldConnectionsOutliveTheDeathOfOthers(t *testing.T) {
	l := layLab(t, newCable(t), nil, labSite{name: "a", gateways: 1, nodes: 1}, labSite{name: "b", gateways: 1, nodes: 1}, labSite{name: "c", gateways: 1, nodes: 1})
	a, b, c := l.node("a/g1"), l.node("b/g1"), l.node("c/g1")
	for _, n := range []*labNode{b, c} {
		l.speaks(n, newSpeaker(t, n.id.Site))
	}
	const byName, byAddress = "echo.lab.svc.slice.local", "echo.lab.svc.clusterset.local"
	answers := func(site string) bool { return l.resolves(a, site+"."+byName) }

	// First only b is there, so that what is held now is held with b.
	for _, n := range []*labNode{a, b} {
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
	}
	l.until("b is in the answers", func() bool { return answers("b") })
	held := make(map[string]heldConn)
	for _, name := range []string{byName, byAddress} {
		l.until("a connection by "+name, func() bool {
			x, err := l.hold(a, name+":7001")
			if err == nil {
				held[name] = x
			}
			return err == nil
		})
	}
	flow := l.flow(a, byAddress)
	check := func(when string) {
		t.Helper()
		for name, x := range held {
			if who, err := x.who(); err != nil || who != "b" {
				t.Errorf("%s: the connection with b by %s: %q, %v", when, name, who, err)
			}
		}
		if who := flow.who(patience); who != "b" {
			t.Errorf("%s: the datagrams to b go to %q", when, who)
		}
	}
	check("before")
	if err := c.start(); err != nil {
		t.Fatal(err)
	}
	l.until("all know each other", l.settled)
	l.until("both are in the answers", func() bool { return answers("b") && answers("c") })
	check("with another one there")

	start := time.Now()
	c.kill(t)
	l.until("c is gone", func() bool { return !answers("c") })
	for _, name := range []string{byName, byAddress} {
		x, err := l.hold(a, name+":7001")
		who := ""
		if err == nil {
			who, err = x.who()
		}
		if who != "b" {
			t.Errorf("a new connection by %s: %q, %v", name, who, err)
		}
	}
	if who := l.flow(a, byAddress).who(patience); who != "b" {
		t.Errorf("new datagrams go to %q", who)
	}
	took := time.Since(start)
	t.Logf("c is out of the answers, and new connections are made with b, after %v", took)
	if took > slack*2*time.Second {
		t.Errorf("that took %v", took)
	}
	check("after the death of c")

	if err := c.start(); err != nil {
		t.Fatal(err)
	}
	l.until("all is well again", func() bool { return l.settled() && answers("c") })
	check("with c back")
	start = time.Now()
	b.kill(t)
	l.until("the datagrams of a flow that was with b go to c", func() bool { return flow.who(10*time.Millisecond) == "c" })
	if took = time.Since(start); took > 2*time.Second {
		t.Errorf("that took %v", took)
	}
	t.Logf("the flow went over to c after %v", took)
	l.measures(a, `slicewire_info{mesh="lab",node="g1",site="a",`, `slicewire_dns_queries_total{rcode="noerror",slice="lab",type="A"} `, `slicewire_dns_query_duration_seconds_count{slice="lab"} `,
		`slicewire_dns_answers_total{slice="lab",source="local"} `, `slicewire_virtual_connections{protocol="udp",slice="lab"} 1`, `slicewire_virtual_accepted_total{slice="lab"} `)
}

// measures wants a node's metrics to hold these.
func (l *pathLab) measures(n *labNode, want ...string) {
	l.t.Helper()
	s, err := newClient(n.socket).status(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	res, err := http.Get("http://" + s.Metrics + "/metrics")
	if err != nil {
		l.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, w := range want {
		if !strings.Contains(string(b), w) {
			l.t.Errorf("no %s in the metrics:\n%s", w, b)
		}
	}
}
