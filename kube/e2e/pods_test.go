package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"slicewire/api"
	"slicewire/kube/kubetest"
)

// podsSlice is the slice of KubeSlice's example.
const podsSlice = "iperf-slice"

// A podsRig is an installation whose first cluster has the webhook, and whose
// second one has the plugin of the network on its node.
type podsRig struct {
	*installation
}

func startPods(t *testing.T) *podsRig {
	t.Helper()
	rig := kubetest.Start(t, kubetest.Options{Clusters: 2, Nodes: 1})
	rig.Add(t, kubetest.Slicewire(t), kubetest.Tools(t), kubetest.Curl(t))
	x, dir := newInstallation(t, rig)
	x.first(t, dir, append(x.reach(), "--set", "webhook.enabled=true", "--set", "webhook.slice="+podsSlice)...)
	x.second(t, "daemonset/slicewire", "--set", "flavour=node", "--set", "cni.enabled=true",
		"--set", "cni.confDir="+kubetest.NetworkFolder, "--set", "cni.binDir="+kubetest.PluginFolder)
	for _, c := range rig.Clusters {
		c.Apply(t, nodeShell)
		c.Apply(t, restrictedSpace)
	}
	rig.Clusters[0].Rollout(t, rigSpace, "deployment/slicewire-webhook")
	for _, c := range rig.Clusters {
		c.Must(t, "-n", "default", "wait", "--for=condition=Ready", "pod/shell", "--timeout=1m")
	}
	return &podsRig{x}
}

// pod is the one pod of a Deployment.
func (p *podsRig) pod(t *testing.T, cluster int, app string) string {
	t.Helper()
	found := p.rig.Clusters[cluster].Pods(t, "iperf", "app="+app)
	if len(found) != 1 {
		t.Fatalf("pods of %s in cluster %d: %v", app, cluster+1, found)
	}
	return found[0]
}

// shell runs a script on a cluster's node, as root.
func (p *podsRig) shell(ctx context.Context, cluster int, stdin, script string) (string, error) {
	return p.rig.Clusters[cluster].Kubectl(ctx, stdin, "-n", "default", "exec", "-i", "shell", "--", "sh", "-c", script)
}

// kill kills a container of a pod as a crash does, and waits until the runtime
// has started another in its place.
func (p *podsRig) kill(t *testing.T, cluster int, namespace, pod, statuses, container string) {
	t.Helper()
	c := p.rig.Clusters[cluster]
	state := func(field string) string {
		return c.Must(t, "-n", namespace, "get", "pod", pod, "-o", fmt.Sprintf(`jsonpath={.status.%s[?(@.name=="%s")].%s}`, statuses, container, field))
	}
	id := strings.TrimPrefix(state("containerID"), "containerd://")
	if len(id) < 12 {
		t.Fatalf("container %s of %s has no ID: %q", container, pod, id)
	}
	said, err := p.shell(t.Context(), cluster, "", `for c in /proc/[0-9]*/cgroup; do p=${c%/cgroup}; if grep -q `+id+` $c 2>/dev/null; then kill -9 ${p#/proc/} && echo killed; fi; done`)
	if err != nil && !strings.Contains(said, "killed") || strings.TrimSpace(said) == "" {
		t.Fatalf("kill %s: %q, %v", container, said, err)
	}
	kubetest.Eventually(t, patience, func(context.Context) error {
		if now := state("containerID"); now == "" || strings.HasSuffix(now, id) || state("state.running.startedAt") == "" {
			return fmt.Errorf("container %s is still %s", container, now)
		}
		return nil
	})
}

// sidecarStatus asks a pod's sidecar.
func (p *podsRig) sidecarStatus(ctx context.Context, pod string) (s api.Status, err error) {
	said, err := p.rig.Clusters[0].Kubectl(ctx, "", "-n", "iperf", "exec", pod, "-c", "slicewire", "--", "/slicewire", "status", "--socket", "/state/slicewire.sock", "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(said), &s)
	}
	return s, err
}

// nodeStatus asks the gateway of the second cluster's node.
func (p *podsRig) nodeStatus(ctx context.Context) (s api.Status, err error) {
	said, err := p.rig.Clusters[1].Kubectl(ctx, "", "-n", rigSpace, "exec", "daemonset/slicewire", "-c", "slicewire", "--", "/slicewire", "status", "--socket", "/state/slicewire.sock", "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(said), &s)
	}
	return s, err
}

// published waits until the node of the second cluster knows where a service is.
func (p *podsRig) published(t *testing.T, service string) (at netip.Addr) {
	t.Helper()
	kubetest.Eventually(t, patience, func(ctx context.Context) error {
		s, err := p.nodeStatus(ctx)
		if err != nil {
			return err
		}
		for _, v := range s.Slices[0].Services {
			if v.Name == service && v.Namespace == "iperf" && len(v.Endpoints) == 1 {
				at = v.Endpoints[0].Address
				return nil
			}
		}
		return fmt.Errorf("no %s among %+v", service, s.Slices[0].Services)
	})
	return at
}

// attached waits until the node of the second cluster has that many pods on the
// slice, and returns them.
func (p *podsRig) attached(t *testing.T, want int) (all []api.WorkloadStatus) {
	t.Helper()
	kubetest.Eventually(t, patience, func(ctx context.Context) error {
		s, err := p.nodeStatus(ctx)
		if err == nil && (len(s.Slices) != 1 || len(s.Slices[0].Workloads) != want) {
			err = fmt.Errorf("workloads %+v, want %d", s.Slices, want)
		}
		if err == nil {
			all = s.Slices[0].Workloads
		}
		return err
	})
	return all
}

// asks waits until a pod of the second cluster is answered by the wanted pod.
func (p *podsRig) asks(t *testing.T, pod, network, to, want string) {
	t.Helper()
	kubetest.Eventually(t, patience, func(ctx context.Context) error {
		said, err := p.rig.Clusters[1].Kubectl(ctx, "", "-n", "iperf", "exec", pod, "-c", "peer", "--", "peer", "ask", network, to, "hello")
		if err != nil || !strings.HasPrefix(said, want+" ") || !strings.HasSuffix(said, " hello\n") {
			return fmt.Errorf("%s %s: %q, %w", network, to, said, err)
		}
		return nil
	})
}

// fetches waits until curl in a pod of the first cluster, which knows of nothing
// but its proxy, gets the wanted page.
func (p *podsRig) fetches(t *testing.T, pod, url, want string) {
	t.Helper()
	kubetest.Eventually(t, patience, func(ctx context.Context) error {
		said, err := p.rig.Clusters[0].Kubectl(ctx, "", "-n", "iperf", "exec", pod, "-c", "curl", "--", "curl", "-sS", "-m", "5", url)
		if err != nil || said != want+"\n" {
			return fmt.Errorf("%s: %q, %w", url, said, err)
		}
		return nil
	})
}

// Pods of one cluster have sidecars, by the webhook and by `slicewire inject`;
// pods of the other have devices, by the plugin of the network. They reach each
// other, and still do after what serves them was killed. What is deleted is let
// go of, and without slicewire pods start all the same.
func TestPodsOnTheSlice(t *testing.T) {
	t.Parallel()
	began := time.Now()
	p := startPods(t)
	t.Logf("two clusters with slicewire after %v", time.Since(began).Round(100*time.Millisecond))
	one, two := p.rig.Clusters[0], p.rig.Clusters[1]
	one.Apply(t, restrictedPods("app", `slicewire.io/inject: "true"`, `slicewire.io/publish: "app=8080,app=8080/udp"`, curlContainer))
	one.Apply(t, p.inject(t, restrictedPods("web", "by: hand", "", ""), "web=8081"))
	two.Apply(t, restrictedPods("pod", "by: cni", "", ""))
	one.Rollout(t, "iperf", "deployment/app")
	one.Rollout(t, "iperf", "deployment/web")
	two.Rollout(t, "iperf", "deployment/pod")
	t.Logf("pods after %v", time.Since(began).Round(100*time.Millisecond))
	p.checkSidecars(t)
	p.checkDevice(t)
	p.checkVerbs(t)
	p.checkMultus(t)
	p.checkWithout(t)
	t.Logf("all after %v", time.Since(began).Round(100*time.Millisecond))
}

// inject is what `slicewire inject` makes of manifests for the first cluster.
func (p *podsRig) inject(t *testing.T, manifests string, publish ...string) string {
	t.Helper()
	in := sidecar{authority: p.authority, manifest: p.manifest, site: "worker-1", slice: podsSlice, issuer: p.issuer, gateway: p.gossip, publish: publish}
	out, _ := in.inject(t, manifests)
	return out
}

// checkSidecars has pods with sidecars serve and ask, and kills one of these.
func (p *podsRig) checkSidecars(t *testing.T) {
	t.Helper()
	app, web, pod := p.pod(t, 0, "app"), p.pod(t, 0, "web"), p.pod(t, 1, "pod")
	own := make(map[netip.Addr]string)
	for _, name := range []string{app, web} {
		s, err := p.sidecarStatus(t.Context(), name)
		if err != nil || len(s.Slices) != 1 {
			t.Fatalf("the sidecar of %s: %+v, %v", name, s, err)
		}
		if at := s.Slices[0].Address; !s.Slices[0].Subnet.Contains(at) || own[at] != "" {
			t.Errorf("the sidecar of %s has the address %v of %v, as %q", name, at, s.Slices[0].Subnet, own[at])
		}
		own[s.Slices[0].Address] = name
	}
	at := p.published(t, "app")
	device := p.attached(t, 1)[0].Address
	for _, network := range []string{"tcp", "udp"} {
		p.asks(t, pod, network, netip.AddrPortFrom(at, 8080).String(), app)
	}
	service := p.rig.Clusters[1].Must(t, "-n", "iperf", "get", "services", "-l", "multicluster.kubernetes.io/service-name=app", "-o", "jsonpath={.items[0].spec.clusterIP}")
	p.asks(t, pod, "tcp", service+":8080", app)
	url := "http://" + netip.AddrPortFrom(device, 8081).String() + "/"
	p.fetches(t, app, url, pod)
	p.fetches(t, app, "http://web.iperf.svc.slice.local:8081/", web)

	p.kill(t, 0, "iperf", app, "initContainerStatuses", "slicewire")
	killed := time.Now()
	p.asks(t, pod, "tcp", netip.AddrPortFrom(at, 8080).String(), app)
	t.Logf("a killed sidecar serves %v after its successor was started", time.Since(killed).Round(100*time.Millisecond))
	p.fetches(t, app, url, pod)
	s, err := p.sidecarStatus(t.Context(), app)
	if err != nil || len(s.Slices) != 1 || own[s.Slices[0].Address] != app {
		t.Errorf("after a restart the sidecar of %s has another address than %v: %+v, %v", app, own, s.Slices, err)
	}
	if got := p.published(t, "app"); got != at {
		t.Errorf("after a restart the service is at %v, want %v", got, at)
	}
}

// checkDevice kills the daemon under a pod's device, and deletes the pod.
func (p *podsRig) checkDevice(t *testing.T) {
	t.Helper()
	two := p.rig.Clusters[1]
	app, pod := p.pod(t, 0, "app"), p.pod(t, 1, "pod")
	at := p.published(t, "app")
	was := p.attached(t, 1)[0]
	if was.Device != "sw0" || was.Namespace != "iperf" || was.Medium != "tun" || was.Command != "pod "+pod {
		t.Errorf("attached: %+v", was)
	}
	if said := two.Exec(t, "iperf", pod, "ip", "addr", "show", "dev", "sw0"); !strings.Contains(said, was.Address.String()+"/32") || !strings.Contains(said, "UP") {
		t.Errorf("the pod's device: %s", said)
	}
	gateway := two.Pods(t, rigSpace, "app.kubernetes.io/name=slicewire")[0]
	p.kill(t, 1, rigSpace, gateway, "containerStatuses", "slicewire")
	killed := time.Now()
	p.asks(t, pod, "tcp", netip.AddrPortFrom(at, 8080).String(), app)
	t.Logf("a pod of a killed daemon is on its slice %v after the next one was started", time.Since(killed).Round(100*time.Millisecond))
	same := func(after string) {
		t.Helper()
		if now := p.attached(t, 1)[0]; now.Address != was.Address || now.Netns != was.Netns {
			t.Errorf("after %s: %+v, want %+v", after, now, was)
		}
	}
	same("a restart")
	two.Must(t, "-n", rigSpace, "delete", "pod", gateway, "--wait") // as for an update
	two.Rollout(t, rigSpace, "daemonset/slicewire")
	made := time.Now()
	p.asks(t, pod, "tcp", netip.AddrPortFrom(at, 8080).String(), app)
	t.Logf("and %v after the daemon's pod was made anew", time.Since(made).Round(100*time.Millisecond))
	same("an update")
	two.Must(t, "-n", "iperf", "delete", "pod", pod, "--wait")
	two.Rollout(t, "iperf", "deployment/pod")
	if now := p.attached(t, 1)[0]; now.Netns == was.Netns || now.Command != "pod "+p.pod(t, 1, "pod") {
		t.Errorf("after the pod was deleted: %+v", now)
	}
	if n := len(p.records(t)); n != 1 {
		t.Errorf("%d records of one pod", n)
	}
}

// A keptRecord is what the plugin has noted of a pod.
type keptRecord struct{ Container, IfName, Netns, Network, Pod string }

// records are those on the second cluster's node.
func (p *podsRig) records(t *testing.T) (all []keptRecord) {
	t.Helper()
	said, err := p.shell(t.Context(), 1, "", "cat /run/slicewire-cni/attachments/*/*.json || true")
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(strings.NewReader(said)); d.More(); {
		var r keptRecord
		if err := d.Decode(&r); err != nil {
			t.Fatalf("%v in %s", err, said)
		}
		all = append(all, r)
	}
	return all
}

// chained is what the plugin before said of a pod.
const chained = `,"prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"interface":0,"address":"10.88.0.7/16","gateway":"10.88.0.1"}]}`

// checkVerbs asks the plugin that is installed on the node of what its runtime
// has attached.
func (p *podsRig) checkVerbs(t *testing.T) {
	t.Helper()
	all := p.records(t)
	if len(all) != 1 {
		t.Fatalf("records %+v", all)
	}
	r := all[0]
	call := func(command, more string) string {
		conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":%q,"type":"slicewire-cni","socket":"/var/lib/slicewire/slicewire.sock"%s}`, r.Network, more)
		said, err := p.shell(t.Context(), 1, conf, fmt.Sprintf("CNI_COMMAND=%s CNI_CONTAINERID=%s CNI_NETNS=%s CNI_IFNAME=%s CNI_ARGS='K8S_POD_NAMESPACE=iperf;K8S_POD_NAME=%s' CNI_PATH=%s %[6]s/slicewire-cni",
			command, r.Container, r.Netns, r.IfName, r.Pod, kubetest.PluginFolder))
		if err != nil && said == "" {
			t.Fatal(err)
		}
		return said
	}
	valid := fmt.Sprintf(`,"cni.dev/valid-attachments":[{"containerID":%q,"ifname":%q}]`, r.Container, r.IfName)
	for _, s := range []struct{ name, command, more, says string }{
		{"the node is ready", "STATUS", "", ""},
		{"what the runtime attached is there", "CHECK", chained, ""},
		{"GC keeps what the runtime has", "GC", valid, ""},
		{"it is still there", "CHECK", chained, ""},
		{"GC takes what the runtime has forgotten", "GC", `,"cni.dev/valid-attachments":[]`, ""},
		{"and it is gone", "CHECK", chained, `"code": 102`},
	} {
		if said := call(s.command, s.more); s.says == "" && said != "" || !strings.Contains(said, s.says) {
			t.Errorf("%s: %s, want %q", s.name, said, s.says)
		}
	}
	p.attached(t, 0)
	p.rig.Clusters[1].Must(t, "-n", "iperf", "delete", "deployment", "pod", "--cascade=foreground", "--wait")
	if all := p.records(t); len(all) != 0 {
		t.Errorf("records of no pod: %+v", all)
	}
}

// checkWithout has pods start where there is no webhook, and no plugin any more.
func (p *podsRig) checkWithout(t *testing.T) {
	t.Helper()
	one, two := p.rig.Clusters[0], p.rig.Clusters[1]
	one.Must(t, "-n", rigSpace, "scale", "deployment/slicewire-webhook", "--replicas=0")
	one.Must(t, "-n", rigSpace, "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=slicewire-webhook", "--timeout=1m")
	one.Apply(t, restrictedPods("late", `slicewire.io/inject: "true"`, "", ""))
	one.Rollout(t, "iperf", "deployment/late")
	if said := one.Must(t, "-n", "iperf", "get", "pod", p.pod(t, 0, "late"), "-o", "jsonpath={.spec.initContainers}"); said != "" {
		t.Errorf("without a webhook a pod gets %s", said)
	}
	two.Must(t, "-n", rigSpace, "delete", "daemonset", "slicewire", "--cascade=foreground", "--wait")
	said, err := p.shell(t.Context(), 1, "", "cat "+kubetest.NetworkFolder+"/*.conflist")
	if err != nil || !strings.Contains(said, `"ptp"`) || strings.Contains(said, "slicewire") {
		t.Errorf("the node's network without slicewire: %s, %v", said, err)
	}
	two.Apply(t, restrictedPods("late", "by: nobody", "", ""))
	two.Rollout(t, "iperf", "deployment/late")
	if links := strings.Fields(two.Exec(t, "iperf", p.pod(t, 1, "late"), "ls", "/sys/class/net")); slices.Contains(links, "sw0") {
		t.Errorf("without slicewire a pod has %v", links)
	}
}
