package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slicewire/api"
	"slicewire/kube/kubetest"
)

// edgeServices are what cluster 1 exports: pages and an echo for the host outside,
// and an echo that the host has too.
var edgeServices = kubetest.Restricted("iperf") + echo("echo") + echo("both") +
	kubetest.Pods("iperf", "web", "sh", "-c", "mkdir /tmp/web; echo a page of cluster 1 > /tmp/web/index.html; exec httpd -f -p 8080 -h /tmp/web") + `
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: iperf}
spec: {selector: {app: web}, ports: [{name: http, port: 8080}]}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: web, namespace: iperf}
`

// echo is an exported service of one pod that says who it is.
func echo(name string) string {
	return kubetest.Servers("iperf", name, 1, "serve") + strings.ReplaceAll(`
---
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: iperf}
spec: {selector: {app: NAME}, ports: [{name: tcp, port: 80, targetPort: 8080}, {name: udp, port: 80, targetPort: 8080, protocol: UDP}]}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: NAME, namespace: iperf}
`, "NAME", name)
}

// An edge is the third site of an installation: a host outside.
type edge struct {
	*installation
	*host
	name   string   // by which its servers say who they are
	client rigMesh  // has the pod of tools in cluster 2
	use    string   // the block of what the host can do
	daemon []string // the command
	kill   func()   // kills it
}

// A host outside of all clusters, behind NAT, with nothing but an ordinary user's
// process, joins by a token and is a site: it finds and reaches what a cluster
// exports, pods of the other cluster reach what it exports, and when it is killed
// they are led to it no more, until it is back. All is done as the documentation
// says, block by block.
func TestAnEdgeOutsideAnyCluster(t *testing.T) {
	t.Parallel()
	e := startEdge(t)
	e.findsTheCluster(t)
	e.isFound(t)
	e.diesAndReturns(t)
}

// edgeSites has the slice reach the host, too.
const edgeSites = "clusters: [worker-1,worker-2,edge]"

// startEdge installs both clusters, and then the host as the documentation says.
func startEdge(t *testing.T) *edge {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	rig := kubetest.Start(t, kubetest.Options{Clusters: 2, Nodes: 1})
	rig.Add(t, kubetest.Slicewire(t), kubetest.Tools(t))
	x, dir := newInstallation(t, rig)
	x.sites = append(x.sites, "edge")
	manifest := strings.Replace(kubesliceExample(t, "01-sliceconfig-iperf-isolated.yaml"), "clusters: [worker-1,worker-2]", edgeSites, 1)
	if !strings.Contains(manifest, edgeSites) {
		t.Fatal("the example has other clusters")
	}
	writeFile(t, x.manifest, manifest)
	x.first(t, dir)
	x.second(t, "statefulset/slicewire")
	e := &edge{installation: x, name: name, client: rigMesh{rig: rig}}
	e.served(t)
	e.host = newHost(t, rig.Outside(t))
	e.give(t, "slices.yaml", manifest)
	e.joins(t)
	return e
}

// served gives cluster 1 its services, and cluster 2 the slice's names and a pod.
func (e *edge) served(t *testing.T) {
	t.Helper()
	one, two := e.rig.Clusters[0], e.rig.Clusters[1]
	one.Apply(t, edgeServices)
	for _, name := range []string{"echo", "both", "web"} {
		one.Rollout(t, "iperf", "deployment/"+name)
	}
	dns := two.Must(t, "get", "service", "-n", rigSpace, "slicewire-dns", "-o", "jsonpath={.spec.clusterIP}")
	two.Stub(t, fmt.Sprintf("slice.local:1053 {\n forward . %s\n}\nclusterset.local:1053 {\n forward . %s\n}\n", dns, dns))
	e.client.client(t, 1, "iperf")
}

// joins makes the host a site, by the blocks of the documentation, and starts it and
// what it serves.
func (e *edge) joins(t *testing.T) {
	t.Helper()
	blocks := shellBlocks(t, "../../docs/kubernetes.md")
	if len(blocks) != 3 {
		t.Fatalf("the document has %d blocks, want a token's, the host's, and one of what it can do", len(blocks))
	}
	sh := newDocShell(t, e.rig)
	sh.run(t, blocks[0])
	token, err := os.ReadFile(filepath.Join(sh.dir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	e.give(t, "token", string(token))
	e.use = blocks[2]
	gossip, _, _ := strings.Cut(e.gossip, ":")
	here := strings.NewReplacer("mesh: home", "mesh: rig", "203.0.113.7", gossip, "publish:\n", "publish:\n"+publishBoth)
	setup, start, ok := strings.Cut(here.Replace(blocks[1]), "\nslicewire daemon")
	if !ok {
		t.Fatalf("the host starts nothing:\n%s", setup)
	}
	e.start(t, "peer", "serve", "127.0.0.1:8080")
	began := time.Now()
	e.shell(t, setup)
	e.daemon = append([]string{"slicewire", "daemon"}, strings.Fields(start)...)
	e.kill = e.start(t, e.daemon...)
	kubetest.Eventually(t, patience, e.joined)
	t.Logf("the host is on the slice %v after its token was used", time.Since(began).Round(10*time.Millisecond))
}

// joined reports whether the host has a tunnel to each cluster, as one who only
// dials, and knows all services.
func (e *edge) joined(ctx context.Context) error {
	out, err := e.command(ctx, "slicewire", "status", "-o", "json").Output()
	if err != nil {
		return err
	}
	var s api.Status
	if err := json.Unmarshal(out, &s); err != nil {
		return err
	}
	if !s.Gateway || !s.Gossip.Leaf || len(s.Slices) != 1 || len(s.Slices[0].Services) != 4 {
		return fmt.Errorf("gateway %v, gossip %+v, slices %+v", s.Gateway, s.Gossip, s.Slices)
	}
	tunnels := 0
	for _, p := range s.Slices[0].Peers {
		if p.LastHandshake != nil {
			tunnels++
		}
	}
	if tunnels != 2 {
		return fmt.Errorf("%d tunnels: %+v", tunnels, s.Slices[0].Peers)
	}
	return nil
}

// publishBoth makes the host another endpoint of what cluster 1 exports.
const publishBoth = `- {slice: iperf-slice, namespace: iperf, service: both, ports: [{name: tcp, target: "127.0.0.1:8080"}, {name: udp, target: "127.0.0.1:8080"}],
   export: [{name: tcp, port: 80}, {name: udp, port: 80, protocol: UDP}], type: ClusterSetIP}
`

// asks asks an echo by name from the host, as a program on the slice.
func (e *edge) asks(ctx context.Context, network, name string) (who string, err error) {
	out, err := e.command(ctx, "slicewire", "run", "--", "peer", "ask", network, name, "hello").CombinedOutput()
	f := strings.Fields(string(out))
	if err != nil || len(f) != 3 || f[2] != "hello" {
		return "", fmt.Errorf("%s %s: %q, %w", network, name, out, err)
	}
	return f[0], nil
}

// findsTheCluster checks that the host has what cluster 1 exports, in both zones, by
// TCP and UDP.
func (e *edge) findsTheCluster(t *testing.T) {
	t.Helper()
	if said := e.shell(t, e.use); strings.Count(said, "a page of cluster 1") != 2 || strings.Count(said, "10.190.") < 1 {
		t.Errorf("what the documentation has the host do says\n%s", said)
	}
	for _, network := range []string{"tcp", "udp"} {
		for _, name := range []string{"echo.iperf.svc.slice.local:80", "echo.iperf.svc.clusterset.local:80"} {
			kubetest.Eventually(t, patience, func(ctx context.Context) error {
				who, err := e.asks(ctx, network, name)
				if err == nil && !strings.HasPrefix(who, "echo-") {
					err = fmt.Errorf("%s %s is answered by %s", network, name, who)
				}
				return err
			})
		}
	}
}

// isFound checks that a pod of cluster 2 reaches what the host exports, by the
// Service and the ServiceImports that stand for it.
func (e *edge) isFound(t *testing.T) {
	t.Helper()
	two := e.rig.Clusters[1]
	for _, zone := range []string{"slice.local", "clusterset.local"} {
		for _, network := range []string{"tcp", "udp"} {
			if who := e.client.answered(t, 1, network, "box.iperf.svc."+zone+":80"); who != e.name {
				t.Errorf("%s box in %s is %s, want the host, %s", network, zone, who, e.name)
			}
		}
	}
	ip := two.Must(t, "-n", "iperf", "get", "services", "-l", "multicluster.kubernetes.io/service-name=box", "-o", "jsonpath={.items[*].spec.clusterIP}")
	got := two.Must(t, "-n", "iperf", "get", "serviceimports.multicluster.x-k8s.io", "box", "-o", "jsonpath={.spec.type} {.spec.ips[0]} {.status.clusters[*].cluster}")
	if want := "ClusterSetIP " + ip + " edge"; ip == "" || got != want {
		t.Errorf("the import has %q, want %q", got, want)
	}
	if got := two.Must(t, "-n", "iperf", "get", "serviceimports.networking.kubeslice.io", "box", "-o", "jsonpath={.status.endpoints[*].clusterId}"); got != "edge" {
		t.Errorf("KubeSlice's import has endpoints of %q", got)
	}
	e.client.inClient(t, 1, ip, "peer", "lookup", "box.iperf.svc.clusterset.local")
}

// An answer is what a pod had of an echo, and when it asked.
type answer struct {
	at   time.Duration // since this machine's boot
	took time.Duration
	who  string // empty: nobody
}

// answers has the pod of cluster 2 ask an echo over and over, each time anew, for so
// long.
func (e *edge) answers(ctx context.Context, long time.Duration, network, to string) (out []answer, err error) {
	said, err := e.rig.Clusters[1].ExecErr(ctx, "iperf", "deployment/client", "sh", "-c", fmt.Sprintf(
		`end=$(($(date +%%s) + %d)); while [ $(date +%%s) -le $end ]; do read a x </proc/uptime; w=$(peer ask %s %s hello 2>/dev/null); read b x </proc/uptime; echo $a $b $w; sleep 0.05; done`, int(long.Seconds()), network, to))
	for line := range strings.Lines(said) {
		var from, until float64
		var a answer
		if n, err := fmt.Sscan(line, &from, &until, &a.who); n < 2 {
			return nil, fmt.Errorf("the pod says %q: %w", line, err)
		}
		a.at, a.took = seconds(from), seconds(until-from)
		out = append(out, a)
	}
	return out, err
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// sinceBoot is this machine's uptime, which is that of pods.
func sinceBoot(t *testing.T) time.Duration {
	t.Helper()
	text, err := os.ReadFile("/proc/uptime")
	var s float64
	if err == nil {
		_, err = fmt.Sscan(string(text), &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return seconds(s)
}

// deathTime is the goal for how long a dead site may be in answers
// (docs/names.md).
const deathTime = 2 * time.Second

// diesAndReturns kills the host's process: what it had alone has no name any more
// and is refused, and what cluster 1 has too is answered by that alone. Then it is
// started again.
func (e *edge) diesAndReturns(t *testing.T) {
	t.Helper()
	const both, box = "both.iperf.svc.clusterset.local:80", "box.iperf.svc.clusterset.local:80"
	e.answersBoth(t, both)
	e.kill()
	died := sinceBoot(t)
	heard := make(chan error, 1)
	go func() {
		answers, err := e.answers(t.Context(), 4*deathTime, "udp", both)
		heard <- errors.Join(err, e.without(t, "udp", answers, died))
	}()
	answers, err := e.answers(t.Context(), 4*deathTime, "tcp", both)
	if err := errors.Join(err, e.without(t, "tcp", answers, died), <-heard); err != nil {
		t.Error(err)
	}
	asked := sinceBoot(t)
	if said, err := e.rig.Clusters[1].ExecErr(t.Context(), "iperf", "deployment/client", "peer", "ask", "tcp", box, "hello"); err == nil || !strings.Contains(err.Error(), "reset") && !strings.Contains(err.Error(), "refused") {
		t.Errorf("what only the host has says %q, %v, want to be refused", said, err)
	} else if took := sinceBoot(t) - asked; took > 2*time.Second {
		t.Errorf("what only the host has is refused after %v", took)
	}
	began := time.Now()
	e.kill = e.start(t, e.daemon...)
	for _, network := range []string{"tcp", "udp"} {
		if who := e.client.answered(t, 1, network, box); who != e.name {
			t.Errorf("%s box is %s, want the host", network, who)
		}
	}
	t.Logf("the host answers %v after its start", time.Since(began).Round(10*time.Millisecond))
	e.answersBoth(t, both)
}

// without says what is wrong with the answers of an echo of which the host's part
// has died: soon others give them all, and of connections none is lost.
func (e *edge) without(t *testing.T, network string, answers []answer, died time.Duration) (err error) {
	lost, last := 0, time.Duration(0)
	for _, a := range answers {
		at, right := a.at-died, strings.HasPrefix(a.who, "both-")
		if a.who == "" {
			lost++
		}
		if !right || a.took > time.Second/2 {
			last = at + a.took
		}
		if a.who == e.name || !right && (network == "tcp" || at > deathTime) {
			err = errors.Join(err, fmt.Errorf("%s, asked %v after the death, is answered by %q after %v", network, at, a.who, a.took))
		}
	}
	t.Logf("%s: %d questions, %d without an answer; the last that noticed the death ended %v after it", network, len(answers), lost, last.Round(10*time.Millisecond))
	if len(answers) < 5 {
		err = errors.Join(err, fmt.Errorf("%s: only %d questions", network, len(answers)))
	}
	return err
}

// answersBoth waits until both endpoints of an echo answer a pod of cluster 2.
func (e *edge) answersBoth(t *testing.T, to string) {
	t.Helper()
	kubetest.Eventually(t, patience, func(ctx context.Context) error {
		who := make(map[bool]int)
		answers, err := e.answers(ctx, time.Second, "tcp", to)
		if err != nil {
			return err
		}
		for _, a := range answers {
			if a.who != "" {
				who[a.who == e.name]++
			}
		}
		if len(who) != 2 {
			return fmt.Errorf("%d answers of the host, %d of others", who[true], who[false])
		}
		return nil
	})
}
