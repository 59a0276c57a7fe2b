package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"sigs.k8s.io/yaml"

	"slicewire/api"
	"slicewire/kube/cni"
	"slicewire/netstack/port"
)

// A cniNode is a node of the demo with pods that the plugin is asked for.
type cniNode struct {
	*runMesh
	node  *demoNode
	state string
}

// startCNI starts a mesh in namespaces of its own; nil: the test runs there.
func startCNI(t *testing.T) *cniNode {
	t.Helper()
	if !inNamespaces(t) {
		return nil
	}
	if err := port.LoopbackUp(); err != nil {
		t.Fatal(err)
	}
	if f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	} else {
		f.Close()
	}
	m := &runMesh{mesh: startMesh(t, "worker-1", "worker-2"), binary: os.Args[0]}
	m.until("first byte", m.reaches)
	return &cniNode{m, m.client(), filepath.Join(t.TempDir(), "state")}
}

// netns makes a network namespace, which lives until end is called.
func netns(t *testing.T) (path string, end func()) {
	t.Helper()
	holder := exec.Command("sleep", "infinity")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() { _ = holder.Process.Kill(); _ = holder.Wait() })
	t.Cleanup(end)
	return fmt.Sprintf("/proc/%d/ns/net", holder.Process.Pid), end
}

const before = `{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"interface":0,"address":"10.88.0.7/16","gateway":"10.88.0.1"}]}`

// conf is a network's configuration with more fields.
func (n *cniNode) conf(more string) string {
	return fmt.Sprintf(`{"cniVersion":"1.1.0","name":"pods","type":"slicewire-cni","socket":%q,"state":%q%s}`, n.node.socket, n.state, more)
}

const chained = `,"prevResult":` + before

// call runs the plugin as a runtime does.
func (n *cniNode) call(t *testing.T, command, container, netns, namespace, conf string) (out string, code uint) {
	t.Helper()
	out, code, err := n.tryCall(t.Context(), command, container, netns, namespace, conf)
	if err != nil {
		t.Fatal(err)
	}
	return out, code
}

func (n *cniNode) tryCall(ctx context.Context, command, container, netns, namespace, conf string) (string, uint, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Args = []string{"/opt/cni/bin/" + cni.Type}
	cmd.Path = "/proc/self/exe"
	cmd.Env = append(os.Environ(), asProgram+"=1", "CNI_COMMAND="+command, "CNI_CONTAINERID="+container, "CNI_NETNS="+netns, "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_INFRA_CONTAINER_ID=x;K8S_POD_NAME=p-"+container+";K8S_POD_NAMESPACE="+namespace)
	cmd.Stdin = strings.NewReader(conf)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err == nil {
		return out.String(), 0, nil
	}
	var said struct {
		Code uint
		Msg  string
	}
	if exit := new(exec.ExitError); !errors.As(err, &exit) || json.Unmarshal(out.Bytes(), &said) != nil || said.Code == 0 {
		return "", 0, fmt.Errorf("%s: %w: %s%s", command, err, out.String(), errs.String())
	}
	return said.Msg, said.Code, nil
}

func (n *cniNode) inside(netns string, args ...string) string {
	cmd := exec.Command("nsenter", append([]string{"--net=" + netns, "--"}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	_ = cmd.Run() // what it says is checked
	return out.String()
}

func (n *cniNode) attached() []api.WorkloadStatus { return n.workloads(n.node) }

func (n *cniNode) records(t *testing.T) int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(n.state, "attachments", "*", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

func TestThePluginDoesWhatTheSpecificationSays(t *testing.T) {
	n := startCNI(t)
	if n == nil {
		return
	}
	ns, end := netns(t)
	type step struct {
		name, command, container, namespace, conf string
		code                                      uint
		says                                      string
	}
	steps := func(list []step) {
		for _, s := range list {
			out, code := n.call(t, s.command, s.container, ns, s.namespace, n.conf(s.conf))
			if code != s.code || !strings.Contains(out, s.says) {
				t.Errorf("%s: code %d, %s; want %d, %q", s.name, code, out, s.code, s.says)
			}
		}
	}
	steps([]step{
		{"versions are told", "VERSION", "", "", "", 0, `"1.1.0"`},
		{"a node on slices is ready", "STATUS", "", "", "", 0, ""},
		{"a slice that is not there is not", "STATUS", "", "", `,"slice":"nowhere"`, 50, "nowhere"},
		{"a device that is no name", "ADD", "c0", "iperf", `,"device":"a/b"`, 7, "a/b"},
		{"a slice that is not there is asked for again", "ADD", "c0", "iperf", `,"slice":"nowhere"` + chained, 11, "nowhere"},
		{"an annotation does not open a slice", "ADD", "c0", "other", `,"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"slicewire.io/slice":"iperf-slice"}}` + chained, 100, "iperf"},
		{"nobody knows the namespace", "ADD", "c0", "", chained, 7, "no slice"},
		{"DEL of what never was", "DEL", "c0", "iperf", chained, 0, ""},
		{"CHECK of what never was", "CHECK", "c0", "iperf", chained, 102, "c0"},
		{"CHECK of a pod on no slice", "CHECK", "c0", "other", chained, 0, ""},
	})
	if len(n.attached()) != 0 || n.records(t) != 0 {
		t.Fatalf("refusals leave %v and %d records", n.attached(), n.records(t))
	}
	if out, code := n.call(t, "ADD", "c9", ns, "other", n.conf(chained)); code != 0 || !sameJSON(t, out, before) || len(n.attached()) != 0 {
		t.Errorf("a pod of a namespace on no slice: code %d, %s, %v", code, out, n.attached())
	}

	out, code := n.call(t, "ADD", "c1", ns, "iperf", n.conf(chained))
	all := n.attached()
	if code != 0 || !sameJSON(t, out, before) || len(all) != 1 || all[0].Device != "sw0" || all[0].Namespace != "iperf" || all[0].Command != "pod p-c1" {
		t.Fatalf("ADD: code %d, %s, %+v", code, out, all)
	}
	addr := all[0].Address
	if got := n.inside(ns, "curl", "-sS", "-m", "20", "http://"+n.web()+"/"); got != demoPage("iperf-slice") {
		t.Errorf("from the pod: %q", got)
	}
	steps([]step{
		{"all is there", "CHECK", "c1", "iperf", chained, 0, ""},
		{"GC keeps what is valid", "GC", "", "", `,"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]`, 0, ""},
		{"still there", "CHECK", "c1", "iperf", chained, 0, ""},
	})
	n.checkRestart(t, ns, addr)
	n.inside(ns, "ip", "addr", "del", addr.String()+"/32", "dev", "sw0")
	steps([]step{
		{"an address is missing", "CHECK", "c1", "iperf", chained, 102, addr.String()},
		{"added again", "ADD", "c1", "iperf", chained, 0, ""},
		{"all is there again", "CHECK", "c1", "iperf", chained, 0, ""},
	})
	if all := n.attached(); len(all) != 1 {
		t.Errorf("added twice: %v", all)
	}
	steps([]step{{"GC takes what is not valid", "GC", "", "", `,"cni.dev/valid-attachments":[{"containerID":"c2","ifname":"eth0"}]`, 0, ""}})
	if len(n.attached()) != 0 || n.records(t) != 0 || strings.Contains(n.inside(ns, "ip", "link"), "sw0") {
		t.Errorf("after GC: %v, %d records", n.attached(), n.records(t))
	}
	steps([]step{
		{"once more", "ADD", "c1", "iperf", chained, 0, ""},
		{"DEL", "DEL", "c1", "iperf", chained, 0, ""},
		{"DEL again", "DEL", "c1", "iperf", chained, 0, ""},
		{"and once more", "ADD", "c1", "iperf", chained, 0, ""},
	})
	end() // the pod's namespace is gone before DEL, as after a crash of the runtime
	if _, code := n.call(t, "DEL", "c1", "", "iperf", n.conf("")); code != 0 || len(n.attached()) != 0 || n.records(t) != 0 {
		t.Errorf("DEL without the namespace: code %d, %v", code, n.attached())
	}
	n.checkAlone(t)
}

// web is the address of the demo's service on the client's slice.
func (n *cniNode) web() string {
	s, _ := n.status(n.node)
	for _, x := range s.Slices {
		for _, v := range x.Services {
			if x.Name == "iperf-slice" && v.Name == "web" {
				return v.Endpoints[0].Address.String()
			}
		}
	}
	return ""
}

// documented is the configuration in the NetworkAttachmentDefinition of the
// documents, checked as Multus does before it calls the plugin, with the socket
// and the slice of this node.
func (n *cniNode) documented(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/kubernetes-pods.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "    apiVersion: k8s.cni.cncf.io/v1\n")
	object, _, _ := strings.Cut(after, "\n\n")
	var nad struct {
		Kind     string                           `json:"kind"`
		Metadata struct{ Name, Namespace string } `json:"metadata"`
		Spec     struct {
			Config string `json:"config"`
		} `json:"spec"`
	}
	if err := yaml.UnmarshalStrict([]byte(object), &nad); err != nil || nad.Kind != "NetworkAttachmentDefinition" || nad.Metadata.Name == "" {
		t.Fatalf("the document's example: %+v, %v", nad, err)
	}
	var conf struct{ CNIVersion, Name, Type string }
	var fields map[string]any
	if err := errors.Join(json.Unmarshal([]byte(nad.Spec.Config), &conf), json.Unmarshal([]byte(nad.Spec.Config), &fields)); err != nil {
		t.Fatal(err)
	}
	if conf.Type != cni.Type || conf.Name != nad.Metadata.Name || conf.CNIVersion != "1.1.0" {
		t.Errorf("network %+v of %s", conf, nad.Metadata.Name)
	}
	if fields["slice"] == nil || fields["socket"] == nil {
		t.Errorf("the document's configuration has no slice or no socket: %v", fields)
	}
	fields["slice"], fields["socket"], fields["state"] = "iperf-slice", n.node.socket, n.state
	out, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func (n *cniNode) keeper() *cni.Keeper {
	return &cni.Keeper{State: n.state, Daemon: &podDaemon{n.node.socket}, Log: slog.New(slog.DiscardHandler)}
}

// checkRestart has the daemon go and come back.
func (n *cniNode) checkRestart(t *testing.T, ns string, addr netip.Addr) {
	t.Helper()
	if err := n.node.process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-n.node.done
	for _, s := range []struct {
		name, command, container, namespace string
		code                                uint
	}{
		{"attached pods are cut off", "STATUS", "", "", 51},
		{"a pod of a slice waits", "ADD", "c2", "iperf", 11},
		{"a pod of no slice does not", "ADD", "c3", "other", 0},
		{"nobody can check", "CHECK", "c1", "iperf", 11},
		{"what was not attached can be deleted", "DEL", "c2", "iperf", 0},
	} {
		if out, code := n.call(t, s.command, s.container, ns, s.namespace, n.conf(chained)); code != s.code {
			t.Errorf("without a daemon, %s: code %d, %s; want %d", s.name, code, out, s.code)
		}
	}
	if err := n.node.start(); err != nil {
		t.Fatal(err)
	}
	n.until("the daemon is back", func() bool { s, ok := n.status(n.node); return ok && len(s.Slices) > 0 })
	n.keeper().Look(t.Context())
	all := n.attached()
	if len(all) != 1 || all[0].Address != addr || all[0].Namespace != "iperf" {
		t.Fatalf("after a restart: %+v, want %v", all, addr)
	}
	n.until("the pod reaches the service again", func() bool {
		return n.inside(ns, "curl", "-sS", "-m", "5", "http://"+n.web()+"/") == demoPage("iperf-slice")
	})
}

// checkAlone has the plugin make a network by itself, as Multus asks for it, and
// the keeper let go of a namespace that is gone.
func (n *cniNode) checkAlone(t *testing.T) {
	t.Helper()
	ns, end := netns(t)
	out, code := n.call(t, "ADD", "m1", ns, "iperf", n.documented(t))
	all := n.attached()
	var r struct {
		Interfaces []struct{ Name, Sandbox string }
		IPs        []struct{ Address netip.Prefix }
		Routes     []struct{ Dst netip.Prefix }
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || len(all) != 1 {
		t.Fatalf("alone: code %d, %s, %v", code, out, all)
	}
	if len(r.Interfaces) != 1 || r.Interfaces[0].Name != "eth0" || r.Interfaces[0].Sandbox != ns || len(r.IPs) != 2 || r.IPs[0].Address.Addr() != all[0].Address || len(r.Routes) < 2 {
		t.Errorf("result %+v", r)
	}
	if got := n.inside(ns, "curl", "-sS", "-m", "20", "http://"+n.web()+"/"); got != demoPage("iperf-slice") {
		t.Errorf("from the pod: %q", got)
	}
	end()
	n.keeper().Look(t.Context())
	if len(n.attached()) != 0 || n.records(t) != 0 {
		t.Errorf("the namespace is gone: %v, %d records", n.attached(), n.records(t))
	}
}
