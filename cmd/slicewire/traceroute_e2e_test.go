package main

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"slicewire/api"
)

// on is a program on the lab's slice at a node, not yet started.
func (l *pathLab) on(ctx context.Context, n *labNode, name string, program ...string) *exec.Cmd {
	args := append([]string{"run", "--socket", n.socket, "--slice", "lab", "--name", name, "--"}, program...)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// says runs a program on the slice and returns what it printed.
func (l *pathLab) says(n *labNode, program ...string) string {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	out, err := l.on(ctx, n, "asks", program...).CombinedOutput()
	if err != nil {
		l.t.Logf("%v: %v\n%s", program, err, out)
	}
	return string(out)
}

// stays has a workload without a purpose on the slice until the test ends.
func (l *pathLab) stays(n *labNode, name string) api.WorkloadStatus {
	l.t.Helper()
	cmd := l.on(l.t.Context(), n, name, "sh", "-c", "echo up; exec sleep 1000")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "up\n" {
		l.t.Fatalf("%s: %q, %v", name, line, err)
	}
	s, _ := l.status(n)
	i := slices.IndexFunc(s.Workloads, func(w api.WorkloadStatus) bool { return w.Name == name })
	if i < 0 {
		l.t.Fatalf("%s is no workload of %v", name, n.id)
	}
	return s.Workloads[i]
}

// needs ends a test whose programs are missing: as root and in CI it fails, for
// `make prerequisites` installs them there.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			cannot(t, fmt.Sprintf("%v: `make prerequisites` says what to install", err))
		}
	}
}

// needsRoot ends a test that anybody else cannot do.
func needsRoot(t *testing.T, why string) {
	t.Helper()
	if os.Getuid() != 0 {
		cannot(t, why+" need root")
	}
}

// cannot skips a test only where a user runs it for himself.
func cannot(t *testing.T, why string) {
	t.Helper()
	if os.Getuid() == 0 || os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip("not tested: " + why)
}

// hopsOf returns the addresses in traceroute -n output, hop by hop; a hop that
// did not answer is invalid.
func hopsOf(out string) []netip.Addr {
	var hops []netip.Addr
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		if _, err := strconv.Atoi(f[0]); err != nil {
			continue
		}
		a, _ := netip.ParseAddr(f[1])
		hops = append(hops, a)
	}
	return hops
}

func TestTracerouteShowsEveryHop(t *testing.T) {
	needs(t, "traceroute", "tracepath", "ping")
	needsRoot(t, "raw sockets in a namespace")
	l := newPathLab(t, []string{"hub"}, labSite{name: "west", gateways: 1, nodes: 2}, labSite{name: "hub", gateways: 1, nodes: 1}, labSite{name: "east", gateways: 1, nodes: 2})
	l.until("all links", l.settled)
	target := l.stays(l.node("east/g2"), "target")
	var way, way6 []netip.Addr
	for _, name := range []string{"west/g2", "west/g1", "hub/g1", "east/g1", "east/g2"} {
		s, _ := l.status(l.node(name))
		way, way6 = append(way, s.Address), append(way6, s.Address6)
	}
	way, way6 = append(way, target.Address), append(way6, target.Address6)
	from := l.node("west/g2")
	// Links that are up lose nothing of a burst, from their first second on.
	if out := l.says(from, "ping", "-n", "-c", "150", "-i", "0.002", "-W", "5", target.Address6.String()); !strings.Contains(out, " 0% packet loss") {
		t.Errorf("a burst of echoes: %s", out)
	}
	for _, c := range []struct {
		name    string
		program []string
		want    []netip.Addr
	}{
		{"UDP", []string{"traceroute", "-n", "-q", "1", "-w", "10", target.Address.String()}, way},
		// The target's kernel answers but six such questions at once.
		{"UDP, all questions at once", []string{"traceroute", "-n", "-m", "5", "-N", "15", "-w", "10", target.Address.String()}, way[:5]},
		{"echo", []string{"traceroute", "-n", "-I", "-q", "1", "-w", "10", target.Address.String()}, way},
		{"TCP", []string{"traceroute", "-n", "-T", "-p", "81", "-q", "1", "-w", "10", target.Address.String()}, way},
		{"UDP over IPv6", []string{"traceroute", "-n", "-q", "1", "-w", "10", target.Address6.String()}, way6},
		{"echo over IPv6", []string{"traceroute", "-n", "-I", "-q", "1", "-w", "10", target.Address6.String()}, way6},
	} {
		if out := l.says(from, c.program...); !slices.Equal(hopsOf(out), c.want) {
			t.Errorf("%s: %v, want %v\n%s", c.name, hopsOf(out), c.want, out)
		}
	}
	ping := l.says(from, "ping", "-n", "-c", "1", "-W", "5", "-t", "3", target.Address.String())
	if !strings.Contains(ping, "From "+way[2].String()) || !strings.Contains(ping, "Time to live exceeded") {
		t.Errorf("ping with three hops: %s", ping)
	}
	ping = l.says(from, "ping", "-n", "-c", "1", "-W", "5", "10.190.255.9") // of no site
	if !strings.Contains(ping, "From "+way[0].String()) || !strings.Contains(ping, "Destination Net Unreachable") {
		t.Errorf("ping of nobody: %s", ping)
	}
	l.checkPathMTU(t, target)
	l.balance("lab")
	if t.Failed() {
		for _, n := range l.order {
			s, _ := l.status(n)
			t.Logf("%v dropped %v", n.id, s.Drops)
		}
	}
}

// checkPathMTU has the two nodes in the middle of the way take less than those
// at its ends, one of them less than the other: who sends too much learns of it,
// whichever side that is.
func (l *pathLab) checkPathMTU(t *testing.T, target api.WorkloadStatus) {
	l.setMTU("hub/g1", 1380)
	l.setMTU("east/g1", 1300)
	l.until("all links again", l.settled)
	from := l.node("west/g2")
	source := l.stays(from, "source")
	for _, c := range []struct {
		name    string
		at      *labNode
		to, to6 netip.Addr
	}{
		{"eastward", from, target.Address, target.Address6},
		{"westward", l.node("east/g2"), source.Address, source.Address6},
	} {
		for _, to := range []netip.Addr{c.to, c.to6} {
			l.until("an echo "+c.name, func() bool {
				return strings.Contains(l.says(c.at, "ping", "-n", "-c", "1", "-W", "1", to.String()), " 0% packet loss")
			})
			if out := l.says(c.at, "tracepath", "-n", to.String()); !strings.Contains(out, "Resume: pmtu 1300 hops 6") {
				t.Errorf("%s to %v: %s", c.name, to, out)
			}
		}
		// Without DF the way cuts what is too long, and the kernel at its end joins it.
		if out := l.says(c.at, "ping", "-n", "-M", "dont", "-c", "2", "-i", "0.1", "-s", "1392", "-W", "5", c.to.String()); !strings.Contains(out, " 0% packet loss") {
			t.Errorf("%s, cut: %s", c.name, out)
		}
		if out := l.says(c.at, "ping", "-n", "-M", "do", "-c", "3", "-i", "0.1", "-s", "1392", "-W", "2", c.to.String()); !strings.Contains(strings.ToLower(out), "mtu") && !strings.Contains(out, "mtu = 1") {
			t.Errorf("%s, with DF: %s", c.name, out)
		}
	}
}

func (l *pathLab) setMTU(node string, mtu int) {
	l.t.Helper()
	n := l.node(node)
	text, err := os.ReadFile(n.config)
	if err == nil {
		err = os.WriteFile(n.config, []byte(strings.Replace(string(text), "lab: {", "lab: {mtu: "+strconv.Itoa(mtu)+", ", 1)), 0o600)
	}
	if err == nil {
		err = newClient(n.socket).reload(l.t.Context())
	}
	if err != nil {
		l.t.Fatal(err)
	}
}
