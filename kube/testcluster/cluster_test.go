package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// asTestcluster has the test's own binary be the program: it starts itself.
const asTestcluster = "TESTCLUSTER_AS_PROGRAM"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (strings.HasPrefix(os.Args[1], "internal-") || os.Getenv(asTestcluster) != "") {
		main()
		return
	}
	os.Exit(m.Run())
}

// startRig brings clusters up. The rig ends with the test, or with end.
func startRig(t *testing.T, args ...string) (ready, func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("clusters need root")
		}
		t.Skip("clusters need root")
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], append([]string{"up", "--dir", dir}, args...)...)
	cmd.Env = append(os.Environ(), asTestcluster+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end := func() {
		if ended {
			return
		}
		ended = true
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the rig ended with %v", err)
		}
	}
	t.Cleanup(end)
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		logs, _ := exec.Command("tail", "-n", "3", "--", filepath.Join(dir, "logs")).CombinedOutput()
		t.Fatalf("the rig does not come up: %v\n%s", err, logs)
	}
	go io.Copy(io.Discard, out)
	var r ready
	if err := json.Unmarshal(line, &r); err != nil {
		t.Fatal(err)
	}
	return r, end
}

func (r ready) kubectl(ctx context.Context, cluster int, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(r.Bin, "kubectl"), append([]string{"--kubeconfig", r.Clusters[cluster].Kubeconfig}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w: %s", args[0], err, out)
	}
	return string(out), err
}

// addTools puts an image of busybox where the rig finds it.
func (r ready) addTools(t *testing.T) {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("package busybox-static is missing: ", err)
	}
	busybox, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(r.Images, "tools.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := writeImage(f, image{name: "docker.io/library/tools:1", entrypoint: []string{"/busybox"}, user: "65532:65532",
		files: []imageFile{{path: "busybox", mode: 0o755, data: busybox}}}); err != nil {
		t.Fatal(err)
	}
}

const webManifest = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}]
      containers:
      - name: web
        image: docker.io/library/tools:1
        imagePullPolicy: Always
        args: [sh, -c, "/busybox mkdir /tmp/www && echo $HOSTNAME > /tmp/www/index.html && exec /busybox httpd -f -p 8080 -h /tmp/www"]
        volumeMounts: [{name: tmp, mountPath: /tmp}]
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      volumes: [{name: tmp, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`

// Two clusters with two nodes each run pods that reach each other by a Service,
// in their cluster, and by their addresses, from the other one. Afterwards nothing
// is left.
func TestClustersRunPodsAndLeaveNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	before := traces(t)
	r, end := startRig(t, "--clusters", "2", "--nodes", "2")
	r.addTools(t)
	t.Logf("up after %.1f s", r.Seconds)
	must := func(cluster int, stdin string, args ...string) string {
		t.Helper()
		out, err := r.kubectl(ctx, cluster, stdin, args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for c := range r.Clusters {
		must(c, "", "label", "namespace", "default", "pod-security.kubernetes.io/enforce=restricted")
		must(c, webManifest, "apply", "-f", "-")
	}
	for c := range r.Clusters {
		must(c, "", "rollout", "status", "deployment/web", "--timeout=120s")
	}
	pods := func(c int) []string {
		return strings.Fields(must(c, "", "get", "pods", "-l", "app=web", "-o", "jsonpath={range .items[*]}{.metadata.name} {.status.podIP} {.spec.nodeName} {end}"))
	}
	near, far := pods(0), pods(1)
	if len(near) != 6 || near[2] == near[5] {
		t.Fatalf("the pods are %q: want two, on two nodes", near)
	}
	service := must(0, "", "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	seen := make(map[string]bool)
	for range 20 {
		seen[strings.TrimSpace(must(0, "", "exec", near[0], "--", "/busybox", "wget", "-q", "-O", "-", "http://"+service))] = true
	}
	if !seen[near[0]] || !seen[near[3]] || len(seen) != 2 {
		t.Errorf("the service is answered by %v, want both pods %q", seen, near)
	}
	if got := strings.TrimSpace(must(0, "", "exec", near[0], "--", "/busybox", "wget", "-q", "-O", "-", "http://"+net.JoinHostPort(far[1], "8080"))); got != far[0] {
		t.Errorf("the other cluster's pod answers %q, want %q", got, far[0])
	}
	if out, err := r.kubectl(ctx, 0, strings.Replace(webManifest, "runAsNonRoot: true, runAsUser: 1000", "runAsUser: 0", 1), "create", "--dry-run=server", "-f", "-"); err == nil && !strings.Contains(out, "would violate PodSecurity") {
		t.Errorf("PodSecurity has nothing to say of a root container: %s", out)
	}
	end()
	for line := range strings.Lines(traces(t)) {
		if !strings.Contains(before, line) {
			t.Errorf("left behind: %s", line)
		}
	}
}

// traces lists what a rig could leave on the machine.
func traces(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Name, "tc") {
			fmt.Fprintln(&b, "link", l.Name)
		}
	}
	all, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range all {
		found, _ := filepath.Glob(filepath.Join(h, "tc*"))
		fmt.Fprintln(&b, found)
	}
	for _, name := range slices.Sorted(maps.Keys(kernelSettings)) {
		value, _ := os.ReadFile(filepath.Join("/proc/sys", name))
		fmt.Fprintf(&b, "%s %s", name, value)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "kubelet") || strings.Contains(line, "containerd") {
			b.WriteString(line)
		}
	}
	programs, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, p := range programs {
		if target, err := os.Readlink(p); err == nil && (strings.Contains(target, "slicewire-testcluster") || strings.Contains(target, "containerd")) {
			fmt.Fprintln(&b, "process", target)
		}
	}
	return b.String()
}
