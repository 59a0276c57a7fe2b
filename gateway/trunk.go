package gateway

import (
	"log/slog"
	"slices"
	"time"

	"slicewire/overlay"
)

// A trunk is what the tunnels of a slice share: while its keys change there are
// two of them, for the same packets and between the same nodes. A link is up
// while it is so in one of them, and prefixes lie alike in both, so that a
// packet is taken with whichever key it comes. The Gateway's mutex guards
// tunnels.
type trunk struct {
	slice   string
	inside  Link
	fork    *fork
	probes  *prober
	drops   *overlay.Drops
	tunnels []*tunnel
}

func newTrunk(conf *Tunnel, log *slog.Logger, now func() time.Duration, probed func()) *trunk {
	return &trunk{
		slice: conf.Slice, inside: conf.Inside,
		fork:   &fork{link: conf.Inside},
		probes: newProber(log.With("slice", conf.Slice), now, probed),
		drops:  new(overlay.Drops),
	}
}

func (k *trunk) remove(t *tunnel) {
	k.tunnels = slices.DeleteFunc(k.tunnels, func(x *tunnel) bool { return x == t })
}

// A tunnelID names a tunnel of a node.
type tunnelID struct {
	slice      string
	generation uint64
}

func (t *Tunnel) id() tunnelID { return tunnelID{t.Slice, t.Generation} }
