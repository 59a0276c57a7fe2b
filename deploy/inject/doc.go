// Package inject puts slicewire as a sidecar into pods, in manifests: an init
// container that joins the mesh with the pod's own token, and a sidecar
// container (Kubernetes 1.29) beside the pod's others, none of which is changed.
// The sidecar needs no privilege. All that it reads is in annotations of the pod,
// so that nothing else has to be there.
//
// Documents in which there is nothing to do stay as they are, byte by byte; in
// others, order and comments stay. To inject again is to bring up to date.
//
// The package does no I/O and keeps nothing. All functions may be called
// concurrently.
package inject
