package cluster

import (
	"fmt"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"slicewire/kube/apitest"
	"slicewire/overlay"
)

// What a thousand exports with five endpoints each may cost, here together with
// the test's own part. The time is for a machine that does much else; the
// documentation has what was measured.
const (
	manyExports = 1000
	manyEach    = 5
	manyTime    = 3 * time.Minute
	manyMemory  = 96 << 20
)

// rss returns how much memory the process has.
func rss(t *testing.T) int64 {
	t.Helper()
	debug.FreeOSMemory()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// many makes the objects of many exports on the server.
func (f *fixture) many(ns string) {
	f.t.Helper()
	f.put(namespace(ns))
	var all sync.WaitGroup
	faults := make(chan error, 16)
	next := make(chan int)
	for range 16 {
		all.Go(func() {
			for i := range next {
				name := fmt.Sprintf("web%d", i)
				parts := []string{strings.NewReplacer("shop", ns, "name: web", "name: "+name, "app: web", "app: "+name).Replace(web)}
				for k := range manyEach {
					parts = append(parts, pod(ns, fmt.Sprintf("%s-6d5f9c7b8-x%d", name, k), name, fmt.Sprintf("10.%d.%d.%d", 100+k, i/250, i%250+1)))
				}
				objects, err := apitest.Read([]byte(strings.Join(parts, "\n---\n")))
				for _, u := range objects {
					if err == nil {
						err = f.apply(u)
					}
				}
				if err != nil {
					select {
					case faults <- err:
					default:
					}
				}
			}
		})
	}
	for i := range manyExports {
		next <- i
	}
	close(next)
	all.Wait()
	select {
	case err := <-faults:
		f.t.Fatal(err)
	default:
	}
}

// A thousand exports with five thousand endpoints, all of which this cluster
// imports again, are in force, cost little
// memory, and nothing is written afterwards.
func TestAThousandExports(t *testing.T) {
	maker := start(t) // has no state, so does nothing
	ns := "many"
	maker.many(ns)
	maker.stop()
	before := rss(t)
	f := start(t)
	began := time.Now()
	state := in(ns)
	state.Slices[0].Room = 1 << 20
	f.Set(state)
	wait := func(what string, ask func() error) {
		t.Helper()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for err := ask(); err != nil; err = ask() {
			if time.Since(began) > 2*manyTime {
				t.Fatalf("%s: %v", what, err)
			}
			<-tick.C
		}
		t.Logf("%s after %v, %d writes", what, time.Since(began).Round(time.Millisecond), f.Status().Writes)
	}
	wait("exports", func() error {
		n := 0
		for _, e := range f.Result().Exports {
			n += len(e.Backends)
		}
		if n != manyExports*manyEach {
			return fmt.Errorf("%d endpoints", n)
		}
		return nil
	})
	var views []overlay.ServiceView
	for i, e := range f.Result().Exports {
		v := overlay.ServiceView{Name: e.Name, Namespace: ns, Ports: e.Ports, DNSNames: []string{overlay.ServiceDNSName(e.Name, ns)}}
		for k, b := range e.Backends {
			v.Endpoints = append(v.Endpoints, overlay.EndpointView{Endpoint: overlay.Endpoint{Name: b.Name}, Origin: overlay.NodeID{Site: "west", Node: "gw"}, Ports: e.Ports})
			v.Endpoints[k].Addr = netip.AddrFrom4([4]byte{10, 1, byte(i >> 6), byte(i<<2&0xfc | k)})
		}
		views = append(views, v)
	}
	next := in(ns, views...)
	next.Slices[0].Room = 1 << 20
	f.Set(next)
	wait("imports", func() error {
		if n := f.Status().Names; n != 2*manyExports {
			return fmt.Errorf("%d names", n)
		}
		for _, m := range f.Result().Imports {
			if len(m.Addrs) == 0 {
				return fmt.Errorf("%s has no address", m.View.Name)
			}
		}
		ready := 0
		for _, x := range f.watch.Items(f.watched[KindEndpointSlice].resource) {
			if o, ok := x.(*Object); ok && o.ours && len(o.Slice.Endpoints) > 0 {
				ready++
			}
		}
		if ready != manyExports {
			return fmt.Errorf("%d services have endpoints", ready)
		}
		return nil
	})
	took := time.Since(began)
	if took > manyTime {
		t.Errorf("it took %v, want %v at most", took, manyTime)
	}
	quiet := 2 * time.Second
	if raced {
		quiet = 15 * time.Second // a look at everything takes its time then, and as long again four times is rested
	}
	f.still(quiet)
	t.Logf("all is written after %v, %d writes", (time.Since(began) - quiet).Round(time.Millisecond), f.Status().Writes)
	more := rss(t) - before
	t.Logf("memory: %.1f MiB more", float64(more)/(1<<20))
	if !raced && more > manyMemory { // the detector's own memory is a multiple
		t.Errorf("%d bytes of memory, want %d at most", more, manyMemory)
	}
	writes := f.Status().Writes
	f.Set(next)
	f.still(quiet + time.Second)
	if n := f.Status().Writes - writes; n != 0 {
		t.Errorf("%d writes although nothing changed", n)
	}
	if fault := f.Status().Fault; fault != "" {
		t.Errorf("fault: %s", fault)
	}
}
