// Testcluster runs real Kubernetes clusters for tests: etcd, API server,
// controller manager, scheduler, and nodes with kubelet, kube-proxy, containerd
// and pods, without a registry and without touching the machine it runs on.
//
//	testcluster build                      builds Kubernetes, once for a version, and CoreDNS, helm, kwok and multus
//	testcluster up [--clusters --nodes]    runs clusters until its standard input ends; with --dual-stack, of IPv6 as well
//
// While clusters run, it does what lines of its standard input say, and prints a
// line of JSON for each:
//
//	stop c1 kube-apiserver    kills a program of a control plane
//	start c1 kube-apiserver   starts it again as it was
//	save c1 NAME              copies etcd's data, while etcd is stopped
//	restore c1 NAME           puts the copy in place of the data
//
// Everything of a rig lives in namespaces of its own:
//
//	the caller's namespaces ── host link (a veth of two addresses) ── rig
//	rig    one PID, mount and network namespace; its network is the fabric: a
//	       bridge that joins all nodes, on which the control planes listen
//	node   a mount and network namespace on the fabric, with /run, /var/lib and
//	       /var/log of its own
//
// Nodes pull images from the rig itself, whatever registry a name says: archives
// in the OCI layout that are put into the folder "images" can be pulled at once.
//
// State is in a tmpfs of the rig's mount namespace. When the rig's first process
// ends, the kernel ends all others and takes everything away but the cgroups,
// which whoever started the rig removes. A killed starter ends the rig as well.
//
// It is a module of its own: the versions that Kubernetes pins are not the
// product's. Root is needed. It is Linux on amd64 or arm64 only.
package main
