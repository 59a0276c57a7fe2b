package overlay

import "time"

// A ServiceType says what stands behind a service's name in the zone of the
// Multi-Cluster Services API. In KubeSlice's zone every service is headless.
type ServiceType uint8

// The types. Their values are part of the wire format.
const (
	Headless ServiceType = 0 // every endpoint
	Virtual  ServiceType = 1 // one address for all of them: ClusterSetIP

	LastServiceType = Virtual
)

// String returns the type as the Multi-Cluster Services API writes it.
func (t ServiceType) String() string {
	if t == Virtual {
		return "ClusterSetIP"
	}
	return "Headless"
}

// ParseServiceType reads what String writes.
func ParseServiceType(s string) (ServiceType, bool) {
	for t := range LastServiceType + 1 {
		if t.String() == s {
			return t, true
		}
	}
	return 0, false
}

// ExportTerms is what an export says besides its names, ports and endpoints.
// Sites that export the same service may differ in it: see Importer.services.
type ExportTerms struct {
	Type            ServiceType
	AffinitySeconds uint32    // how long a client stays with its endpoint; 0: no affinity
	Created         time.Time // of the export, in whole seconds; zero: not known, which counts as the newest
	Exported        string    // labels and annotations that go along, as Exported.Encode makes it; empty: none
}

// older reports whether an export takes precedence over another by its age.
func (t ExportTerms) older(u ExportTerms) bool {
	return !t.Created.IsZero() && (u.Created.IsZero() || t.Created.Before(u.Created))
}
