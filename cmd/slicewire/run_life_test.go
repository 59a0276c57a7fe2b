package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func (m *runMesh) checkSignals(t *testing.T, n *demoNode) {
	for sig, name := range map[syscall.Signal]string{
		syscall.SIGINT: "INT", syscall.SIGTERM: "TERM", syscall.SIGHUP: "HUP", syscall.SIGQUIT: "QUIT", syscall.SIGUSR1: "USR1", syscall.SIGUSR2: "USR2", syscall.SIGWINCH: "WINCH",
	} {
		r := m.start(n, nil, "sh", "-c", fmt.Sprintf("trap 'echo caught; exit 3' %s; echo ready; while :; do sleep 0.01; done", name))
		if err := r.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		line, err := r.out.ReadString('\n')
		_ = r.cmd.Wait() // its code is checked
		if code := r.cmd.ProcessState.ExitCode(); line != "caught\n" || code != 3 {
			t.Errorf("%v: %q, %v, exit %d, %s", sig, line, err, code, r.errs.String())
		}
	}
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGWINCH} {
		if fromTerminal(s, false) || !fromTerminal(s, true) {
			t.Errorf("%v comes twice, or not at all", s)
		}
	}
	if fromTerminal(syscall.SIGTERM, true) {
		t.Error("no terminal sends SIGTERM")
	}
}

func (m *runMesh) checkNames(t *testing.T, n *demoNode) {
	for i := range 10 {
		r := m.start(n, []string{"--name", "again"}, "echo", "here")
		if err := r.cmd.Wait(); err != nil {
			t.Fatalf("run %d: %v, %s", i, err, r.errs.String())
		}
	}
}

func (m *runMesh) checkRights(t *testing.T, n *demoNode) {
	out, errs, code := m.run(n, "cat", "/proc/self/status")
	if code != 0 {
		t.Fatalf("exit %d, %s", code, errs)
	}
	const kept = "0000000000002400" // CAP_NET_BIND_SERVICE, CAP_NET_RAW
	for _, want := range []string{"CapInh:\t" + kept, "CapPrm:\t" + kept, "CapEff:\t" + kept, "CapBnd:\t" + kept, "CapAmb:\t" + kept, "NoNewPrivs:\t1"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	// Neither addresses nor mounts are the program's to change.
	for _, program := range [][]string{{"ip", "address", "add", "10.190.0.1/32", "dev", runDevice}, {"mount", "-t", "tmpfs", "x", "/mnt"}} {
		if out, _, code := m.run(n, program...); code == 0 {
			t.Errorf("%v: allowed, %s", program, out)
		}
	}
}

// checkHost is the isolation of a run's namespace from the host: loopback of
// both families, the host's own addresses and abstract sockets.
func (m *runMesh) checkHost(t *testing.T, n *demoNode) {
	var tries []string
	reached := make(chan string, 64)
	listen := func(network, addr string) {
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Logf("%s %s: %v", network, addr, err) // a host without IPv6
			return
		}
		t.Cleanup(func() { l.Close() })
		tries = append(tries, "dial "+network+" "+l.Addr().String())
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
				reached <- network + " " + addr
			}
		}()
	}
	listen("tcp", "127.0.0.1:0")
	listen("tcp", "127.0.0.2:0")
	listen("tcp", "[::1]:0")
	listen("unix", "@slicewire-test-"+filepath.Base(m.dir))
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range usable(addrs, 0) {
		listen("tcp", a.String())
	}
	// The cloud's metadata service and a neighbour on the host's link.
	tries = append(tries, "dial tcp 169.254.169.254:80", "dial tcp [fe80::1%lo]:80")
	for _, c := range tries[:1] { // the probe itself works: outside, it reaches
		network, addr, _ := strings.Cut(strings.TrimPrefix(c, "dial "), " ")
		conn, err := net.Dial(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		<-reached
	}
	out, errs, code := m.run(n, m.probeCommand(strings.Join(tries, "\n"))...)
	if code != 0 || strings.Count(out, "\n") != len(tries) || strings.Contains(out, "reached") || len(reached) > 0 {
		t.Errorf("exit %d, %d reached\n%s%s", code, len(reached), out, errs)
	}
	t.Logf("%d of the host's doors tried:\n%s", len(tries), out)
}

// namespacesOf lists the network namespaces that processes of this machine are
// in, as far as this user may see them.
func namespacesOf(t *testing.T) map[string]bool {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]bool)
	for _, l := range links {
		if ns, err := os.Readlink(l); err == nil {
			out[ns] = true
		}
	}
	return out
}

func (m *runMesh) checkKilledClient(t *testing.T, n *demoNode) {
	// A program that has a child in a session of its own, and both ignore what
	// can be ignored.
	r := m.start(n, []string{"--name", "stubborn"}, "sh", "-c", `trap "" HUP TERM INT; setsid sh -c 'trap "" HUP TERM INT; while :; do sleep 0.1; done' & readlink /proc/self/ns/net; wait`)
	if !strings.HasPrefix(r.first, "net:[") || !namespacesOf(t)[r.first] {
		t.Fatalf("its namespace: %q", r.first)
	}
	if _, ok := m.named(n, "stubborn"); !ok {
		t.Fatal("no such workload")
	}
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = r.cmd.Wait() // killed
	m.until("the address is free", func() bool { _, there := m.named(n, "stubborn"); return !there })
	m.until("nobody is in the namespace", func() bool { return !namespacesOf(t)[r.first] })
}

// checkResolver has programs with a resolv.conf of their own killed with their
// client, and wants the host's as it was: the same file with the same bytes, and
// nothing mounted over it.
func (m *runMesh) checkResolver(t *testing.T, n *demoNode) {
	host := func() (string, os.FileInfo) {
		text, err1 := os.ReadFile(resolvPath)
		info, err2 := os.Stat(resolvPath)
		mounts, err3 := os.ReadFile("/proc/self/mountinfo")
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		mounted := ""
		for line := range strings.Lines(string(mounts)) {
			if strings.Contains(line, "resolv") {
				mounted += line
			}
		}
		return string(text) + "\n" + mounted, info
	}
	text, info := host()
	for i := range 20 {
		r := m.start(n, []string{"--name", "resolving"}, "sh", "-c", "tr '\\n' ' ' < /etc/resolv.conf; echo; exec sleep 1000")
		w, there := m.named(n, "resolving")
		if !there || !strings.Contains(r.first, "nameserver 10.190.") || !strings.Contains(r.first, "search svc.slice.local") {
			t.Fatalf("its resolver: %q, at %v", r.first, w.Address)
		}
		if err := r.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = r.cmd.Wait() // killed
		now, same := host()
		if now != text || !os.SameFile(info, same) || !info.ModTime().Equal(same.ModTime()) {
			t.Fatalf("kill %d: the host's resolver was\n%s\nand is\n%s", i, text, now)
		}
		m.until("the address is free", func() bool { _, there := m.named(n, "resolving"); return !there })
	}
}

func (m *runMesh) checkReload(t *testing.T, n *demoNode) {
	cmd := m.command(t.Context(), n, []string{"--name", "kept"}, "sh", "-c", `while read url; do curl -sS -m 20 "$url"; done`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := new(lines)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ask := func(want int) {
		t.Helper()
		fmt.Fprintf(in, "http://%s/\n", demoName)
		m.until("an answer", func() bool { return strings.Count(out.String(), demoPage("iperf-slice")) == want })
	}
	ask(1)
	before, _ := m.named(n, "kept")
	for range 3 {
		if _, errs, code := program(t, "reload", "--socket", n.socket); code != 0 {
			t.Fatalf("reload: exit %d, %s", code, errs)
		}
	}
	ask(2)
	if after, ok := m.named(n, "kept"); !ok || after.Address != before.Address || after.TxPackets <= before.TxPackets {
		t.Errorf("%+v before and %+v after", before, after)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// loop is a program that says which network namespace it is in and goes on.
var loop = []string{"sh", "-c", `readlink /proc/self/ns/net; while :; do sleep 0.1; done`}

// isLost waits for a run that has lost its slice.
func (m *runMesh) isLost(t *testing.T, r *running, says string) {
	t.Helper()
	_ = r.cmd.Wait() // its code is checked
	if code := r.cmd.ProcessState.ExitCode(); code != exitLost || !strings.Contains(r.errs.String(), errLost.Error()) || !strings.Contains(r.errs.String(), says) {
		t.Errorf("exit %d, %s; want %d and %q", code, r.errs.String(), exitLost, says)
	}
	m.until("nobody is in the namespace", func() bool { return !namespacesOf(t)[r.first] })
}

func (m *runMesh) checkReopened(t *testing.T, n *demoNode) {
	file, err := os.ReadFile(n.config)
	if err != nil {
		t.Fatal(err)
	}
	r := m.start(n, nil, loop...)
	reload := func(text string) {
		t.Helper()
		if err := os.WriteFile(n.config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, errs, code := program(t, "reload", "--socket", n.socket); code != 0 {
			t.Fatalf("reload: exit %d, %s", code, errs)
		}
	}
	proxy := n.slices["iperf-slice"].proxy
	reload(strings.Replace(string(file), `proxy: "`+proxy+`", `, "", 1))
	m.isLost(t, r, errReopened.Error())
	reload(string(file))
	m.until("the service answers again", m.reaches)
}

func (m *runMesh) checkStoppedDaemon(t *testing.T, n *demoNode) {
	r := m.start(n, nil, loop...)
	n.interrupt()
	m.isLost(t, r, errEnding.Error())
	<-n.done
	if code := n.process.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the daemon: exit %d\n%s", code, n.tail())
	}
	// It has seen programs end in every way, killed ones and hostile ones.
	if log, err := os.ReadFile(n.logFile); err != nil || bytes.Contains(log, []byte("level=ERROR")) {
		t.Errorf("%v: its log has errors\n%s", err, log)
	}
	m.restart(n)
}

// restart starts a node's daemon again, which knows nothing of workloads before.
func (m *runMesh) restart(n *demoNode) {
	m.t.Helper()
	if err := n.start(); err != nil {
		m.t.Fatal(err)
	}
	m.until("the daemon is up again, with no workloads", func() bool {
		s, up := m.status(n)
		return up && len(s.Slices) > 0 && len(m.workloads(n)) == 0
	})
	if m.user != nil {
		if err := os.Chown(n.socket, 0, nobody); err != nil {
			m.t.Fatal(err)
		}
	}
}

func (m *runMesh) checkKilledDaemon(t *testing.T, n *demoNode) {
	r := m.start(n, nil, loop...)
	if err := n.process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-n.done
	m.isLost(t, r, "the daemon is gone")
	m.restart(n)
	m.until("a new run works", func() bool {
		out, _, code := m.run(n, "curl", "-sS", "-m", "20", "http://"+demoName+"/")
		return code == 0 && out == demoPage("iperf-slice")
	})
}
