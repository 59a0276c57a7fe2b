// Package podtoken judges the tokens that Kubernetes gives to pods: which pod
// somebody is, by a bound service-account token and the public keys of the
// cluster that signed it.
//
// A token is accepted only if all of this holds: it is signed by one of the
// cluster's keys with the algorithm of that key; issuer and subject are as
// configured and the audience is among the token's; it is neither over nor not
// yet good; and it is bound to a pod, by name and UID. Everything in a token is
// hostile until its signature is good.
//
// The package does no I/O. A Cluster may be used concurrently.
package podtoken
