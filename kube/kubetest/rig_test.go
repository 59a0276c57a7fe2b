package kubetest

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var echo = Restricted("echo") + Servers("echo", "echo", 2, "serve") + `
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: echo}
spec:
  selector: {app: echo}
  ports:
  - {name: tcp, port: 80, targetPort: 8080}
  - {name: udp, port: 80, targetPort: 8080, protocol: UDP}
`

// A rig runs pods of images that were added while it ran, its services answer
// over TCP and UDP and have names, and it survives that its API server and
// etcd go away and come back with the data of an earlier time.
func TestRig(t *testing.T) {
	rig := Start(t, Options{Nodes: 1})
	c := rig.Clusters[0]
	rig.Add(t, Tools(t), Iperf(t))
	c.Apply(t, echo)
	c.Rollout(t, "echo", "deployment/echo")
	pods := c.Pods(t, "echo", "app=echo")
	if len(pods) != 2 {
		t.Fatalf("pods %q, want 2", pods)
	}
	for _, network := range []string{"tcp", "udp"} {
		answers := make(map[string]bool)
		Eventually(t, waitTime, func(ctx context.Context) error {
			said, err := c.ExecErr(ctx, "echo", pods[0], "peer", "ask", network, "echo.echo.svc.cluster.local:80", "hello")
			f := strings.Fields(said)
			if err != nil || len(f) != 3 || f[2] != "hello" {
				return fmt.Errorf("%q, %w", said, err)
			}
			if answers[f[0]] = true; !answers[pods[0]] || !answers[pods[1]] {
				return fmt.Errorf("%s is answered by %v only", network, answers)
			}
			return nil
		})
	}
	behindNAT(t, rig, pods[0])
	c.Stub(t, "stub.test:1053 {\n hosts {\n 192.0.2.1 a.stub.test\n }\n}\n")
	Eventually(t, waitTime, func(ctx context.Context) error {
		said, err := c.ExecErr(ctx, "echo", pods[0], "peer", "lookup", "a.stub.test")
		if err == nil && said != "192.0.2.1\n" {
			err = fmt.Errorf("a name of a zone that was added is %q", said)
		}
		return err
	})
	c.Apply(t, "{apiVersion: v1, kind: Namespace, metadata: {name: early}}")
	c.Stop(t, APIServer)
	if _, err := c.Kubectl(t.Context(), "", "get", "namespaces"); err == nil {
		t.Error("a stopped API server answers")
	}
	c.Stop(t, Etcd)
	c.Save(t, "first")
	c.Start(t, Etcd)
	c.Start(t, APIServer)
	c.Apply(t, "{apiVersion: v1, kind: Namespace, metadata: {name: late}}")
	c.Stop(t, APIServer)
	c.Stop(t, Etcd)
	c.Restore(t, "first")
	c.Start(t, Etcd)
	c.Start(t, APIServer)
	names := c.Must(t, "get", "namespaces", "-o", "name")
	if !strings.Contains(names, "/early") || strings.Contains(names, "/late") {
		t.Errorf("after the restore there are %q: want early and not late", names)
	}
	if err := rig.tell("stop", c.Name, "no-such-program"); err == nil {
		t.Error("a program that does not run is stopped")
	}
	began := time.Now()
	if err := rig.End(); err != nil {
		t.Error(err)
	}
	t.Logf("up after %.1f s, gone after %v", rig.Seconds, time.Since(began).Round(time.Millisecond))
}

// behindNAT checks that who is outside reaches a pod, which sees another address,
// and that the pod cannot begin anything with it.
func behindNAT(t *testing.T, rig *Rig, pod string) {
	t.Helper()
	const outside = "192.0.2.2"
	peer, c := filepath.Join(t.TempDir(), "peer"), rig.Clusters[0]
	if err := BuildPeer(peer); err != nil {
		t.Fatal(err)
	}
	netns := "--net=" + rig.Outside(t)
	server := exec.CommandContext(t.Context(), "nsenter", netns, "--", peer, "serve", outside+":8080")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Wait() }) // the test's context has ended it
	to := c.Must(t, "-n", "echo", "get", "pod", pod, "-o", "jsonpath={.status.podIP}") + ":8080"
	for _, network := range []string{"tcp", "udp"} {
		out, err := exec.CommandContext(t.Context(), "nsenter", netns, "--", peer, "ask", network, to, "hello").Output()
		if f := strings.Fields(string(out)); err != nil || len(f) != 3 || f[0] != pod || strings.HasPrefix(f[1], outside) {
			t.Errorf("%s from outside: %q, %v, want an answer of %s to the rig's address", network, out, err, pod)
		}
		Eventually(t, waitTime, func(ctx context.Context) error { // it listens, which is no news to who is there
			return exec.CommandContext(ctx, "nsenter", netns, "--", peer, "ask", network, outside+":8080", "hello").Run()
		})
		if said, err := c.ExecErr(t.Context(), "echo", pod, "peer", "ask", network, outside+":8080", "hello"); err == nil || !strings.Contains(err.Error(), "i/o timeout") {
			t.Errorf("%s to outside: %q, %v, want a timeout", network, said, err)
		}
	}
}
