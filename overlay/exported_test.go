package overlay

import (
	"maps"
	"strings"
	"testing"
)

func TestExportedIsWhatKubernetesTakes(t *testing.T) {
	one := func(k, v string) map[string]string { return map[string]string{k: v} }
	for _, c := range []struct {
		name string
		in   Exported
		want string // part of what is wrong; empty: nothing
	}{
		{"none", Exported{}, ""},
		{"a label and an annotation", Exported{one("app.kubernetes.io/name", "web"), one("example.com/note", "any <text> & more")}, ""},
		{"a label without a value", Exported{Labels: one("a", "")}, ""},
		{"a key with a newline", Exported{Labels: one("a\nb", "x")}, "not a key"},
		{"a key with markup", Exported{Annotations: one("<b>", "x")}, "not a key"},
		{"a label's value with a space", Exported{Labels: one("a", "b c")}, "no value"},
		{"a long label", Exported{Labels: one("a", strings.Repeat("x", 64))}, "no value"},
		{"an annotation with a newline", Exported{Annotations: one("a", "b\nc")}, "control"},
		{"a mebibyte", Exported{Annotations: one("a", strings.Repeat("x", 1<<20))}, "at most"},
		{"who manages an object", Exported{Labels: one("app.kubernetes.io/managed-by", "slicewire")}, "may not set"},
		{"Kubernetes' own", Exported{Labels: one("topology.kubernetes.io/zone", "x")}, "may not set"},
		{"KubeSlice's own", Exported{Labels: one("kubeslice.io/slice", "red")}, "may not set"},
		{"slicewire's own", Exported{Annotations: one("slicewire.io/slice", "red")}, "may not set"},
	} {
		text, err := c.in.Encode()
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
			continue
		}
		if got := DecodeExported(text); err == nil && (!maps.Equal(got.Labels, c.in.Labels) || !maps.Equal(got.Annotations, c.in.Annotations)) {
			t.Errorf("%s: %q is read as %v", c.name, text, got)
		}
	}
	for _, text := range []string{"{", `{"l":{"kubernetes.io/x":"y"}}`, `{"a":{"a":"b\u0000"}}`, `{"l":{"a":1}}`, strings.Repeat(" ", MaxExported) + "{}"} {
		if got := DecodeExported(text); got.Labels != nil || got.Annotations != nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}
