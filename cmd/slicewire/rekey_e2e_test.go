package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"slicewire/api"
)

// rekeyPace is the load under which keys change, in packets a millisecond each
// way. Under the race detector a small machine carries less.
var rekeyPace = flag.Int("rekey-pace", 5, "packets a millisecond each way while keys change (1 under the race detector)")

func floodPace() int {
	if slack > 1 {
		return min(1, *rekeyPace)
	}
	return *rekeyPace
}

// floodBytes is the length of a flood's packets, by which the echo service knows
// them.
const floodBytes = 9

// A flood sends packets from a node's proxy to the echo service, which sends each
// of them back beside its own.
type flood struct {
	sent, back atomic.Int64
	stop       func()
}

// flood begins one.
func (l *pathLab) flood(n *labNode, to netip.AddrPort) *flood {
	l.t.Helper()
	control, relay := l.associate(n, n.proxy)
	conn := l.dialHere(n, "udp", relay)
	_ = conn.(*net.UDPConn).SetReadBuffer(4 << 20)
	head := append([]byte{0, 0, 0, 1}, to.Addr().AsSlice()...)
	head = binary.BigEndian.AppendUint16(head, to.Port())
	f := &flood{}
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		began, due := time.Now(), 0
		packet := append(slices.Clip(head), make([]byte, floodBytes)...)
		for {
			select {
			case <-tick.C:
			case <-done:
				return
			}
			// Ticks get lost while the machine is busy: what is due is made up for.
			want := int(time.Since(began).Milliseconds()) * floodPace()
			due, want = want, min(want-due, 20)
			for range want {
				if _, err := conn.Write(packet); err == nil {
					f.sent.Add(1)
				}
			}
		}
	})
	wait.Go(func() {
		buf := make([]byte, 2048)
		for {
			if _, err := conn.Read(buf); err != nil {
				select {
				case <-done:
					return
				default:
					continue
				}
			}
			f.back.Add(1)
		}
	})
	f.stop = sync.OnceFunc(func() { close(done); conn.Close(); control.Close(); wait.Wait() })
	l.t.Cleanup(f.stop)
	return f
}

// renew rewrites the manifests so that keys from before now are changed, and has
// one node read them.
func (l *pathLab) renew(n *labNode, at time.Time) {
	l.t.Helper()
	path := filepath.Join(l.dir, "manifests", "lab.yaml")
	old, err := os.ReadFile(path)
	if err != nil {
		l.t.Fatal(err)
	}
	var lines []string
	for _, line := range strings.Split(string(old), "\n") {
		if !strings.Contains(line, "renewBefore") {
			lines = append(lines, line)
		}
		if strings.Contains(line, "sliceIpamType") {
			lines = append(lines, fmt.Sprintf("  renewBefore: %q", at.UTC().Format(time.RFC3339)))
		}
	}
	l.write("manifests/lab.yaml", strings.Join(lines, "\n"))
	if err := n.process.Process.Signal(syscall.SIGHUP); err != nil {
		l.t.Fatal(err)
	}
}

// keys reports whether all nodes send with keys of a generation and have no
// others.
func (l *pathLab) keys(at time.Time) bool {
	for _, n := range l.order {
		s, ok := l.status(n)
		if !ok || s.Keys.Changing || !s.Keys.Generation.Equal(at.UTC().Truncate(time.Second)) {
			return false
		}
	}
	return true
}

// One node reads that keys are to be renewed, all follow; nothing is lost
// between their routers, no path moves, and the old keys are gone in a minute.
func TestKeysOfASliceChangeUnderLoad(t *testing.T) {
	l := newPathLab(t, nil, labSite{name: "a", gateways: 2, nodes: 3}, labSite{name: "b", gateways: 1, nodes: 1})
	l.until("all links are up", l.settled)
	worker, far := l.node("a/g3"), l.node("b/g1")
	addr := l.echoAddr(worker)
	f := l.flood(worker, netip.AddrPortFrom(addr, 7000))
	l.until("packets flow", func() bool { return f.sent.Load() > 200 && f.back.Load() > 20 })
	via, changes := l.carrier(worker, addr), l.changes()
	for round := range 2 {
		begin, sent := time.Now(), f.sent.Load()
		l.renew(l.order[round], begin)
		var moved *labNode
		l.until("all nodes have changed their keys", func() bool {
			if c := l.carrier(worker, addr); c != nil && c != via {
				moved = c
			}
			return l.keys(begin)
		})
		t.Logf("keys changed in %v, %d packets sent meanwhile", time.Since(begin).Round(time.Millisecond), f.sent.Load()-sent)
		if time.Since(begin) > time.Minute {
			t.Errorf("old keys were taken for %v", time.Since(begin))
		}
		if moved != nil {
			t.Errorf("packets went through %v while keys changed", moved.id)
		}
	}
	f.stop()
	l.echo.close()
	// What a node's router gave to its tunnel has come out of others': the nodes
	// pass on what is not for them, so all together are compared.
	var out, in, dropped uint64
	l.until("what is under way arrives", func() bool {
		o, i, d := l.crossed()
		still := o == out && i == in
		out, in, dropped = o, i, d
		return still
	})
	t.Logf("%d packets went into tunnels, %d came out, %d were dropped by reason", out, in, dropped)
	if out != in || dropped != 0 {
		t.Errorf("%d packets went into tunnels, %d came out; %d dropped", out, in, dropped)
		for _, n := range l.order {
			s, _ := l.status(n)
			t.Logf("%v dropped %v", n.id, s.Drops)
		}
	}
	for name, n := range l.changes() {
		if n > slack*max(1, changes[name]) {
			t.Errorf("link %s went up or down %d times", name, n)
		}
	}
	if s, _ := l.status(far); len(s.Peers) == 0 || s.Peers[0].LastHandshake == nil {
		t.Errorf("status of %v: %+v", far.id, s.Peers)
	}
}

// changes returns how often each link went up or down.
func (l *pathLab) changes() map[string]int {
	out := make(map[string]int)
	for _, n := range l.order {
		s, _ := l.status(n)
		for _, p := range s.Peers {
			if p.Link != nil {
				out[n.id.String()+" "+p.Site+"/"+p.Node] = p.Link.Changes
			}
		}
	}
	return out
}

// crossed adds up what all nodes gave to their tunnels, what came out of them,
// and what was dropped between.
func (l *pathLab) crossed() (out, in, dropped uint64) {
	for _, n := range l.order {
		s, _ := l.status(n)
		out += s.Counters.OutsideTxPackets
		in += s.Counters.OutsideRxPackets
		for _, reason := range tunnelDrops {
			dropped += s.Drops[reason]
		}
	}
	return out, in, dropped
}

// tunnelDrops are reasons for which shaper and tunnel lose packets. What comes
// for a key that has just been given up counts as closed and is a probe: a
// packet of the slice would be missing among those that came out.
var tunnelDrops = []string{"queue-full", "no-peer", "unknown-slice", "send-error", "delay"}

// pings reports whether a node gets an answer from another on the slice.
func (l *pathLab) pings(n *labNode, target string) bool {
	answered := false
	req := api.PingRequest{Slice: "lab", Target: target, Count: 1, Timeout: 200 * time.Millisecond}
	_ = newClient(n.socket).ping(l.t.Context(), req, func(p api.PingReply) { answered = p.Error == "" })
	return answered
}

// A node that hears nothing while keys change, and one that is killed in the
// middle of it, are back with the new keys.
func TestNodesThatMissAChangeOfKeysComeBack(t *testing.T) {
	l := newPathLab(t, nil, labSite{name: "a", gateways: 1, nodes: 1}, labSite{name: "b", gateways: 1, nodes: 1}, labSite{name: "c", gateways: 1, nodes: 1})
	l.until("all links are up", l.settled)
	a, b, c := l.node("a/g1"), l.node("b/g1"), l.node("c/g1")
	begin := time.Now()
	if err := c.process.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.process.Process.Signal(syscall.SIGCONT) }() // so that it can end
	l.until("it is missed", func() bool {
		s, _ := l.status(a)
		return slices.ContainsFunc(s.Peers, func(p api.PeerStatus) bool { return p.Site == "c" && p.Link != nil && !p.Link.Up })
	})
	l.renew(a, begin)
	changing := func(n *labNode) bool { s, ok := l.status(n); return ok && s.Keys.Changing }
	l.until("b follows", func() bool { return changing(b) })
	b.kill(t)
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	sends := func(n *labNode) bool {
		s, ok := l.status(n)
		return ok && !s.Keys.Changing && s.Keys.Generation.Equal(begin.UTC().Truncate(time.Second))
	}
	l.until("a and b have only new keys", func() bool { return sends(a) && sends(b) })
	t.Logf("two nodes changed in %v while the third was frozen and one was killed", time.Since(begin).Round(time.Millisecond))
	if err := c.process.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	thawed := time.Now()
	l.until("the third answers", func() bool { return l.pings(a, "c/g1") && l.pings(c, "b/g1") })
	t.Logf("the third is back after %v", time.Since(thawed).Round(time.Millisecond))
	l.until("all have new keys only", func() bool { return sends(a) && sends(b) && sends(c) })
}
