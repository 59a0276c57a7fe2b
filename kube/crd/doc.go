// Package crd describes to an API server the kinds that slicewire reads: as
// CustomResourceDefinitions made of the structs of overlay/manifest, whose tags
// are the schema, and of the rules in this package. deploy/crds holds the result.
//
// The kinds of multicluster.x-k8s.io are not ours: their definitions are those of
// the Multi-Cluster Services API (sigs.k8s.io/mcs-api v0.5.2, Apache-2.0),
// unchanged.
package crd
