package main

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// turnOfCPU is how long the kernel lets a thread of the daemon run before another's
// turn may come. Little: who asks for short turns gets the next one sooner. What
// the shaper may send is lost when it comes later than its bucket is deep, and
// with the kernel's usual 3 ms of turns, three busy programs beside it are enough
// for that. It is the least that the kernel takes.
const turnOfCPU = 100_000 // ns

// askForShortTurns asks the kernel for them, for all threads: those that start
// later have what the thread has that starts them. It takes no right. A kernel
// before 6.12 does not know of it, and nothing changes there.
func askForShortTurns() {
	asked := make(map[int]bool)
	for found := true; found; { // a thread that nobody asked for yet may have started another
		found = false
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return
		}
		for _, t := range threads {
			tid, err := strconv.Atoi(t.Name())
			if err != nil || asked[tid] {
				continue
			}
			found, asked[tid] = true, true
			askForShortTurn(tid)
		}
	}
}

// askForShortTurn does it for a thread of the ordinary kind; others have been
// given another by an operator, who knows better.
func askForShortTurn(tid int) {
	a, err := unix.SchedGetAttr(tid, 0)
	if err != nil || a.Policy != unix.SCHED_NORMAL {
		return
	}
	a.Runtime = turnOfCPU
	_ = unix.SchedSetAttr(tid, a, 0) // without it, it is only later
}
