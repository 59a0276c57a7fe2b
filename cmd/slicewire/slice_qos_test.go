package main

import (
	"math"
	"testing"

	"slicewire/overlay"
	"slicewire/shaper"
)

func TestACeilingIsTheSites(t *testing.T) {
	id := func(site, node string) overlay.NodeID { return overlay.NodeID{Site: site, Node: node} }
	s := &overlay.Slice{Sites: []overlay.SliceSite{{Name: "a"}, {Name: "b"}, {Name: "c"}}}
	nodes := []overlay.Node{
		{ID: id("a", "g1"), Gateway: true}, {ID: id("a", "g2"), Gateway: true}, {ID: id("a", "w")},
		{ID: id("b", "g1"), Gateway: true},
	}
	for _, tt := range []struct {
		name string
		self overlay.NodeID
		gone map[string]bool
		want map[string]overlay.Demand
		part float64
		from int
		many bool
	}{
		{"two gateways of which nobody knows have half each", id("a", "g1"), nil, nil, 0.5, 4, true},
		{"half each, too, while one is not known", id("a", "g1"), nil, map[string]overlay.Demand{"a/g1": overlay.DemandOf(1)}, 0.5, 4, true},
		{"one beside an idle one has nearly all", id("a", "g1"), nil, map[string]overlay.Demand{"a/g1": overlay.DemandOf(1), "a/g2": overlay.DemandOf(0)}, 0.975, 4, true},
		{"the idle one has the rest", id("a", "g2"), nil, map[string]overlay.Demand{"a/g1": overlay.DemandOf(1), "a/g2": overlay.DemandOf(0)}, 0.025, 4, true},
		{"one whose fellow is gone has all", id("a", "g1"), map[string]bool{"a/g2": true}, nil, 1, 4, false},
		{"one that takes itself for gone still counts", id("a", "g1"), map[string]bool{"a/g1": true}, nil, 0.5, 4, true},
		{"who is no gateway has all, up to its gateways", id("a", "w"), nil, nil, 1, 4, false},
		{"a lone gateway has all", id("b", "g1"), nil, nil, 1, 2, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if part, from, many := partOf(tt.self, s, nodes, tt.gone, tt.want); math.Abs(part-tt.part) > 1e-9 || from != tt.from || many != tt.many {
				t.Errorf("%v of the ceiling, %d may send, %v; want %v, %d and %v", part, from, many, tt.part, tt.from, tt.many)
			}
		})
	}
}

func TestAQoSProfileBecomesAPlan(t *testing.T) {
	p := planOf(overlay.QoS{CeilingKbps: 5120, GuaranteedKbps: 2560, Priority: 1, DSCP: "AF11", Classes: []overlay.QoSClass{
		{Name: "voice", Codepoints: []uint8{46, 40}, GuaranteedKbps: 500, CeilingKbps: 1000, DSCP: "EF"},
	}}, new(sliceClasses))
	if want := (shaper.Share{Guaranteed: 2560 * shaper.Kbps, Ceiling: 5120 * shaper.Kbps, Priority: 1}); p.Share != want {
		t.Errorf("the slice has %+v", p.Share)
	}
	if len(p.Classes) != 2 || p.Classes[0].Name != overlay.RestClass || p.Classes[1].Name != "voice" {
		t.Fatalf("classes %+v", p.Classes)
	}
	if rest := p.Classes[0]; rest.Guaranteed != 2060*shaper.Kbps || !rest.Mark || rest.DSCP != 10 {
		t.Errorf("the rest has %+v", rest)
	}
	if voice := p.Classes[1]; voice.Ceiling != 1000*shaper.Kbps || !voice.Mark || voice.DSCP != 46 {
		t.Errorf("voice has %+v", voice)
	}
	pkt := make([]byte, 20)
	for dscp, class := range map[byte]int{46: 1, 40: 1, 0: 0, 10: 0} {
		pkt[0], pkt[1] = 0x45, dscp<<2
		if got := p.Classify(pkt); got != class {
			t.Errorf("DSCP %d is in class %d, want %d", dscp, got, class)
		}
	}
	if p := planOf(overlay.QoS{}, new(sliceClasses)); p.Ceiling != 0 || len(p.Classes) != 1 || p.Classify != nil || p.Classes[0].Mark {
		t.Errorf("no QoS is %+v", p)
	}
	if half := (overlay.QoS{CeilingKbps: 10, GuaranteedKbps: 1}).Scaled(1, 2); half.CeilingKbps != 5 || half.GuaranteedKbps != 1 {
		t.Errorf("half of it is %+v", half)
	}
}
