package hub

import (
	"net/http"
	"runtime"
	"strconv"
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

// listed counts how often all SliceConfigs were asked for.
type listed struct {
	next http.RoundTripper
	seen atomic.Int64
}

func (l *listed) RoundTrip(r *http.Request) (*http.Response, error) {
	q := r.URL.Query()
	if strings.HasSuffix(r.URL.Path, "/sliceconfigs") && r.Method == http.MethodGet && (!q.Has("watch") || q.Has("sendInitialEvents")) {
		l.seen.Add(1)
	}
	return l.next.RoundTrip(r)
}

func TestACompactionWithdrawsNothing(t *testing.T) {
	p := newProject(t)
	p.put(clusters+sliceText, "red", "10.1.0.0/16")
	p.put(sliceText, "blue", "10.2.0.0/16")
	l := &listed{}
	n := p.node("one", nil, func(_ *Config, access *rest.Config) {
		access.Wrap(func(next http.RoundTripper) http.RoundTripper { l.next = next; return l })
	})
	n.hub.Tell(Facts{NodeIPs: []string{"198.51.100.7"}})
	p.until("the slices", func() bool { return n.slices() == "blue red" })
	p.settle(n)
	before := l.seen.Load()
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
	p.until("the node asks for all", func() bool { return l.seen.Load() > before })
	// What changes after is seen, so it watches again.
	p.put(sliceText, "green", "10.3.0.0/16")
	p.until("another slice", func() bool { return n.slices() == "blue green red" })
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

	// A new etcd whose versions come to the numbers that were seen: whoever goes on
	// from one sees nothing.
	seen, err := strconv.Atoi(p.get("SliceConfig", "red").GetResourceVersion())
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Forget(seen + 1000); err != nil {
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
