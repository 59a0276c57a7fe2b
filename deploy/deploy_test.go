package deploy

import (
	"testing"
)

func TestRenderX(t *testing.T) {
	out, err := Render(Release{Values: map[string]any{"site": "worker-1", "crds": map[string]any{"install": false}, "mesh": map[string]any{"authority": "-----BEGIN\nabc\n-----END\n", "issuers": []any{"a:1"}, "gateways": []any{"b:1"}}, "manifests": map[string]any{"a.yaml": "x: 1\n"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(out)
}
