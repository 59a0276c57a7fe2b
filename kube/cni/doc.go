// Package cni is slicewire's plugin of the Container Network Interface, version
// 1.1: it puts pods on slices, by a device in the pod's own network namespace
// with addresses of its own. It runs behind a cluster's own plugin, whose result
// it passes on as it is, or by itself, as a Multus network.
//
// What it does to a namespace is the daemon's and its client's part, behind the
// interface Daemon. What the package keeps is a record of every attachment, a
// file of its own, so that DEL and GC work by container whatever became of its
// namespace, and so that Keep puts pods back on their slices, with their
// addresses, after the daemon was restarted.
//
// A record is locked by whoever works on it; the plugin's processes and Keep may
// run at the same time. Decisions are in choose.go and chain.go, which do no I/O.
package cni
