package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"slicewire/netstack/port"
)

// A mappedLAN is a network 192.168.1.0/24 and fd77::/64 behind a node: a
// namespace that routes, and one with a host that serves HTTP.
type mappedLAN struct {
	t            *testing.T
	router, host string
}

func newMappedLAN(t *testing.T, site string) *mappedLAN {
	t.Helper()
	n := &mappedLAN{t: t, router: fmt.Sprintf("sw%s%d", site, os.Getpid())}
	n.host = n.router + "h"
	t.Cleanup(func() {
		for _, ns := range []string{n.router, n.host} {
			_ = exec.Command("ip", "netns", "del", ns).Run() // there may be none yet
		}
	})
	shell(t, fmt.Sprintf(`ip netns add %[1]s; ip netns add %[2]s
ip -n %[1]s link set lo up; ip -n %[2]s link set lo up
ip -n %[1]s link add lan type veth peer name eth0 netns %[2]s
ip netns exec %[1]s sh -ec 'echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding'
ip -n %[1]s addr add 192.168.1.1/24 dev lan; ip -n %[1]s addr add fd77::1/64 dev lan nodad; ip -n %[1]s link set lan up
ip -n %[2]s addr add 192.168.1.10/24 dev eth0; ip -n %[2]s addr add fd77::10/64 dev eth0 nodad; ip -n %[2]s link set eth0 up
ip -n %[2]s route add default via 192.168.1.1; ip -n %[2]s -6 route add default via fd77::1`, n.router, n.host))
	var l net.Listener
	if err := port.Namespace(n.host).Do(func() (err error) {
		l, err = new(net.ListenConfig).Listen(context.Background(), "tcp", ":80")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "%s sees %s", site, from)
	})}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return n
}

// at runs a command in one of the namespaces and returns what it printed.
func (n *mappedLAN) at(ns string, command ...string) string {
	n.t.Helper()
	out, err := exec.CommandContext(n.t.Context(), "ip", append([]string{"netns", "exec", ns}, command...)...).CombinedOutput()
	if err != nil {
		n.t.Logf("%v: %v", command, err)
	}
	return string(out)
}

// file is what the node file of who leads there says.
func (n *mappedLAN) file() string {
	via := "/run/netns/" + n.router + "/sw0"
	return fmt.Sprintf(`routes:
- {slice: lab, prefix: 192.168.1.0/24, via: %[1]s}
- {slice: lab, prefix: "fd77::/64", via: %[1]s}
publish:
- {slice: lab, namespace: lab, service: nas, backend: disk, addresses: [192.168.1.10, "fd77::10"], export: [{name: http, port: 80}]}
`, via)
}

func TestTwoSitesWithTheSameNetworkBehindThem(t *testing.T) {
	needs(t, "ip", "ping", "curl")
	if os.Getuid() != 0 {
		cannot(t, "namespaces with a name need root")
	}
	west, east := newMappedLAN(t, "west"), newMappedLAN(t, "east")
	l := newRoutedLab(t, "west=192.168.1.0/24,fd77::/64; east=192.168.1.0/24,fd77::/64", map[string]string{
		"west/g1": west.file(), "east/g1": east.file(),
	}, nil, labSite{name: "west", gateways: 1, nodes: 1}, labSite{name: "east", gateways: 1, nodes: 1}, labSite{name: "mid", gateways: 1, nodes: 1})
	l.until("all links", l.settled)
	mid := l.node("mid/g1")
	lans := map[string]*mappedLAN{"west": west, "east": east}
	name := func(site string) string { return "disk." + site + ".nas.lab.svc.slice.local" }
	if out := l.looksUp(mid, name("west"), "A"); !strings.Contains(out, "NXDOMAIN") {
		t.Errorf("a host is told of before there is a way to it: %s", out)
	}
	for site, lan := range lans {
		shellOut(t, "attach", "--socket", l.node(site+"/g1").socket, "--slice", "lab", "--netns", lan.router, "--name", "sw0")
	}
	mapped := make(map[string][2]string)
	l.until("the routes of both sites", func() bool {
		s, _ := l.status(mid)
		for _, r := range s.Routes {
			if len(r.Nodes) != 1 || r.Nodes[0] != r.Site+"/g1" || r.Real.Bits() != r.Prefix.Bits() {
				return false
			}
			m := mapped[r.Site]
			if a := r.Prefix.Addr(); a.Is4() {
				m[0] = strings.TrimSuffix(a.String(), "0") + "10"
			} else {
				m[1] = a.String() + "10"
			}
			mapped[r.Site] = m
		}
		return len(s.Routes) == 4
	})
	source := l.stays(mid, "source")
	for site, lan := range lans {
		for i, family := range []string{"-4", "-6"} {
			record := []string{"A", "AAAA"}[i]
			l.until("the name of the host at "+site, func() bool { return strings.Contains(l.looksUp(mid, name(site), record), "\t"+mapped[site][i]+"\n") })
			if out := l.looksUp(mid, mapped[site][i], "PTR"); !strings.Contains(out, name(site)+".") {
				t.Errorf("%s is not %s: %s", mapped[site][i], name(site), out)
			}
			get := func() string { return l.says(mid, "curl", "-sS", family, "-m", "5", "http://"+name(site)+"/") }
			l.until("an answer from "+name(site)+" by IP"+family, func() bool { return strings.HasPrefix(get(), site+" sees ") })
			// It is a host that asks as any other.
			to := []string{source.Address.String(), source.Address6.String()}[i]
			if out := lan.at(lan.host, "ping", "-n", "-c", "2", "-i", "0.2", "-W", "5", to); !strings.Contains(out, " 0% packet loss") {
				t.Errorf("%s does not reach %s: %s", site, to, out)
			}
		}
	}
	// Each of the two networks reaches the other, which sees it under its mapped address.
	for from, to := range map[string]string{"west": "east", "east": "west"} {
		for i, url := range []string{"http://" + mapped[to][0] + "/", "http://[" + mapped[to][1] + "]/"} {
			if out := lans[from].at(lans[from].host, "curl", "-sS", "-m", "10", url); out != to+" sees "+mapped[from][i] {
				t.Errorf("from %s to %s: %q", from, url, out)
			}
		}
	}
	// ICMP errors come back in words that who is told understands.
	if out := west.at(west.host, "ping", "-n", "-c", "1", "-W", "5", "-t", "2", mapped["east"][0]); !strings.Contains(out, "Time to live exceeded") {
		t.Errorf("TTL: %s", out)
	}
	if out := west.at(west.host, "ping", "-n", "-c", "1", "-W", "5", "-M", "do", "-s", "1450", mapped["east"][0]); !strings.Contains(strings.ToLower(out), "mtu") {
		t.Errorf("too big: %s", out)
	}
	for _, to := range mapped["east"] { // the first one is told of the MTU
		l.until("fragments to "+to, func() bool {
			return strings.Contains(west.at(west.host, "ping", "-n", "-c", "1", "-W", "5", "-s", "4000", to), " 0% packet loss")
		})
	}
	mappedSourcesAreRefused(l, west, mapped["west"][0], mapped["east"][0], source.Address.String())
	if out, errs, code := program(t, "routes", "--socket", mid.socket); code != 0 || strings.Count(out, "192.168.1.0/24") != 2 || !strings.Contains(out, "east/g1") {
		t.Errorf("routes: exit %d: %s%s", code, out, errs)
	}
	shellOut(t, "detach", "--socket", l.node("west/g1").socket, "--slice", "lab", "--netns", west.router)
	l.until("the name is gone with its way", func() bool { return strings.Contains(l.looksUp(mid, name("west"), "A"), "NXDOMAIN") })
}

// mappedSourcesAreRefused has the network pretend to be in mapped forms, its own
// and another's, and in the real form of nobody.
func mappedSourcesAreRefused(l *pathLab, lan *mappedLAN, own, other, to string) {
	l.t.Helper()
	before, _ := l.status(l.node("west/g1"))
	for _, src := range []string{own, other} {
		shell(l.t, "ip -n "+lan.router+" addr add "+src+"/32 dev lo")
		if out := lan.at(lan.router, "ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", "-I", src, to); !strings.Contains(out, "100% packet loss") {
			l.t.Errorf("%s passes as source: %s", src, out)
		}
	}
	if after, _ := l.status(l.node("west/g1")); after.Drops["source"] != before.Drops["source"]+4 {
		l.t.Errorf("drops before %v and after %v", before.Drops, after.Drops)
	}
}

// shellOut runs slicewire, which has to succeed.
func shellOut(t *testing.T, args ...string) {
	t.Helper()
	if out, errs, code := program(t, args...); code != 0 {
		t.Fatalf("slicewire %s: exit %d: %s%s", strings.Join(args, " "), code, out, errs)
	}
}
