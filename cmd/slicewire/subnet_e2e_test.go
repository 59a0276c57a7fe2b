package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func shell(t *testing.T, text string) {
	t.Helper()
	if out, err := exec.Command("sh", "-ec", text).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", text, err, out)
	}
}

func TestANetworkBehindASiteIsReached(t *testing.T) {
	needs(t, "ip", "ping", "traceroute")
	if os.Getuid() != 0 {
		t.Skip("namespaces with a name need root")
	}
	netns := fmt.Sprintf("swlan%d", os.Getpid())
	via := "/run/netns/" + netns + "/sw0"
	l := newRoutedLab(t, "east=192.168.77.0/24,fd77::/64", map[string]string{
		"east/g2": fmt.Sprintf("routes:\n- {slice: lab, prefix: 192.168.77.0/24, via: %s}\n- {slice: lab, prefix: \"fd77::/64\", via: %s}\n", via, via),
	}, nil, labSite{name: "west", gateways: 1, nodes: 2}, labSite{name: "east", gateways: 1, nodes: 2})
	l.until("all links", l.settled)
	east, west := l.node("east/g2"), l.node("west/g2")
	source := l.stays(west, "source")

	// The namespace is a router of that network, which here is on its loopback.
	shell(t, "ip netns add "+netns)
	t.Cleanup(func() { shell(t, "ip netns del "+netns) })
	shell(t, "ip -n "+netns+" link set lo up; ip -n "+netns+" addr add 192.168.77.1/24 dev lo; ip -n "+netns+" addr add 192.168.99.1/32 dev lo; ip -n "+netns+" -6 addr add fd77::1/64 dev lo nodad")
	ping := func(to string) string { return l.says(west, "ping", "-n", "-c", "1", "-W", "1", to) }
	if out := ping("192.168.77.1"); !strings.Contains(out, "Unreachable") {
		t.Errorf("before it is attached: %s", out)
	}
	cmd := exec.Command(os.Args[0], "attach", "--socket", east.socket, "--slice", "lab", "--netns", netns, "--name", "sw0")
	cmd.Env = append(os.Environ(), asProgram+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("attach: %v: %s", err, out)
	}
	for _, to := range []string{"192.168.77.1", "fd77::1"} {
		l.until("an echo from "+to, func() bool { return strings.Contains(ping(to), " 0% packet loss") })
	}
	from := func(src, dst string) bool {
		out, _ := exec.Command("ip", "netns", "exec", netns, "ping", "-n", "-c", "2", "-i", "0.2", "-W", "2", "-I", src, dst).CombinedOutput()
		return strings.Contains(string(out), " 0% packet loss")
	}
	if !from("192.168.77.1", source.Address.String()) || !from("fd77::1", source.Address6.String()) {
		t.Error("the network does not reach a workload of another site")
	}
	before, _ := l.status(east)
	if from("192.168.99.1", source.Address.String()) {
		t.Error("an address that is not announced passes")
	}
	if after, _ := l.status(east); after.Drops["source"] != before.Drops["source"]+2 {
		t.Errorf("drops before %v and after %v", before.Drops, after.Drops)
	}
	hops := hopsOf(l.says(west, "traceroute", "-n", "-q", "1", "-w", "5", "192.168.77.1"))
	if len(hops) != 5 || hops[4].String() != "192.168.77.1" {
		t.Errorf("the way there: %v", hops)
	}
	// It is withdrawn with the workload.
	cmd = exec.Command(os.Args[0], "detach", "--socket", east.socket, "--slice", "lab", "--netns", netns)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("detach: %v: %s", err, out)
	}
	l.until("the route is gone", func() bool { return strings.Contains(ping("192.168.77.1"), "Net Unreachable") })
}
