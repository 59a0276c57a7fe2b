// Package kube is what the parts that speak to a Kubernetes API server share: a
// client, watches, a writer that writes only what differs, events, and the names
// of labels and annotations. What the objects mean is decided in kube/hub and
// kube/cluster.
//
// A Client, a Watch's readers, an Applier and a Recorder may be used by several
// goroutines at once. Objects that a Watch returns are shared: they are read and
// never changed.
package kube
