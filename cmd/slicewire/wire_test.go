package main

import (
	"flag"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slicewire/api"
	"slicewire/bench/lab"
)

// partition is how long the partitions of these stories last.
var partition = flag.Duration("partition", 6*time.Second, "how long a partition lasts; a release is judged by a minute")

// TestFailuresOverAWire tries every failure of a gateway between namespaces, over
// links as they are between cities.
func TestFailuresOverAWire(t *testing.T) {
	if !inOwnNamespaces(t) {
		return
	}
	for _, f := range failures {
		t.Run(f.short, func(t *testing.T) {
			link := theUsual
			clean := f.lost > 0 // where losses count, the link has none of its own
			if clean {
				link = lab.Link{Delay: 20 * time.Millisecond}
			}
			measure(t, f, road{func(t *testing.T) underlay { return newWired(t, link) }, clean})
		})
	}
}

func TestHeldConnectionsSurviveAKillOverAWire(t *testing.T) {
	if inOwnNamespaces(t) {
		holdThroughAKill(t, newWired(t, theUsual), 200)
	}
}

// That no canary was seen means something.
func TestTheWireSeesWhatIsNotEncrypted(t *testing.T) {
	if !inOwnNamespaces(t) {
		return
	}
	w := newWired(t, lab.Link{})
	a, b := &labNode{demoNode: &demoNode{}}, &labNode{demoNode: &demoNode{}}
	w.lay([]*labNode{a, b})
	err := w.do(a, func() error {
		c, err := net.Dial("udp", b.tunnel)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(probePacket(1))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	l := &pathLab{t: t}
	l.until("the wire has seen the canary", func() bool { return w.wire.Counts().Canaries > 0 }) // at least: the answer that nobody listens quotes it
	w.cancel()
	if err := <-w.ended; err != nil {
		t.Error(err)
	}
}

// A node joins by a token over the wire, is cut off with half of the mesh, and
// revoked there meanwhile.
func TestAPartitionHeals(t *testing.T) {
	if !inOwnNamespaces(t) {
		return
	}
	w := newWired(t, theUsual)
	l := layLab(t, w, nil, labSite{name: "a", gateways: 2, nodes: 3}, labSite{name: "c", gateways: 1, nodes: 1, joins: true}, labSite{name: "b", gateways: 1, nodes: 1})
	issuer, late, far, worker := l.node("a/g1"), l.node("c/g1"), l.node("b/g1"), l.worker()
	makeIssuer(t, l.dir, issuer.state(), l.sites)
	l.start()
	l.until("all links are up", l.settled)
	token := strings.TrimSpace(l.in(issuer, "token", "create", "--site", "c", "--node", "g1", "--gateway", "--socket", issuer.socket))
	l.in(late, "join", token, "--state", late.state())
	if err := late.start(); err != nil {
		t.Fatal(err)
	}
	l.until("all links are up, with the newcomer", l.settled)
	s := l.stream(worker, netip.AddrPortFrom(l.echoAddr(worker), 7000))
	l.until("packets go both ways", func() bool { return l.echo.came.count() > 50 && s.came.count() > 50 })
	rest := time.NewTimer(*partition)
	w.part(late, far)
	l.in(issuer, "cert", "revoke", "c/g1", "--socket", issuer.socket)
	l.writeConfig(far, "echo", "spare")
	l.in(far, "reload", "--socket", far.socket)
	<-rest.C
	silent := time.Now().Add(-*partition / 2)
	if !l.knows(far, "c/g1") || l.serviceAddr(worker, "spare").IsValid() || s.came.heardSince(silent) || l.echo.came.heardSince(silent) {
		t.Fatal("something went through the partition")
	}
	healed := time.Now()
	w.heal()
	var traffic, records, revoked time.Duration
	l.until("everything is well again", func() bool {
		now := time.Since(healed)
		if traffic == 0 && s.came.heardSince(healed) && l.echo.came.heardSince(healed) {
			traffic = max(s.came.since(healed).first, l.echo.came.since(healed).first)
		}
		if records == 0 && l.serviceAddr(worker, "spare").IsValid() {
			records = now
		}
		if revoked == 0 && !l.knows(far, "c/g1") {
			revoked = now
		}
		return traffic > 0 && records > 0 && revoked > 0
	})
	t.Logf("after a partition of %v, packets after %v, records after %v, the revoked node cut after %v", *partition, traffic, records, revoked)
	if traffic > slack*2*time.Second {
		t.Error("packets come too late")
	}
	if records > slack*10*time.Second {
		t.Error("records come too late")
	}
	if revoked > slack*10*time.Second {
		t.Error("the revoked node is cut too late")
	}
	if p := s.came.since(healed); p.twice+p.bad > 0 {
		t.Errorf("of the packets that came, %+v", p)
	}
}

// knows reports whether a node has another as a peer.
func (l *pathLab) knows(n *labNode, name string) bool {
	s, _ := l.status(n)
	return slices.ContainsFunc(s.Peers, func(p api.PeerStatus) bool { return p.Site+"/"+p.Node == name })
}

// heardSince reports whether anything came after a time.
func (a *arrivals) heardSince(begin time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.at) > 0 && a.at[len(a.at)-1].After(begin)
}

// Two nodes are all that is left, and no gossip passes.
func TestTheLastKnownStateForwardsAcrossARestart(t *testing.T) {
	if !inOwnNamespaces(t) {
		return
	}
	w := newWired(t, theUsual)
	l := layLab(t, w, nil, labSite{name: "c", gateways: 2, nodes: 2}, labSite{name: "a", gateways: 1, nodes: 1}, labSite{name: "b", gateways: 1, nodes: 1})
	l.start()
	l.until("all links are up", l.settled)
	a := l.node("a/g1")
	to := netip.AddrPortFrom(l.echoAddr(a), 7000)
	s := l.stream(a, to)
	l.until("packets go both ways", func() bool { return l.echo.came.count() > 50 && s.came.count() > 50 })
	begin := time.Now()
	w.wire.Block(wiredGossip)
	l.node("c/g1").kill(t)
	l.node("c/g2").kill(t)
	l.until("packets come steadily", func() bool { return l.echo.came.calm(begin, 3*time.Second) && s.came.calm(begin, 3*time.Second) })
	if dark := max(l.echo.came.since(begin).dark, s.came.since(begin).dark); dark > slack*500*time.Millisecond {
		t.Errorf("dark for %v", dark)
	}
	s.stop()
	a.kill(t)
	started := time.Now()
	if err := a.start(); err != nil {
		t.Fatal(err)
	}
	l.until("the proxy is there", func() bool {
		c, err := here{l, a}.Dial("tcp", a.proxy)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	s = l.stream(a, to)
	l.until("packets go both ways again", func() bool { return l.echo.came.heardSince(started) && s.came.heardSince(started) })
	took := time.Since(started)
	t.Logf("packets %v after the start, with nobody else there", took)
	if took > slack*5*time.Second {
		t.Error("that is too late")
	}
	if w.wire.Counts().Blocked == 0 {
		t.Error("no gossip was held up")
	}
}

func TestBadLinksCarryWhatIsRight(t *testing.T) {
	if !inOwnNamespaces(t) {
		return
	}
	for _, tt := range []struct {
		name string
		link lab.Link
		lost float64 // at most, as a share
	}{
		{"a tenth is damaged", lab.Link{Delay: 10 * time.Millisecond, Corrupt: 0.1}, 0.3},
		{"a fifth is lost", lab.Link{Delay: 10 * time.Millisecond, Loss: 0.2}, 0.5},
		{"everything comes twice", lab.Link{Delay: 10 * time.Millisecond, Duplicate: 1}, 0.01},
		{"half is out of order", lab.Link{Delay: 10 * time.Millisecond, Reorder: 0.5}, 0.01},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := layLab(t, newWired(t, tt.link), nil, twoGateways...)
			began := time.Now()
			l.start()
			worker := l.worker()
			l.until("everybody knows the service", func() bool {
				for _, n := range l.order[:len(l.order)-1] {
					if !l.echoAddr(n).IsValid() {
						return false
					}
				}
				return true
			})
			known := time.Since(began)
			s := l.stream(worker, netip.AddrPortFrom(l.echoAddr(worker), 7000))
			l.until("packets go both ways", func() bool { return l.echo.came.count() > 50 && s.came.count() > 50 })
			flows := time.Since(began)
			// At first a link's loss is not known, and it may be taken for broken.
			still, changes := time.Now(), l.changes()
			l.until("links have shown what they are like", func() bool {
				if now := l.changes(); !maps.Equal(now, changes) {
					still, changes = time.Now(), now
				}
				return time.Since(still) > 2*time.Second
			})
			begin := time.Now()
			rest := time.NewTimer(5 * time.Second)
			<-rest.C
			moved := 0
			for link, n := range l.changes() {
				if changes[link]%2 == 1 { // it was up; one that was down may come back
					moved += n - changes[link]
				}
			}
			there, back := l.echo.came.since(begin), s.came.since(begin)
			t.Logf("records everywhere after %v, packets both ways after %v; then %d changes of good links in 5 s, there %+v, back %+v", known, flows, moved, there, back)
			if known > slack*10*time.Second {
				t.Error("records come too late")
			}
			if slack == 1 && moved > 0 { // who has no time to answer is taken for broken, and rightly
				t.Errorf("links went up and down %d times", moved)
			}
			for _, p := range []passage{there, back} {
				if p.twice+p.bad > 0 || float64(p.lost) > slack*tt.lost*500 {
					t.Errorf("%+v", p)
				}
			}
		})
	}
}

// makeIssuer makes a node an issuer for sites, as an operator would. Its daemon
// must not run.
func makeIssuer(t *testing.T, dir, state string, sites []string) {
	t.Helper()
	must := func(args ...string) string {
		out, errs, code := program(t, args...)
		if code != 0 {
			t.Fatalf("slicewire %s: exit %d: %s", strings.Join(args, " "), code, errs)
		}
		return out
	}
	request, bundle := filepath.Join(dir, "issuer.csr"), filepath.Join(dir, "issuer.bundle")
	writeFile(t, request, must("cert", "request", "--issuer", "--state", state))
	writeFile(t, bundle, must("ca", "intermediate", "--dir", filepath.Join(dir, "ca"), "--manifests", filepath.Join(dir, "manifests"), "--site", strings.Join(sites, ","), request))
	if out := must("cert", "install", "--state", state, bundle); !strings.Contains(out, "for nodes of "+strings.Join(slices.Sorted(slices.Values(sites)), ", ")) {
		t.Errorf("install says %q", out)
	}
}
