package metrics

import "github.com/prometheus/client_golang/prometheus"

// A collector hands the sources' numbers to Prometheus.
type collector []Source

// Describe says nothing: which families there are is known when they are told.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect asks every source.
func (c collector) Collect(out chan<- prometheus.Metric) {
	descs := make(map[*Family]*prometheus.Desc)
	emit := func(f *Family, s Sample) {
		d := descs[f]
		if d == nil {
			d = prometheus.NewDesc(f.Name, f.Help, f.Labels, nil)
			descs[f] = d
		}
		m, err := metric(d, f.Kind, s)
		if err != nil {
			m = prometheus.NewInvalidMetric(d, err)
		}
		out <- m
	}
	for _, source := range c {
		source(emit)
	}
}

func metric(d *prometheus.Desc, kind Kind, s Sample) (prometheus.Metric, error) {
	switch kind {
	case Histogram:
		return prometheus.NewConstHistogram(d, s.Count, s.Sum, s.Buckets, s.Labels...)
	case Counter:
		return prometheus.NewConstMetric(d, prometheus.CounterValue, s.Value, s.Labels...)
	}
	return prometheus.NewConstMetric(d, prometheus.GaugeValue, s.Value, s.Labels...)
}
