package cluster

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"slicewire/kube"
	"slicewire/overlay"
)

// Objects that somebody wrote to do harm are refused, each with a condition where
// it has room for one; nothing is exported, admitted or written because of them.
func TestHostileObjectsOfACluster(t *testing.T) {
	f := start(t)
	const ns, other = "evil", "evil-other"
	move := strings.NewReplacer("shop", ns)
	v := view(overlay.Virtual, "west/web-x7k2p")
	v.Name = "far"
	stolen := "slicewire-" + short(ns, "far")
	f.put(namespace(ns), "{apiVersion: v1, kind: Namespace, metadata: {name: "+other+", labels: {kubeslice.io/slice: red, kubernetes.io/metadata.name: "+other+"}}}",
		move.Replace(pod("shop", "web-a", "web", "10.244.1.1")), pod(other, "spy", "web", "10.244.1.66"),
		// A Service of the name that slicewire would give, with endpoints of its maker.
		fmt.Sprintf("{apiVersion: v1, kind: Service, metadata: {name: %s, namespace: %s}, spec: {ports: [{port: 80}]}}", stolen, ns),
		// An import that somebody made up, and one that says it is slicewire's.
		"{apiVersion: networking.kubeslice.io/v1beta1, kind: ServiceImport, metadata: {name: theirs, namespace: "+ns+"}, spec: {slice: red, dnsName: \"a\\nb\", aliases: [\"<b>\"]}}",
		"{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceImport, metadata: {name: theirs, namespace: "+ns+", labels: {multicluster.kubernetes.io/service-name: kube-dns}}, spec: {type: ClusterSetIP, ips: [169.254.169.254], ports: [{port: 80}]}}")
	exports := map[string]string{
		"alias":    `{slice: red, aliases: ["a\nb.example"], selector: {matchLabels: {app: web}}, ports: [{name: http, containerPort: 8080, protocol: TCP}]}`,
		"markup":   `{slice: red, aliases: ["<script>x</script>"], selector: {matchLabels: {app: web}}, ports: [{name: http, containerPort: 8080, protocol: TCP}]}`,
		"mebibyte": `{slice: red, aliases: ["` + strings.Repeat("x", 1<<20) + `"], selector: {matchLabels: {app: web}}, ports: [{name: http, containerPort: 8080, protocol: TCP}]}`,
		"all":      `{slice: red, selector: {matchLabels: {}}, ports: [{name: http, containerPort: 8080, protocol: TCP}]}`,
		"range":    `{slice: red, selector: {matchLabels: {app: web}}, ports: [{name: http, containerPort: 70000, protocol: TCP}]}`,
		"nowhere":  `{slice: "../red", selector: {matchLabels: {app: web}}, ports: [{name: http, containerPort: 8080, protocol: TCP}]}`,
	}
	taken := map[string]bool{}
	for name, spec := range exports {
		err := f.tryPut("{apiVersion: networking.kubeslice.io/v1beta1, kind: ServiceExport, metadata: {name: " + name + ", namespace: " + ns + "}, spec: " + spec + "}")
		if taken[name] = err == nil; err != nil && len(err.Error()) > 10_000 {
			t.Errorf("%s: %d bytes of an error", name, len(err.Error()))
		}
	}
	system := "{apiVersion: networking.kubeslice.io/v1beta1, kind: ServiceExport, metadata: {name: dns, namespace: kube-system, labels: {kubeslice.io/slice: red}}, spec: {slice: red, selector: {matchLabels: {k8s-app: kube-dns}}, ports: [{name: dns, containerPort: 53, protocol: UDP}]}}"
	f.put(system, strings.NewReplacer("name: dns", "name: dns2", "networking.kubeslice.io", "multicluster.x-k8s.io", "spec: {slice: red, selector: {matchLabels: {k8s-app: kube-dns}}, ports: [{name: dns, containerPort: 53, protocol: UDP}]}", "spec: {}").Replace(system))
	f.Set(in(ns, v))
	f.eventually(func() error {
		for name := range exports {
			if !taken[name] {
				continue
			}
			if u := f.get(KindExport, ns, name); !strings.HasPrefix(said(u, "Valid"), "False") && !strings.HasPrefix(said(u, "Ready"), "False") {
				return fmt.Errorf("%s: status %v", name, u.Object["status"])
			}
		}
		if u := f.get(KindExport, "kube-system", "dns"); !strings.HasPrefix(said(u, "Ready"), "False") {
			return fmt.Errorf("kube-system/dns: status %v", u.Object["status"])
		}
		return nil
	})
	f.still(time.Second)
	if r := f.Result(); len(r.Exports) != 0 {
		t.Errorf("exports %+v", r.Exports)
	}
	if !f.Admit(f.ctx, "red", netip.MustParseAddr("10.244.1.1")) || f.Admit(f.ctx, "red", netip.MustParseAddr("10.244.1.66")) {
		t.Error("a label lets a namespace in that the slice does not bind")
	}
	if u := f.get(KindService, ns, stolen); kube.Ours(u) || len(u.GetLabels()) != 0 {
		t.Errorf("a Service of somebody else was taken over: %v", u.GetLabels())
	}
	// That isolation lets it through is all that is written there, as KubeSlice does.
	if got := f.get(KindNamespace, "", "kube-system"); got.GetLabels()[kube.LabelSlice] != "" || len(got.GetLabels()) > 2 || len(got.GetAnnotations()) > 2 {
		t.Errorf("kube-system was written to: %v, %v", got.GetLabels(), got.GetAnnotations())
	}
	for kind := range numKinds {
		if kind == KindNamespace {
			continue
		}
		for _, space := range []string{"kube-system", "default", other} {
			list, err := f.client.Dynamic.Resource(f.watched[kind].resource).Namespace(space).List(f.ctx, metav1.ListOptions{LabelSelector: kube.LabelManagedBy + "=" + kube.ManagedBy})
			if err != nil || len(list.Items) != 0 {
				t.Errorf("%d %ss written in %s, %v", len(list.Items), f.watched[kind].kind, space, err)
			}
		}
	}
	f.remove(KindExport, "kube-system", "dns")
	f.remove(KindMCSExport, "kube-system", "dns2")
}
