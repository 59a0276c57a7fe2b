package main

import (
	"os"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAllThreadsAskForShortTurns(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	turn := func(tid int) uint64 {
		a, err := unix.SchedGetAttr(tid, 0)
		if err != nil {
			t.Fatal(err)
		}
		return a.Runtime
	}
	askForShortTurn(0)
	want := uint64(turnOfCPU)
	if got := turn(0); got != want {
		if got != 0 {
			t.Fatalf("turns of %d ns", got)
		}
		want = 0 // this kernel does not know of them
	}
	askForShortTurns()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil || len(threads) < 2 {
		t.Fatalf("%d threads: %v", len(threads), err)
	}
	for _, x := range threads {
		if tid, _ := strconv.Atoi(x.Name()); turn(tid) != want {
			t.Errorf("thread %d has turns of %d ns, want %d", tid, turn(tid), want)
		}
	}
}
