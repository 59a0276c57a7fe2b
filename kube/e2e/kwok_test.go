package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"slicewire/api"
	"slicewire/kube/kubetest"
)

var kwokFull = flag.Bool("kwok-full", false, "the cluster of fake nodes at its full size, for a minute")

// A crowd is how many fake objects there are, how long nothing may be written when
// nothing changes, and what it may cost: the figures that the documentation
// promises, or for a machine that does much else.
type crowd struct {
	nodes, exports, per int // pods for each export
	idle, sync          time.Duration
}

// crowdMemory is how much more memory a node may need for any crowd.
const crowdMemory = 64 << 20

// A real API server has nodes and pods of kwok's behind exports of both APIs. A
// node takes them up in time and in little memory, and writes nothing once it has
// said so. In CI the cluster is smaller.
func TestACrowdOfFakePods(t *testing.T) {
	t.Parallel()
	size := crowd{nodes: 20, exports: 100, per: 2, idle: 10 * time.Second, sync: 30 * time.Second}
	if *kwokFull {
		size = crowd{nodes: 200, exports: 1000, per: 5, idle: time.Minute, sync: 10 * time.Second}
	}
	rig := kubetest.Start(t, kubetest.Options{Nodes: 0})
	c := rig.Clusters[0]
	c.Must(t, "apply", "--server-side", "-f", "../../deploy/crds")
	n := crowdNode(t, c)
	alone := n.settled(t, 10*time.Second)
	size.gather(t, rig)

	began := time.Now()
	n.start(t)
	n.until(t, func(s *api.Status) error {
		ready := 0
		for _, x := range s.Slices[0].Services {
			ready += len(x.Endpoints)
		}
		if ready != size.per*size.exports {
			return fmt.Errorf("%d endpoints of %d", ready, size.per*size.exports)
		}
		return nil
	})
	took := time.Since(began)
	t.Logf("%d exports with %d endpoints are on the slice %v after the node was started", size.exports, size.per*size.exports, took.Round(10*time.Millisecond))
	if took > size.sync {
		t.Errorf("the first sync took %v, want %v at most", took, size.sync)
	}
	more := n.settled(t, size.idle) - alone
	t.Logf("memory: %.1f MiB more than without", float64(more)/(1<<20))
	if more > crowdMemory {
		t.Errorf("%d bytes more, want %d at most", more, crowdMemory)
	}
}

// A crowdDaemon is a node of a mesh of its own, with a cluster to serve.
type crowdDaemon struct{ *daemon }

func crowdNode(t *testing.T, c *kubetest.Cluster) *crowdDaemon {
	t.Helper()
	dir := t.TempDir()
	manifest, state := filepath.Join(dir, "slice.yaml"), filepath.Join(dir, "state")
	writeFile(t, manifest, kubesliceExample(t, "01-sliceconfig-iperf-isolated.yaml"))
	newAuthority(t, dir).certify(t, manifest, "worker-1", "gw", state)
	n := &crowdDaemon{newDaemon(t, dir, fmt.Sprintf("version: 1\nmesh: rig\nsite: worker-1\nnode: gw\nlisten: 127.0.0.1:0\ngossip: {listen: \"127.0.0.1:0\"}\nmetrics: off\nstate: %s\nsocket: %s\nmanifests: [%s]\n"+
		"kubernetes:\n  cluster: {kubeconfig: %s, namespace: slicewire-system, podIP: %s}\n", state, filepath.Join(dir, "sock"), manifest, c.Kubeconfig, kubetest.OwnAddress(t)))}
	c.Apply(t, "{apiVersion: v1, kind: Namespace, metadata: {name: slicewire-system}}\n---\n{apiVersion: v1, kind: Namespace, metadata: {name: iperf}}")
	n.start(t)
	return n
}

// until asks the node how it is until ok likes it.
func (n *crowdDaemon) until(t *testing.T, ok func(*api.Status) error) {
	t.Helper()
	kubetest.Eventually(t, 5*time.Minute, func(ctx context.Context) error {
		select {
		case err := <-n.ended:
			n.ended <- err
			t.Fatal("the node has ended")
		default:
		}
		s, err := n.status(ctx)
		if err != nil {
			return err
		}
		if s.Cluster == nil || !s.Cluster.Synced || len(s.Slices) != 1 {
			return fmt.Errorf("the cluster part: %+v", s.Cluster)
		}
		return ok(&s)
	})
}

// settled waits until the node has written nothing for a while, leaves it alone
// for idle, in which it must not write either, and ends it. It returns how much
// memory it had then.
func (n *crowdDaemon) settled(t *testing.T, idle time.Duration) int64 {
	t.Helper()
	const quiet = 5 * time.Second
	var writes uint64
	since := time.Now()
	n.until(t, func(s *api.Status) error {
		if s.Cluster.Writes != writes {
			writes, since = s.Cluster.Writes, time.Now()
		}
		if time.Since(since) < quiet {
			return fmt.Errorf("%d writes, the last one %v ago", writes, time.Since(since))
		}
		if s.Cluster.Fault != "" {
			t.Errorf("fault: %s", s.Cluster.Fault)
		}
		return nil
	})
	<-time.After(idle) // whoever asks how it is takes memory of its own
	resident := n.resident(t)
	n.until(t, func(s *api.Status) error {
		if more := s.Cluster.Writes - writes; more != 0 {
			t.Errorf("%d writes although nothing changed", more)
		}
		return nil
	})
	t.Logf("%d writes, none in %v after that", writes, idle)
	n.stop(t)
	return resident
}

// resident is how much memory the node has of its own.
func (n *crowdDaemon) resident(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", n.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// kwokStages are kwok's own files of what becomes of its nodes and pods.
func kwokStages(t *testing.T) (out []string) {
	t.Helper()
	dir, err := exec.Command("go", "-C", "../../kube/testcluster/kwok", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok").Output()
	if err != nil {
		t.Fatalf("where kwok's module is: %v", err)
	}
	for _, stage := range []string{"node/fast", "node/heartbeat-with-lease", "pod/fast"} {
		list, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "kustomize", "stage", stage, "[np]o*.yaml"))
		if err != nil || len(list) == 0 {
			t.Fatalf("kwok's module has no stages %s: %v", stage, err)
		}
		out = append(out, list...)
	}
	return out
}

// gather has kwok run, makes the objects and waits until all pods run.
func (s *crowd) gather(t *testing.T, rig *kubetest.Rig) {
	t.Helper()
	c := rig.Clusters[0]
	log, err := os.Create(filepath.Join(rig.Dir, "logs", "kwok.log"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	args := []string{"--kubeconfig", c.Kubeconfig, "--manage-all-nodes", "--cidr", "10.64.0.0/16"}
	for _, f := range kwokStages(t) {
		args = append(args, "--config", f)
	}
	kwok := exec.CommandContext(ctx, rig.Program("kwok"), args...)
	kwok.Stdout, kwok.Stderr = log, log
	if err := kwok.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = kwok.Wait() // it was killed
		log.Close()
	})
	var nodes, objects strings.Builder
	for i := range s.nodes {
		fmt.Fprintf(&nodes, "---\n{apiVersion: v1, kind: Node, metadata: {name: fake-%d}, status: {capacity: {cpu: 8, memory: 16Gi, pods: 110}, allocatable: {cpu: 8, memory: 16Gi, pods: 110}}}\n", i)
	}
	for i := range s.exports {
		for k := range s.per {
			fmt.Fprintf(&objects, "---\n{apiVersion: v1, kind: Pod, metadata: {name: web%d-%d, namespace: iperf, labels: {app: web%d}}, spec: {nodeName: fake-%d, containers: [{name: web, image: web, ports: [{containerPort: 80}]}]}}\n", i, k, i, (s.per*i+k)%s.nodes)
		}
		if i%2 == 0 {
			fmt.Fprintf(&objects, "---\n{apiVersion: networking.kubeslice.io/v1beta1, kind: ServiceExport, metadata: {name: web%d, namespace: iperf}, spec: {slice: iperf-slice, selector: {matchLabels: {app: web%d}}, ports: [{name: http, containerPort: 80, protocol: TCP}]}}\n", i, i)
			continue
		}
		fmt.Fprintf(&objects, "---\n{apiVersion: v1, kind: Service, metadata: {name: web%d, namespace: iperf}, spec: {selector: {app: web%d}, ports: [{name: http, port: 80}]}}\n", i, i)
		fmt.Fprintf(&objects, "---\n{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceExport, metadata: {name: web%d, namespace: iperf}}\n", i)
	}
	for _, text := range []string{nodes.String(), objects.String()} {
		if _, err := c.Kubectl(t.Context(), text, "create", "--validate=false", "-f", "-"); err != nil {
			t.Fatal(err)
		}
	}
	kubetest.Eventually(t, 5*time.Minute, func(ctx context.Context) error {
		run, err := c.Kubectl(ctx, "", "-n", "iperf", "get", "pods", "--field-selector", "status.phase=Running", "-o", "name")
		if n := strings.Count(run, "\n"); err == nil && n != s.per*s.exports {
			err = fmt.Errorf("%d pods of %d run", n, s.per*s.exports)
		}
		return err
	})
}
