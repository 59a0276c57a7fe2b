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
const AnnotationSiteRoutes = "slicewire.io/site-routes"

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
	type given struct {
		site   string
		prefix netip.Prefix
	}
	all := []given{{"the slice itself", s.Subnet}, {"the slice itself", s.Subnet6}}
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
			p, err := netip.ParsePrefix(strings.TrimSpace(word))
			if err != nil || p != p.Masked() || p.Addr().Is4In6() || p.Bits() == 0 || !routable(p.Addr()) {
				b.fail(o, field, "%q of %s is no prefix that can be routed", strings.TrimSpace(word), name)
				return
			}
			for _, x := range all {
				if x.prefix.Overlaps(p) {
					b.fail(o, field, "%v of %s overlaps %v of %s", p, name, x.prefix, x.site)
					return
				}
			}
			all = append(all, given{name, p})
			s.Sites[i].Routes = append(s.Sites[i].Routes, p)
		}
		if n := len(s.Sites[i].Routes); n > maxSiteRoutes {
			b.fail(o, field, "%d routes of %s, at most %d", n, name, maxSiteRoutes)
			return
		}
	}
}

// routable reports whether addresses of this kind may be behind a router.
func routable(a netip.Addr) bool {
	return a.IsGlobalUnicast() && (!a.Is4() || (a.As4()[0] != 0 && a.As4()[0] < 240))
}
