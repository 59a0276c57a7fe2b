package kube

import (
	"os"
	"strings"
	"testing"
)

func TestMetricsAreKubeSlices(t *testing.T) {
	text, err := os.ReadFile("testdata/kubeslice-metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		name, labels, ok := strings.Cut(strings.TrimSpace(line), "|")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		n++
		got, known := MetricLabels[name]
		if !known || strings.Join(got, ",") != labels {
			t.Errorf("%s has labels %q, here %v (known: %v)", name, labels, got, known)
		}
	}
	if n != len(MetricLabels) || n < 14 {
		t.Errorf("%d metrics listed, %d known", n, len(MetricLabels))
	}
}

func TestSamplesAreWrittenForPrometheus(t *testing.T) {
	var b strings.Builder
	err := WriteSamples(&b, []Sample{
		{"kubeslice_slice_up", map[string]string{"slice": "a\"b\n"}, 1},
		{"kubeslice_cluster_up", map[string]string{"slice_cluster": "one", "slice_project": "demo"}, 1},
		{"kubeslice_slice_up", map[string]string{"slice": "c"}, 0},
		{"kubeslice_slice_created_total", map[string]string{"slice": "c"}, 3},
	})
	const want = `# TYPE kubeslice_cluster_up gauge
kubeslice_cluster_up{slice_cluster="one",slice_project="demo"} 1
# TYPE kubeslice_slice_created_total counter
kubeslice_slice_created_total{slice="c"} 3
# TYPE kubeslice_slice_up gauge
kubeslice_slice_up{slice="a\"b\n"} 1
kubeslice_slice_up{slice="c"} 0
`
	if err != nil || b.String() != want {
		t.Errorf("%v\n%s", err, b.String())
	}
}
