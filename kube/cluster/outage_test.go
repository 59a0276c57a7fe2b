package cluster

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"slicewire/kube/apitest"
	"slicewire/overlay"
)

// onlyOlder is the definition of the Multi-Cluster Services API's exports as a
// cluster has it that knows v1alpha1 alone.
func onlyOlder(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../deploy/crds/serviceexports.multicluster.x-k8s.io.yaml")
	if err != nil {
		t.Fatal(err)
	}
	before, _, found := strings.Cut(string(text), "    - name: v1beta1\n")
	if !found {
		t.Fatal("the definition has no v1beta1")
	}
	return strings.Replace(before, "storage: false", "storage: true", 1)
}

// Definitions that come while a Cluster runs are seen, in the version that the
// cluster has, and so is a newer one in its place.
func TestDefinitionsThatComeLater(t *testing.T) {
	f := connect(t, apitest.Serve(t))
	f.put(namespace("slicewire-system"), namespace("later"))
	f.run(Config{})
	f.Set(in("later"))
	f.eventually(func() error {
		if s := f.Status(); !s.Synced || s.Fault != "" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	f.put(onlyOlder(t))
	move := strings.NewReplacer("shop", "later")
	export := strings.NewReplacer("shop", "later", "v1beta1", "v1alpha1").Replace(mcs("db"))
	f.eventually(func() error { return f.tryPut(export) })
	exported := func(names ...string) func() error {
		return func() error {
			var have []string
			for _, e := range f.Result().Exports {
				have = append(have, e.Name)
			}
			if strings.Join(have, " ") != strings.Join(names, " ") {
				return fmt.Errorf("exports %q, want %q", have, names)
			}
			return nil
		}
	}
	f.put(move.Replace(service("db", "{ports: [{name: sql, port: 5432, protocol: TCP}]}")), move.Replace(pod("shop", "db-0", "db", "10.244.1.9")),
		move.Replace(slice("db", "{name: sql, port: 5432, protocol: TCP}", endpointOf("db-0", "10.244.1.9"))))
	begin := time.Now()
	f.eventually(exported("db"))
	t.Logf("an export of v1alpha1 is seen %v after its definition", time.Since(begin))
	older := f.watched[KindMCSExport].resource
	older.Version = "v1alpha1"
	f.eventually(func() error {
		u, err := f.client.Dynamic.Resource(older).Namespace("later").Get(f.ctx, "db", metav1.GetOptions{})
		if err != nil || said(u, "Valid") != "True Valid" {
			return fmt.Errorf("%v, %w", u, err)
		}
		return nil
	})
	if err := apitest.InstallCRDs(f.ctx, f.client, "../../deploy/crds"); err != nil {
		t.Fatal(err)
	}
	f.put(move.Replace(pod("shop", "web-a", "web", "10.244.1.1")), move.Replace(web))
	f.eventually(exported("web", "db"))
	f.eventually(func() error {
		if u := f.get(KindExport, "later", "web"); text(u.Object, "status", "exportStatus") != "READY" {
			return fmt.Errorf("status %v", u.Object["status"])
		}
		return nil
	})
}

// What packets go by outlives the server, restarts of the daemon included, and
// is the same all the time.
func TestWhatTheClusterSaidOutlivesItsServer(t *testing.T) {
	s := apitest.Serve(t)
	f := connect(t, s)
	if err := apitest.InstallCRDs(f.ctx, f.client, "../../deploy/crds"); err != nil {
		t.Fatal(err)
	}
	move := strings.NewReplacer("shop", "last")
	f.put(namespace("slicewire-system"), namespace("last"), move.Replace(pod("shop", "web-a", "web", "10.244.1.1")), move.Replace(web))
	var mu sync.Mutex
	var saved []byte
	save := func(b []byte) error {
		mu.Lock()
		defer mu.Unlock()
		saved = b
		return nil
	}
	f.run(Config{Save: save})
	v := view(overlay.Virtual, "west/web-x7k2p")
	v.Name = "far"
	state := in("last", v)
	f.Set(state)
	f.eventually(func() error {
		if r := f.Result(); len(r.Exports) != 1 || len(r.Doors) != 1 || len(r.Imports) != 1 || len(r.Imports[0].Addrs) == 0 {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	f.still(time.Second)
	want := f.Result()
	f.stop()
	s.StopAPI()

	begin := time.Now()
	f.run(Config{Save: save, State: saved})
	f.Set(state)
	changes := 0
	same := func() error {
		select {
		case <-f.Changed():
			changes++
		default:
		}
		if r := f.Result(); !r.Equal(want) {
			return fmt.Errorf("%+v, want %+v", r, want)
		}
		return nil
	}
	f.within(time.Second, same)
	t.Logf("as before %v after a start without the server", time.Since(begin))
	client := want.Exports[0].Backends[0].Addr
	if !f.Admit(f.ctx, "red", client) || f.Admit(f.ctx, "blue", client) {
		t.Error("it does not know the pods that it knew")
	}
	f.eventually(func() error { // it has noticed, and goes on
		if err := same(); err != nil {
			t.Fatal(err)
		}
		if s := f.Status(); s.Fault == "" || s.Synced {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if err := s.StartAPI(); err != nil {
		t.Fatal(err)
	}
	f.within(time.Minute, func() error {
		if err := same(); err != nil {
			t.Fatal(err)
		}
		if s := f.Status(); s.Fault != "" || !s.Synced {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	f.still(time.Second)
	if err := same(); err != nil || changes != 1 {
		t.Errorf("%d changes, want the one at the start; %v", changes, err)
	}
	if n := f.Status().Writes; n != 0 {
		t.Errorf("%d writes for nothing", n)
	}
}

func TestAKeptStateThatIsNoneIsNotUsed(t *testing.T) {
	for _, text := range []string{"", "{", `{"objects":[{}]}`, `{"objects":[null]}`, `{"objects":[{"Kind":1,"Name":"x"}]}`, `{"objects":[{"Kind":200,"Name":"x"}]}`} {
		c := &Cluster{given: map[string]uint16{}}
		if err := c.restore([]byte(text)); (err == nil) != (text == "") || c.before != nil {
			t.Errorf("%q: %v, used: %v", text, err, c.before != nil)
		}
	}
}
