package main

import (
	"context"
	"strings"
	"testing"
	"time"
)

// In a dual-stack cluster pods and Services have addresses of both families, IPv4
// first, and pods on two nodes reach each other and a Service by all of them.
func TestDualStack(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	r, _ := startRig(t, "--clusters", "1", "--nodes", "2", "--dual-stack")
	r.addTools(t)
	must := func(stdin string, args ...string) []string {
		t.Helper()
		out, err := r.kubectl(ctx, 0, stdin, args...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(out)
	}
	must(strings.Replace(webManifest, "spec: {selector: {app: web}, ports", "spec: {ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports", 1), "apply", "-f", "-")
	must("", "rollout", "status", "deployment/web", "--timeout=120s")
	pods := must("", "get", "pods", "-l", "app=web", "-o", "jsonpath={range .items[*]}{.metadata.name} {.status.podIPs[*].ip} {end}")
	if len(pods) != 6 || !strings.HasPrefix(pods[1], "10.240.") || !strings.HasPrefix(pods[5], "fd24:1:") {
		t.Fatalf("the pods are %q, want two with an IPv4 address and an IPv6 one", pods)
	}
	ask := func(host, port string) string {
		t.Helper()
		// busybox's wget does not survive an IPv6 address.
		said := must("", "exec", pods[0], "--", "/busybox", "sh", "-c", `printf 'GET / HTTP/1.0\r\n\r\n' | /busybox nc -w 10 `+host+" "+port)
		if len(said) == 0 {
			return ""
		}
		return said[len(said)-1]
	}
	for _, ip := range pods[4:] {
		if who := ask(ip, "8080"); who != pods[3] {
			t.Errorf("%s is %q, want the other node's pod %q", ip, who, pods[3])
		}
	}
	for _, ip := range must("", "get", "service", "web", "-o", "jsonpath={.spec.clusterIPs[*]}") {
		seen := make(map[string]bool)
		for range 20 {
			seen[ask(ip, "80")] = true
		}
		if !seen[pods[0]] || !seen[pods[3]] || len(seen) != 2 {
			t.Errorf("the Service at %s is answered by %v, want both pods %q", ip, seen, pods)
		}
	}
	if ips := must("", "get", "node", "c1-n2", "-o", `jsonpath={.status.addresses[?(@.type=="InternalIP")].address}`); len(ips) != 2 || ips[1] != nodeAddr6(1, 2).String() {
		t.Errorf("a node has the addresses %q, want both families", ips)
	}
}
