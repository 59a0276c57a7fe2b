package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// tshark returns the fields of a capture, one line a packet.
func tshark(t *testing.T, file string, fields ...string) []string {
	t.Helper()
	args := []string{"-r", file, "-T", "fields", "-E", "separator=|"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "tshark", args...).Output()
	if err != nil {
		t.Fatalf("tshark: %v: %s", err, out)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestCaptureShowsASliceAtEveryPoint(t *testing.T) {
	needs(t, "tshark", "ping")
	needsRoot(t, "raw sockets in a namespace")
	l := newPathLab(t, nil, labSite{name: "west", gateways: 1, nodes: 1}, labSite{name: "east", gateways: 1, nodes: 1})
	l.until("all links", l.settled)
	target := l.stays(l.node("east/g1"), "target")
	from := l.node("west/g1")
	answers := func() bool {
		return strings.Contains(l.says(from, "ping", "-n", "-c", "1", "-W", "1", target.Address.String()), " 0% packet loss")
	}
	l.until("an echo", answers)
	begin := func(args ...string) (*exec.Cmd, string) {
		file := filepath.Join(t.TempDir(), "x.pcapng")
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		t.Cleanup(cancel)
		cmd := exec.CommandContext(ctx, os.Args[0], append([]string{"capture", "--socket", from.socket, "-w", file}, args...)...)
		cmd.Env = append(os.Environ(), asProgram+"=1")
		said := new(lines)
		cmd.Stderr = said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		l.until("the capture runs: "+said.String(), func() bool { return strings.Contains(said.String(), "capturing") })
		return cmd, file
	}
	cmd, file := begin("--slice", "lab", "--point", "port,tunnel,underlay", "-c", "6", "icmp and (not udp or in)")
	if !answers() {
		t.Fatal("no answer")
	}
	if !answers() {
		t.Fatal("no answer")
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	got := tshark(t, file, "frame.interface_name", "frame.packet_flags_direction", "icmp.type", "ip.ttl")
	want := []string{
		"lab workload asks|0x00000001|8|64", "lab tunnel|0x00000002|8|63", "lab tunnel|0x00000001|0|63", "lab workload asks|0x00000002|0|62",
	}
	if len(got) != 6 || strings.Join(got[:4], "\n") != strings.Join(want, "\n") {
		t.Errorf("captured\n%s", strings.Join(got, "\n"))
	}

	cmd, file = begin("--point", "drop", "-c", "2", "not", "reason", "multicast", "and", "not", "reason", "source")
	l.says(from, "ping", "-n", "-c", "1", "-W", "1", "-t", "1", target.Address.String())
	l.says(from, "ping", "-n", "-c", "1", "-W", "1", "10.190.255.9")
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := tshark(t, file, "frame.comment"); strings.Join(got, ",") != "dropped: ttl,dropped: no-route" {
		t.Errorf("captured %q", got)
	}

	cmd, file = begin("--point", "underlay", "-c", "4", "udp")
	answers()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := tshark(t, file, "_ws.col.Protocol"); strings.Join(got, ",") != "WireGuard,WireGuard,WireGuard,WireGuard" {
		t.Errorf("captured %q", got)
	}

	// Ctrl-C leaves a whole file.
	cmd, file = begin("icmp")
	answers()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
	if got := tshark(t, file, "icmp.type"); strings.Join(got, ",") != "8,0" {
		t.Errorf("captured %q", got)
	}
	l.balance("lab")
	for _, args := range [][]string{{"frob"}, {"--point", "nowhere"}, {"--slice", "nope"}, {}} {
		args = append([]string{"capture", "--socket", from.socket}, args...)
		if len(args) > 3 {
			args = append(args, "-w", filepath.Join(t.TempDir(), "y"))
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
		cmd.Env = append(os.Environ(), asProgram+"=1")
		if out, err := cmd.CombinedOutput(); err == nil || len(out) == 0 {
			t.Errorf("%v: %v %s", args, err, out)
		}
	}
}
