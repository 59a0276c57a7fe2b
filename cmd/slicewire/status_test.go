package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"slicewire/api"
)

func sampleStatus() api.Status {
	at := time.Now().Add(-41 * time.Second)
	return api.Status{
		APIVersion: api.Version, Kind: "Status", Node: "gw", Site: "worker-1", Mesh: "home", UptimeSecs: 90,
		CertExpiry: time.Now().Add(72 * time.Hour), Warnings: []string{"something to do"},
		Slices: []api.SliceStatus{{
			Name: "blue", Subnet: netip.MustParsePrefix("10.7.0.0/16"), Address: netip.MustParseAddr("10.7.0.1"),
			Peers: []api.PeerStatus{
				{Site: "oslo", Node: "gw", Endpoint: "192.0.2.1:51820", LastHandshake: &at, RxBytes: 5 << 20,
					Link:     &api.LinkStatus{Up: true, RTTMs: 3.25, Loss: 0.04, Leaving: true},
					Prefixes: []netip.Prefix{netip.MustParsePrefix("10.7.16.0/20"), netip.MustParsePrefix("10.7.16.0/24"), netip.MustParsePrefix("fd00::/56")}},
				{Site: "\x1b[31mevil", Node: "gw\nnode"},
			},
			Services: []api.ServiceStatus{{Name: "web", Namespace: "shop", DNSNames: []string{"web.shop.svc.slice.local"},
				Ports:     []api.PortStatus{{Port: 80, Protocol: "TCP"}},
				Endpoints: []api.EndpointStatus{{Name: "w0", Site: "oslo", Address: netip.MustParseAddr("10.7.16.9")}}}},
			Publish: []api.PublishStatus{{Service: "shop/api", Backend: "a0", Address: "10.7.0.2", Listening: true, Active: 3}},
			Drops:   map[string]uint64{"source": 14, "malformed": 2},
			Shaping: api.ShapingStatus{CeilingKbps: 5120, Classes: []api.ClassStatus{{Name: "rest"}, {Name: "gold", SentBytes: 3 << 20, SentPackets: 2077, Drops: 17, Marks: 4, WaitingBytes: 7 << 10}}},
		}},
	}
}

func TestStatusSaysWhatIsAndWhatToDo(t *testing.T) {
	var b bytes.Buffer
	if err := printStatus(&b, "table", sampleStatus()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"site worker-1", "up 1m30s", "certificate ends in 2d23h", "! something to do",
		"1/2", "41s ago", "up 3.2ms loss 4% leaving", "never", "5.0 MiB", "10.7.16.0/20,fd00::/56", "malformed:2 source:14",
		"web.shop.svc.slice.local", "80/TCP", "w0@oslo=10.7.16.9", "shop/api a0", "3 active",
		"gold   blue   5120 kbit/s  3.0 MiB  2077     17     4      7.0 KiB",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestNamesFromOutsideCannotDriveTheTerminal(t *testing.T) {
	var b bytes.Buffer
	if err := printStatus(&b, "table", sampleStatus()); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "\x1b") || !strings.Contains(b.String(), `\x1b[31mevil/gw\nnode`) {
		t.Errorf("control characters are not shown escaped:\n%q", b.String())
	}
}

func TestStatusAsJSONAndYAMLIsTheSame(t *testing.T) {
	s := sampleStatus()
	var j, y bytes.Buffer
	if err := printStatus(&j, "json", s); err != nil {
		t.Fatal(err)
	}
	if err := printStatus(&y, "yaml", s); err != nil {
		t.Fatal(err)
	}
	var fromJSON, fromYAML map[string]any
	if err := json.Unmarshal(j.Bytes(), &fromJSON); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(y.Bytes(), &fromYAML); err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(fromJSON)
	b, _ := json.Marshal(fromYAML)
	if !bytes.Equal(a, b) || fromJSON["apiVersion"] != api.Version {
		t.Errorf("json %s\nyaml %s", a, b)
	}
}

func TestEmptyTablesAreNotPrinted(t *testing.T) {
	var b bytes.Buffer
	if err := printStatus(&b, "table", api.Status{Node: "gw"}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), "\n"); n != 1 {
		t.Errorf("%d lines for a node without slices:\n%s", n, b.String())
	}
}
