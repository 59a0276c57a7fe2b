//go:build !nokube

package main

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	// callsGrace bounds how long a node that is told to end waits for the API
	// server to take its word that pods should go elsewhere.
	callsGrace = 2 * time.Second
	// proxiesFollow is for how long nobody may come anew before the cluster's
	// proxies are taken to have done so: kube-proxy changes its rules once a second,
	// where it has the time. proxiesGrace bounds the wait for that: some go on
	// coming, whatever the cluster says, and the pod is killed after 30 seconds.
	proxiesFollow = 1500 * time.Millisecond
	proxiesGrace  = 12 * time.Second
	callsLook     = 100 * time.Millisecond
)

// leave has the cluster's pods go to other nodes for imported services, if any
// come here.
func (k *kubeCluster) leave(ctx context.Context) {
	if k == nil || len(k.cluster.Result().Doors) == 0 {
		return
	}
	told, stop := context.WithTimeout(ctx, callsGrace)
	defer stop()
	if err := k.cluster.Leave(told); err != nil {
		k.log.Info("pods of the cluster may still come here", "err", err)
		return
	}
	if !k.calls.quiet(ctx, proxiesFollow, proxiesGrace) {
		k.log.Info("pods of the cluster still come here")
	}
}

// calls remembers when somebody came by a door for the last time. It may be used
// concurrently.
type calls struct{ last atomic.Int64 } // Unix ns

func (c *calls) came() { c.last.Store(time.Now().UnixNano()) }

// quiet waits until nobody has come for a while, from now on, and reports whether
// that was so before the bound, or ctx, ended.
func (c *calls) quiet(ctx context.Context, while, bound time.Duration) bool {
	ctx, stop := context.WithTimeout(ctx, bound)
	defer stop()
	tick := time.NewTicker(callsLook)
	defer tick.Stop()
	for began := time.Now(); ; {
		select {
		case <-tick.C:
			if time.Since(began) >= while && time.Since(time.Unix(0, c.last.Load())) >= while {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
}
