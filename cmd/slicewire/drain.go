package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"slicewire/overlay"
	"slicewire/show"
	"slicewire/statedir"
)

// leaveGrace bounds how long a daemon that is told to end waits for its peers to
// take other ways: a round trip, or until one that just ended itself is known to
// be gone. With stopGrace it makes five seconds.
const leaveGrace = 500 * time.Millisecond

// A CordonRequest has a gateway stand back, or take its part again.
type CordonRequest struct {
	Cordon bool `json:"cordon"`
	Wait   bool `json:"wait"` // until what is under way has passed, too
}

// CordonReply says what came of it.
type CordonReply struct {
	Alone []string `json:"alone"` // slices on which no other gateway of the site is up
}

// cordoned is what the control socket needs for the verbs of this file.
type cordoned interface {
	Cordon(ctx context.Context, req CordonRequest) (CordonReply, error)
}

func newDrainCommands(opts *clientOptions) []*cobra.Command {
	verb := func(use, short, long string, req CordonRequest) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Long: long, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				reply, err := newClient(opts.socket).cordon(cmd.Context(), req)
				if err != nil {
					return err
				}
				for _, s := range reply.Alone {
					fmt.Fprintf(cmd.OutOrStdout(), "slice %s: no other gateway of this site is up; this one carries on\n", show.Clean(s))
				}
				if req.Wait && len(reply.Alone) > 0 {
					return &exitError{code: exitDegraded}
				}
				return nil
			},
		}
	}
	return []*cobra.Command{
		verb("cordon", "Have other gateways carry what this one carries for its site",
			"Asks all peers to use the other gateways of this site, where there are any. What runs on this\n"+
				"node stays reachable through it. It holds until `slicewire uncordon`, also over restarts.",
			CordonRequest{Cordon: true}),
		verb("drain", "Cordon, and wait until this gateway carries nothing for its site",
			"Cordons the node, waits until every peer that can be reached has taken other ways and until\n"+
				"what was under way has passed. Then the daemon can be stopped without loss for others; it does the\n"+
				"same by itself when SIGTERM ends it. Exits 3 where no other gateway is up.",
			CordonRequest{Cordon: true, Wait: true}),
		verb("uncordon", "Have this gateway carry its part again", "Ends what `slicewire cordon` and `slicewire drain` began.", CordonRequest{}),
	}
}

func (c *client) cordon(ctx context.Context, req CordonRequest) (CordonReply, error) {
	var reply CordonReply
	body, err := c.do(ctx, http.MethodPost, "cordon", req)
	if err != nil {
		return reply, err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(&reply); err != nil {
		return reply, fmt.Errorf("read the daemon's answer: %w", err)
	}
	return reply, nil
}

func (c *control) cordon(w http.ResponseWriter, r *http.Request) {
	if !mayChange(r.Context()) {
		c.refuse(w, http.StatusForbidden, errors.New("cordon, drain and uncordon are for root and for the user that the daemon runs as"))
		return
	}
	var req CordonRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequestBody)).Decode(&req); err != nil {
		c.refuse(w, http.StatusBadRequest, fmt.Errorf("cordon request: %w", err))
		return
	}
	reply, err := c.cordoned.Cordon(r.Context(), req)
	if err != nil {
		c.refuse(w, http.StatusInternalServerError, err)
		return
	}
	c.answer(w, reply)
}

// Cordon remembers what is asked for and tells the peers. It returns when all
// that can be reached know.
func (d *daemon) Cordon(ctx context.Context, req CordonRequest) (CordonReply, error) {
	reply := CordonReply{Alone: []string{}}
	if err := d.state.WriteJSON(statedir.FileCordon, req.Cordon); err != nil {
		return reply, err
	}
	d.cordoned.Store(req.Cordon)
	d.gateway.SetLeaving(req.Cordon)
	d.log.Info("cordon", "node", d.id.authority().ID.String(), "cordoned", req.Cordon)
	wait := d.gateway.WaitTold
	if req.Wait {
		wait = d.gateway.Drain
	}
	if err := wait(ctx); err != nil {
		return reply, fmt.Errorf("wait for the peers: %w", err)
	}
	if req.Cordon {
		reply.Alone = d.alone()
	}
	return reply, nil
}

// alone lists the slices on which no other gateway of this site is up.
func (d *daemon) alone() []string {
	out := []string{}
	up := make(map[string]bool) // site/node on a slice
	for _, t := range d.gateway.Status() {
		for _, p := range t.Peers {
			if p.Up && !p.Leaving {
				up[t.Slice+" "+p.Name] = true
			}
		}
	}
	view := d.view.Load()
	if view == nil {
		return out
	}
	self := d.id.authority().ID
	for _, v := range view.slices {
		other := false
		for _, n := range v.view.Nodes {
			other = other || n.Gateway && n.ID != self && n.ID.Site == self.Site && up[v.node.name+" "+n.ID.String()]
		}
		if !other && isGateway(v.view.Nodes, self) {
			out = append(out, v.node.name)
		}
	}
	return out
}

func isGateway(nodes []overlay.Node, id overlay.NodeID) bool {
	for _, n := range nodes {
		if n.ID == id {
			return n.Gateway
		}
	}
	return false
}

// leave has pods and peers take other ways before the daemon ends, and a node that
// ends for good takes back what it told. It returns soon whatever they do.
func (d *daemon) leave(ctx context.Context) {
	d.cluster.leave(ctx)
	drained, stop := context.WithTimeout(ctx, leaveGrace)
	defer stop()
	d.gateway.SetLeaving(true)
	if err := d.gateway.Drain(drained); err != nil {
		d.log.Info("not every peer took another way in time", "err", err)
	}
	told, stop := context.WithTimeout(ctx, leaveGrace)
	defer stop()
	if err := d.within(told, d.withdraw); err != nil {
		d.log.Warn("others are not told that this node ends", "err", err)
	}
}

// withdraw takes back what a node told that ends for good. The daemon's loop
// calls it.
func (d *daemon) withdraw() error {
	if !d.want.file.Ephemeral {
		return nil
	}
	return d.gossip.Withdraw()
}
