package manifest

import (
	"fmt"

	"slicewire/overlay"
)

// maxClasses bounds the classes of a slice, as the shaper does, less the rest.
const maxClasses = 15

// maxClassMatches bounds what picks the packets of one slice's classes: each
// packet is asked about.
const maxClassMatches = 256

// SliceClasses divides a slice's bandwidth between classes of its packets.
type SliceClasses struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	Metadata   Metadata         `json:"metadata" req:"1"`
	Spec       SliceClassesSpec `json:"spec" req:"1"`
	Status     *Conditions      `json:"status"`
}

// SliceClassesSpec is SliceClasses.spec.
type SliceClassesSpec struct {
	Slice   string       `json:"slice" req:"1"`
	Classes []SliceClass `json:"classes" req:"1"`
}

// SliceClass is a class, by who speaks to whom or by the DSCP of its packets;
// rates in kbit/s.
type SliceClass struct {
	Name                    string       `json:"name" req:"1"`
	Match                   []ClassMatch `json:"match"`
	DSCP                    []string     `json:"dscp"` // names or numbers
	Priority                int          `json:"priority" min:"0" max:"7"`
	BandwidthCeilingKbps    int          `json:"bandwidthCeilingKbps" min:"0"` // 0: the slice's
	BandwidthGuaranteedKbps int          `json:"bandwidthGuaranteedKbps" min:"0"`
	DscpClass               string       `json:"dscpClass" default:"Default" enum:"Default,AF11,AF12,AF13,AF21,AF22,AF23,AF31,AF32,AF33,AF41,AF42,AF43,EF"`
}

// ClassMatch picks packets between two ends, both ways, by all that it names.
type ClassMatch struct {
	From  *[]PolicySelector `json:"from"` // who asks
	To    *[]PolicySelector `json:"to"`   // who is asked
	Ports *[]PolicyPort     `json:"ports"`
}

// buildClasses gives the slices their classes.
func (b *builder) buildClasses() {
	seen := map[string]*Object{}
	for _, o := range b.byKind["SliceClasses"] {
		spec := &o.Body.(*SliceClasses).Spec
		s, ok := b.mesh.Slice(spec.Slice)
		switch {
		case spec.Slice == "":
			continue // reported as required
		case !ok:
			if !b.leftOut[spec.Slice] {
				b.report(b.absence(o), o, "spec.slice", "there is no SliceConfig %q%s", spec.Slice, didYouMean(spec.Slice, b.names("SliceConfig")))
			}
			continue
		case seen[spec.Slice] != nil:
			b.fail(o, "spec.slice", "slice %q has its classes from %s", spec.Slice, seen[spec.Slice].ID())
			continue
		}
		seen[spec.Slice] = o
		if classes := b.classes(o, spec, s); !o.Broken {
			s.QoS.Classes = classes
		}
	}
}

// classes checks and converts the classes of a slice.
func (b *builder) classes(o *Object, spec *SliceClassesSpec, s *overlay.Slice) []overlay.QoSClass {
	q := &s.QoS
	if n := len(spec.Classes); n > maxClasses {
		b.fail(o, "spec.classes", "%d classes are more than %d", n, maxClasses)
		return nil
	}
	var out []overlay.QoSClass
	names, owner, sum, matches := map[string]bool{}, map[uint8]string{}, 0, 0
	for i, c := range spec.Classes {
		at := fmt.Sprintf("spec.classes[%d].", i)
		x := overlay.QoSClass{
			Name: c.Name, Priority: c.Priority, DSCP: c.DscpClass,
			CeilingKbps: c.BandwidthCeilingKbps, GuaranteedKbps: c.BandwidthGuaranteedKbps,
		}
		switch {
		case c.Name != "" && !overlay.ValidLabel(c.Name):
			b.fail(o, at+"name", "%q is not a DNS label (a-z, 0-9, inner hyphens, at most 63)", c.Name)
		case names[c.Name]:
			b.fail(o, at+"name", "%q is there twice", c.Name)
		case c.Name == overlay.RestClass && len(c.DSCP)+len(c.Match) > 0:
			b.fail(o, at+"name", "the class %q has what no other class has", c.Name)
		case c.Name != overlay.RestClass && len(c.DSCP)+len(c.Match) == 0:
			b.fail(o, at+"dscp", "name at least one codepoint, or a match")
		}
		b.nonEmpty(o, at+"match", len(c.Match))
		for j, m := range c.Match {
			x.Matches = append(x.Matches, b.classMatch(o, s, fmt.Sprintf("%smatch[%d]", at, j), m))
		}
		if matches += len(c.Match); matches > maxClassMatches {
			b.fail(o, at+"match", "the classes of slice %s have more than %d matches together", s.Name, maxClassMatches)
		}
		names[c.Name] = true
		for j, name := range c.DSCP {
			p, ok := overlay.DSCP(name)
			switch {
			case !ok:
				b.fail(o, fmt.Sprintf("%sdscp[%d]", at, j), "%q is none of Default, EF, AF11 to AF43, CS0 to CS7, 0 to 63", name)
			case owner[p] != "":
				b.fail(o, fmt.Sprintf("%sdscp[%d]", at, j), "%s is already in class %q", name, owner[p])
			default:
				owner[p] = c.Name
				x.Codepoints = append(x.Codepoints, p)
			}
		}
		if c.BandwidthCeilingKbps > 0 && c.BandwidthGuaranteedKbps > c.BandwidthCeilingKbps {
			b.fail(o, at+"bandwidthGuaranteedKbps", "%d is more than bandwidthCeilingKbps %d", c.BandwidthGuaranteedKbps, c.BandwidthCeilingKbps)
		}
		if q.CeilingKbps > 0 && c.BandwidthCeilingKbps > q.CeilingKbps {
			b.warn(o, at+"bandwidthCeilingKbps", "%d is more than the slice's ceiling of %d, which holds", c.BandwidthCeilingKbps, q.CeilingKbps)
		}
		sum += c.BandwidthGuaranteedKbps
		out = append(out, x)
	}
	switch {
	case q.CeilingKbps > 0 && sum > q.CeilingKbps:
		b.fail(o, "spec.classes", "%d kbit/s are guaranteed in all, the slice's ceiling is %d", sum, q.CeilingKbps)
	case sum > q.GuaranteedKbps:
		b.warn(o, "spec.classes", "%d kbit/s are guaranteed in all, to the slice itself only %d: where slices share an uplink, classes may get less", sum, q.GuaranteedKbps)
	}
	return out
}

func (b *builder) classMatch(o *Object, s *overlay.Slice, at string, m ClassMatch) overlay.ClassMatch {
	if m.From == nil && m.To == nil && m.Ports == nil {
		b.fail(o, at, "names neither from, to nor ports: what every packet is in is the class %q", overlay.RestClass)
	}
	var out overlay.ClassMatch
	if out.From.Anyone = m.From == nil; m.From != nil {
		out.From.Peers = b.selectors(o, s, at+".from", *m.From)
	}
	b.nonEmpty(o, at+".from", len(out.From.Peers))
	out.To = b.policyRule(o, s, at, "to", m.To, m.Ports)
	out.Ports = out.To.Ports
	return out
}
