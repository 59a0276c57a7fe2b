package kube

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// A Sample is a value under the name of a metric, one of KubeSlice's where it has
// one.
type Sample struct {
	Name   string
	Labels map[string]string
	Value  float64
}

// MetricLabels are KubeSlice's metrics that a node tells, with the labels that they
// have besides those of all of a worker's (see MetricBase). It is never written to.
var MetricLabels = map[string][]string{
	"kubeslice_cluster_up":                  {},
	"kubeslice_cluster_component_up":        {"slice_cluster_component"},
	"kubeslice_slice_up":                    {"slice"},
	"kubeslice_slice_component_up":          {"slice", "slice_component"},
	"kubeslice_app_pods":                    {"slice", "slice_namespace"},
	"kubeslice_serviceexport_endpoints":     {"slice", "slice_namespace", "slice_service"},
	"kubeslice_serviceexport_aliases":       {"slice", "slice_namespace", "slice_service"},
	"kubeslice_serviceimport_endpoints":     {"slice", "slice_namespace", "slice_service"},
	"kubeslice_slice_created_total":         {"slice"},
	"kubeslice_slice_updated_total":         {"slice"},
	"kubeslice_slice_deleted_total":         {"slice"},
	"kubeslice_slice_creation_failed_total": {"slice"},
	"kubeslice_slice_updation_failed_total": {"slice"},
	"kubeslice_slice_deletion_failed_total": {"slice"},

	// Of a gateway: all their labels. Milliseconds, percent, and bytes a second.
	"kubeslice_system_slicegw_latency":  gatewayLabels,
	"kubeslice_system_slicegw_pkt_loss": gatewayLabels,
	"kubeslice_system_slicegw_rx_rate":  gatewayLabels,
	"kubeslice_system_slicegw_tx_rate":  gatewayLabels,
}

var gatewayLabels = []string{"pod_name", "slice_name", "source_slice_cluster_id", "remote_slice_cluster_id", "source_gateway_id", "remote_gateway_id"}

// MetricsLeftOut are those of KubeSlice's metrics that have no meaning here, and
// why. It is never written to.
var MetricsLeftOut = map[string]string{
	"kubeslice_controller_events_counter":                  "it grows by a series for every object and event; the events themselves are on the hub, each with its count",
	"kubeslice_controller_ipam_allocation_latency_seconds": "every node works addresses out by itself: nobody is asked for them, and nothing waits",
	"kubeslice_controller_ipam_total_subnets":              "a slice's SliceIpam says it on the hub; nodes only read that",
	"kubeslice_controller_ipam_available_subnets":          "a slice's SliceIpam says it on the hub; nodes only read that",
	"kubeslice_controller_ipam_allocated_subnets":          "a slice's SliceIpam says it on the hub; nodes only read that",
	"kubeslice_controller_ipam_utilization_rate":           "a slice's SliceIpam says it on the hub; nodes only read that",
	"kubeslice_controller_ipam_fragmentation_rate":         "subnets of a slice are of one size: none is lost between others",
	"kubeslice_controller_ipam_allocations_total":          "nodes allocate none: they only read SliceIpam",
	"kubeslice_controller_ipam_releases_total":             "nodes release none: they only read SliceIpam",
	"kubeslice_controller_ipam_cleanups_total":             "nodes release none: they only read SliceIpam",
}

// MetricBase returns the labels that all of KubeSlice's metrics of a worker have.
func MetricBase(project, cluster string) map[string]string {
	return map[string]string{"slice_project": project, "slice_cluster": cluster, "slice_reporting_controller": "workerOperator"}
}

// WriteSamples writes samples as Prometheus reads them, those of one name
// together.
func WriteSamples(w io.Writer, samples []Sample) error {
	samples = slices.Clone(samples)
	slices.SortStableFunc(samples, func(a, b Sample) int { return strings.Compare(a.Name, b.Name) })
	last := ""
	for _, s := range samples {
		if s.Name != last {
			kind := "gauge"
			if strings.HasSuffix(s.Name, "_total") {
				kind = "counter"
			}
			if _, err := fmt.Fprintf(w, "# TYPE %s %s\n", s.Name, kind); err != nil {
				return err
			}
			last = s.Name
		}
		var labels []string
		for _, k := range slices.Sorted(maps.Keys(s.Labels)) {
			labels = append(labels, k+`="`+labelEscaper.Replace(s.Labels[k])+`"`)
		}
		if _, err := fmt.Fprintf(w, "%s{%s} %v\n", s.Name, strings.Join(labels, ","), s.Value); err != nil {
			return err
		}
	}
	return nil
}

var labelEscaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
