package main

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestHeldConnectionsSurviveAKilledGateway(t *testing.T) {
	holdThroughAKill(t, newCable(t), 200)
}

// holdThroughAKill holds so many connections while the gateway that carries them
// is killed.
func holdThroughAKill(t *testing.T, under underlay, held int) {
	l := layLab(t, under, nil, twoGateways...)
	l.start()
	l.until("all links are up", l.settled)
	worker := l.worker()
	addr := l.echoAddr(worker)
	conns := make([]net.Conn, held)
	var dials sync.WaitGroup
	turn := make(chan struct{}, 20)
	for i := range conns {
		dials.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			c, err := l.dial(worker, netip.AddrPortFrom(addr, 7001))
			if err != nil {
				t.Errorf("connection %d: %v", i, err)
				return
			}
			conns[i] = c
		})
	}
	dials.Wait()
	if t.Failed() {
		t.FailNow()
	}
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	exchange := func(round byte) {
		t.Helper()
		var wait sync.WaitGroup
		for i, c := range conns {
			wait.Go(func() {
				_ = c.SetDeadline(time.Now().Add(patience))
				want := append([]byte(canary), round, byte(i))
				got := make([]byte, len(want))
				_, err := c.Write(want)
				if err == nil {
					_, err = io.ReadFull(c, got)
				}
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("round %d, connection %d: % x, %v", round, i, got, err)
				}
			})
		}
		wait.Wait()
	}
	exchange(1)
	l.carrier(worker, addr).kill(t)
	begin := time.Now()
	exchange(2)
	t.Logf("%d connections went on within %v of the kill", held, time.Since(begin))
	exchange(3)
}

func TestTwoGatewaysShareTheLoadOfFourBlocks(t *testing.T) {
	l := newPathLab(t, nil, labSite{name: "a", gateways: 2, nodes: 6}, labSite{name: "b", gateways: 1, nodes: 1})
	l.until("all links are up", l.settled)
	far := l.node("b/g1")
	before := l.carried(far)
	addr := l.echoAddr(l.node("a/g3"))
	var streams []*stream
	for _, name := range []string{"a/g3", "a/g4", "a/g5", "a/g6"} {
		streams = append(streams, l.stream(l.node(name), netip.AddrPortFrom(addr, 7000)))
	}
	l.until("packets of all came", func() bool { return l.echo.came.count() > 1000 })
	for _, s := range streams {
		s.stop()
	}
	after := l.carried(far)
	one, two := after["a/g1"]-before["a/g1"], after["a/g2"]-before["a/g2"]
	share := float64(one) / float64(one+two)
	t.Logf("one gateway carried %d bytes, the other %d", one, two)
	if share < 0.3 || share > 0.7 {
		t.Errorf("one gateway carried %.0f %%", 100*share)
	}
}

func TestSpokesMeetAtTheHubOnly(t *testing.T) {
	l := newPathLab(t, []string{"h"}, labSite{name: "a", gateways: 1, nodes: 2}, labSite{name: "h", gateways: 1, nodes: 1}, labSite{name: "b", gateways: 1, nodes: 2})
	worker := l.node("a/g2")
	l.until("the service is known", func() bool { return l.echoAddr(worker).IsValid() })
	s := l.stream(worker, netip.AddrPortFrom(l.echoAddr(worker), 7000))
	l.until("packets go both ways", func() bool { return l.echo.came.count() > 50 && s.came.count() > 50 })
	for name, want := range map[string][]string{"a/g1": {"a/g2", "h/g1"}, "a/g2": {"a/g1"}, "h/g1": {"a/g1", "b/g1"}, "b/g1": {"b/g2", "h/g1"}} {
		st, _ := l.status(l.node(name))
		var got []string
		for _, p := range st.Peers {
			got = append(got, p.Site+"/"+p.Node)
		}
		if !slices.Equal(got, want) {
			t.Errorf("the peers of %s are %v, want %v", name, got, want)
		}
	}
	if n := l.carried(l.node("h/g1")); n["a/g1"] == 0 || n["b/g1"] == 0 {
		t.Errorf("the hub carried %v", n)
	}
	if p := s.came.since(time.Time{}); p.late+p.twice+p.bad > 0 {
		t.Errorf("of the packets that came, %+v", p)
	}
}

func TestACordonHoldsOverARestart(t *testing.T) {
	l := newPathLab(t, nil, twoGateways...)
	l.until("all links are up", l.settled)
	worker := l.node("a/g3")
	addr := l.echoAddr(worker)
	active := l.carrier(worker, addr)
	if out, errs, code := program(t, "cordon", "--socket", active.socket); code != 0 || out != "" {
		t.Fatalf("cordon: exit %d, %s%s", code, out, errs)
	}
	l.until("the other gateway carries", func() bool { return l.carrier(worker, addr) != active })
	active.interrupt()
	l.ended(active)
	if err := active.start(); err != nil {
		t.Fatal(err)
	}
	l.until("all links are up again and the other carries", func() bool {
		c := l.carrier(worker, addr)
		return l.settled() && c != nil && c != active
	})
	if s, err := newClient(active.socket).status(t.Context()); err != nil || !s.Cordoned {
		t.Errorf("status: %v, %v", s.Cordoned, err)
	}
	if _, errs, code := program(t, "uncordon", "--socket", active.socket); code != 0 {
		t.Errorf("uncordon: exit %d, %s", code, errs)
	}
	l.until("it carries again", func() bool { return l.carrier(worker, addr) == active })

	only := l.node("b/g1")
	if out, _, code := program(t, "drain", "--socket", only.socket); code != exitDegraded || !strings.Contains(out, "no other gateway") {
		t.Errorf("drain of the only gateway: exit %d, %q", code, out)
	}
	l.until("the only gateway still carries", func() bool { return l.carrier(worker, addr) != nil })
}
