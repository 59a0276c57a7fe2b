package hub

import (
	"maps"
	"slices"
	"testing"
	"time"

	"slicewire/kube"
	"slicewire/overlay"
)

// told is a Hub that has something to say of everything, without a server.
func told() *Hub {
	h := &Hub{cfg: Config{Namespace: "kubeslice-demo", Site: "one", Node: "gw-0"}, tallies: map[string]*tally{"red": {created: 1}}}
	h.merged = &merged{mesh: overlay.Mesh{Slices: []overlay.Slice{{Name: "red", Sites: []overlay.SliceSite{{Name: "one"}, {Name: "two"}}}}}}
	h.facts = &Facts{
		Exports: []Export{{Slice: "red", Namespace: "shop", Name: "web", Aliases: []string{"a.example"}, Endpoints: []overlay.Endpoint{{Name: "web-0"}}}},
		Imports: []Import{{"red", "shop", "web", 2}}, Links: []Link{{Slice: "red", Site: "two", Up: true}},
	}
	return h
}

// What package kube lists as told is told, with these labels.
func TestEveryMetricIsTold(t *testing.T) {
	h, now := told(), time.Unix(1000, 0)
	tunnel := []Tunnel{{Slice: "red", Site: "two", Up: true, RTT: time.Millisecond}}
	h.GatewaySamples(now, tunnel)
	seen := map[string]bool{}
	base := slices.Collect(maps.Keys(kube.MetricBase("", "")))
	for i, list := range [][]kube.Sample{h.Samples(), h.GatewaySamples(now.Add(time.Second), tunnel)} {
		for _, s := range list {
			seen[s.Name] = true
			want := slices.Clone(kube.MetricLabels[s.Name])
			if i == 0 {
				want = append(want, base...)
			}
			slices.Sort(want)
			if got := slices.Sorted(maps.Keys(s.Labels)); !slices.Equal(got, want) {
				t.Errorf("%s has labels %v, want %v", s.Name, got, want)
			}
		}
	}
	for name := range kube.MetricLabels {
		if !seen[name] {
			t.Errorf("%s is not told", name)
		}
	}
	if len(seen) != len(kube.MetricLabels) {
		t.Errorf("%d metrics are told, %d listed", len(seen), len(kube.MetricLabels))
	}
}

func TestMetricsOfAGateway(t *testing.T) {
	h, now := told(), time.Unix(1000, 0)
	near := Tunnel{Slice: "red", Site: "two", Up: true, RTT: 3600 * time.Microsecond, Loss: 0.0125, Rx: 1000, Tx: 500}
	far := Tunnel{Slice: "red", Site: "two", Up: true, RTT: 40 * time.Millisecond, Loss: 0.5}
	down := Tunnel{Slice: "red", Site: "two"}
	grown := near
	grown.Rx, grown.Tx = 21000, 10500
	for _, c := range []struct {
		name    string
		after   time.Duration
		tunnels []Tunnel
		want    map[string]float64
	}{
		{"at first there are no rates; the shortest counts", 0, []Tunnel{far, near, down}, map[string]float64{"latency": 4, "pkt_loss": 1.3}},
		{"too soon after for rates", time.Millisecond, []Tunnel{grown}, map[string]float64{"latency": 4, "pkt_loss": 1.3}},
		{"rates since the first", 10 * time.Second, []Tunnel{grown, down}, map[string]float64{"latency": 4, "pkt_loss": 1.3, "rx_rate": 2000, "tx_rate": 1000}},
		{"a moment after they stay", 10*time.Second + time.Millisecond, []Tunnel{grown}, map[string]float64{"latency": 4, "pkt_loss": 1.3, "rx_rate": 2000, "tx_rate": 1000}},
		{"a tunnel that began anew", 20 * time.Second, []Tunnel{near}, map[string]float64{"latency": 4, "pkt_loss": 1.3}},
		{"none is up", 30 * time.Second, []Tunnel{down}, map[string]float64{"pkt_loss": 100}},
		{"none is there", 31 * time.Second, nil, map[string]float64{}},
	} {
		got := map[string]float64{}
		for _, s := range h.GatewaySamples(now.Add(c.after), c.tunnels) {
			got[s.Name[len("kubeslice_system_slicegw_"):]] = s.Value
			if s.Labels["pod_name"] != "gw-0" || s.Labels["source_gateway_id"] != "red-one-two" || s.Labels["remote_gateway_id"] != "red-two-one" || s.Labels["remote_slice_cluster_id"] != "two" {
				t.Errorf("%s: labels %v", c.name, s.Labels)
			}
		}
		if !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
