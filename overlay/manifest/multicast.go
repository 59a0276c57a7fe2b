package manifest

import (
	"net/netip"
	"slices"
	"strings"

	"slicewire/overlay"
)

// AnnotationMulticast of a SliceConfig names the groups that the slice has:
// "239.1.0.0/16, ff05::/16, 224.0.0.251, 255.255.255.255", or "all". What is sent
// to any other group is dropped.
const AnnotationMulticast = "slicewire.io/multicast"

// maxGroups bounds the prefixes of groups of a slice.
const maxGroups = 64

// multicast reads the annotation into the slice.
func (b *builder) multicast(o *Object, s *overlay.Slice) {
	const field = "metadata.annotations[" + AnnotationMulticast + "]"
	text := strings.TrimSpace(o.Body.(*SliceConfig).Metadata.Annotations[AnnotationMulticast])
	switch {
	case text == "":
		return
	case s.Mode != overlay.SingleNetwork:
		b.fail(o, field, "%s slices have no multicast", s.Mode)
		return
	case text == "all":
		text = "224.0.0.0/4, ff00::/8, 255.255.255.255"
	}
	for word := range strings.SplitSeq(text, ",") {
		word = strings.TrimSpace(word)
		p, err := netip.ParsePrefix(word)
		if a, err2 := netip.ParseAddr(word); err2 == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil || p != p.Masked() || !overlay.IsGroups(p) {
			b.fail(o, field, "%q is no multicast address or prefix, 255.255.255.255 or the word all", word)
			return
		}
		if !slices.Contains(s.Multicast, p) {
			s.Multicast = append(s.Multicast, p)
		}
	}
	if n := len(s.Multicast); n > maxGroups {
		b.fail(o, field, "%d groups, at most %d", n, maxGroups)
	}
}
