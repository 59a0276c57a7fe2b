package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"slicewire/api"
	"slicewire/show"
)

// hubStale reports whether the hub is silent and the last known state goes on.
func hubStale(s *api.HubStatus) bool {
	return s != nil && slices.ContainsFunc(s.Conditions, func(c api.HubCondition) bool { return c.Type == "HubStale" && c.Status })
}

// hubWarnings are what an operator should hear of.
func hubWarnings(s *api.HubStatus) []string {
	if s == nil {
		return nil
	}
	var out []string
	if hubStale(s) {
		text := "HubStale: the hub has not answered since the start"
		if s.Heard != nil {
			text = fmt.Sprintf("HubStale: the hub has not answered for %s", show.Short(time.Since(*s.Heard)))
		}
		if s.Fault != "" {
			text += " (" + s.Fault + ")"
		}
		out = append(out, text+": the last known state goes on")
	}
	if n := len(s.Held); n > 0 {
		out = append(out, fmt.Sprintf("HubMassDeletion: %d objects vanished from the hub at once and go on to count (%s, ...): put them back, or confirm with `slicewire hub confirm`", n, s.Held[0]))
	}
	if s.Denied != "" {
		out = append(out, "HubWriteDenied: "+s.Denied)
	}
	for _, id := range slices.Sorted(maps.Keys(s.Refused)) {
		if len(out) > 20 {
			out = append(out, "more objects of the hub are refused")
			break
		}
		out = append(out, fmt.Sprintf("refused %s of the hub: %s", id, s.Refused[id]))
	}
	return out
}

var errNoHub = errors.New("this node has no hub (kubernetes.hub in its node file)")

// takeHub brings the daemon in line with the hub as it is now.
func (d *daemon) takeHub() {
	old := d.want
	if err := d.makeMesh(d.want.file, d.want.set, d.want.read, d.want.warned); err != nil {
		d.want = old
		d.log.Error("what the hub says was not taken, the old state goes on", "err", err)
		return
	}
	if reflect.DeepEqual(old.mesh, d.want.mesh) && reflect.DeepEqual(old.worked, d.want.worked) && slices.Equal(old.warned, d.want.warned) {
		return
	}
	d.turn()
}

func newHubCommand(opts *clientOptions) *cobra.Command {
	cmd := &cobra.Command{Use: "hub", Short: "Deal with the hub that a node has its objects from", Args: cobra.NoArgs}
	cmd.AddCommand(&cobra.Command{
		Use: "confirm", Short: "Say that what vanished from the hub was meant to",
		Long: "When many slices or exports vanish from the hub at once, they go on to count. This ends it on this node.\n" +
			"The annotation slicewire.io/deletions-confirmed (a time, RFC 3339) on a site's Cluster does it for all of its nodes.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			body, err := newClient(opts.socket).do(cmd.Context(), http.MethodPost, "hub/confirm", nil)
			if err != nil {
				return err
			}
			return body.Close()
		},
	})
	cmd.AddCommand(&cobra.Command{
		Use: "metrics", Short: "Print KubeSlice's metrics of a worker, for Prometheus", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			body, err := newClient(opts.socket).do(cmd.Context(), http.MethodGet, "hub/metrics", nil)
			if err != nil {
				return err
			}
			defer body.Close()
			_, err = io.Copy(cmd.OutOrStdout(), body)
			return err
		},
	})
	return cmd
}

// hubbed is what the control socket needs for the verbs of this file.
type hubbed interface {
	ConfirmHub(ctx context.Context) error
	HubMetrics(w io.Writer) error
}

// ConfirmHub says that what has vanished from the hub was meant to.
func (d *daemon) ConfirmHub(context.Context) error { return d.hub.confirm() }

// HubMetrics writes what is told of a worker under KubeSlice's names.
func (d *daemon) HubMetrics(w io.Writer) error { return d.hub.metrics(w, d.gateway.Status()) }

func (c *control) hubMetrics(w http.ResponseWriter, _ *http.Request) {
	var text bytes.Buffer
	if err := c.hubbed.HubMetrics(&text); err != nil {
		c.refuse(w, http.StatusUnprocessableEntity, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	if _, err := text.WriteTo(w); err != nil {
		c.log.Debug("control answer not written", "err", err)
	}
}

func (c *control) confirmHub(w http.ResponseWriter, r *http.Request) {
	if !mayChange(r.Context()) {
		c.refuse(w, http.StatusForbidden, errors.New("hub confirm is for root and for the user that the daemon runs as"))
		return
	}
	if err := c.hubbed.ConfirmHub(r.Context()); err != nil {
		c.refuse(w, http.StatusUnprocessableEntity, err)
		return
	}
	c.answer(w, struct{}{})
}

// tellHub says to the hub how the site is.
func (d *daemon) tellHub(view *daemonView) {
	if view != nil {
		d.hub.tell(d.id.authority().ID.Site, d.endpoints(), view.slices, d.cluster, d.gateway.Links)
	}
}
