package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"slicewire/api"
)

// trace asks a node of the mesh.
func (m *mesh) trace(n *demoNode, req api.TraceRequest) api.TraceReply {
	m.t.Helper()
	req.Slice = "iperf-slice"
	tr, err := ask[api.TraceReply](m.t.Context(), &clientOptions{socket: n.socket}, http.MethodPost, "trace", req)
	if err != nil {
		m.t.Fatal(err)
	}
	return tr
}

func (m *mesh) flows(n *demoNode) api.FlowList {
	m.t.Helper()
	f, err := ask[api.FlowList](m.t.Context(), &clientOptions{socket: n.socket}, http.MethodGet, "flows?slice=iperf-slice", nil)
	if err != nil {
		m.t.Fatal(err)
	}
	return f
}

func pointsOf(tr api.TraceReply) (points []string) {
	for _, h := range tr.Hops {
		points = append(points, h.Point)
	}
	return points
}

// A program on a slice, the policies at both of its ends, and all that shows
// them: trace, flows, diff, and the counters.
func TestPolicyOnAMesh(t *testing.T) {
	m := startRunMesh(t)
	page := "http://" + demoName + "/"
	if out, errs, code := m.run(m.client(), "curl", "--silent", "--max-time", "20", page); code != 0 || out != demoPage("iperf-slice") {
		t.Fatalf("without a SlicePolicy: exit %d, %q %s", code, out, errs)
	}
	// The isolation of namespaces is in the demo's own manifest: a program has a
	// namespace, its node tells of it, and it cannot choose any other.
	r := m.start(m.client(), []string{"--name", "inside"}, m.probeCommand("serve :80")...)
	defer r.stop(t)
	w, ok := m.named(m.client(), "inside")
	if !ok || w.Namespace != "iperf" {
		t.Fatalf("the workload: %+v", w)
	}
	m.until("the other node knows whose address it is", func() bool {
		return m.trace(m.server(), api.TraceRequest{From: w.Address.String(), To: "iperf/web", Dport: 80}).Passes
	})
	cmd := m.command(t.Context(), m.client(), []string{"--namespace", "bank"}, "true")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), `namespace "bank" is not on slice iperf-slice`) {
		t.Errorf("a namespace of another slice: %v, %s", err, out)
	}
	// Of addresses that nobody told of, nothing is known.
	stranger := w.Address.Next().Next().Next()
	tr := m.trace(m.server(), api.TraceRequest{From: stranger.String(), To: "iperf/web", Dport: 80})
	if tr.Passes || tr.Drop != "policy" || !strings.Contains(fmt.Sprint(tr.Stages), "namespaceIsolationProfile ingress") || !strings.Contains(fmt.Sprint(tr.Stages), "nothing is known of it") {
		t.Errorf("a stranger: %+v", tr)
	}

	// A proposal, its effect on what goes on, and then the policy itself.
	dir := filepath.Join(m.dir, "manifests")
	proposal := filepath.Join(m.dir, "proposal.yaml")
	policy := strings.NewReplacer("slice: blue", "slice: iperf-slice", "shop/web", "iperf/web", "worker-3", "worker-1").Replace(demoPolicy)
	if err := os.WriteFile(proposal, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, code := program(t, "policy", "diff", "--socket", m.server().socket, "--manifests", dir+","+proposal)
	if code != exitDegraded || !strings.Contains(out, "ENDS: ingress denied by SlicePolicy shop/web ingress") {
		t.Errorf("diff: exit %d\n%s%s", code, out, errs)
	}
	if err := os.Rename(proposal, filepath.Join(dir, "policy.yaml")); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := program(t, "reload", "--socket", m.server().socket); code != 0 {
		t.Fatalf("reload: %s", errs)
	}
	if out, _, code := m.run(m.client(), "curl", "--silent", "--max-time", "1", page); code == 0 {
		t.Errorf("denied, and got %q", out)
	}
	out, errs, code = program(t, "trace", "--socket", m.server().socket, "--slice", "iperf-slice", w.Address.String(), "iperf/web", "--dport", "80")
	if code != exitDegraded || !strings.Contains(out, "SlicePolicy shop/web ingress selects") || !strings.Contains(out, "workload inside, namespace iperf") {
		t.Errorf("trace: exit %d\n%s%s", code, out, errs)
	}
	denied := uint64(0)
	for _, r := range m.flows(m.server()).Rules {
		if r.Name == "SlicePolicy shop/web ingress" {
			denied = r.Denied
		}
	}
	s, _ := m.status(m.server())
	for _, x := range s.Slices {
		if x.Name == "iperf-slice" && (denied == 0 || x.Drops["policy"] < denied) {
			t.Errorf("the rule denied %d, the slice dropped %v", denied, x.Drops)
		}
	}
	// What the policy does not select goes on, and a sent packet is answered.
	tr = m.trace(m.client(), api.TraceRequest{From: "inside", To: "worker-1/" + demoNodeName, Protocol: "icmp", Sport: 7, Send: true})
	if !tr.Passes || !strings.Contains(tr.Sent, "answered") {
		t.Errorf("an echo that was sent: %+v", tr)
	}
	if got, want := pointsOf(tr), []string{"port", "router", "shaper", "tunnel", "router", "port"}; !tr.Arrived || !slices.Equal(got, want) {
		t.Errorf("an echo was seen at %v, want %v: %+v", got, want, tr)
	}
	if h := tr.Hops; len(h) == 6 && (h[2].Node != "worker-2/"+demoNodeName || h[3].Node != "worker-1/"+demoNodeName || !strings.Contains(h[1].Result, "namespaceIsolationProfile egress")) {
		t.Errorf("an echo's hops: %+v", h)
	}
	out, errs, code = program(t, "trace", "--socket", m.client().socket, "--slice", "iperf-slice", "inside", "iperf/web", "--dport", "80", "--send")
	if code != exitDegraded || !strings.Contains(out, "dropped by worker-1/"+demoNodeName+": dropped as policy: ingress is denied by SlicePolicy shop/web ingress") {
		t.Errorf("a packet that the other node drops: exit %d\n%s%s", code, out, errs)
	}
	found := false
	for _, f := range m.flows(m.client()).Flows {
		found = found || f.Protocol == "icmp" && f.Source == w.Address && f.BackPackets > 0 && f.Egress == "namespaceIsolationProfile egress"
	}
	if !found {
		t.Errorf("flows: %+v", m.flows(m.client()).Flows)
	}
	// The other way round: what the node's own proxy asks of a service of its own
	// meets the policy too, though it meets no port.
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(strings.ReplaceAll(policy, "worker-1", "worker-2")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := program(t, "reload", "--socket", m.server().socket); code != 0 {
		t.Fatalf("reload: %s", errs)
	}
	if body, err := fetch(t.Context(), m.client().slices["iperf-slice"].proxy, page); err != nil || body != demoPage("iperf-slice") {
		t.Errorf("allowed, and got %q, %v", body, err)
	}
	if body, err := fetch(t.Context(), m.server().slices["iperf-slice"].proxy, page); err == nil {
		t.Errorf("denied on the same node, and got %q", body)
	}
	m.balance("iperf-slice")
}
