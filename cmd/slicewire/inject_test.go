package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"slicewire/deploy/inject"
	"slicewire/overlay/manifest"
	"slicewire/statedir"
)

// The node file that is injected is one that the daemon reads, with a service of
// two ports and one of a single port.
func TestTheDaemonReadsWhatIsInjected(t *testing.T) {
	dir := t.TempDir()
	if err := initAuthority(statedir.Dir(dir), "rig", time.Now()); err != nil {
		t.Fatal(err)
	}
	slice := filepath.Join(dir, "slice.yaml")
	writeFile(t, slice, "kind: SliceConfig\n")
	x := injecting{authority: statedir.Dir(dir).Path(fileAuthorityCert), manifests: []string{slice}, publish: []string{"dns=53", "web=8080", "dns=53/udp"}}
	x.sidecar = inject.Sidecar{Image: "slicewire:1", Site: "worker-1", Slice: "red", Issuers: []string{"192.0.2.1:1"}, Gateways: []string{"192.0.2.1:2"}, Proxy: defaultProxy}
	var out, said strings.Builder
	if err := x.run(strings.NewReader("{kind: Pod, metadata: {name: p}, spec: {containers: []}}"), &out, &said); err != nil {
		t.Fatal(err)
	}
	var pod struct {
		Metadata struct{ Annotations map[string]string }
	}
	if err := yaml.Unmarshal([]byte(out.String()), &pod); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "node.yaml")
	writeFile(t, path, pod.Metadata.Annotations["sidecar.slicewire.io/node.yaml"])
	environment := map[string]string{varPodNode: "pod-x", "POD_NAMESPACE": "apps"}
	file, problems := manifest.LoadNodeIn(path, func(name string) (string, bool) { v, ok := environment[name]; return v, ok })
	if len(problems) > 0 {
		text, _ := os.ReadFile(path)
		t.Fatalf("%v in\n%s", problems, text)
	}
	if file.Node != "pod-x" || len(file.Publish) != 2 {
		t.Fatalf("node %s publishes %+v", file.Node, file.Publish)
	}
	dns, web := file.Publish[0], file.Publish[1]
	if dns.Service != "dns" || dns.Namespace != "apps" || dns.TargetOf("tcp-53") != "127.0.0.1:53" || dns.TargetOf("udp-53") != "127.0.0.1:53" ||
		!slices.Equal(dns.Export, []manifest.ExportPort{{Name: "tcp-53", Port: 53, Protocol: "TCP"}, {Name: "udp-53", Port: 53, Protocol: "UDP"}}) {
		t.Errorf("dns: %+v", dns)
	}
	if web.Service != "web" || web.Target != "127.0.0.1:8080" || !slices.Equal(web.Export, []manifest.ExportPort{{Port: 8080, Protocol: "TCP"}}) {
		t.Errorf("web: %+v", web)
	}
}
