package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain is the program itself in the sandbox and as a probe: the tests start
// this very binary.
func TestMain(m *testing.M) {
	if inSandbox() || len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "probe-") {
		main()
		return
	}
	os.Exit(m.Run())
}

// patience is how long a test waits for what should take seconds.
const patience = 3 * time.Minute

func TestRawAndOursEndToEnd(t *testing.T) {
	dir := buildSlicewire(t)
	build(t, filepath.Join(dir, "wireguard-netstack"), stockModule, ".")
	want := []string{"raw", "slicewire-forward", "slicewire-socks", "wireguard-netstack"}
	if os.Geteuid() == 0 { // /dev/net/tun, and other users than one's own, are root's; CI is root
		want = append(want, "slicewire-tun", "slicewire-run")
	}
	results := filepath.Join(dir, "results")
	out, code := sandboxed(t, nil, "-quick", "-rounds", "1", "-length", "1s", "-tools", dir, "-results", results, "-only", strings.Join(want, ","))
	t.Log(out)
	if code != 0 {
		t.Fatalf("exit %d", code)
	}
	files, err := filepath.Glob(filepath.Join(results, "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	r := readResults(t, files[0])
	for _, name := range want {
		f := r.Figures[name]
		for _, m := range []string{"tcp1_up.mbps", "echo_idle.p50_us", "echo_load.p50_us"} {
			if f[m].Median <= 0 {
				t.Errorf("%s: %s is %v", name, m, f[m])
			}
		}
		if name != "raw" && (f["tcp1_up.cpu_s_per_gb"].Median <= 0 || f["rss_idle.mib"].Median <= 0) {
			t.Errorf("%s: %+v", name, f)
		}
	}
	if f := r.Figures["raw"]; f["ping_idle.p50_us"].Median <= 0 || f["tcp1_up.cpu_s_per_gb"].Max != 0 {
		t.Errorf("raw: %+v", f)
	}
}

// buildSlicewire returns a folder with the program.
func buildSlicewire(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	build(t, filepath.Join(dir, "slicewire"), ".", "slicewire/cmd/slicewire")
	return dir
}

// build builds a package of the module in a folder.
func build(t *testing.T, program, module, pkg string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, pkg)
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// stockModule is the module of wireguard-netstack.
const stockModule = "testdata/wireguard-netstack"

// The pair without slicewire is made of the same libraries: what a ratio to it
// says is then about the construction.
func TestTheStockPairHasOurVersions(t *testing.T) {
	versions := func(file string) map[string]string {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := make(map[string]string)
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require ")); len(f) > 1 && strings.HasPrefix(f[1], "v") {
				found[f[0]] = f[1]
			}
		}
		return found
	}
	ours, stock := versions("../../go.mod"), versions(stockModule+"/go.mod")
	if len(stock) < 4 {
		t.Fatalf("only %v read", stock)
	}
	for module, version := range stock {
		if ours[module] != version {
			t.Errorf("%s: %s, ours %s", module, version, ours[module])
		}
	}
}

func TestAPeerThatCannotRunIsARowNotAFailure(t *testing.T) {
	dir, results := t.TempDir(), t.TempDir()
	script := "#!/bin/sh\necho no such device\nexit 1\n"
	if err := os.WriteFile(filepath.Join(dir, "wireguard-netstack"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	out, code := sandboxed(t, nil, "-quick", "-rounds", "2", "-length", "1s", "-tools", dir, "-results", results, "-only", "raw,wireguard-netstack")
	if code != 0 {
		t.Fatalf("exit %d\n%s", code, out)
	}
	files, err := filepath.Glob(filepath.Join(results, "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	r := readResults(t, files[0])
	if why := r.unavailable("wireguard-netstack"); !strings.Contains(why, "no such device") {
		t.Errorf("unavailable: %+v", r.Unavailable)
	}
	taken := slices.DeleteFunc(r.Samples, func(s sample) bool { return s.System != "raw" || s.Measure != "tcp1_up.mbps" })
	if len(taken) != 2 {
		t.Errorf("the other system has %v", taken)
	}
}

func readResults(t *testing.T, file string) results {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r results
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAnInterruptEndsEverything(t *testing.T) {
	out, code := sandboxed(t, func(line string, signal func()) {
		if strings.Contains(line, "tcp1_up") { // daemons and clients are up
			signal()
		}
	}, "-quick", "-rounds", "50", "-length", "1s", "-results", "", "-only", "raw")
	if code != 1 || !strings.Contains(out, "interrupted: everything was removed") {
		t.Errorf("exit %d\n%s", code, out)
	}
}

// sandboxed runs the program as a user would, in a group of processes of its
// own, gives each line to see, and fails if any process of the sandbox is left.
func sandboxed(t *testing.T, see func(line string, interrupt func()), args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	runtime.LockOSThread() // the sandbox dies with the thread that made it
	defer runtime.UnlockOSThread()
	cmd, err := sandboxCommand(args...)
	if err != nil {
		t.Fatal(err)
	}
	// Every process of the sandbox inherits this pipe or the mark; when the
	// pipe ends, nobody that writes to it is left.
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	var out bytes.Buffer
	lines := bufio.NewScanner(read)
	for lines.Scan() {
		out.WriteString(lines.Text() + "\n")
		if see != nil {
			see(lines.Text(), func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
		}
	}
	_ = cmd.Wait() // its exit code is returned
	if left := sandboxProcesses(t, cmd.Process.Pid); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// sandboxProcesses returns the processes of the group that the sandbox was.
func sandboxProcesses(t *testing.T, group int) []string {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, s := range stats {
		text, err := os.ReadFile(s)
		if err != nil {
			continue // it has just ended
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) > 2 && fields[2] == strconv.Itoa(group) {
			left = append(left, string(text))
		}
	}
	return left
}

func TestChoose(t *testing.T) {
	none := toolbox{}
	o, err := parseOptions(nil)
	if err != nil {
		t.Fatal(err)
	}
	chosen, missing, err := choose(o, none)
	if err != nil || !slices.ContainsFunc(chosen, func(s system) bool { return s.name == "raw" }) {
		t.Errorf("%v, %v, %v", chosen, missing, err)
	}
	if !slices.Contains(missing, absence{"tailscale-user", "no tailscaled, tailscale, testcontrol"}) {
		t.Errorf("not said: %v", missing)
	}
	o.only = []string{"raww"}
	if _, _, err := choose(o, none); err == nil {
		t.Error("an unknown name is no error")
	}
	for _, bad := range [][]string{{"x"}, {"-rounds", "many"}} {
		if _, err := parseOptions(bad); err == nil {
			t.Errorf("%v is no error", bad)
		}
	}
}
