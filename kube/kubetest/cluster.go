package kubetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Programs of a control plane, for Stop and Start.
const (
	APIServer   = "kube-apiserver"
	Etcd        = "etcd"
	Controllers = "kube-controller-manager"
	Scheduler   = "kube-scheduler"
)

// waitTime is how long what is waited for may take. It is long, for machines that
// are busy.
const waitTime = 2 * time.Minute

// Kubectl runs kubectl as an administrator and returns what it prints. What it
// says of an error is in the error.
func (c *Cluster) Kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.rig.Program("kubectl"), append([]string{"--kubeconfig", c.Kubeconfig}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: kubectl %s: %w: %s", c.Name, strings.Join(args, " "), err, said.String())
	}
	return string(out), nil
}

// Helm runs helm as an administrator and returns what it prints, or fails the test
// with what it says. It keeps nothing but what is in the cluster.
func (c *Cluster) Helm(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), c.rig.Program("helm"), append([]string{"--kubeconfig", c.Kubeconfig}, args...)...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: helm %s: %v: %s", c.Name, strings.Join(args, " "), err, said.String())
	}
	return string(out)
}

// Must runs kubectl and fails the test with it.
func (c *Cluster) Must(t testing.TB, args ...string) string {
	t.Helper()
	return c.must(t, "", args...)
}

func (c *Cluster) must(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitTime)
	defer cancel()
	out, err := c.Kubectl(ctx, stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Apply applies manifests (kubectl apply), or fails the test.
func (c *Cluster) Apply(t testing.TB, manifests string) {
	t.Helper()
	c.must(t, manifests, "apply", "-f", "-")
}

// Rollout waits until all of a workload (deployment/NAME ...) is ready, or fails
// the test with what its pods and events say.
func (c *Cluster) Rollout(t testing.TB, namespace, workload string) {
	t.Helper()
	_, err := c.Kubectl(t.Context(), "", "-n", namespace, "rollout", "status", workload, "--timeout="+waitTime.String())
	if err == nil {
		return
	}
	pods, _ := c.Kubectl(t.Context(), "", "-n", namespace, "get", "pods", "-o", "wide")
	events, _ := c.Kubectl(t.Context(), "", "-n", namespace, "get", "events", "--sort-by=.lastTimestamp")
	logs, _ := c.Kubectl(t.Context(), "", "-n", namespace, "logs", workload, "--all-containers", "--tail=20")
	t.Fatalf("%v\n%s\n%s\n%s", err, pods, events, logs)
}

// Exec runs a command in a pod (NAME, or deployment/NAME for any of its pods) and
// returns what it prints, or fails the test.
func (c *Cluster) Exec(t testing.TB, namespace, pod string, command ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitTime)
	defer cancel()
	out, err := c.ExecErr(ctx, namespace, pod, command...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// ExecErr is Exec that returns what the command failed with.
func (c *Cluster) ExecErr(ctx context.Context, namespace, pod string, command ...string) (string, error) {
	return c.Kubectl(ctx, "", append([]string{"-n", namespace, "exec", pod, "--"}, command...)...)
}

// Pods lists the names of the pods that a label selector matches.
func (c *Cluster) Pods(t testing.TB, namespace, selector string) []string {
	t.Helper()
	return strings.Fields(c.Must(t, "-n", namespace, "get", "pods", "-l", selector, "-o", "jsonpath={.items[*].metadata.name}"))
}

// Stub gives the cluster's name server more server blocks (CoreDNS's syntax, on
// port 1053), such as stub zones, in place of those of an earlier call. When it
// returns, the name server has them; nodes may send queries to the one before it
// for another second.
func (c *Cluster) Stub(t testing.TB, blocks string) {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]string{"name": "coredns-custom", "namespace": "kube-system"},
		"data": map[string]string{"stub.server": blocks},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Apply(t, string(text))
	c.Must(t, "-n", "kube-system", "rollout", "restart", "deployment/coredns")
	c.Rollout(t, "kube-system", "deployment/coredns")
}

// Stop kills a program of the control plane.
func (c *Cluster) Stop(t testing.TB, program string) {
	t.Helper()
	c.tell(t, "stop", program)
}

// Start starts a stopped program again. The API server is ready when it returns.
func (c *Cluster) Start(t testing.TB, program string) {
	t.Helper()
	c.tell(t, "start", program)
}

// Save copies etcd's data under a name. Stop the API server, then etcd, before.
func (c *Cluster) Save(t testing.TB, name string) {
	t.Helper()
	c.tell(t, "save", name)
}

// Restore puts what Save has copied in place of etcd's data. Both have to be
// stopped, as for Save.
func (c *Cluster) Restore(t testing.TB, name string) {
	t.Helper()
	c.tell(t, "restore", name)
}

func (c *Cluster) tell(t testing.TB, verb, what string) {
	t.Helper()
	if err := c.rig.tell(verb, c.Name, what); err != nil {
		t.Fatal(err)
	}
}

// Eventually asks until ask returns no error, and fails the test with the last
// one if that takes longer than within.
func Eventually(t testing.TB, within time.Duration, ask func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := ask(ctx)
		if err == nil {
			return
		}
		if ctx.Err() == nil || last == nil {
			last = err // what was cut short says nothing
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("still after %v: %v", within, errors.Join(last))
		}
	}
}

// OwnAddress is an IPv4 address of this machine that is not loopback's.
func OwnAddress(t testing.TB) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if p, ok := a.(*net.IPNet); ok && p.IP.To4() != nil && p.IP.IsGlobalUnicast() {
			return p.IP.String()
		}
	}
	t.Fatalf("no address but those of loopback: %v", addrs)
	return ""
}
