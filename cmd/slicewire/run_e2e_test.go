package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"slicewire/api"
)

// asProbe is set for what tests run on a slice: this very test binary, which
// tries what its value says, one line each, and says how it went.
const asProbe = "SLICEWIRE_TEST_AS_PROBE"

func probe(what string) {
	for line := range strings.Lines(what) {
		verb, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch verb {
		case "dial": // NETWORK ADDRESS
			network, addr, _ := strings.Cut(arg, " ")
			c, err := net.DialTimeout(network, addr, patience)
			if err != nil {
				fmt.Printf("%s %s: %v\n", network, addr, err)
				continue
			}
			c.Close()
			fmt.Printf("%s %s: reached\n", network, addr)
		case "state": // FOLDER
			writeState(arg)
		case "serve": // ADDRESS
			l, err := net.Listen("tcp", arg)
			if err != nil {
				fmt.Println(err)
				return
			}
			fmt.Println("ready")
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "from inside") })}
			fmt.Println(srv.Serve(l))
		}
	}
}

// probeCommand is the command line that runs probe on a slice.
func (m *runMesh) probeCommand(what string) []string {
	return []string{"env", asProbe + "=" + what, m.binary}
}

// A runMesh is a mesh whose daemons anybody in group nobody may speak to, and
// the user who runs programs on its slices: nobody where the test is root.
type runMesh struct {
	*mesh
	binary string
	user   *syscall.Credential
}

const nobody = 65534

func startRunMesh(t *testing.T) *runMesh {
	t.Helper()
	m := &runMesh{mesh: startMesh(t, "worker-1", "worker-2"), binary: os.Args[0]}
	m.until("first byte", m.reaches)
	if os.Getuid() != 0 {
		return m
	}
	m.user = &syscall.Credential{Uid: nobody, Gid: nobody}
	// Test binaries and the demo's folder are for their owner only.
	folder, err := os.MkdirTemp("", "sw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	m.binary = filepath.Join(folder, "slicewire")
	data, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(m.binary, data, 0o755), os.Chmod(folder, 0o755), os.Chmod(m.dir, 0o711)); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*demoNode{m.server(), m.client()} {
		if err := os.Chown(n.socket, 0, nobody); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// command is a slicewire run on a node's slice, not yet started.
func (m *runMesh) command(ctx context.Context, n *demoNode, flags []string, program ...string) *exec.Cmd {
	args := append([]string{"run", "--socket", n.socket, "--slice", "iperf-slice"}, flags...)
	cmd := exec.CommandContext(ctx, m.binary, append(append(args, "--"), program...)...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0") // the race detector would wait a second
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: m.user, Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (m *runMesh) run(n *demoNode, program ...string) (stdout, stderr string, code int) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	cmd := m.command(ctx, n, nil, program...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatalf("run %v: %v", program, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// A running is a run that has printed its first line.
type running struct {
	cmd   *exec.Cmd
	first string
	out   *bufio.Reader
	errs  bytes.Buffer
}

// start runs a program until the test ends and waits for its first line.
func (m *runMesh) start(n *demoNode, flags []string, program ...string) *running {
	m.t.Helper()
	r := &running{cmd: m.command(m.t.Context(), n, flags, program...)}
	r.cmd.Stderr = &r.errs
	pipe, err := r.cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = r.cmd.Process.Kill(); _ = r.cmd.Wait() }) // it may have ended in the test
	r.out = bufio.NewReader(pipe)
	if r.first, err = r.out.ReadString('\n'); err != nil {
		_ = r.cmd.Wait() // what it says is in the report
		m.t.Fatalf("%v: %v\n%s\nthe daemon:\n%s", program, err, r.errs.String(), n.tail())
	}
	r.first = strings.TrimSpace(r.first)
	return r
}

// workloads lists what status says is on the slice at n.
func (m *runMesh) workloads(n *demoNode) []api.WorkloadStatus {
	s, up := m.status(n)
	for _, x := range s.Slices {
		if up && x.Name == "iperf-slice" {
			return x.Workloads
		}
	}
	return nil
}

func (m *runMesh) named(n *demoNode, name string) (api.WorkloadStatus, bool) {
	for _, w := range m.workloads(n) {
		if w.Name == name {
			return w, true
		}
	}
	return api.WorkloadStatus{}, false
}

func TestRunPutsAProgramOnASlice(t *testing.T) {
	m := startRunMesh(t)
	n := m.client()
	t.Run("its exit code passes through", func(t *testing.T) { m.checkCodes(t, n) })
	t.Run("its input and output pass through", func(t *testing.T) { m.checkStreams(t, n) })
	t.Run("it uses the slice as any host would", func(t *testing.T) { m.checkClients(t, n) })
	t.Run("the other site reaches it", func(t *testing.T) { m.checkIncoming(t, n) })
	t.Run("two of them speak with each other", func(t *testing.T) { m.checkPair(t) })
	t.Run("it has a TUN where it may open one", m.checkMedium)
	t.Run("a device that is none is refused", m.checkHostile)
	t.Run("its terminal passes through", func(t *testing.T) { m.checkTerminal(t, n) })
	t.Run("signals pass through", func(t *testing.T) { m.checkSignals(t, n) })
	t.Run("a name is free once its run has ended", func(t *testing.T) { m.checkNames(t, n) })
	t.Run("it keeps no rights", func(t *testing.T) { m.checkRights(t, n) })
	t.Run("it does not reach the host", func(t *testing.T) { m.checkHost(t, n) })
	t.Run("a killed client leaves nothing", func(t *testing.T) { m.checkKilledClient(t, n) })
	t.Run("the host's resolver outlives it", func(t *testing.T) { m.checkResolver(t, n) })
	t.Run("a reload keeps it", func(t *testing.T) { m.checkReload(t, n) })
	t.Run("a slice that is opened anew ends it", func(t *testing.T) { m.checkReopened(t, n) })
	t.Run("a stopped daemon ends it", func(t *testing.T) { m.checkStoppedDaemon(t, n) })
	t.Run("a killed daemon ends it", func(t *testing.T) { m.checkKilledDaemon(t, n) })
}

func (m *runMesh) checkCodes(t *testing.T, n *demoNode) {
	for _, tc := range []struct {
		name    string
		program []string
		code    int
	}{
		{"success", []string{"true"}, 0},
		{"a code", []string{"sh", "-c", "exit 42"}, 42},
		{"a signal", []string{"sh", "-c", "kill -KILL $$"}, exitSignal + 9},
		{"no such program", []string{"no-such-program"}, exitNotFound},
		{"no such file", []string{"/no/such/program"}, exitNotFound},
		{"not a program", []string{"/etc/passwd"}, exitNoStart},
	} {
		if _, errs, code := m.run(n, tc.program...); code != tc.code {
			t.Errorf("%s: exit %d, want %d: %s", tc.name, code, tc.code, errs)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := m.command(ctx, n, []string{"--slice", "nope"}, "true")
	if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != exitUnreachable || !strings.Contains(string(out), "iperf-slice") {
		t.Errorf("an unknown slice: %v, %s", err, out)
	}
	if m.user != nil {
		cmd := m.command(ctx, n, nil, "true")
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody - 1, Gid: nobody - 1}
		if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != exitNotAllowed || !strings.Contains(string(out), "its group") {
			t.Errorf("a user who may not connect: %v, %s", err, out)
		}
	}
	m.until("all addresses are free again", func() bool { return len(m.workloads(n)) == 0 })
}

func (m *runMesh) checkStreams(t *testing.T, n *demoNode) {
	cmd := m.command(t.Context(), n, nil, "sh", "-c", "cat; pwd; echo trouble >&2")
	cmd.Stdin = strings.NewReader("line\n")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil || out.String() != "line\n/\n" || errs.String() != "trouble\n" {
		t.Errorf("%v, %q, %q", err, out.String(), errs.String())
	}
}

func (m *runMesh) checkClients(t *testing.T, n *demoNode) {
	s, _ := m.status(m.server())
	server := ""
	for _, x := range s.Slices {
		if x.Name == "iperf-slice" {
			server = x.Address.String()
		}
	}
	for _, tc := range []struct {
		program []string
		says    string
	}{
		{[]string{"curl", "-sS", "-m", "20", "http://" + demoName + "/"}, demoPage("iperf-slice")},
		{[]string{"curl", "-sS", "-m", "20", "http://web.iperf/"}, demoPage("iperf-slice")}, // by the search domain
		{[]string{"curl", "-6", "-sS", "-m", "20", "http://" + demoName + "/"}, demoPage("iperf-slice")},
		{[]string{"dig", "+short", "+tries=3", demoName}, "10.190."},
		{[]string{"dig", "+tcp", "+short", demoName, "AAAA"}, "fd"},
		{[]string{"ping", "-c", "3", "-i", "0.05", "-W", "10", server}, " 0% packet loss"},
		{[]string{"ping", "-6", "-c", "3", "-i", "0.05", "-W", "10", demoName}, " 0% packet loss"},
		{[]string{"id", "-u"}, fmt.Sprint(m.uid())},
		{[]string{"cat", "/proc/net/dev"}, runDevice},
	} {
		if out, errs, code := m.run(n, tc.program...); code != 0 || !strings.Contains(out, tc.says) {
			t.Errorf("%v: exit %d, %q, %s", tc.program, code, out, errs)
		}
	}
}

func (m *runMesh) uid() int {
	if m.user != nil {
		return int(m.user.Uid)
	}
	return os.Getuid()
}

func (m *runMesh) checkIncoming(t *testing.T, n *demoNode) {
	r := m.start(n, []string{"--name", "site"}, m.probeCommand("serve :80")...)
	if r.first != "ready" {
		t.Fatalf("%s", r.first)
	}
	w, ok := m.named(n, "site")
	if !ok || w.UID != uint32(m.uid()) || w.Kind != api.WorkloadRun || w.Command != "env" || w.Medium == "" {
		t.Fatalf("status: %+v", w)
	}
	for _, host := range []string{w.Address.String(), "[" + w.Address6.String() + "]"} {
		body, err := fetch(t.Context(), m.server().slices["iperf-slice"].proxy, "http://"+host+"/")
		if err != nil || body != "from inside" {
			t.Errorf("%s: %q, %v", host, body, err)
		}
	}
	if after, _ := m.named(n, "site"); after.RxPackets == 0 || after.TxBytes == 0 {
		t.Errorf("not counted: %+v", after)
	}
	t.Logf("medium %s", w.Medium)
	// The name is taken while it lives, and finds its address again afterwards.
	cmd := m.command(t.Context(), n, []string{"--name", "site"}, "true")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), errNameTaken.Error()) {
		t.Errorf("the same name twice: %v, %s", err, out)
	}
	r.stop(t)
	m.until("the address is free", func() bool { return len(m.workloads(n)) == 0 })
	m.start(n, []string{"--name", "site"}, "sh", "-c", "echo up; cat")
	if again, _ := m.named(n, "site"); again.Address != w.Address || again.Address6 != w.Address6 {
		t.Errorf("%v, %v before and %v, %v now", w.Address, w.Address6, again.Address, again.Address6)
	}
}

// stop ends a run as a shell would.
func (r *running) stop(t *testing.T) {
	t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = r.cmd.Wait() // its code is the program's
	if code := r.cmd.ProcessState.ExitCode(); code != exitSignal+int(syscall.SIGTERM) {
		t.Errorf("exit %d after SIGTERM: %s", code, r.errs.String())
	}
}

func (m *runMesh) checkPair(t *testing.T) {
	m.start(m.server(), []string{"--name", "iperf"}, "iperf3", "-s", "--forceflush")
	w, ok := m.named(m.server(), "iperf")
	if !ok {
		t.Fatal("no such workload")
	}
	// TCP both ways and UDP, between two programs at two sites.
	for _, flags := range [][]string{{"-n", "8M"}, {"-n", "8M", "-R"}, {"-u", "-b", "20M", "-t", "1", "-l", "1200"}} {
		program := append([]string{"iperf3", "-J", "--connect-timeout", "20000", "-c", w.Address.String()}, flags...)
		out, errs, code := m.run(m.client(), program...)
		if code != 0 || !strings.Contains(out, `"end"`) || strings.Contains(out, `"error"`) {
			t.Errorf("%v: exit %d, %s\n%s", flags, code, errs, out)
		}
	}
}

// lines collects output that is read while it grows.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
