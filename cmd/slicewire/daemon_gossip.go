package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"slicewire/overlay/gossip"
	"slicewire/statedir"
)

// openGossip makes the gossip with what was known before this start.
func (d *daemon) openGossip() error {
	var err error
	if d.keys, err = openGossipKeys(d.state, d.id.gossipKey); err != nil {
		return err
	}
	epoch, err := d.state.NextEpoch(d.started)
	if err != nil {
		return err
	}
	if !d.id.authority().Gateway {
		// It is no use here, and some to a thief.
		if err := errors.Join(d.state.Forget(statedir.FileGossipKey), d.state.Forget(statedir.FileGossipRing)); err != nil {
			return err
		}
	}
	d.leaf = !d.id.authority().Gateway || !d.want.file.Gossip.Reachable
	cfg := gossip.Config{
		Self: d.id.authority().ID, Mesh: d.want.file.Mesh, Leaf: d.leaf,
		Signer: d.id, Verifier: d.id.verifier, Epoch: epoch, Log: d.log, Now: d.id.clock.Now,
	}
	if !cfg.Leaf {
		cfg.Key, cfg.Bind = d.keys.get().Key, d.want.file.Gossip.Listen
		if cfg.Advertise, err = d.advertised(); err != nil {
			return err
		}
	}
	if d.gossip, err = gossip.New(cfg); err != nil {
		return err
	}
	if d.leaf && len(d.want.file.Gossip.Join) == 0 {
		d.log.Warn("gossip.join is empty: this node dials only gateways that it remembers")
	}
	d.gossip.SetSeeds(d.want.file.Gossip.Join)
	saved, err := d.state.Read(statedir.FileRecords)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		_, err = d.gossip.Restore(saved)
	}
	if err != nil {
		d.log.Warn("records of the last run are not all usable", "file", d.state.Path(statedir.FileRecords), "err", err)
	}
	return nil
}

// advertised is where members reach this node's gossip: as the node file says,
// else where it listens, else the first address of the machine that others
// could use.
func (d *daemon) advertised() (netip.AddrPort, error) {
	g := d.want.file.Gossip
	if g.Advertise.IsValid() || !g.Listen.Addr().IsUnspecified() {
		return g.Advertise, nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return g.Advertise, fmt.Errorf("addresses of this machine: %w", err)
	}
	own := usable(addrs, g.Listen.Port())
	if len(own) == 0 {
		return g.Advertise, errors.New("gossip listens on every address, but this machine has none that others could reach: set gossip.listen or gossip.advertise")
	}
	return own[0], nil
}
