package hub

import (
	"bytes"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// steady fails when the slices have been others than these since the first time
// that they were these.
func (n *fakeNode) steady(t *testing.T, slices string) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	begun := false
	for _, h := range n.history {
		begun = begun || h == slices
		if begun && h != slices {
			t.Errorf("slices were withdrawn: %q", n.history)
			return
		}
	}
}

func (n *fakeNode) saved() []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.state
}

func TestASilentHubChangesNothing(t *testing.T) {
	p := newProject(t)
	p.put(clusters+sliceText, "red", "10.1.0.0/16")
	n := p.node("one", nil, nil)
	p.until("the slice, kept", func() bool { return n.slices() == "red" && strings.Contains(string(n.saved()), "SliceConfig") })
	n.hub.Tell(Facts{NodeIPs: []string{"198.51.100.7"}})
	p.settle(n)
	for _, outage := range []struct {
		name       string
		begin, end func()
	}{
		{"the server is gone", server.StopAPI, func() {
			if err := server.StartAPI(); err != nil { // its watches begin anew: 410 for those that it had
				t.Fatal(err)
			}
		}},
		{"the server hangs", server.Freeze, server.Thaw},
	} {
		outage.begin()
		took := p.within(30*time.Second, outage.name+": HubStale", func() bool { return n.hub.Status().Stale })
		t.Logf("%s: HubStale after %v", outage.name, took)
		begin := time.Now()
		again := p.node("one", n.saved(), nil)
		if got := again.slices(); got != "red" {
			t.Errorf("%s: after a restart the slices are %q", outage.name, got)
		}
		if d := time.Since(begin); d > time.Second {
			t.Errorf("%s: a restart took %v", outage.name, d)
		}
		outage.end()
		back := p.within(patience, outage.name+": heard again", func() bool { return !n.hub.Status().Stale && again.hub.Status().Synced })
		t.Logf("heard again after %v", back)
		again.steady(t, "red")
		again.stop()
		p.until("the condition is told", func() bool {
			c := conditionOf(p.get("Cluster", "one"), "HubStale")
			return c != nil && c["status"] == "False"
		})
	}
	n.steady(t, "red")
}

// gones counts answers that say that a version is too old to go on from.
type gones struct {
	next http.RoundTripper
	seen atomic.Int64
}

func (g *gones) RoundTrip(r *http.Request) (*http.Response, error) {
	a, err := g.next.RoundTrip(r)
	if err == nil {
		a.Body = &goneBody{a.Body, g, nil}
	}
	return a, err
}

type goneBody struct {
	io.ReadCloser
	g    *gones
	tail []byte // of what was read before, for an answer in two pieces
}

func (b *goneBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.tail = append(b.tail, p[:n]...)
	b.g.seen.Add(int64(bytes.Count(b.tail, []byte(`"reason":"Expired"`))))
	if i := bytes.LastIndexByte(b.tail, '}'); i >= 0 {
		b.tail = slices.Clone(b.tail[i+1:])
	}
	return n, err
}

func TestACompactionWithdrawsNothing(t *testing.T) {
	p := newProject(t)
	p.put(clusters+sliceText, "red", "10.1.0.0/16")
	p.put(sliceText, "blue", "10.2.0.0/16")
	g := &gones{}
	n := p.node("one", nil, func(_ *Config, access *rest.Config) {
		access.Wrap(func(next http.RoundTripper) http.RoundTripper { g.next = next; return g })
	})
	n.hub.Tell(Facts{NodeIPs: []string{"198.51.100.7"}})
	p.until("the slices", func() bool { return n.slices() == "blue red" })
	p.settle(n)
	old := p.get("SliceConfig", "red").GetResourceVersion()
	if err := server.Compact(); err != nil {
		t.Fatal(err)
	}
	p.until("the server says that what was is gone", func() bool {
		w, err := p.client.Dynamic.Resource(resources["SliceConfig"]).Namespace(p.namespace).Watch(p.ctx, metav1.ListOptions{ResourceVersion: old})
		if err != nil {
			return apierrors.IsResourceExpired(err) || apierrors.IsGone(err)
		}
		defer w.Stop()
		select {
		case e := <-w.ResultChan():
			return e.Type == watch.Error && apierrors.IsResourceExpired(apierrors.FromObject(e.Object))
		case <-time.After(time.Second):
			return false
		}
	})
	p.until("the node was told so", func() bool { return g.seen.Load() > 0 })
	// What changes after is seen, so it watches again.
	p.put(sliceText, "green", "10.3.0.0/16")
	p.until("another slice", func() bool { return n.slices() == "blue green red" })
	t.Logf("%d watches were told that they are too old", g.seen.Load())
	p.remove("SliceConfig", "green")
	p.until("and without", func() bool { return n.slices() == "blue red" })
	for _, slice := range []string{"red", "blue"} {
		if c, d := n.sample("kubeslice_slice_created_total", slice), n.sample("kubeslice_slice_deleted_total", slice); c != 1 || d != 0 {
			t.Errorf("%s was added %v times and withdrawn %v times", slice, c, d)
		}
	}
}

func TestAHubThatForgetsIsNotBelieved(t *testing.T) {
	p := newProject(t)
	p.put(clusters+sliceText, "red", "10.1.0.0/16")
	backup := t.TempDir()
	if err := server.Backup(backup); err != nil {
		t.Fatal(err)
	}
	p.put(sliceText, "blue", "10.2.0.0/16")
	n := p.node("one", nil, nil)
	p.until("both slices", func() bool { return n.slices() == "blue red" })

	if err := server.Restore(backup); err != nil {
		t.Fatal(err)
	}
	p.until("an old backup: what it lacks is held", func() bool { return len(n.hub.Status().Held) > 0 })
	p.until("and said", func() bool { return n.hub.Status().Stale == false })

	if err := server.Forget(); err != nil {
		t.Fatal(err)
	}
	p.prepare()
	p.put(clusters)
	p.until("a new etcd: all is held", func() bool { return len(n.hub.Status().Held) >= 2 && n.hub.Status().Err == "" })
	p.put(sliceText, "red", "10.1.0.0/16")
	p.put(sliceText, "blue", "10.2.0.0/16")
	p.until("put back", func() bool {
		for _, id := range n.hub.Status().Held {
			if strings.Contains(id, "SliceConfig") && !strings.Contains(id, "Worker") {
				return false
			}
		}
		return true
	})
	n.steady(t, "blue red")
}

func TestDeletingMostIsHeldUntilConfirmed(t *testing.T) {
	p := newProject(t)
	p.put(clusters+sliceText, "red", "10.1.0.0/16")
	p.put(sliceText, "blue", "10.2.0.0/16")
	p.put(sliceText, "green", "10.3.0.0/16")
	n := p.node("one", nil, func(c *Config, _ *rest.Config) { c.Controller = "reader" })
	p.until("the slices", func() bool { return n.slices() == "blue green red" })
	p.remove("SliceConfig", "red")
	p.remove("SliceConfig", "blue")
	p.until("held, at the latest with the second", func() bool { return len(n.hub.Status().Held) >= 1 })
	p.put("apiVersion: controller.kubeslice.io/v1alpha1\nkind: Cluster\nmetadata: {name: one, annotations: {%s: '%s'}}\nspec: {nodeIPs: [192.0.2.1]}",
		AnnotationConfirmed, time.Now().Add(time.Second).UTC().Format(time.RFC3339))
	p.until("gone", func() bool { return n.slices() == "green" && len(n.hub.Status().Held) == 0 })
}

func TestANodeEndsAtOnceWhileItsHubIsDown(t *testing.T) {
	p := newProject(t)
	p.put(clusters+sliceText, "red", "10.1.0.0/16")
	n := p.node("one", nil, nil)
	p.until("the slice", func() bool { return n.slices() == "red" })
	server.StopAPI()
	defer func() {
		if err := server.StartAPI(); err != nil {
			t.Error(err)
		}
	}()
	p.until("HubStale", func() bool { return n.hub.Status().Stale })
	begin := time.Now()
	ended := make(chan struct{})
	go func() { n.stop(); close(ended) }()
	select {
	case <-ended:
		t.Logf("ended after %v", time.Since(begin))
	case <-time.After(2 * time.Second):
		buf := make([]byte, 1<<20)
		t.Errorf("it goes on\n%s", buf[:runtime.Stack(buf, true)])
		<-ended
	}
}
