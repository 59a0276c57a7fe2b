package manifest

import (
	"strings"
	"testing"
	"time"

	"slicewire/overlay"
)

const classWorld = world + `
---
apiVersion: slicewire.io/v1alpha1
kind: SliceClasses
metadata: {name: red}
spec:
  slice: red
  classes:
  - {name: voice, dscp: [EF, CS5, "44"], bandwidthGuaranteedKbps: 500, bandwidthCeilingKbps: 1000, dscpClass: EF}
  - name: web
    match:
    - {to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 80}, {protocol: UDP, port: 5000, endPort: 5100}]}
    - {from: [{workloads: [camera]}]}
  - {name: bulk, dscp: [AF11], priority: 3, bandwidthGuaranteedKbps: 100}
  - {name: rest, priority: 1, bandwidthGuaranteedKbps: 800}
`

func classesOf(text string) ([]overlay.QoSClass, []Problem) {
	set, problems := Parse("x.yaml", []byte(text))
	mesh, more := Build(set, Options{Now: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)})
	s, ok := mesh.Slice("red")
	if !ok {
		return nil, append(problems, more...)
	}
	return s.QoS.Classes, append(problems, more...)
}

func TestClassesOfASlice(t *testing.T) {
	classes, problems := classesOf(classWorld)
	for _, p := range problems {
		if p.Severity == Error {
			t.Error(p)
		}
	}
	if len(classes) != 4 || classes[0].Name != "voice" || len(classes[0].Codepoints) != 3 || classes[0].Codepoints[2] != 44 ||
		classes[0].CeilingKbps != 1000 || classes[0].DSCP != "EF" || classes[2].Priority != 3 || classes[3].GuaranteedKbps != 800 {
		t.Errorf("%+v", classes)
	}
	web := classes[1].Matches
	if len(web) != 2 || !web[0].From.Anyone || web[0].To.Anyone || len(web[0].To.Peers) != 1 || web[0].To.Peers[0].Block == nil ||
		len(web[0].Ports) != 2 || web[0].Ports[1] != (overlay.PortRange{Proto: overlay.ProtoUDP, First: 5000, Last: 5100}) ||
		web[1].From.Anyone || web[1].From.Peers[0].Workloads[0] != "camera" || !web[1].To.Anyone || web[1].Ports != nil {
		t.Errorf("%+v", web)
	}
}

func TestRulesOfClasses(t *testing.T) {
	for _, tt := range []struct{ name, old, new, want string }{
		{"an unknown slice", "slice: red\n  classes", "slice: rod\n  classes", `there is no SliceConfig "rod"`},
		{"an unknown codepoint", "CS5", "CS9", `"CS9" is none of`},
		{"a codepoint in two classes", "[AF11]", "[EF]", `EF is already in class "voice"`},
		{"a class twice", "name: bulk", "name: voice", `"voice" is there twice`},
		{"a name that is none", "name: bulk", "name: Bulk!", "is not a DNS label"},
		{"a class of nothing", "dscp: [AF11]", "dscp: []", "name at least one codepoint"},
		{"a class of an empty list", "dscp: [AF11]", "match: []", "match: is there and empty"},
		{"a match of nothing", "{from: [{workloads: [camera]}]}", "{}", "names neither from, to nor ports"},
		{"a match of an empty list", "{from: [{workloads: [camera]}]}", "{from: []}", "from: is there and empty"},
		{"a match at no site", "{workloads: [camera]}", "{sites: [nowhere]}", `"nowhere" is not one of the clusters`},
		{"a match of a port of nothing", "ports: [{port: 80},", "ports: [{endPort: 80},", "needs a port to begin with"},
		{"the rest with a match", "name: rest,", "name: rest, match: [{ports: [{port: 1}]}],", "has what no other class has"},
		{"the rest with codepoints", "name: rest,", "name: rest, dscp: [CS1],", "has what no other class has"},
		{"more guaranteed than the ceiling", "bandwidthCeilingKbps: 1000, dscp", "bandwidthCeilingKbps: 400, dscp", "500 is more than bandwidthCeilingKbps 400"},
		{"more guaranteed than the slice may have", "bandwidthGuaranteedKbps: 800", "bandwidthGuaranteedKbps: 9000", "9600 kbit/s are guaranteed in all, the slice's ceiling is 5000"},
		{"a field that is unknown", "priority: 3,", "prio: 3,", "prio"},
		{"a priority out of range", "priority: 3,", "priority: 8,", "8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(classWorld, tt.old, tt.new, 1)
			if text == classWorld {
				t.Fatal("nothing was spoiled")
			}
			classes, problems := classesOf(text)
			for _, p := range problems {
				if p.Severity == Error && strings.Contains(p.String(), tt.want) {
					if len(classes) != 0 {
						t.Errorf("classes with errors are used: %+v", classes)
					}
					return
				}
			}
			t.Errorf("no error says %q: %v", tt.want, problems)
		})
	}
}
