package cluster

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"slicewire/kube"
	"slicewire/kube/apitest"
	"slicewire/overlay"
)

var server *apitest.Server

func TestMain(m *testing.M) {
	os.Exit(apitest.Main(m, func(s *apitest.Server) { server = s }))
}

// A fixture is a running Cluster and the API server that it speaks to.
type fixture struct {
	*Cluster
	t      *testing.T
	ctx    context.Context
	client *kube.Client
	stop   func() // ends the Cluster; again does nothing
}

// start runs a Cluster on the package's API server. The test is the only one of
// the namespaces that it makes.
func start(t *testing.T) *fixture {
	t.Helper()
	return startAs(t, Config{})
}

// startAs is start with a Config of the test's own.
func startAs(t *testing.T, cfg Config) *fixture {
	t.Helper()
	f := defined(t)
	f.put(namespace("slicewire-system"))
	f.run(cfg)
	return f
}

// defined makes a fixture without a Cluster on the server, which has the definitions.
func defined(t *testing.T) *fixture {
	t.Helper()
	if server == nil {
		t.Skip("no API server") // in CI, apitest.Main has failed
	}
	f := connect(t, server)
	if err := apitest.InstallCRDs(f.ctx, f.client, "../../deploy/crds"); err != nil {
		t.Fatal(err)
	}
	return f
}

// connect makes a fixture without a Cluster.
func connect(t *testing.T, server *apitest.Server) *fixture {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	t.Cleanup(cancel)
	config := *server.Config
	config.QPS, config.Burst = 2000, 4000
	client, err := kube.NewClient(&config, "test")
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{t: t, ctx: ctx, client: client}
}

// run runs a Cluster; cfg says what is not as for all.
func (f *fixture) run(cfg Config) {
	t := f.t
	t.Helper()
	cfg.Client, cfg.Namespace, cfg.Site = f.client, "slicewire-system", "east"
	if !cfg.Self.IsValid() {
		cfg.Self = netip.MustParseAddr("10.244.0.2")
	}
	cfg.Linger = cmp.Or(cfg.Linger, 500*time.Millisecond)
	var err error
	if f.Cluster, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(f.ctx)
	done := make(chan error, 1)
	go func() { done <- f.Run(running) }()
	f.stop = sync.OnceFunc(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(f.stop)
}

// put applies objects; Pods get their status, too.
func (f *fixture) put(parts ...string) {
	f.t.Helper()
	if err := f.tryPut(parts...); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) tryPut(parts ...string) error {
	objects, err := apitest.Read([]byte(strings.Join(parts, "\n---\n")))
	if err != nil {
		return err
	}
	for _, u := range objects {
		if err := f.apply(u); err != nil {
			return err
		}
	}
	return nil
}

func (f *fixture) apply(u *unstructured.Unstructured) error {
	r := f.client.Dynamic.Resource(apitest.ResourceOf(u)).Namespace(u.GetNamespace())
	o := metav1.ApplyOptions{FieldManager: "kubectl", Force: true}
	if u.GetKind() == "Pod" {
		u.Object["spec"] = map[string]any{"containers": []any{map[string]any{"name": "x", "image": "x"}}, "automountServiceAccountToken": false}
	}
	if _, err := r.Apply(f.ctx, u.GetName(), u, o); err != nil {
		return fmt.Errorf("%s %s: %w", u.GetKind(), u.GetName(), err)
	}
	if u.GetKind() != "Pod" {
		return nil
	}
	delete(u.Object, "spec")
	u.Object["status"].(map[string]any)["podIP"] = text(objectsIn(u.Object, "status", "podIPs")[0], "ip")
	if _, err := r.ApplyStatus(f.ctx, u.GetName(), u, o); err != nil {
		return fmt.Errorf("status of %s: %w", u.GetName(), err)
	}
	return nil
}

func (f *fixture) get(kind Kind, namespace, name string) *unstructured.Unstructured {
	f.t.Helper()
	u, err := f.client.Dynamic.Resource(f.watched[kind].resource).Namespace(namespace).Get(f.ctx, name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		f.t.Fatal(err)
	}
	if err != nil {
		return nil
	}
	return u
}

func (f *fixture) remove(kind Kind, namespace, name string) {
	f.t.Helper()
	if err := f.client.Dynamic.Resource(f.watched[kind].resource).Namespace(namespace).Delete(f.ctx, name, metav1.DeleteOptions{}); err != nil {
		f.t.Fatal(err)
	}
}

// eventually waits until ask says nothing.
func (f *fixture) eventually(ask func() error) {
	f.t.Helper()
	f.within(30*time.Second, ask)
}

func (f *fixture) within(limit time.Duration, ask func() error) {
	f.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(limit)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatal(err)
		}
		<-tick.C
	}
}

// still returns once the Cluster has written nothing for a while.
func (f *fixture) still(d time.Duration) {
	f.t.Helper()
	last, since := f.Status().Writes, time.Now()
	f.within(3*time.Minute, func() error {
		if n := f.Status().Writes; n != last {
			last, since = n, time.Now()
		}
		if time.Since(since) < d {
			return fmt.Errorf("it goes on writing: %d requests", last)
		}
		return nil
	})
}

func (f *fixture) events(namespace string) map[string]int {
	f.t.Helper()
	list, err := f.client.Dynamic.Resource(kinds()[KindPod].resource.GroupVersion().WithResource("events")).Namespace(namespace).List(f.ctx, metav1.ListOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	out := make(map[string]int)
	for i := range list.Items {
		out[list.Items[i].GetLabels()[kube.LabelEventTitle]]++
	}
	return out
}

// in makes a state whose only slice binds a namespace.
func in(namespace string, services ...overlay.ServiceView) *State {
	s := red(services...)
	s.Slices[0].Namespaces = []string{namespace}
	for i := range s.Slices[0].Services {
		s.Slices[0].Services[i].Namespace = namespace
	}
	return s
}
