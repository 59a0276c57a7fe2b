package main

import (
	"context"
	"time"

	"slicewire/statedir"
)

// saveDelay gathers changes of records into one write.
const saveDelay = 500 * time.Millisecond

// persistRecords saves the known records after they have changed, so that a
// restart needs nobody else to know its peers.
func (d *daemon) persistRecords(ctx context.Context) error {
	epoch := uint64(0)
	save := func() {
		err := d.state.Write(statedir.FileRecords, d.gossip.Snapshot())
		// Others may have known a later epoch of this node than its own folder did.
		if e := d.gossip.Epoch(); err == nil && e != epoch {
			epoch, err = e, d.state.SetEpoch(e)
		}
		if err != nil {
			d.log.Warn("records not saved", "err", err)
		}
	}
	for {
		select {
		case <-ctx.Done():
			save()
			return nil
		case <-d.persist:
		}
		delay := time.NewTimer(saveDelay)
		select {
		case <-ctx.Done():
		case <-delay.C:
		}
		delay.Stop()
		save()
	}
}
