package manifest

import (
	"net/netip"
	"slices"
	"strings"

	"slicewire/overlay"
)

// AnnotationSiteRoutes of a SliceConfig gives networks behind its clusters to
// them: "CLUSTER=PREFIX,PREFIX; CLUSTER=PREFIX". Nodes of a cluster may announce
// what is given to it, or a part; its certificates grant it.
// What overlaps another cluster's is known on the slice by a prefix of its own.
const AnnotationSiteRoutes = "slicewire.io/site-routes"

// AnnotationMapRange of a SliceConfig says what those prefixes are taken from:
// "PREFIX", one for each family or for one of them. Without it they are
// overlay.DefaultMapRange and overlay.MapRange6.
const AnnotationMapRange = "slicewire.io/map-range"

// maxSiteRoutes of one site: with its own prefixes and blocks they fit a record.
const maxSiteRoutes = 32

// siteRoutes reads the annotation into the sites.
func (b *builder) siteRoutes(o *Object, s *overlay.Slice) {
	const field = "metadata.annotations[" + AnnotationSiteRoutes + "]"
	text := o.Body.(*SliceConfig).Metadata.Annotations[AnnotationSiteRoutes]
	if text == "" {
		return
	}
	if s.Mode != overlay.SingleNetwork {
		b.fail(o, field, "%s slices have no routes", s.Mode)
		return
	}
	for entry := range strings.SplitSeq(text, ";") {
		if strings.TrimSpace(entry) == "" {
			continue
		}
		name, list, ok := strings.Cut(entry, "=")
		name = strings.TrimSpace(name)
		i := slices.IndexFunc(s.Sites, func(x overlay.SliceSite) bool { return x.Name == name })
		if !ok || i < 0 {
			b.fail(o, field, "%q: want CLUSTER=PREFIX,PREFIX with a cluster of the slice", strings.TrimSpace(entry))
			return
		}
		for word := range strings.SplitSeq(list, ",") {
			p, ok := routedPrefix(word)
			if !ok {
				b.fail(o, field, "%q of %s is no prefix that can be routed", strings.TrimSpace(word), name)
				return
			}
			for _, x := range append([]netip.Prefix{s.Subnet, s.Subnet6}, s.Sites[i].Routes...) {
				if x.Overlaps(p) {
					b.fail(o, field, "%v of %s overlaps %v, which is the slice's or its own", p, name, x)
					return
				}
			}
			s.Sites[i].Routes = append(s.Sites[i].Routes, p)
		}
		if n := len(s.Sites[i].Routes); n > maxSiteRoutes {
			b.fail(o, field, "%d routes of %s, at most %d", n, name, maxSiteRoutes)
			return
		}
	}
	ranges, ok := b.mapRanges(o)
	if !ok {
		return
	}
	if err := overlay.MapRoutes(s, ranges); err != nil {
		b.fail(o, field, "%v: give a wider range in the annotation %s", err, AnnotationMapRange)
	}
}

// mapRanges reads the annotation about mapped prefixes.
func (b *builder) mapRanges(o *Object) (ranges []netip.Prefix, ok bool) {
	const field = "metadata.annotations[" + AnnotationMapRange + "]"
	text := o.Body.(*SliceConfig).Metadata.Annotations[AnnotationMapRange]
	if text == "" {
		return nil, true
	}
	for word := range strings.SplitSeq(text, ",") {
		p, ok := routedPrefix(word)
		if !ok || slices.ContainsFunc(ranges, func(q netip.Prefix) bool { return q.Addr().Is4() == p.Addr().Is4() }) {
			b.fail(o, field, "%q: want one prefix of each family at most, and none that cannot be routed", text)
			return nil, false
		}
		ranges = append(ranges, p)
	}
	return ranges, true
}

// routedPrefix reads a prefix that may be behind a router.
func routedPrefix(text string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(strings.TrimSpace(text))
	return p, err == nil && p == p.Masked() && !p.Addr().Is4In6() && p.Bits() != 0 && routable(p.Addr())
}

// routable reports whether addresses of this kind may be behind a router.
func routable(a netip.Addr) bool {
	return a.IsGlobalUnicast() && (!a.Is4() || (a.As4()[0] != 0 && a.As4()[0] < 240))
}
