// Package apitest starts a real API server and its etcd for tests: no
// controllers, no nodes. The programs are those of kube/testcluster, built once
// and cached.
package apitest
