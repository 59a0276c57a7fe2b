// Package kubetest gives tests real Kubernetes clusters: kube/testcluster as a
// subprocess, with real nodes, pods and names. Only tests import it.
//
//	rig := kubetest.Start(t, kubetest.Options{Clusters: 2, Nodes: 2}) // ends with the test
//	rig.Add(t, kubetest.Slicewire(t), kubetest.Tools(t))              // images, at any time
//	c := rig.Clusters[0]                                             // named c1, c2 ...; its nodes c1-n1, c1-n2 ...
//	c.Apply(t, manifest)                                             // kubectl apply -f -, or the test fails
//	c.Rollout(t, "iperf", "deployment/web")                          // waits until all of it is ready
//	c.Exec(t, "iperf", "deployment/web", "wget", "-qO-", url)        // or ExecErr, which may fail
//	c.Stub(t, "slice.local:1053 {\n forward . 10.96.0.20\n}")        // server blocks for the cluster's CoreDNS
//	c.Helm(t, "install", "web", chart)                               // or the test fails
//	rig.Program("kwok")                                              // path of what testcluster has built
//	rig.Outside(t)                                                   // a network namespace in no cluster, behind NAT
//	c.Kubectl(ctx, stdin, args...)                                   // anything else
//	c.Kubeconfig                                                     // for clients of the test's own; an administrator's
//	c.API                                                            // the API server as pods and nodes reach it
//	c.Stop(t, kubetest.APIServer); c.Start(t, kubetest.APIServer)    // and Etcd, Save, Restore
//
// A package that wants one rig for all of its tests opens it in TestMain:
//
//	rig, err := kubetest.Open(kubetest.Options{Nodes: 0})            // a control plane only: three seconds
//	defer rig.End()
//
// Rigs need root and the programs that tools/prerequisites installs, and
// Kubernetes, which is built once into the user's cache (11 minutes of CPU). As
// root a missing part fails the test. Others skip it, but not in CI (the
// environment has CI then).
//
// The API servers, nodes and pods of all clusters of a rig reach each other by
// address. The test itself reaches only API servers (and through them pods: Exec,
// port-forward), unless it enters a namespace of the rig.
//
// A Rig may be used concurrently.
package kubetest
