package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"slicewire/netstack/port"
	"slicewire/overlay/manifest"
)

func TestResolverSlice(t *testing.T) {
	with := manifest.NodeSlice{DNS: "127.0.0.1:53"}
	off := manifest.NodeSlice{DNS: "127.0.0.1:54", Resolver: manifest.ResolverOff}
	for want, slices := range map[string]map[string]manifest.NodeSlice{
		"red":   {"red": with, "blue": {}},
		"green": {"green": with, "blue": off},
		"":      {"red": with, "blue": with},
	} {
		if got := resolverSlice(&manifest.NodeFile{Slices: slices}); got != want {
			t.Errorf("%v: %q, want %q", slices, got, want)
		}
	}
}

func TestResolvectlCalls(t *testing.T) {
	got := fmt.Sprint(resolvectlCalls("l", netip.MustParseAddrPort("[::1]:53"), []string{"a", "b"}))
	if want := "[[llmnr l no] [mdns l no] [dnssec l no] [default-route l no] [domain l ~a ~b] [dns l [::1]:53]]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// resolvedHome is where tools/prerequisites unpacks systemd-resolved: installed,
// it would take over the machine's own resolv.conf.
func resolvedHome() (string, error) {
	cache, err := os.UserCacheDir()
	home := filepath.Join(cache, "slicewire-tests", "systemd-resolved")
	if err == nil {
		_, err = os.Stat(filepath.Join(home, "lib/systemd/systemd-resolved"))
	}
	return home, err
}

// The real systemd-resolved, in namespaces of its own, answers programs with the
// slice's names, and has forgotten all of it when the daemon was killed.
func TestSystemdResolvedAsksTheSlice(t *testing.T) {
	home, err := resolvedHome()
	if err != nil {
		cannot(t, fmt.Sprintf("no systemd-resolved (%v): make prerequisites, as root", err))
	}
	if os.Getuid() != 0 {
		cannot(t, "systemd-resolved needs root")
	}
	if os.Getenv(insideTest) != t.Name() {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), insideTest+"="+t.Name())
		// Its processes end with the first one of their PID namespace.
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
			t.Errorf("in its own namespaces: %v\n%s", err, out)
		}
		return
	}
	t.Setenv("PATH", filepath.Join(home, "usr/bin")+":"+os.Getenv("PATH"))
	startResolved(t, home)
	l := layLab(t, newCable(t), nil, labSite{name: "a", gateways: 1, nodes: 1}, labSite{name: "b", gateways: 1, nodes: 1})
	a, b := l.node("a/g1"), l.node("b/g1")
	text, err := os.ReadFile(a.config)
	if err != nil {
		t.Fatal(err)
	}
	proxy := fmt.Sprintf("{proxy: %q", a.proxy)
	if !bytes.Contains(text, []byte(proxy)) {
		t.Fatalf("no %s in\n%s", proxy, text)
	}
	if err := os.WriteFile(a.config, bytes.Replace(text, []byte(proxy), []byte(proxy+`, dns: "127.0.0.1:0"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	l.start()
	l.until("the service is known", func() bool { return l.echoAddr(b).IsValid() })
	addr := l.echoAddr(b).String()
	var last []byte
	defer func() {
		if t.Failed() {
			t.Logf("resolvectl query, want %s: %s", addr, last)
		}
	}()
	known := func() bool {
		out, err := exec.Command("resolvectl", "query", "-4", "--cache=no", "--legend=no", echoName).CombinedOutput()
		last = out
		return err == nil && strings.Contains(string(out), addr)
	}
	l.until("resolved answers with the slice's address", known)
	a.kill(t)
	l.until("resolved has forgotten the slice", func() bool {
		out, err := exec.Command("resolvectl", "domain").Output()
		return err == nil && !strings.Contains(string(out), "slice.local")
	})
	if known() {
		t.Error("without the daemon, resolved still knows the name")
	}
	if err := a.start(); err != nil {
		t.Fatal(err)
	}
	l.until("resolved answers again", known)
}

// startResolved starts D-Bus and systemd-resolved in the namespaces that the test
// is in.
func startResolved(t *testing.T, home string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(port.LoopbackUp())
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(unix.Mount("proc", "/proc", "proc", 0, ""))
	must(unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"))
	const id = 995
	for file, line := range map[string]string{
		"/etc/passwd": fmt.Sprintf("systemd-resolve:x:%d:%d::/:/usr/sbin/nologin\n", id, id),
		"/etc/group":  fmt.Sprintf("systemd-resolve:x:%d:\n", id),
	} {
		old, err := os.ReadFile(file)
		must(err)
		lines := slices.DeleteFunc(strings.SplitAfter(string(old), "\n"), func(l string) bool {
			return strings.HasPrefix(l, "systemd-resolve:") || strings.Contains(l, fmt.Sprintf(":%d:", id))
		})
		now := filepath.Join("/run", filepath.Base(file))
		must(os.WriteFile(now, []byte(strings.Join(lines, "")+line), 0o644))
		must(unix.Mount(now, file, "", unix.MS_BIND, ""))
	}
	for _, dir := range []string{"/run/dbus", "/run/systemd/netif/links", resolvedFolder} {
		must(os.MkdirAll(dir, 0o755))
	}
	must(os.Chown(resolvedFolder, id, id))
	const bus = "/run/bus.conf"
	must(os.WriteFile(bus, []byte(`<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>`), 0o644))
	run := func(path string, args ...string) {
		cmd := exec.Command(path, args...)
		var log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &log, &log
		must(cmd.Start())
		t.Cleanup(func() {
			_ = cmd.Process.Kill() // it may have ended
			_ = cmd.Wait()
			if t.Failed() {
				t.Logf("%s said:\n%s", path, &log)
			}
		})
	}
	run("dbus-daemon", "--config-file="+bus, "--nofork", "--nopidfile")
	awaitSaid(t, func() bool { _, err := os.Stat("/run/dbus/system_bus_socket"); return err == nil }, "D-Bus")
	run(filepath.Join(home, "lib/systemd/systemd-resolved"))
	awaitSaid(t, func() bool { return exec.Command("resolvectl", "status").Run() == nil }, "systemd-resolved")
}

func awaitSaid(t *testing.T, ok func() bool, what string) {
	t.Helper()
	if !awaited(ok) {
		t.Fatalf("%s does not answer", what)
	}
}
