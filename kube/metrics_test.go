package kube

import (
	"os"
	"strings"
	"testing"
)

// Every one of KubeSlice's metrics is told with its labels, or there is a reason why
// not. That those of MetricLabels are told, package hub tests.
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
		if why, left := MetricsLeftOut[name]; left {
			if _, told := MetricLabels[name]; told || len(why) < 20 {
				t.Errorf("%s is left out for %q (told: %v)", name, why, told)
			}
			continue
		}
		got, known := MetricLabels[name]
		if !known || strings.Join(got, ",") != labels {
			t.Errorf("%s has labels %q, here %v (known: %v)", name, labels, got, known)
		}
	}
	if all := len(MetricLabels) + len(MetricsLeftOut); n != all || n < 28 {
		t.Errorf("%d metrics listed, %d known", n, all)
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
