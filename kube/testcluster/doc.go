// Testcluster runs real Kubernetes clusters for tests: etcd, API server,
// controller manager, scheduler, and nodes with kubelet, kube-proxy, containerd
// and pods, without a registry and without touching the machine it runs on.
//
//	testcluster build                      builds Kubernetes, once for a version
//	testcluster up [--clusters --nodes]    runs clusters until its standard input ends
//	testcluster image -o X.tar FILE...     makes an image of files
//
// Everything of a rig lives in namespaces of its own:
//
//	the caller's namespaces ── host link (a veth of two addresses) ── rig
//	rig    one PID, mount and network namespace; its network is the fabric: a
//	       bridge that joins all nodes, on which the control planes listen
//	node   a mount and network namespace on the fabric, with /run, /var/lib and
//	       /var/log of its own
//
// State is in a tmpfs of the rig's mount namespace. When the rig's first process
// ends, the kernel ends all others and takes everything away but the cgroups,
// which whoever started the rig removes. A killed starter ends the rig as well.
//
// It is a module of its own: the versions that Kubernetes pins are not the
// product's. Root is needed. It is Linux on amd64 or arm64 only.
package main
