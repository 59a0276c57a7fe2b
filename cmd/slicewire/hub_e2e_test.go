//go:build !nokube

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slicewire/kube"
	"slicewire/kube/apitest"
	"slicewire/statedir"
)

// hubMesh is the demo's mesh with its slices on a hub: files hold the exports,
// which are of the clusters.
func hubMesh(t *testing.T, sites ...string) (*mesh, *apitest.Server) {
	t.Helper()
	server := apitest.Serve(t)
	m := startMesh(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := kube.NewClient(server.Config, "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := apitest.InstallCRDs(ctx, c, "../../deploy/crds"); err != nil {
		t.Fatal(err)
	}
	const namespace = "kubeslice-demo"
	if err := apitest.Namespace(ctx, c, namespace); err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(m.dir, "hub.kubeconfig")
	if err := server.Kubeconfig(kubeconfig); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(m.dir, "manifests")
	var exports []string
	err = filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".yaml") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, doc := range strings.Split(string(text), "\n---\n") {
			switch {
			case strings.Contains(doc, "kind: ServiceExport"):
				exports = append(exports, doc)
			case strings.Contains(doc, "controller.kubeslice.io/"):
				if err := apitest.Put(ctx, c, namespace, doc); err != nil {
					return err
				}
			}
		}
		return os.Remove(path)
	})
	if err != nil || len(exports) < 2 {
		t.Fatalf("%d exports, %v", len(exports), err)
	}
	if err := os.WriteFile(filepath.Join(folder, "exports.yaml"), []byte(strings.Join(exports, "\n---\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, site := range demoSites {
		if err := apitest.Put(ctx, c, namespace, "apiVersion: controller.kubeslice.io/v1alpha1\nkind: Cluster\nmetadata: {name: "+site+"}\nspec: {}\n"); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(m.nodes[site].config)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, "kubernetes:\n  hub: {kubeconfig: hub.kubeconfig, namespace: "+namespace+"}\n"...)
		if err := os.WriteFile(m.nodes[site].config, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, site := range sites {
		if err := m.nodes[site].start(); err != nil {
			t.Fatal(err)
		}
	}
	return m, server
}

func TestSlicesOfAHubOutliveIt(t *testing.T) {
	m, server := hubMesh(t, "worker-1", "worker-2")
	begin := time.Now()
	m.until("first byte", m.reaches)
	t.Logf("first byte by slices of the hub after %v", time.Since(begin))
	m.until("nothing is refused", func() bool {
		s, up := m.status(m.server())
		return up && s.Hub != nil && s.Hub.Synced && len(s.Hub.Refused) == 0
	})
	m.until("the state is kept", func() bool {
		text, err := os.ReadFile(filepath.Join(m.dir, m.server().site, statedir.FileHub))
		return err == nil && strings.Contains(string(text), "SliceConfig/kubeslice-demo/iperf-slice")
	})

	out, errs, code := program(t, "hub", "metrics", "--socket", m.server().socket)
	for _, want := range []string{
		`kubeslice_slice_up{slice="iperf-slice",slice_cluster="worker-1",slice_project="demo",slice_reporting_controller="workerOperator"} 1`,
		`kubeslice_serviceexport_endpoints{slice="blue",slice_cluster="worker-1",slice_namespace="shop",slice_project="demo",slice_reporting_controller="workerOperator",slice_service="web"} 1`,
	} {
		if code != 0 || !strings.Contains(out, want+"\n") {
			t.Errorf("exit %d, %s: no line %s in\n%s", code, errs, want, out)
		}
	}
	m.until("what a gateway is told to measure", func() bool {
		out, _, _ := program(t, "hub", "metrics", "--socket", m.server().socket)
		for _, name := range []string{"latency", "pkt_loss", "rx_rate", "tx_rate"} {
			if !strings.Contains(out, "\nkubeslice_system_slicegw_"+name+`{pod_name="`) || !strings.Contains(out, `source_gateway_id="iperf-slice-worker-1-worker-2"`) {
				return false
			}
		}
		return true
	})

	server.StopAPI()
	down := time.Now()
	lost := 0
	m.until("HubStale", func() bool {
		if !m.reaches() {
			lost++
		}
		s, _ := m.status(m.server())
		return hubStale(s.Hub)
	})
	took := time.Since(down)
	t.Logf("HubStale after %v, %d requests lost meanwhile", took, lost)
	if took > 30*time.Second || lost > 0 {
		t.Errorf("HubStale after %v, %d lost", took, lost)
	}
	s, _ := m.status(m.server())
	if !strings.Contains(strings.Join(s.Warnings, "\n"), "HubStale") {
		t.Errorf("no warning: %q", s.Warnings)
	}

	n := m.server()
	n.interrupt()
	<-n.done
	begin = time.Now()
	if err := n.start(); err != nil {
		t.Fatal(err)
	}
	m.until("its slices are back", func() bool { s, up := m.status(n); return up && len(s.Slices) > 0 })
	m.until("reached again", m.reaches)
	t.Logf("restarted with the hub down in %v", time.Since(begin))
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("a restart with the hub down took %v", took)
	}

	if err := server.StartAPI(); err != nil {
		t.Fatal(err)
	}
	m.until("heard again", func() bool { s, _ := m.status(n); return s.Hub.Synced && !hubStale(s.Hub) })
	if !m.reaches() {
		t.Error("not reached after the hub came back")
	}
}
