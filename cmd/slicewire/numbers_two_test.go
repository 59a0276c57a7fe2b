package main

import (
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"slicewire/overlay"
)

// TestTwoIssuersOfOneCluster lets pods in by two issuers at once, which share the
// numbers of the site, and ends one half way, with and without a warning: no two
// pods have one number, and nobody is put out.
func TestTwoIssuersOfOneCluster(t *testing.T) {
	t.Run("killed", func(t *testing.T) { endOneIssuer(t, syscall.SIGKILL) })
	t.Run("drained", func(t *testing.T) { endOneIssuer(t, syscall.SIGTERM) })
}

func endOneIssuer(t *testing.T, how syscall.Signal) {
	const pods, atOnce = 40, 8
	x := newJoinLabAt(t, 1)
	second, addr := x.secondIssuer()
	turns := [2][]string{{x.addr, addr}, {addr, x.addr}}
	given := make(map[int]bool)
	here := make(map[bool]int)  // how many the issuer that stays let in, by whether the other one had ended
	done := make(chan struct{}) // closed when all have numbers: pods live until then
	var letIn atomic.Int32
	var joined, lives sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	ended := make(chan struct{})
	for i := range pods {
		slots <- struct{}{}
		joined.Go(func() {
			defer func() { <-slots }()
			p, err := x.join(fmt.Sprint("web-", i), turns[i%2]...)
			if err != nil {
				t.Errorf("pod %d: %v", i, err)
				return
			}
			x.claim(p, given)
			if n := letIn.Add(1); n == pods/2 {
				if err := second.process.Process.Signal(how); err != nil {
					t.Error(err)
				}
				<-second.done
				close(ended)
			}
			if n, ok := x.d.issue.numbers.of(p.id); ok && n.Namespace != "" {
				x.mu.Lock()
				here[isClosed(ended)]++
				x.mu.Unlock()
			}
			lives.Go(func() {
				if err := x.live(p, func() error {
					err := x.heard(p)
					<-done
					return err
				}); err != nil {
					t.Error(err)
				}
			})
		})
	}
	joined.Wait()
	err := x.until("all pods are heard of", func() bool {
		n := 0
		for _, s := range x.d.seenNodes() {
			if s.pod {
				n++
			}
		}
		return n == pods
	})
	if err != nil {
		t.Error(err)
	}
	if clashes := x.d.issue.clashes.Load(); clashes != 0 || len(given) != pods || x.reuse != 0 {
		t.Errorf("%d pods have %d numbers, %d were put out", pods, len(given), clashes)
	}
	t.Logf("of %d pods the issuer that stays let in %d before the other one had ended, and %d after", pods, here[false], here[true])
	if there := pods - here[false] - here[true]; there < pods/8 || here[false] < pods/8 || how == syscall.SIGKILL && here[true] < pods/2-atOnce {
		t.Errorf("not both let pods in: the one that stays %d and %d, the other one %d", here[false], here[true], there)
	}
	close(done)
	lives.Wait()
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// secondIssuer runs another issuer of the site as a process of its own, and waits
// until the two know each other. It returns where pods ask it.
func (x *joinLab) secondIssuer() (n *demoNode, addr string) {
	x.t.Helper()
	runtime.LockOSThread() // Linux takes the end of this thread for the process's parent's
	x.t.Cleanup(runtime.UnlockOSThread)
	id := overlay.NodeID{Site: "worker-1", Node: "gw-b"}
	n = &demoNode{site: id.String(), config: x.issuer(id.Node, 1, `"`+x.d.gossip.Addr().String()+`"`), logFile: filepath.Join(x.dir, "gw-b.log"), socket: filepath.Join(x.dir, "gw-b.sock")}
	if err := n.start(); err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() {
		_ = n.process.Process.Kill() // it may have ended
		<-n.done
		if x.t.Failed() {
			x.t.Log(n.tail())
		}
	})
	if err := x.until("the issuers know each other", func() bool {
		for _, r := range x.d.gossip.RecordsOf(id) {
			if r.Key.Kind == overlay.KindIssuer && len(r.Issuer.Endpoints) > 0 {
				addr = r.Issuer.Endpoints[0].String()
			}
		}
		s, err := newClient(n.socket).status(x.t.Context())
		return addr != "" && err == nil && s.Gossip.Records == len(x.d.gossip.Records())
	}); err != nil {
		x.t.Fatal(err)
	}
	return n, addr
}
