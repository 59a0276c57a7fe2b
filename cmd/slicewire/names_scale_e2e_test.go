package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"slicewire/overlay"
)

// An announcer is a node in the test's own process, with tunnels as any other,
// that tells of services which nobody serves.
type announcer struct {
	d    *daemon
	id   overlay.NodeID
	more []overlay.Record
}

// announce runs a certified node of the lab as an announcer until the test ends.
func (l *pathLab) announce(n *labNode) *announcer {
	l.t.Helper()
	d, parts, closeAll, err := newDaemon(n.config, "", wallClock(l.t.Context()), slog.New(slog.DiscardHandler))
	if err != nil {
		l.t.Fatal(err)
	}
	a := &announcer{d: d, id: n.id}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, p := range parts {
		if p.name != "gossip" && p.name != "gateway" {
			continue // the test decides when it looks
		}
		wg.Go(func() { _ = p.run(ctx) })
	}
	l.t.Cleanup(func() {
		cancel()
		wg.Wait()
		d.stopSlices()
		closeAll()
	})
	return a
}

// tell has the node take in what others say, and tells of its services.
func (a *announcer) tell(t *testing.T) {
	t.Helper()
	if err := a.d.reconcile(); err != nil {
		t.Fatal(err)
	}
	if err := a.d.gossip.Set(append(slices.Clone(a.d.facts), a.more...)); err != nil {
		t.Fatal(err)
	}
}

// serves makes up so many services with so many endpoints each.
func (a *announcer) serves(first, services, endpoints int) {
	block := a.d.slices["lab"].addrs.Load()
	base := (*block)[0]
	for i := range services {
		body := &overlay.ServiceBody{Ports: []overlay.ServicePort{{Name: "http", Port: 80, Protocol: overlay.TCP}}}
		addr := base
		for k := range endpoints {
			addr = addr.Next()
			body.Endpoints = append(body.Endpoints, overlay.Endpoint{Name: fmt.Sprintf("pod-%d", k), Addr: addr})
		}
		a.more = append(a.more, overlay.Record{
			Origin: a.id, Key: overlay.Key{Kind: overlay.KindService, Slice: "lab", Name: fmt.Sprintf("lab/service-%d", first+i)}, Service: body,
		})
	}
}

// residentMiB is how much memory a node's daemon holds.
func (l *pathLab) residentMiB(n *labNode) int {
	l.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.process.Process.Pid))
	if err != nil {
		l.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		l.t.Fatal(err)
	}
	return kib >> 10
}

// Three daemons import 10,000 services with 50,000 endpoints. A change at one
// of them is everywhere within two seconds, and what it takes in memory is
// bounded.
func TestAChangeAmongTenThousandServices(t *testing.T) {
	const announcers, each, endpoints = 13, 770, 5
	services := each
	if slack > 1 { // it takes ten times as long, and says nothing about memory
		services = 20
	}
	l := layLab(t, newCable(t), nil, labSite{name: "a", gateways: 1, nodes: 1}, labSite{name: "b", gateways: 1, nodes: 1}, labSite{name: "c", gateways: 1, nodes: 1 + announcers})
	l.writeConfig(l.order[len(l.order)-1]) // it publishes nothing
	real := []*labNode{l.node("a/g1"), l.node("b/g1"), l.node("c/g1")}
	c := real[2]
	for _, n := range real {
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
	}
	l.until("the real ones know each other", func() bool {
		for _, n := range real {
			if s, ok := l.status(n); !ok || len(s.Peers) != 2 {
				return false
			}
		}
		return true
	})
	var many []*announcer
	for i := range announcers {
		x := l.announce(l.node(fmt.Sprintf("c/g%d", i+2)))
		x.serves(i*services, services, endpoints)
		many = append(many, x)
	}
	l.until("all have tunnels", func() bool {
		for _, x := range many {
			if err := x.d.reconcile(); err != nil {
				t.Fatal(err)
			}
		}
		s, ok := l.status(c)
		up := 0
		for _, p := range s.Peers {
			if p.Link != nil && p.Link.Up {
				up++
			}
		}
		return ok && up == announcers+2
	})
	before := make(map[*labNode]int)
	for _, n := range real {
		before[n] = l.residentMiB(n)
	}
	start := time.Now()
	for _, x := range many {
		x.tell(t)
	}
	for _, n := range real {
		for i := range announcers {
			last := fmt.Sprintf("service-%d.lab.svc.slice.local", (i+1)*services-1)
			l.until(fmt.Sprintf("%v has all of %v", n.id, many[i].id), func() bool { return l.answered(n, last) })
		}
	}
	t.Logf("%d services with %d endpoints are at all three after %v", announcers*services, announcers*services*endpoints, time.Since(start))

	var worst time.Duration
	for trial := range 5 {
		l.writeConfig(c, []string{"spare", "echo"}[:1+trial%2]...)
		start := time.Now()
		if _, errs, code := program(t, "reload", "--socket", c.socket); code != 0 {
			t.Fatalf("reload: exit %d, %s", code, errs)
		}
		for _, n := range real {
			l.until("the change", func() bool { return l.answered(n, echoName) == (trial%2 == 1) })
		}
		took := time.Since(start)
		t.Logf("trial %d: a change is at all three after %v", trial, took)
		worst = max(worst, took)
	}
	if worst > 2*time.Second {
		t.Errorf("a change took %v", worst)
	}
	if slack == 1 {
		start := time.Now()
		for _, n := range real {
			l.until("the names and their records take at most 64 MiB", func() bool { return l.residentMiB(n)-before[n] <= 64 })
			t.Logf("%v: memory has settled after %v", n.id, time.Since(start))
		}
	}
	for _, n := range real {
		t.Logf("%v: %d MiB before, %d MiB now", n.id, before[n], l.residentMiB(n))
	}
}

// answered reports whether a node's answers hold a name's address now, without
// a program to ask it.
func (l *pathLab) answered(n *labNode, name string) bool {
	body, err := newClient(n.socket).do(l.t.Context(), http.MethodPost, "dns", NameQuery{Name: name, Type: "A"})
	if err != nil {
		return false
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	return err == nil && strings.Contains(string(b), `\tIN\tA\t`)
}
