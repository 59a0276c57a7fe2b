package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"slicewire/api"
	"slicewire/router"
)

func TestWorkloadsAreBounded(t *testing.T) {
	many := func(n int, slice string, uid uint32) (out []*workload) {
		for i := range n {
			out = append(out, &workload{slice: slice, name: fmt.Sprintf("w%d", i), uid: uid})
		}
		return out
	}
	for _, tc := range []struct {
		name   string
		living []*workload
		w      workload
		want   error
	}{
		{"the first is welcome", nil, workload{slice: "blue", name: "x", uid: 7}, nil},
		{"a slice has an end", many(maxWorkloadsPerSlice, "blue", 8), workload{slice: "blue", name: "x", uid: 7}, errTooMany},
		{"another slice has not", many(maxWorkloadsPerSlice, "blue", 8), workload{slice: "red", name: "x", uid: 7}, nil},
		{"a user has an end, on all slices", many(maxWorkloadsPerUID, "blue", 7), workload{slice: "red", name: "x", uid: 7}, errTooMany},
		{"others' are not counted", many(maxWorkloadsPerUID, "blue", 8), workload{slice: "red", name: "x", uid: 7}, nil},
		{"root's are not", many(maxWorkloadsPerUID, "blue", 0), workload{slice: "red", name: "x"}, nil},
		{"a name is taken", many(1, "blue", 8), workload{slice: "blue", name: "w0", uid: 7}, errNameTaken},
		{"but on its slice alone", many(1, "blue", 8), workload{slice: "red", name: "w0", uid: 7}, nil},
	} {
		if err := mayJoin(tc.living, &tc.w); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// A slowLink cannot be closed while the reconcile loop waits for it.
type slowLink struct {
	router.Link
	d      *daemon
	closed error
}

func (l *slowLink) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l.closed = l.d.within(ctx, func() error { return nil })
	return l.closed
}

func TestTheLoopGoesOnWhileADeviceIsTakenApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{work: make(chan func()), looped: make(chan struct{}), log: slog.New(slog.DiscardHandler)}
		closed, kept := &slowLink{d: d, closed: errEnding}, &slowLink{d: d, closed: errEnding}
		leaves := &workload{name: "leaves", link: closed}
		d.workloads = []*workload{{name: "stays", link: kept}, leaves, {name: "has none yet"}}
		end := make(chan struct{})
		go func() {
			defer close(d.looped)
			for {
				select {
				case f := <-d.work:
					f()
				case <-end:
					return
				}
			}
		}()
		err := d.unplug(t.Context(), func(w *workload) bool { return w != d.workloads[0] })
		if err != nil || closed.closed != nil || !errors.Is(kept.closed, errEnding) {
			t.Errorf("unplug: %v; the link that goes: %v, the one that stays: %v", err, closed.closed, kept.closed)
		}
		close(end)
		<-d.looped
		if err := d.unplug(t.Context(), func(*workload) bool { return true }); !errors.Is(err, errEnding) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestAWorkloadIsNamedProperly(t *testing.T) {
	cred := unix.Ucred{Uid: 7, Pid: 8}
	for name, ok := range map[string]bool{
		"": true, "web": true, "web-1.a": true, "A": true,
		"-web": false, "web-": false, "a/b": false, "a b": false, "\x1b[2J": false, strings.Repeat("x", 64): false,
	} {
		_, err := newWorkload(api.WorkloadRequest{Kind: api.WorkloadRun, Name: name}, cred, time.Now())
		if (err == nil) != ok {
			t.Errorf("run %q: %v", name, err)
		}
	}
	w, err := newWorkload(api.WorkloadRequest{Kind: api.WorkloadAttach, Name: "web", Netns: "/run/netns/a", Device: "sw0", Command: "x"}, cred, time.Now())
	if err != nil || w.name != "/run/netns/a/sw0" || w.pid != 0 || w.uid != 7 {
		t.Errorf("attach: %+v, %v", w, err)
	}
	for _, req := range []api.WorkloadRequest{{Kind: api.WorkloadAttach, Device: "sw0"}, {Kind: api.WorkloadAttach, Netns: "/x"}, {Kind: "root"}, {}} {
		if _, err := newWorkload(req, cred, time.Now()); err == nil {
			t.Errorf("%+v is a workload", req)
		}
	}
}

func TestNamespacesAreFoundAsPeopleNameThem(t *testing.T) {
	for text, want := range map[string]string{
		"blue": "/run/netns/blue", "4711": "/proc/4711/ns/net", "/var/run//netns/x": "/var/run/netns/x", "./ns": "ns",
	} {
		if got := namespacePath(text); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}
