// Package cluster is slicewire's part in the cluster that it runs in: which
// services go onto a slice, and what stands in the cluster for those that come
// from it.
//
// A Cluster watches ServiceExports of KubeSlice and of the Multi-Cluster Services
// API, Services, EndpointSlices, Pods, Namespaces and NetworkPolicies. From them
// and from what the daemon tells (Set) it works out, in pure functions,
//
//   - for the daemon (Result): which endpoints to publish, on which ports of this
//     pod to listen for whom (Doors), and which names stand for which addresses;
//   - for the cluster: ServiceImports, the Services and EndpointSlices that stand
//     for imported services, labels and NetworkPolicies of isolation, and the
//     statuses of exports.
//
// It opens no socket of its own but to the API server, never changes an object
// that slicewire did not make, but for labels of namespaces and statuses, and
// does nothing to the cluster before the daemon has told it what there is. All
// methods of a Cluster may be called concurrently.
package cluster
