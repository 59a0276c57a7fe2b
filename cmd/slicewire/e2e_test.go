package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"slicewire/api"
	"slicewire/statedir"
)

// asProgram is set for the processes that tests start: they are this very test
// binary, acting as slicewire.
const asProgram = "SLICEWIRE_TEST_AS_PROGRAM"

// asOf shifts the wall clock of these processes.
const asOf = "SLICEWIRE_TEST_CLOCK"

func TestMain(m *testing.M) {
	if what := os.Getenv(asProbe); what != "" {
		probe(what)
		return
	}
	if os.Getenv(asProgram) != "" {
		ctx := context.Background()
		if shift, err := time.ParseDuration(os.Getenv(asOf)); err == nil {
			ctx = context.WithValue(ctx, wallKey{}, func() time.Time { return time.Now().Add(shift) })
		}
		os.Exit(begin(ctx, os.Args))
	}
	os.Exit(m.Run())
}

// patience is how long a test waits for what should take moments.
const patience = 60 * time.Second

// program runs slicewire as a process of its own and returns what it printed.
func program(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	stdout, stderr, code, err := tryProgram(t.Context(), args...)
	if err != nil {
		t.Fatalf("slicewire %s: %v", strings.Join(args, " "), err)
	}
	return stdout, stderr, code
}

// tryProgram is program for where a test may not be ended.
func tryProgram(ctx context.Context, args ...string) (stdout, stderr string, code int, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		return "", "", -1, err
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode(), nil
}

func TestTheDemoChecksItselfAndLeavesNothing(t *testing.T) {
	tmp, err := os.MkdirTemp("", "sw") // short: sockets are made below it
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	t.Setenv("TMPDIR", tmp)
	out, errs, code := program(t, "demo", "--once")
	t.Log(out)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	for _, want := range []string{"first byte", "name", "socks5", "port", "ping", "isolation", "policy"} {
		if !strings.Contains(out, "ok       "+want) {
			t.Errorf("no step %q in the output", want)
		}
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// mesh is the demo's three sites, run by a test.
type mesh struct {
	*demo
	t *testing.T
}

func startMesh(t *testing.T, sites ...string) *mesh {
	t.Helper()
	t.Setenv(asProgram, "1")
	d, err := newDemo(testWriter{t})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.close(false); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if err := d.services.start(); err != nil {
		t.Fatal(err)
	}
	m := &mesh{d, t}
	for _, site := range sites {
		if err := d.nodes[site].start(); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// until asks again and again until ok says yes.
func (m *mesh) until(what string, ok func() bool) {
	m.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			for _, n := range m.nodes {
				if n.process != nil {
					m.t.Logf("log of %s:\n%s", n.site, n.tail())
				}
			}
			m.t.Fatalf("waited %v in vain: %s", patience, what)
		case <-tick.C:
		}
	}
}

// reaches reports whether the client's site gets the server's page now.
func (m *mesh) reaches() bool {
	body, err := fetch(m.t.Context(), m.client().slices["iperf-slice"].proxy, "http://"+demoName+"/")
	return err == nil && body == demoPage("iperf-slice")
}

func (m *mesh) status(n *demoNode) (api.Status, bool) {
	s, err := newClient(n.socket).status(m.t.Context())
	return s, err == nil
}

func TestAKilledDaemonIsReachedAgainAtOnce(t *testing.T) {
	m := startMesh(t, demoSites...)
	m.until("first byte", m.reaches)
	server := m.server()
	if err := server.process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-server.done
	if err := server.start(); err != nil {
		t.Fatal(err)
	}
	m.until("the daemon is up again", func() bool { _, up := m.status(server); return up })
	begin := time.Now()
	// Only the survivor sends: one echo request after another.
	m.until("an answer after the restart", func() bool {
		answered := false
		req := api.PingRequest{Slice: "iperf-slice", Target: "worker-1/" + demoNodeName, Count: 1, Timeout: 100 * time.Millisecond}
		_ = newClient(m.client().socket).ping(t.Context(), req, func(p api.PingReply) { answered = p.Error == "" })
		return answered
	})
	took := time.Since(begin)
	t.Logf("answered %v after the restarted daemon was up", took)
	// A bare WireGuard peer takes 15 seconds: it waits for its keepalive and
	// handshake timers. Anything near that means that nobody shook hands at once.
	if took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestSIGTERMEndsADaemonAndLeavesNothing(t *testing.T) {
	m := startMesh(t, "worker-1", "worker-2")
	m.until("first byte", m.reaches)
	n := m.server()
	begin := time.Now()
	n.interrupt()
	select {
	case <-n.done:
	case <-time.After(patience):
		t.Fatal("it goes on")
	}
	t.Logf("ended in %v", time.Since(begin))
	if code := n.process.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit %d\n%s", code, n.tail())
	}
	if _, err := os.Lstat(n.socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	log, err := os.ReadFile(n.logFile)
	if err != nil || bytes.Contains(log, []byte("level=ERROR")) {
		t.Errorf("%v\n%s", err, log)
	}
}

func TestASecondSIGTERMEndsItAtOnce(t *testing.T) {
	m := startMesh(t, "worker-1")
	n := m.server()
	m.until("the daemon is up", func() bool { _, up := m.status(n); return up })
	begin := time.Now()
	m.until("the process is gone", func() bool {
		_ = n.process.Process.Signal(syscall.SIGTERM) // it may be gone already
		select {
		case <-n.done:
			return true
		default:
			return false
		}
	})
	t.Logf("ended in %v", time.Since(begin))
	<-n.exited
	n.exited = nil // its exit code is whichever signal won
}

func TestAFaultyReloadLosesNothing(t *testing.T) {
	m := startMesh(t, "worker-1", "worker-2")
	m.until("first byte", m.reaches)
	file := filepath.Join(m.dir, "manifests", "demo.yaml")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"not YAML":         "{",
		"a public subnet":  strings.Replace(string(good), "10.190.0.0/16", "8.8.0.0/16", 1),
		"an unknown class": strings.Replace(string(good), "clusters: [worker-1, worker-2, worker-3]", "clusters: [worker-1, worker-1]", 1),
	} {
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		_, errs, code := program(t, "reload", "--socket", m.client().socket)
		if code != exitFailure || !strings.Contains(errs, "demo.yaml:") {
			t.Errorf("%s: exit %d, %q; want it to name the file and line", name, code, errs)
		}
		if s, up := m.status(m.client()); !up || len(s.Slices) != 2 {
			t.Errorf("%s: %d slices after the reload", name, len(s.Slices))
		}
		if !m.reaches() {
			t.Errorf("%s: the service is gone after the reload", name)
		}
	}
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := program(t, "reload", "--socket", m.client().socket); code != 0 {
		t.Errorf("the good file again: exit %d, %s", code, errs)
	}
}

func TestAReloadPublishesAndWithdraws(t *testing.T) {
	m := startMesh(t, "worker-1", "worker-2")
	m.until("first byte", m.reaches)
	n := m.server()
	file, err := os.ReadFile(n.config)
	if err != nil {
		t.Fatal(err)
	}
	head, _, ok := strings.Cut(string(file), "publish:\n")
	if !ok {
		t.Fatal("the node file publishes nothing")
	}
	reload := func(text string) {
		t.Helper()
		if err := os.WriteFile(n.config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, errs, code := program(t, "reload", "--socket", n.socket); code != 0 {
			t.Fatalf("reload: exit %d, %s", code, errs)
		}
	}
	services := func(want int) func() bool {
		return func() bool {
			s, up := m.status(m.client())
			for _, x := range s.Slices {
				if x.Name == "iperf-slice" {
					return up && len(x.Services) == want
				}
			}
			return false
		}
	}
	reload(head)
	m.until("the other site sees no service", services(0))
	if m.reaches() {
		t.Error("a withdrawn service still answers")
	}
	reload(string(file))
	m.until("the other site sees both services again", services(2))
	m.until("the service answers again", m.reaches)
}

func TestACertificateForAnotherNodeStopsTheDaemon(t *testing.T) {
	m := startMesh(t)
	n := m.server()
	file, err := os.ReadFile(n.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.config, bytes.Replace(file, []byte("node: gw"), []byte("node: other"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	_, errs, code := program(t, "daemon", "--config", n.config)
	if code != exitConfig || !strings.Contains(errs, "worker-1/gw") {
		t.Errorf("exit %d, %s", code, errs)
	}
}

func TestAThiefOfTheGossipKeyIsBelievedNothing(t *testing.T) {
	m := startMesh(t)
	// A second authority of the same name; its node has stolen the gossip key.
	stranger := statedir.Dir(filepath.Join(m.dir, "stranger"))
	if err := initAuthority(stranger, "demo", time.Now()); err != nil {
		t.Fatal(err)
	}
	key, err := statedir.Dir(filepath.Join(m.dir, "ca")).Read(statedir.FileGossipKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Write(statedir.FileGossipKey, key); err != nil {
		t.Fatal(err)
	}
	if err := m.certify(stranger, statedir.Dir(filepath.Join(m.dir, "worker-2")), filepath.Join(m.dir, "manifests"), "worker-2"); err != nil {
		t.Fatal(err)
	}
	for _, site := range demoSites {
		if err := m.nodes[site].start(); err != nil {
			t.Fatal(err)
		}
	}
	m.until("worker-1 has refused the stranger's records and knows worker-3", func() bool {
		s, up := m.status(m.server())
		refused := uint64(0)
		for _, n := range s.Gossip.Refused {
			refused += n
		}
		known := false
		for _, x := range s.Slices {
			for _, p := range x.Peers {
				known = known || p.Site == "worker-3"
			}
		}
		return up && refused > 0 && known
	})
	for _, n := range []*demoNode{m.server(), m.nodes["worker-3"]} {
		s, _ := m.status(n)
		for _, x := range s.Slices {
			for _, p := range x.Peers {
				if p.Site == "worker-2" {
					t.Errorf("%s has the stranger as a peer on %s", n.site, x.Name)
				}
			}
		}
	}
	if s, _ := m.status(m.client()); len(s.Slices) != 2 || len(s.Slices[0].Peers)+len(s.Slices[1].Peers) != 0 {
		t.Errorf("the stranger sees peers: %+v", s.Slices)
	}
}

func TestTheCommandLineExplainsItself(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none.sock")
	for _, tc := range []struct {
		name string
		args []string
		code int
		says string // on standard error, or on standard output when the code is 0
	}{
		{"an unknown verb", []string{"stauts"}, exitUsage, "status"},
		{"an unknown flag", []string{"status", "--colour"}, exitUsage, "--colour"},
		{"an unknown output", []string{"status", "-o", "xml"}, exitUsage, "table, json, yaml"},
		{"no daemon", []string{"status", "--socket", none}, exitNoDaemon, "slicewire daemon"},
		{"ping without a target", []string{"ping"}, exitUsage, "arg"},
		{"a missing node file", []string{"daemon", "--config", none}, exitConfig, none},
		{"version", []string{"version", "-o", "json"}, exitOK, `"kind": "Version"`},
		{"completion", []string{"completion", "bash"}, exitOK, "__start_slicewire"},
	} {
		out, errs, code := program(t, tc.args...)
		text := errs
		if tc.code == exitOK {
			text = out
		}
		if code != tc.code || !strings.Contains(text, tc.says) {
			t.Errorf("%s: exit %d and %q, want %d and %q", tc.name, code, text, tc.code, tc.says)
		}
	}
}
