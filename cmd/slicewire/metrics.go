package main

import (
	"fmt"
	"log/slog"
	"net"

	"slicewire/dnsd"
	"slicewire/metrics"
	"slicewire/netstack/publish"
	"slicewire/overlay/manifest"
)

// openMetrics prepares what shows the node's numbers; nil if nothing does.
func (d *daemon) openMetrics() (s *metrics.Server, err error) {
	if d.metrics, err = listenMetrics(d.want.file, d.log); d.metrics == nil {
		return nil, err
	}
	return metrics.New(metrics.Config{Listener: d.metrics, Sources: []metrics.Source{d.measure}, Log: d.log})
}

// listenMetrics opens where the node file has metrics served; nil if nowhere.
// The default address may be taken, as by another node of the machine: that
// keeps no node from its work.
func listenMetrics(file *manifest.NodeFile, log *slog.Logger) (net.Listener, error) {
	if file.Metrics == manifest.MetricsOff {
		return nil, nil
	}
	l, err := net.Listen("tcp", file.Metrics)
	switch {
	case err == nil:
		return l, nil
	case file.Metrics == manifest.DefaultMetrics:
		log.Warn("metrics are not served: set metrics in the node file to another address, or to off", "err", err)
		return nil, nil
	}
	return nil, fmt.Errorf("metrics: %w", err)
}

var (
	infoFamily = &metrics.Family{Name: "slicewire_info", Help: "The node; always 1.", Kind: metrics.Gauge, Labels: []string{"version", "mesh", "site", "node"}}

	dnsQueries   = counterOf("slicewire_dns_queries_total", "Questions answered, by type and response code.", "slice", "type", "rcode")
	dnsAnswers   = counterOf("slicewire_dns_answers_total", "Answers, by where they came from: local, cache, upstream, stale; failed: upstream had none.", "slice", "source")
	dnsDropped   = counterOf("slicewire_dns_dropped_total", "Messages and connections without an answer, by reason.", "slice", "reason")
	dnsTruncated = counterOf("slicewire_dns_truncated_total", "Answers that were cut off.", "slice")
	dnsForwarded = counterOf("slicewire_dns_forwarded_total", "Questions that were asked upstream.", "slice")
	dnsForged    = counterOf("slicewire_dns_forged_total", "Replies from upstream that belonged to no question.", "slice")
	dnsNames     = &metrics.Family{Name: "slicewire_dns_names", Help: "Names that are kept.", Kind: metrics.Gauge, Labels: []string{"slice"}}
	dnsStreams   = &metrics.Family{Name: "slicewire_dns_streams", Help: "Open TCP connections to the name server.", Kind: metrics.Gauge, Labels: []string{"slice"}}
	dnsDuration  = &metrics.Family{Name: "slicewire_dns_query_duration_seconds", Help: "From a question's arrival to its answer.", Kind: metrics.Histogram, Labels: []string{"slice"}}

	clusterLeft = &metrics.Family{Name: "slicewire_cluster_incomplete", Help: "What the node's part in its Kubernetes cluster has no room for: ipv6-only (endpoints without an IPv4 address), not-published (endpoints), no-port (ports of imported services).", Kind: metrics.Gauge, Labels: []string{"what"}}

	podNumbersHeld  = &metrics.Family{Name: "slicewire_pod_numbers", Help: "Numbers of pods that an issuer keeps: used, ended (the pod may come back) and waiting (not heard of yet, or void but not free).", Kind: metrics.Gauge, Labels: []string{"state"}}
	numberConflicts = counterOf("slicewire_pod_number_conflicts_total", "Numbers that two nodes had: the later one was put out.")

	virtualConns    = &metrics.Family{Name: "slicewire_virtual_connections", Help: "Open TCP connections and UDP flows by virtual addresses.", Kind: metrics.Gauge, Labels: []string{"slice", "protocol"}}
	virtualAccepted = counterOf("slicewire_virtual_accepted_total", "TCP connections and UDP flows taken by virtual addresses.", "slice")
	virtualFailed   = counterOf("slicewire_virtual_failed_total", "TCP connections and UDP flows by virtual addresses that came to nothing, by reason.", "slice", "reason")
)

func counterOf(name, help string, labels ...string) *metrics.Family {
	return &metrics.Family{Name: name, Help: help, Kind: metrics.Counter, Labels: labels}
}

// measure tells the node's numbers.
func (d *daemon) measure(emit func(*metrics.Family, metrics.Sample)) {
	a := d.id.authority()
	emit(infoFamily, metrics.Sample{Labels: []string{versionString(), a.Mesh, a.ID.Site, a.ID.Node}, Value: 1})
	if s := d.cluster.status(); s != nil {
		for what, n := range map[string]int{"ipv6-only": s.IPv6Only, "not-published": s.NoAddress, "no-port": s.NoPort} {
			emit(clusterLeft, metrics.Sample{Labels: []string{what}, Value: float64(n)})
		}
	}
	if d.issue != nil {
		used, ended, waiting := d.issue.numbers.counts()
		for state, n := range map[string]int{"used": used, "ended": ended, "waiting": waiting} {
			emit(podNumbersHeld, metrics.Sample{Labels: []string{state}, Value: float64(n)})
		}
		emit(numberConflicts, metrics.Sample{Value: float64(d.issue.clashes.Load())})
	}
	view := d.view.Load()
	if view == nil {
		return
	}
	for i := range view.slices {
		n := view.slices[i].node
		measureNames(n.name, n.names.Stats(), emit)
		measureVirtual(n.name, n.virtual.Status(), emit)
	}
}

func measureNames(slice string, st dnsd.Stats, emit func(*metrics.Family, metrics.Sample)) {
	count := func(f *metrics.Family, n uint64, labels ...string) {
		emit(f, metrics.Sample{Labels: append([]string{slice}, labels...), Value: float64(n)})
	}
	for qtype, byCode := range st.Queries {
		for code, n := range byCode {
			count(dnsQueries, n, qtype, code)
		}
	}
	for from, n := range st.From {
		count(dnsAnswers, n, from)
	}
	for reason, n := range st.Dropped {
		count(dnsDropped, n, reason)
	}
	count(dnsTruncated, st.Truncated)
	count(dnsForwarded, st.Forwarded)
	count(dnsForged, st.Forged)
	count(dnsNames, uint64(st.Names))
	count(dnsStreams, uint64(st.Streams))
	h := metrics.Sample{Labels: []string{slice}, Sum: st.Took.Sum.Seconds(), Buckets: make(map[float64]uint64)}
	for i, n := range st.Took.Counts {
		if h.Count += n; i < len(st.Took.Counts)-1 {
			h.Buckets[dnsd.DurationBound(i).Seconds()] = h.Count
		}
	}
	emit(dnsDuration, h)
}

func measureVirtual(slice string, all []publish.BackendStatus, emit func(*metrics.Family, metrics.Sample)) {
	var sum publish.BackendStatus
	for _, b := range all {
		sum.Conns += b.Conns
		sum.Flows += b.Flows
		sum.Accepted += b.Accepted
		sum.Refused += b.Refused
		sum.Unreached += b.Unreached
		sum.Evicted += b.Evicted
		sum.Dropped += b.Dropped
	}
	emit(virtualConns, metrics.Sample{Labels: []string{slice, "tcp"}, Value: float64(sum.Conns)})
	emit(virtualConns, metrics.Sample{Labels: []string{slice, "udp"}, Value: float64(sum.Flows)})
	emit(virtualAccepted, metrics.Sample{Labels: []string{slice}, Value: float64(sum.Accepted)})
	for reason, n := range map[string]uint64{"limit": sum.Refused, "unreached": sum.Unreached, "evicted": sum.Evicted, "datagram": sum.Dropped} {
		emit(virtualFailed, metrics.Sample{Labels: []string{slice, reason}, Value: float64(n)})
	}
}

func (d *daemon) metricsAddr() string {
	if d.metrics == nil {
		return ""
	}
	return d.metrics.Addr().String()
}
