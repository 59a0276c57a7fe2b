package hub

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"slicewire/kube"
	"slicewire/kube/apitest"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
)

var server *apitest.Server

func TestMain(m *testing.M) {
	os.Exit(apitest.Main(m, func(s *apitest.Server) { server = s }))
}

// patience is how long a test waits for what should take moments.
const patience = time.Minute

// A project is a namespace of its own on the server.
type project1 struct {
	t         *testing.T
	ctx       context.Context
	client    *kube.Client
	namespace string
}

func newProject(t *testing.T) *project1 {
	t.Helper()
	if server == nil {
		t.Skip("no API server")
	}
	c, err := kube.NewClient(server.Config, "test")
	if err != nil {
		t.Fatal(err)
	}
	name := "kubeslice-" + strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(t.Name(), "Test"), "/", "-"))
	p := &project1{t, t.Context(), c, strings.Trim(name[max(0, len(name)-40):], "-")}
	p.prepare()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for _, r := range resources {
			_ = c.Dynamic.Resource(r).Namespace(p.namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
		}
	})
	return p
}

// prepare installs the definitions and makes the namespace.
func (p *project1) prepare() {
	p.t.Helper()
	if err := apitest.InstallCRDs(p.ctx, p.client, "../../deploy/crds"); err != nil {
		p.t.Fatal(err)
	}
	if err := apitest.Namespace(p.ctx, p.client, p.namespace); err != nil {
		p.t.Fatal(err)
	}
}

func (p *project1) put(text string, args ...any) {
	p.t.Helper()
	if err := apitest.Put(p.ctx, p.client, p.namespace, fmt.Sprintf(text, args...)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *project1) remove(kind, name string) {
	p.t.Helper()
	if err := p.client.Dynamic.Resource(resources[kind]).Namespace(p.namespace).Delete(p.ctx, name, metav1.DeleteOptions{}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *project1) get(kind, name string) *unstructured.Unstructured {
	o, err := p.client.Dynamic.Resource(resources[kind]).Namespace(p.namespace).Get(p.ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return o
}

func (p *project1) count(kind string) int {
	p.t.Helper()
	list, err := p.client.Dynamic.Resource(resources[kind]).Namespace(p.namespace).List(p.ctx, metav1.ListOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	return len(list.Items)
}

func field(o *unstructured.Unstructured, path ...string) any {
	if o == nil {
		return nil
	}
	v, _, _ := unstructured.NestedFieldNoCopy(o.Object, path...)
	return v
}

// A fakeNode does with a Hub what the daemon does.
type fakeNode struct {
	*project1
	hub  *Hub
	stop func()
	log  *syncBuffer

	mu       sync.Mutex
	mesh     overlay.Mesh
	problems []manifest.Problem
	history  []string // the slices of every mesh that it had
	state    []byte
	given    map[string]map[string]int
}

type syncBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// node starts a node of a site. Changes of its configuration go by edit.
func (p *project1) node(site string, state []byte, edit func(*Config, *rest.Config)) *fakeNode {
	p.t.Helper()
	n := &fakeNode{project1: p, state: state, log: &syncBuffer{}}
	cfg := Config{Namespace: p.namespace, Site: site, Node: "gw", Controller: "auto", HoldFor: 24 * time.Hour, State: state,
		Log: slog.New(slog.NewTextHandler(n.log, nil)),
		Save: func(b []byte) error {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.state = b
			return nil
		}}
	access := rest.CopyConfig(server.Config)
	if edit != nil {
		edit(&cfg, access)
	}
	var err error
	if cfg.Client, err = kube.NewClient(access, "hub"); err != nil {
		p.t.Fatal(err)
	}
	if n.hub, err = New(cfg); err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	n.merge()
	all.Go(func() { _ = n.hub.Run(ctx) })
	all.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-n.hub.Changed():
				n.merge()
			}
		}
	})
	n.stop = sync.OnceFunc(func() { cancel(); all.Wait() })
	p.t.Cleanup(func() {
		n.stop()
		if p.t.Failed() {
			p.t.Logf("log of %s:\n%s", site, n.log)
		}
	})
	return n
}

func (n *fakeNode) merge() {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.hub.Merge(&manifest.Set{}, manifest.Options{Now: time.Now(), Existing: n.given})
	n.mesh, n.problems = r.Mesh, r.Problems
	var names []string
	n.given = map[string]map[string]int{}
	for _, s := range r.Mesh.Slices {
		n.given[s.Name] = map[string]int{}
		for _, x := range s.Sites {
			n.given[s.Name][x.Name] = x.Index
		}
		names = append(names, s.Name)
	}
	n.history = append(n.history, strings.Join(names, " "))
}

func (n *fakeNode) slices() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.history[len(n.history)-1]
}

func (n *fakeNode) meshNow() overlay.Mesh {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mesh
}

// until waits for a state of affairs.
func (p *project1) until(what string, ok func() bool) {
	p.t.Helper()
	p.within(patience, what, ok)
}

func (p *project1) within(limit time.Duration, what string, ok func() bool) time.Duration {
	p.t.Helper()
	begin := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(begin) > limit {
			p.t.Fatalf("not within %v: %s", limit, what)
		}
		<-tick.C
	}
	return time.Since(begin)
}

const clusters = `
apiVersion: controller.kubeslice.io/v1alpha1
kind: Cluster
metadata: {name: one}
spec: {nodeIPs: [192.0.2.1]}
---
apiVersion: controller.kubeslice.io/v1alpha1
kind: Cluster
metadata: {name: two}
spec: {nodeIPs: [192.0.2.2]}
`

// slice is a SliceConfig; its name and subnet are to be filled in.
const sliceText = `
---
apiVersion: controller.kubeslice.io/v1alpha1
kind: SliceConfig
metadata: {name: %s}
spec:
  sliceSubnet: %s
  sliceGatewayProvider: {sliceGatewayType: Wireguard}
  clusters: [one, two]
  qosProfileDetails: {priority: 1, bandwidthCeilingKbps: 5000, bandwidthGuaranteedKbps: 2000, dscpClass: AF11}
  namespaceIsolationProfile:
    applicationNamespaces: [{namespace: %[1]s-app, clusters: ['*']}]
`

var (
	eventsResource = schema.GroupVersionResource{Version: "v1", Resource: "events"}
	listAll        = metav1.ListOptions{}
)

var createNow = metav1.CreateOptions{}

// residentKiB is how much memory the process has.
func residentKiB(t *testing.T) int {
	t.Helper()
	runtime.GC()
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, resident int
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		t.Fatal(err)
	}
	return resident * os.Getpagesize() >> 10
}
