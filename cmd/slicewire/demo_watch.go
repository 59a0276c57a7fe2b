package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"slicewire/api"
	"slicewire/show"
)

// watch shows live status until ctx ends: on a terminal a screen that is drawn
// again every second, elsewhere a line every ten.
func (d *demo) watch(ctx context.Context) error {
	fmt.Fprintf(d.out, "\nStill running; Ctrl-C ends it. Try in another terminal:\n"+
		"  curl --proxy socks5h://%s http://%s/\n"+
		"  slicewire ping --socket %s --slice iperf-slice %s\n",
		d.client().slices["iperf-slice"].proxy, demoName, d.client().socket, demoName)
	terminal := isTerminal(d.out)
	every := 10 * time.Second
	if terminal {
		every = time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	drawn := 0
	for {
		select {
		case <-ctx.Done():
			fmt.Fprintln(d.out, "\nending the three daemons")
			return ctx.Err()
		case <-tick.C:
		}
		text, err := d.liveText(ctx)
		if err != nil {
			if ctx.Err() != nil {
				continue
			}
			return err
		}
		if terminal && drawn > 0 {
			fmt.Fprintf(d.out, "\x1b[%dA\x1b[J", drawn)
		}
		fmt.Fprint(d.out, text)
		drawn = strings.Count(text, "\n")
	}
}

func (d *demo) liveText(ctx context.Context) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "\nup %s\n", show.Short(time.Since(d.began)))
	t := show.NewTable(&b)
	t.Row("SITE", "SLICE", "PEERS", "SERVICES", "RX", "TX", "RTT", "DROPS")
	for _, site := range demoSites {
		n := d.nodes[site]
		s, err := newClient(n.socket).status(ctx)
		if err != nil {
			return "", err
		}
		for _, x := range s.Slices {
			t.Row(site, x.Name, fmt.Sprintf("%d/%d", x.Connected(time.Now()), len(x.Peers)), len(x.Services),
				show.Size(x.Counters.OutsideRxBytes), show.Size(x.Counters.OutsideTxBytes), d.liveRTT(ctx, n, x), drops(x.Drops))
		}
	}
	t.Flush()
	return b.String(), t.Err
}

// liveRTT pings the slice's first peer once.
func (d *demo) liveRTT(ctx context.Context, n *demoNode, s api.SliceStatus) string {
	rtt := "-"
	if len(s.Peers) == 0 {
		return rtt
	}
	p := s.Peers[0]
	req := api.PingRequest{Slice: s.Name, Target: p.Site + "/" + p.Node, Count: 1, Timeout: 500 * time.Millisecond}
	_ = newClient(n.socket).ping(ctx, req, func(r api.PingReply) { // without an answer the dash stays
		if r.Error == "" {
			rtt = fmt.Sprintf("%.2f ms to %s", r.RTTMs, p.Site)
		}
	})
	return rtt
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
