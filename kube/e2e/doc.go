// Package e2e tests slicewire in Kubernetes from outside, as operators have it:
// real clusters of package kubetest, the chart and the manifests that are shipped,
// and commands of the program, which the pods and this machine run as it is
// built for images.
package e2e
