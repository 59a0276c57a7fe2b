package hub

import (
	"maps"
	"math"
	"slices"
	"time"

	"slicewire/kube"
)

// A Tunnel is how this node stands with a gateway of another site on a slice.
type Tunnel struct {
	Slice, Site string
	Up          bool
	RTT         time.Duration // 0: not measured
	Loss        float64       // of probes, 0 to 1, while it is up
	Rx, Tx      uint64        // bytes, since the tunnel is there
}

// rateMin is the shortest time over which bytes are counted for a rate.
const rateMin = time.Second

// A rate is how fast a number of bytes grows.
type rate struct {
	at       time.Time
	rx, tx   uint64  // then
	in, out  float64 // bytes a second in the time before
	measured bool
}

// next returns the rate after the bytes of now: over the time since the last, if
// that is long enough. Numbers that have become less began anew.
func (r rate) next(now time.Time, rx, tx uint64) rate {
	d := now.Sub(r.at)
	switch {
	case r.at.IsZero() || rx < r.rx || tx < r.tx:
		return rate{at: now, rx: rx, tx: tx}
	case d < rateMin:
		return r
	}
	return rate{at: now, rx: rx, tx: tx, in: float64(rx-r.rx) / d.Seconds(), out: float64(tx-r.tx) / d.Seconds(), measured: true}
}

// GatewaySamples returns KubeSlice's metrics of a gateway for all tunnels of this
// node, those to one site together: the latency and the loss are those of the
// shortest that is up, and rates are since the call before, of a second at least.
// What is not known is left out: a latency while none is up, rates at first.
func (h *Hub) GatewaySamples(now time.Time, tunnels []Tunnel) (out []kube.Sample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	type end struct{ slice, site string }
	all := map[end]Tunnel{}
	for _, t := range tunnels {
		key := end{t.Slice, t.Site}
		sum, known := all[key]
		rx, tx := sum.Rx+t.Rx, sum.Tx+t.Tx
		if !known || t.Up && (!sum.Up || t.RTT > 0 && (sum.RTT == 0 || t.RTT < sum.RTT)) {
			sum = t
		}
		sum.Rx, sum.Tx = rx, tx
		all[key] = sum
	}
	rates := make(map[[2]string]rate, len(all)) // those of tunnels that are gone go
	for _, key := range slices.SortedFunc(maps.Keys(all), func(a, b end) int { return slices.Compare([]string{a.slice, a.site}, []string{b.slice, b.site}) }) {
		t, local := all[key], h.cfg.Site
		r := h.rates[[2]string{key.slice, key.site}].next(now, t.Rx, t.Tx)
		rates[[2]string{key.slice, key.site}] = r
		values := []string{h.cfg.Node, key.slice, local, key.site, key.slice + "-" + local + "-" + key.site, key.slice + "-" + key.site + "-" + local}
		add := func(name string, value float64) {
			labels := map[string]string{}
			for i, k := range kube.MetricLabels[name] {
				labels[k] = values[i]
			}
			out = append(out, kube.Sample{Name: name, Labels: labels, Value: value})
		}
		loss := 100.0
		if t.Up {
			loss = math.Round(1000*t.Loss) / 10
			if t.RTT > 0 {
				add("kubeslice_system_slicegw_latency", float64(t.RTT.Round(time.Millisecond).Milliseconds()))
			}
		}
		add("kubeslice_system_slicegw_pkt_loss", loss)
		if r.measured {
			add("kubeslice_system_slicegw_rx_rate", math.Round(r.in))
			add("kubeslice_system_slicegw_tx_rate", math.Round(r.out))
		}
	}
	h.rates = rates
	return out
}
