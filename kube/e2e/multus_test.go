package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"slicewire/kube/kubetest"
)

const multusConf = kubetest.NetworkFolder + "/00-multus.conf"

// multusDefinition is the CustomResourceDefinition that Multus itself ships.
func multusDefinition(t *testing.T) string {
	t.Helper()
	dir, err := exec.Command("go", "-C", "../testcluster/multus", "list", "-m", "-f", "{{.Dir}}", "gopkg.in/k8snetworkplumbingwg/multus-cni.v4").Output()
	if err != nil {
		t.Fatalf("where multus's module is: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "deployments", "multus-daemonset.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for doc := range strings.SplitSeq(string(text), "\n---\n") {
		if strings.Contains(doc, "kind: CustomResourceDefinition") {
			return doc
		}
	}
	t.Fatal("multus's manifests define no NetworkAttachmentDefinition")
	return ""
}

// documentedNetwork is the NetworkAttachmentDefinition of the documentation, for
// the slice and the namespace of this test.
func documentedNetwork(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/kubernetes-pods.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^    apiVersion: k8s\.cni\.cncf\.io/v1\n(    .*\n)+`).FindString(string(text))
	if found == "" {
		t.Fatal("the documentation shows no NetworkAttachmentDefinition")
	}
	network := strings.ReplaceAll(found, "\n    ", "\n")
	return strings.NewReplacer("namespace: apps", "namespace: iperf", `"slice": "red"`, `"slice": "`+podsSlice+`"`).Replace(strings.TrimPrefix(network, "    "))
}

// checkMultus has Multus put a pod on the slice by a network that the pod names,
// with the plugin in no network of the node's.
func (p *podsRig) checkMultus(t *testing.T) {
	t.Helper()
	two := p.rig.Clusters[1]
	p.second(t, "daemonset/slicewire", "--set", "flavour=node", "--set", "cni.enabled=true", "--set", "cni.chain=false", "--set", "cni.binDir="+kubetest.PluginFolder)
	chained, err := p.shell(t.Context(), 1, "", "cat "+kubetest.NetworkFolder+"/10-ptp.conflist")
	if err != nil || strings.Contains(chained, "slicewire") {
		t.Fatalf("with cni.chain=false the node's network is %s, %v", chained, err)
	}
	conf, err := json.Marshal(map[string]any{
		"cniVersion": "0.4.0", "name": "multus", "type": "multus", "kubeconfig": "/var/lib/cni/multus.kubeconfig", "delegates": []any{json.RawMessage(chained)},
	})
	if err != nil {
		t.Fatal(err)
	}
	two.Apply(t, multusDefinition(t))
	two.Must(t, "wait", "--for=condition=Established", "crd/network-attachment-definitions.k8s.cni.cncf.io", "--timeout=1m")
	two.Apply(t, documentedNetwork(t))
	for file, text := range map[string]string{"/var/lib/cni/multus.kubeconfig": two.Must(t, "config", "view", "--raw", "--minify", "--flatten"), multusConf: string(conf)} {
		if said, err := p.shell(t.Context(), 1, text, "ln -sf "+p.rig.Program("multus")+" "+kubetest.PluginFolder+"/multus && cat > "+file+".new && mv "+file+".new "+file); err != nil {
			t.Fatalf("%s, %v", said, err)
		}
	}

	two.Apply(t, restrictedPods("asks", "by: multus", "k8s.v1.cni.cncf.io/networks: red", ""))
	two.Apply(t, restrictedPods("bare", "by: nobody", "", ""))
	two.Rollout(t, "iperf", "deployment/asks")
	two.Rollout(t, "iperf", "deployment/bare")
	pod := p.pod(t, 1, "asks")
	on := p.attached(t, 1)[0]
	if on.Command != "pod "+pod || on.Medium != "tun" {
		t.Errorf("attached: %+v", on)
	}
	told := two.Must(t, "-n", "iperf", "get", "pod", pod, "-o", `jsonpath={.metadata.annotations.k8s\.v1\.cni\.cncf\.io/network-status}`)
	if !strings.Contains(told, `"name": "iperf/red"`) || !strings.Contains(told, `"`+on.Address.String()+`"`) {
		t.Errorf("Multus says of the pod's networks: %s, want %v among them", told, on.Address)
	}
	for _, network := range []string{"tcp", "udp"} {
		p.asks(t, pod, network, netip.AddrPortFrom(p.published(t, "app"), 8080).String(), p.pod(t, 0, "app"))
	}
	two.Must(t, "-n", "iperf", "delete", "deployment", "asks", "bare", "--cascade=foreground", "--wait")
	p.attached(t, 0)
	if all := p.records(t); len(all) != 0 {
		t.Errorf("records of no pod: %+v", all)
	}
	if said, err := p.shell(t.Context(), 1, "", "rm "+multusConf); err != nil {
		t.Fatal(fmt.Errorf("%s: %w", said, err))
	}
}
