package kubetest

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// outsideNAT has what is outside come out as the rig itself, and keeps others from
// beginning anything with it.
const outsideNAT = `table ip outside {
	chain out { type nat hook postrouting priority srcnat; ip saddr 192.0.2.0/24 oifname != "outside" masquerade; }
	chain in { type filter hook forward priority filter; oifname "outside" ct state new drop; }
}
`

// Outside is a network namespace that is in no cluster: behind NAT, it reaches all
// of a rig and nothing of the rig can dial it. It has no other way out. It returns
// what `nsenter --net=` takes; the namespace goes with the test. A rig has one.
func (r *Rig) Outside(t testing.TB) string {
	t.Helper()
	holder := exec.Command("cat") // until its standard input ends, which a killed test does too
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	in, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := holder.Wait(); err != nil {
			t.Error(err)
		}
	})
	pid := holder.Process.Pid
	enter := func(stdin string, pid int, command ...string) {
		t.Helper()
		cmd := exec.Command("nsenter", append([]string{"-t", fmt.Sprint(pid), "-n", "--"}, command...)...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", command, err, out)
		}
	}
	enter("", r.PID, "ip", "link", "add", "outside", "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(pid))
	enter("address add 192.0.2.1/24 dev outside\nlink set outside up\n", r.PID, "ip", "-batch", "-")
	enter("link set lo up\naddress add 192.0.2.2/24 dev eth0\nlink set eth0 up\nroute add default via 192.0.2.1\n", pid, "ip", "-batch", "-")
	enter(outsideNAT, r.PID, "nft", "-f", "-")
	return fmt.Sprintf("/proc/%d/ns/net", pid)
}
