package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"slicewire/api"
	"slicewire/netstack/port"
)

// checkMedium runs a program as the test's own user: root may open
// /dev/net/tun whatever its mode.
func (m *runMesh) checkMedium(t *testing.T) {
	want := mediumTUN
	if unix.Access("/dev/net/tun", unix.R_OK|unix.W_OK) != nil {
		want = mediumPacket
	}
	self := *m
	self.user = nil
	self.start(m.client(), []string{"--name", "medium"}, "sh", "-c", "echo up; cat")
	if w, ok := m.named(m.client(), "medium"); !ok || w.Medium != want {
		t.Errorf("want %s: %+v", want, w)
	}
	if out, errs, code := self.run(m.client(), "curl", "-sS", "-m", "20", "http://"+demoName+"/"); code != 0 || out != demoPage("iperf-slice") {
		t.Errorf("exit %d, %q, %s", code, out, errs)
	}
}

// checkHostile speaks to the daemon as no client of ours would.
func (m *runMesh) checkHostile(t *testing.T) {
	n := m.client()
	for _, tc := range []struct {
		name string
		do   func(*linkConn) error
		says string
	}{
		{"it hangs up", func(c *linkConn) error { return c.conn.CloseWrite() }, "EOF"},
		{"nonsense", func(c *linkConn) error { _, err := c.conn.Write([]byte("{\n")); return err }, "message"},
		{"a medium and no descriptor", func(c *linkConn) error { return c.send(linkMessage{Medium: mediumTUN}, nil) }, "no device"},
		{"a pipe as TUN", func(c *linkConn) error {
			r, w, err := os.Pipe()
			if err != nil {
				return err
			}
			defer r.Close()
			defer w.Close()
			return c.send(linkMessage{Medium: mediumTUN}, r)
		}, errDevice.Error()},
		{"its control connection as packet socket", func(c *linkConn) error {
			f, err := c.conn.File()
			if err != nil {
				return err
			}
			defer f.Close()
			return c.send(linkMessage{Medium: mediumPacket}, f)
		}, errDevice.Error()},
	} {
		conn, err := newClient(n.socket).workload(t.Context(), api.WorkloadRequest{Kind: api.WorkloadRun, Slice: "iperf-slice", Name: "hostile"})
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		if _, ok := m.named(n, "hostile"); ok {
			t.Errorf("%s: status shows what has no device", tc.name)
		}
		if offer, _, err := conn.receive(); err != nil || offer.Offer == nil {
			t.Fatalf("%s: %+v, %v", tc.name, offer, err)
		}
		if err := tc.do(conn); err != nil {
			t.Fatal(err)
		}
		if m, _, err := conn.receive(); err != nil || !strings.Contains(m.Error, tc.says) {
			t.Errorf("%s: %+v, %v; want it to say %q", tc.name, m, err, tc.says)
		}
		if _, _, err := conn.receive(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: the connection is still there: %v", tc.name, err)
		}
		conn.Close()
	}
	if out, errs, code := m.run(n, "curl", "-sS", "-m", "20", "http://"+demoName+"/"); code != 0 || out != demoPage("iperf-slice") {
		t.Errorf("afterwards: exit %d, %q, %s", code, out, errs)
	}
}

// openTerminal returns both sides of a new pseudo terminal.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func (m *runMesh) checkTerminal(t *testing.T, n *demoNode) {
	master, slave := openTerminal(t)
	cmd := m.command(t.Context(), n, nil, "sh", "-c", `trap 'echo caught' INT; tty && stty size; echo ready; read line; echo "got <$line>"; exit 5`)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	if m.user != nil {
		if err := slave.Chown(nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77}); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := new(lines)
	copied := make(chan struct{})
	go func() { defer close(copied); _, _ = io.Copy(out, master) }() // ends with EIO
	saw := func(what string) {
		m.until("the terminal says "+what, func() bool { return strings.Contains(out.String(), what) })
	}
	saw("ready")
	if !strings.Contains(out.String(), "33 77") {
		t.Errorf("no terminal of that size: %q", out.String())
	}
	if _, err := master.Write([]byte{3}); err != nil { // Ctrl-C
		t.Fatal(err)
	}
	saw("caught")
	if _, err := master.WriteString("typed\n"); err != nil {
		t.Fatal(err)
	}
	saw("got <")
	_ = cmd.Wait() // its code is checked
	slave.Close()
	<-copied
	if code := cmd.ProcessState.ExitCode(); code != 5 || strings.Count(out.String(), "caught\r\n") != 1 {
		t.Errorf("exit %d, %q; want one Ctrl-C caught", code, out.String())
	}
}

func TestAttachPutsANamespaceOnASlice(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	if err := port.LoopbackUp(); err != nil {
		t.Fatal(err)
	}
	m := &runMesh{mesh: startMesh(t, "worker-1", "worker-2"), binary: os.Args[0]}
	m.until("first byte", m.reaches)
	n := m.client()
	holder := exec.Command("sleep", "infinity")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Process.Kill(); _ = holder.Wait() }()
	pid := fmt.Sprint(holder.Process.Pid)
	verb := func(verb string, more ...string) (string, string, int) {
		return program(t, append([]string{verb, "--socket", n.socket, "--slice", "iperf-slice", "--netns", pid}, more...)...)
	}
	inside := func(args ...string) string {
		cmd := exec.Command("nsenter", append([]string{"-t", pid, "-n", "--"}, args...)...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		_ = cmd.Run() // what it says is checked
		return out.String()
	}

	if _, errs, code := program(t, "attach", "--socket", n.socket, "--slice", "iperf-slice", "--netns", "/no/such/netns"); code != exitUnreachable || !strings.Contains(errs, "/no/such/netns") {
		t.Errorf("a namespace that is not there: exit %d, %s", code, errs)
	}
	out, errs, code := verb("attach")
	if unix.Access("/dev/net/tun", unix.R_OK|unix.W_OK) != nil {
		if code == 0 || !strings.Contains(errs, "tun") {
			t.Errorf("without the right to open a TUN: exit %d, %s", code, errs)
		}
		m.until("the address is free", func() bool { return len(m.workloads(n)) == 0 })
		return
	}
	if code != 0 {
		t.Fatalf("attach: exit %d, %s", code, errs)
	}
	all := m.workloads(n)
	if len(all) != 1 || all[0].Kind != api.WorkloadAttach || all[0].Device != "sw0" || all[0].Medium != mediumTUN || !strings.Contains(out, all[0].Address.String()) {
		t.Fatalf("%q, %+v", out, all)
	}
	web := ""
	s, _ := m.status(n)
	for _, x := range s.Slices {
		for _, v := range x.Services {
			if x.Name == "iperf-slice" && v.Name == "web" {
				web = v.Endpoints[0].Address.String()
			}
		}
	}
	if got := inside("curl", "-sS", "-m", "20", "http://"+web+"/"); got != demoPage("iperf-slice") {
		t.Errorf("from inside: %q", got)
	}
	if _, errs, code := verb("attach", "--name", "sw0"); code == 0 || !strings.Contains(errs, errNameTaken.Error()) {
		t.Errorf("the same device twice: exit %d, %s", code, errs)
	}
	if _, errs, code := verb("attach"); code != 0 || len(m.workloads(n)) != 2 || !strings.Contains(inside("ip", "-br", "link"), "sw1") {
		t.Errorf("a second device: exit %d, %s", code, errs)
	}
	if _, errs, code := program(t, "reload", "--socket", n.socket); code != 0 || len(m.workloads(n)) != 2 {
		t.Errorf("after a reload: exit %d, %s, %v", code, errs, m.workloads(n))
	}
	if _, errs, code := verb("detach", "--name", "sw0"); code != 0 || strings.Contains(inside("ip", "-br", "link"), "sw0") || len(m.workloads(n)) != 1 {
		t.Errorf("detach of one: exit %d, %s, %s", code, errs, inside("ip", "-br", "link"))
	}
	if _, errs, code := verb("detach"); code != 0 || strings.Contains(inside("ip", "-br", "link"), "sw") || len(m.workloads(n)) != 0 {
		t.Errorf("detach of all: exit %d, %s, %s", code, errs, inside("ip", "-br", "link"))
	}
	if _, errs, code := verb("detach"); code != exitUnreachable {
		t.Errorf("detach of nothing: exit %d, %s", code, errs)
	}
	if said := inside("ip", "route", "show", "type", "unreachable"); said != "" {
		t.Errorf("what is for the slice has no way out after detach: %s", said)
	}
	if out, _, code := verb("attach"); code != 0 || !strings.Contains(out, all[0].Address.String()) {
		t.Errorf("attached again: exit %d, %q, before %v", code, out, all[0].Address)
	}
	if said := inside("sh", "-c", "ip link add up0 type veth peer name up1 && ip link set up0 up && ip link set up1 up && ip address add 192.0.2.1/24 dev up0 && ip route add default via 192.0.2.2"); said != "" {
		t.Fatal(said)
	}
	if err := n.process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = n.wait() // it was killed
	n.process, n.exited = nil, nil
	m.until("the device goes with the daemon", func() bool { return !strings.Contains(inside("ip", "-br", "link"), "sw0") })
	if said := inside("ip", "route", "get", web); strings.Contains(said, "up0") || !strings.Contains(said, "unreachable") && !strings.Contains(said, "No route to host") {
		t.Errorf("without the daemon, what is for the slice leaves in plaintext: %s", said)
	}
}
