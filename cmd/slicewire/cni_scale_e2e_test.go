package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestPodsComeAndGo attaches and detaches pods at 20 a second: 100, or as many as
// SLICEWIRE_TEST_PODS says.
func TestPodsComeAndGo(t *testing.T) {
	n := startCNI(t)
	if n == nil {
		return
	}
	pods := 100
	if s := os.Getenv("SLICEWIRE_TEST_PODS"); s != "" {
		var err error
		if pods, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	const perSecond, living, workers = 20, 20, 8
	names := make([]string, living)
	for i := range names {
		names[i], _ = netns(t)
	}
	ports := n.ports(t)
	begin := time.Now()
	tick := time.NewTicker(time.Second / perSecond)
	defer tick.Stop()
	var wg sync.WaitGroup
	slots := make(chan int, living)
	for i := range living {
		slots <- i
	}
	limit := make(chan struct{}, workers)
	var mu sync.Mutex
	var later atomic.Int32
	var took []time.Duration
	for i := range pods {
		<-tick.C
		slot := <-slots
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { slots <- slot; <-limit }()
			start := time.Now()
			for _, command := range []string{"ADD", "DEL"} {
				said, code, err := n.tryCall(t.Context(), command, fmt.Sprintf("c%d", i), names[slot], "iperf", n.conf(chained))
				for range 3 { // as runtimes do: the kernel may be busy taking networks apart
					if err != nil || code != 11 {
						break
					}
					later.Add(1)
					said, code, err = n.tryCall(t.Context(), command, fmt.Sprintf("c%d", i), names[slot], "iperf", n.conf(chained))
				}
				if err != nil || code != 0 {
					t.Errorf("%s of pod %d: code %d, %s, %v", command, i, code, said, err)
				}
				if command == "ADD" {
					mu.Lock()
					took = append(took, time.Since(start))
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(took)
	t.Logf("%d pods in %v, %d told to try again; ADD takes %v, the slowest %v", pods, time.Since(begin).Round(time.Millisecond), later.Load(), took[len(took)/2], took[len(took)-1])
	if len(n.attached()) != 0 || n.records(t) != 0 {
		t.Errorf("left: %v, %d records", n.attached(), n.records(t))
	}
	if now := n.ports(t); now != ports {
		t.Errorf("%d descriptors of the daemon before, %d after", ports, now)
	}
	for _, ns := range names {
		if got := n.inside(ns, "ip", "-br", "link"); strings.Contains(got, "sw0") {
			t.Errorf("left in %s: %s", ns, got)
		}
	}
}

// ports counts the devices that the daemon holds open.
func (n *cniNode) ports(t *testing.T) (count int) {
	t.Helper()
	s, ok := n.status(n.node)
	if !ok {
		t.Fatal("no daemon")
	}
	dir := fmt.Sprintf("/proc/%d/fd", s.PID)
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && to == "/dev/net/tun" {
			count++
		}
	}
	return count
}
