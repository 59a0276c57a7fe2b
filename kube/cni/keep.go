package cni

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"
)

// keepEvery is how often Keep looks: how long pods are off their slices after the
// daemon is back. One look is one question to a local socket.
const keepEvery = time.Second

// A Keeper puts containers back on their slices when the daemon has forgotten
// them, and lets go of those whose namespace is gone.
type Keeper struct {
	State  string // folder of records
	Daemon Daemon
	Log    *slog.Logger
	Ready  func() // called after each look at a daemon that answered; nil: nothing

	away bool // as last logged
}

// Run looks until ctx ends. It is for one goroutine.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		k.Look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Look does once what Run does again and again.
func (k *Keeper) Look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := k.Daemon.State(ctx)
	if (err != nil) != k.away {
		k.away = err != nil
		k.Log.Info("daemon", "away", k.away, "err", err)
	}
	if err != nil {
		return
	}
	if err := writeKnown(k.State, s.Slices); err != nil {
		k.Log.Warn("slices not noted", "err", err)
	}
	paths, err := recordPaths(k.State, "")
	if err != nil {
		k.Log.Warn("records", "err", err)
	}
	for _, path := range paths {
		if err := k.restore(ctx, &s, path); err != nil && ctx.Err() == nil {
			k.Log.Warn("container not on its slice", "record", path, "err", err)
		}
	}
	if k.Ready != nil {
		k.Ready()
	}
}

// restore brings one attachment in line with its record. What the daemon has
// said is from before the record was locked: whoever attached it since has made
// it known.
func (k *Keeper) restore(ctx context.Context, s *State, path string) error {
	r, err := lockRecord(path, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	rec, err := r.read()
	if err != nil || rec.Device == "" {
		return err // damaged, or its maker was killed: GC's
	}
	if _, err := os.Stat(rec.Netns); errors.Is(err, fs.ErrNotExist) {
		if err := k.Daemon.Detach(ctx, rec.Slice, rec.Netns, rec.Device); err != nil {
			return err
		}
		k.Log.Info("container gone", "slice", rec.Slice, "netns", rec.Netns, "pod", rec.Namespace+"/"+rec.Pod)
		return r.remove()
	}
	if s.has(rec) {
		return nil
	}
	now, err := k.Daemon.State(ctx)
	if err != nil || now.has(rec) {
		return err
	}
	// Half of it may be there: a device with another address.
	if err := k.Daemon.Detach(ctx, rec.Slice, rec.Netns, rec.Device); err != nil {
		return err
	}
	place, err := k.Daemon.Attach(ctx, Request{Slice: rec.Slice, Namespace: rec.Namespace, Pod: rec.Pod, Netns: rec.Netns, Device: rec.Device, Address: rec.Address})
	if err != nil {
		return err
	}
	k.Log.Info("container back on its slice", "slice", rec.Slice, "pod", rec.Namespace+"/"+rec.Pod, "addr", place.Address.String(), "same", place.Address == rec.Address)
	rec.Address, rec.Address6 = place.Address, place.Address6
	return r.write(rec)
}
