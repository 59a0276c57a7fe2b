//go:build !nokube

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"slicewire/api"
	"slicewire/kube"
	"slicewire/kube/apitest"
	"slicewire/kube/kubetest"
	"slicewire/statedir"
)

var outage = flag.Duration("outage", 25*time.Second, "how long the API servers are gone under load; a release is judged by ten minutes")

// A load is traffic between two sites all the time, and an eye on what the
// daemons have of routes and services.
type load struct {
	m    *mesh
	door string // host:port at which a pod of the client's cluster reaches the server
	stop func()

	mu      sync.Mutex
	sent    map[string]int    // by way
	lost    map[string]int    // by way
	why     map[string]string // the last loss of a way
	history map[string][]string
	looks   int
}

// loaded begins traffic that goes on until stop.
func (m *mesh) loaded(door string) *load {
	l := &load{m: m, door: door, sent: map[string]int{}, lost: map[string]int{}, why: map[string]string{}, history: map[string][]string{}}
	ctx, cancel := context.WithCancel(m.t.Context())
	var all sync.WaitGroup
	all.Go(func() { l.ping(ctx) })
	all.Go(func() {
		l.every(ctx, 50*time.Millisecond, "socks", func() error {
			if !m.reaches() {
				return errors.New("no page")
			}
			return nil
		})
	})
	all.Go(func() {
		l.every(ctx, 50*time.Millisecond, "door", func() error { return throughDoor(m.t.Context(), door) })
	})
	all.Go(func() {
		l.every(ctx, 25*time.Millisecond, "look", func() error { return l.look() })
	})
	l.stop = sync.OnceFunc(func() { cancel(); all.Wait() })
	m.t.Cleanup(l.stop)
	return l
}

func (l *load) note(way string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent[way]++
	if err != nil {
		l.lost[way]++
		l.why[way] = time.Now().Format(time.TimeOnly) + " " + err.Error()
	}
}

// every does something again and again; what is begun is ended.
func (l *load) every(ctx context.Context, pause time.Duration, way string, do func() error) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for ctx.Err() == nil {
		l.note(way, do())
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// ping sends a hundred packets a second.
func (l *load) ping(ctx context.Context) {
	req := api.PingRequest{Slice: "iperf-slice", Target: demoName, Count: 100, Interval: 10 * time.Millisecond, Timeout: 2 * time.Second}
	for ctx.Err() == nil {
		err := newClient(l.m.client().socket).ping(l.m.t.Context(), req, func(p api.PingReply) {
			if p.Error != "" {
				l.note("packets", errors.New(p.Error))
			} else {
				l.note("packets", nil)
			}
		})
		if err != nil {
			l.note("packets", err)
		}
	}
}

// look notes what each daemon has of its slices, when it is something else.
func (l *load) look() error {
	for _, n := range []*demoNode{l.m.client(), l.m.server()} {
		s, up := l.m.status(n)
		if !up {
			return fmt.Errorf("%s does not answer", n.site)
		}
		var now []string
		for _, x := range s.Slices {
			now = append(now, fmt.Sprintf("slice %s %v %v", x.Name, x.Block, x.Address))
			for _, p := range x.Peers {
				now = append(now, fmt.Sprintf("peer %s %s/%s %v", x.Name, p.Site, p.Node, p.Prefixes))
			}
			for _, v := range x.Services {
				now = append(now, fmt.Sprintf("service %s %s/%s", x.Name, v.Namespace, v.Name))
			}
		}
		text := strings.Join(now, "\n")
		l.mu.Lock()
		if h := l.history[n.site]; len(h) == 0 || h[len(h)-1] != text {
			l.history[n.site] = append(h, text)
		}
		l.looks++
		l.mu.Unlock()
	}
	return nil
}

// judge fails when anything was lost, or was another for a moment.
func (l *load) judge(what string) {
	l.m.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.m.t.Logf("%s: sent %v, lost %v, %d looks at routes", what, l.sent, l.lost, l.looks)
	for _, way := range []string{"packets", "socks", "door", "look"} {
		if l.sent[way] < 50 || l.lost[way] > 0 {
			l.m.t.Errorf("%s: %s: %d of %d lost: %s", what, way, l.lost[way], l.sent[way], l.why[way])
		}
	}
	for site, h := range l.history {
		if len(h) != 1 {
			l.m.t.Errorf("%s: routes of %s changed %d times:\n%s", what, site, len(h)-1, strings.Join(h, "\n---\n"))
		}
	}
}

// throughDoor asks the server as a pod of the client's cluster would.
func throughDoor(ctx context.Context, door string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+door+"/", nil)
	if err != nil {
		return err
	}
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20)); err != nil || string(body) != demoPage("iperf-slice") {
		return fmt.Errorf("%q, %w", body, err)
	}
	return nil
}

// withCluster gives the client's daemon a cluster with one pod, which has the
// address that is returned.
func (m *mesh) withCluster(ctx context.Context, s *apitest.Server) (*kube.Client, string) {
	m.t.Helper()
	c, err := kube.NewClient(s.Config, "test")
	if err != nil {
		m.t.Fatal(err)
	}
	addr := kubetest.OwnAddress(m.t)
	err = errors.Join(apitest.InstallCRDs(ctx, c, "../../deploy/crds"), apitest.Namespace(ctx, c, "slicewire-system"), apitest.Namespace(ctx, c, "iperf"),
		s.Kubeconfig(filepath.Join(m.dir, "cluster.kubeconfig")), apitest.PutPod(ctx, c, "iperf", "client", "default", addr))
	if err != nil {
		m.t.Fatal(err)
	}
	f, err := os.OpenFile(m.client().config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "  cluster: {kubeconfig: cluster.kubeconfig, namespace: slicewire-system, podIP: %s}\n", addr); err != nil {
		m.t.Fatal(err)
	}
	return c, addr
}

// hubObjects returns the objects of the hub that people write, to be put again.
func hubObjects(ctx context.Context, t *testing.T, c *kube.Client) (out []string) {
	t.Helper()
	for _, kind := range []string{"Cluster", "SliceQoSConfig", "SliceConfig"} {
		list, err := apitest.List(ctx, c, "controller.kubeslice.io/v1alpha1", kind, "kubeslice-demo")
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list {
			text, err := json.Marshal(map[string]any{"apiVersion": o.GetAPIVersion(), "kind": kind, "metadata": map[string]any{"name": o.GetName()}, "spec": o.Object["spec"]})
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, string(text))
		}
	}
	return out
}

func TestAnOutageLosesNothing(t *testing.T) {
	m, hub := hubMesh(t)
	cluster := apitest.Serve(t)
	ctx, cancel := context.WithTimeout(t.Context(), *outage+6*time.Minute)
	defer cancel()
	own, addr := m.withCluster(ctx, cluster)
	c, err := kube.NewClient(hub.Config, "test")
	if err != nil {
		t.Fatal(err)
	}
	objects, backup := hubObjects(ctx, t, c), filepath.Join(t.TempDir(), "backup")
	last := objects[len(objects)-1:] // a slice that the backup lacks
	if err := errors.Join(apitest.Remove(ctx, c, "kubeslice-demo", last[0]), hub.Backup(backup), apitest.Put(ctx, c, "kubeslice-demo", last[0])); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*demoNode{m.server(), m.client()} {
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
	}
	m.until("first byte", m.reaches)
	door := ""
	m.until("the door", func() bool {
		list, _ := apitest.List(ctx, own, "discovery.k8s.io/v1", "EndpointSlice", "iperf")
		for _, o := range list {
			ports, _ := o.Object["ports"].([]any)
			if strings.HasPrefix(o.GetLabels()[kube.LabelEndpointsOf], "slicewire-") && len(ports) > 0 {
				door = net.JoinHostPort(addr, fmt.Sprint(ports[0].(map[string]any)["port"]))
			}
			if door != "" && throughDoor(ctx, door) == nil {
				return true
			}
		}
		return false
	})
	m.until("both keep their state", func() bool {
		_, err := os.Stat(filepath.Join(m.dir, m.client().site, statedir.FileCluster))
		s, _ := m.status(m.server())
		return err == nil && s.Hub != nil && s.Hub.Synced && len(s.Slices) == 2
	})

	m.until("the hub knows by what pods of the client's cluster prove who they are", func() bool {
		list, _ := apitest.List(ctx, c, "controller.kubeslice.io/v1alpha1", "Cluster", "kubeslice-demo")
		for i := range list {
			if o := &list[i]; o.GetName() == m.client().site && strings.Contains(apitest.TextAt(o, "status", "podTokens", "keys"), `"kid"`) {
				return true
			}
		}
		return false
	})

	l := m.loaded(door)
	hub.StopAPI()
	cluster.StopAPI()
	down := time.Now()
	for _, n := range []*demoNode{m.server(), m.client()} {
		m.until("HubStale", func() bool { s, up := m.status(n); return up && hubStale(s.Hub) })
	}
	took := time.Since(down)
	if took > 30*time.Second {
		t.Errorf("HubStale after %v", took)
	}
	<-time.After(time.Until(down.Add(*outage))) // that is what is tried
	l.stop()
	l.judge(fmt.Sprintf("API servers gone for %v, HubStale after %v", *outage, took))

	for _, n := range []*demoNode{m.server(), m.client()} {
		m.stop(n)
		begin := time.Now()
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
		m.until("reached again", func() bool { return m.reaches() && throughDoor(ctx, door) == nil })
		t.Logf("%s reaches all after %v, its API servers still gone", n.site, time.Since(begin))
		if d := time.Since(begin); d > 5*time.Second {
			t.Errorf("a restart of %s took %v", n.site, d)
		}
	}
	m.until("the whole of the slices", func() bool {
		s, _ := m.status(m.server())
		o, _ := m.status(m.client())
		return len(s.Slices) == 2 && len(o.Slices) == 2 && !slices.ContainsFunc(append(s.Slices, o.Slices...), func(x api.SliceStatus) bool { return len(x.Peers) == 0 || len(x.Services) == 0 })
	})
	l = m.loaded(door)
	if err := errors.Join(hub.StartAPI(), cluster.StartAPI()); err != nil {
		t.Fatal(err)
	}
	spare := 0
	heard := func(what string) { // a change is seen by both
		spare++
		text := fmt.Sprintf("apiVersion: controller.kubeslice.io/v1alpha1\nkind: Cluster\nmetadata: {name: spare-%d}\nspec: {}\n", spare)
		if err := apitest.Put(ctx, c, "kubeslice-demo", text); err != nil {
			t.Fatal(err)
		}
		before, _ := apitest.List(ctx, c, "controller.kubeslice.io/v1alpha1", "Cluster", "kubeslice-demo")
		m.until(what, func() bool {
			a, _ := m.status(m.server())
			b, _ := m.status(m.client())
			return a.Hub.Objects["Cluster"] >= len(before) && b.Hub.Objects["Cluster"] >= len(before) && !hubStale(a.Hub) && !hubStale(b.Hub) && b.Cluster.Synced
		})
	}
	heard("heard again")
	if err := hub.Compact(); err != nil {
		t.Fatal(err)
	}
	heard("heard after a compaction")
	if err := hub.Restore(backup); err != nil {
		t.Fatal(err)
	}
	held := func(some bool) func() bool {
		return func() bool {
			for _, n := range []*demoNode{m.server(), m.client()} {
				s, _ := m.status(n)
				if slices.ContainsFunc(s.Hub.Held, func(id string) bool { return strings.Contains(id, ":SliceConfig/") }) != some {
					return false
				}
			}
			return true
		}
	}
	m.until("an old backup: what it lacks is held", held(true))
	if err := apitest.Put(ctx, c, "kubeslice-demo", last[0]); err != nil {
		t.Fatal(err)
	}
	m.until("put again", held(false))
	if err := errors.Join(hub.Forget(0), apitest.InstallCRDs(ctx, c, "../../deploy/crds"), apitest.Namespace(ctx, c, "kubeslice-demo")); err != nil {
		t.Fatal(err)
	}
	m.until("a new etcd: all is held", held(true))
	for _, text := range objects {
		if err := apitest.Put(ctx, c, "kubeslice-demo", text); err != nil {
			t.Fatal(err)
		}
	}
	m.until("filled again", held(false))
	l.stop()
	l.judge("back, a compaction, an old backup, a new etcd")
	for _, n := range []*demoNode{m.server(), m.client()} {
		if out, _, _ := program(t, "hub", "metrics", "--socket", n.socket); !strings.Contains(out, "kubeslice_slice_deleted_total") || deletedSlices(out) != 0 {
			t.Errorf("slices of %s were withdrawn:\n%s", n.site, out)
		}
	}
}

// deletedSlices counts how often the metrics say that a slice went.
func deletedSlices(metrics string) (n int) {
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "kubeslice_slice_deleted_total{") && !strings.HasSuffix(strings.TrimSpace(line), " 0") {
			n++
		}
	}
	return n
}
