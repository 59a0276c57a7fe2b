package crd

import (
	"fmt"
	"strings"
)

// A rule adds to the schema at a path: validations in CEL, or bounds, without
// which an API server refuses CEL for what it might cost.
type rule struct {
	at      string // "spec.clusters[]": the entries of a list; "": the object itself
	cel     string // what has to hold
	message string
	more    node
}

// must is a rule in CEL.
func must(at, cel, message string) rule { return rule{at: at, cel: cel, message: message} }

// bounded sets keywords of the schema.
func bounded(at string, more node) rule { return rule{at: at, more: more} }

func (r rule) put(s node) error {
	n := s
	for _, step := range strings.FieldsFunc(strings.ReplaceAll(r.at, "[]", ".[]"), func(c rune) bool { return c == '.' }) {
		var next any
		if step == "[]" {
			next = n["items"]
		} else if props, ok := n["properties"].(node); ok {
			next = props[step]
		}
		below, ok := next.(node)
		if !ok {
			return fmt.Errorf("a rule is for %q, which the schema does not have", r.at)
		}
		n = below
	}
	for k, v := range r.more {
		n[k] = v
	}
	if r.cel != "" {
		list, _ := n["x-kubernetes-validations"].([]node)
		n["x-kubernetes-validations"] = append(list, node{"rule": r.cel, "message": r.message})
	}
	return nil
}

// Bounds of lists and texts. They are the parser's or wider.
const (
	maxClusters  = 32
	maxListed    = 4096
	maxEndpoints = 5000
)

// privateSlash16 are the /16 networks of RFC 1918.
const privateSlash16 = `^(10[.](0|[1-9][0-9]?|1[0-9][0-9]|2[0-4][0-9]|25[0-5])|172[.](1[6-9]|2[0-9]|3[01])|192[.]168)[.]0[.]0/16$`

const label = `^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`

var labelled = must("", fmt.Sprintf(`self.metadata.name.size() <= 63 && self.metadata.name.matches('%s')`, label), "the name must be a DNS label: a-z, 0-9, inner hyphens, at most 63")

func profile(at string) []rule {
	return []rule{
		bounded(at+".bandwidthCeilingKbps", node{"minimum": 0}),
		bounded(at+".bandwidthGuaranteedKbps", node{"minimum": 0}),
		must(at, "self.bandwidthGuaranteedKbps <= self.bandwidthCeilingKbps", "bandwidthGuaranteedKbps must not be more than bandwidthCeilingKbps"),
	}
}

// selection is a list of clusters that something is meant for.
func selection(at string) []rule {
	return []rule{
		bounded(at, node{"maxItems": maxClusters + 1}),
		bounded(at+"[]", node{"maxLength": 63}),
		must(at, "!('*' in self) || self.size() == 1", "\"*\" must be the only entry"),
	}
}

func namespaces(at string) []rule {
	return append(selection(at+"[].clusters"),
		bounded(at, node{"maxItems": maxListed, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": []string{"namespace"}}),
		bounded(at+"[]", node{"required": []string{"namespace", "clusters"}}),
		bounded(at+"[].namespace", node{"maxLength": 63, "pattern": "^[a-zA-Z0-9-]+$"}),
		bounded(at+"[].clusters", node{"minItems": 1}))
}

func endpoints(at string) []rule {
	return []rule{
		bounded(at+".serviceDiscoveryEndpoints", node{"maxItems": maxEndpoints}),
		bounded(at+".serviceDiscoveryPorts", node{"maxItems": maxListed}),
		bounded(at+".serviceDiscoveryPorts[].port", node{"minimum": 0, "maximum": 65535}),
		bounded(at+".aliases", node{"maxItems": maxListed}),
		bounded(at+".aliases[]", node{"maxLength": 253}),
	}
}

// rules are what KubeSlice's admission webhooks hold, and the parser of
// overlay/manifest, as far as one object can tell; the rest is reported as a
// condition.
var rules = map[string][]rule{
	"Project": {
		must("", "self.metadata.name.size() <= 30 && !self.metadata.name.contains('.')", "the name must have at most 30 characters and no dots"),
	},
	"Cluster": {
		labelled,
		bounded("spec.nodeIPs", node{"maxItems": 64}),
		bounded("spec.nodeIPs[]", node{"maxLength": 45}),
		bounded("spec.nodeIP", node{"maxLength": 45}),
		must("spec.nodeIPs[]", "isIP(self)", "must be an IP address"),
		must("spec.nodeIP", "self == '' || isIP(self)", "must be an IP address"),
		bounded("spec.clusterProperty.geoLocation.latitude", node{"maxLength": 32}),
		bounded("spec.clusterProperty.geoLocation.longitude", node{"maxLength": 32}),
		must("spec.clusterProperty.geoLocation.latitude", `self == '' || self.matches('^[+-]?[0-9]{1,3}([.][0-9]+)?$') && double(self) >= -90.0 && double(self) <= 90.0`, "must be a number from -90 to 90"),
		must("spec.clusterProperty.geoLocation.longitude", `self == '' || self.matches('^[+-]?[0-9]{1,3}([.][0-9]+)?$') && double(self) >= -180.0 && double(self) <= 180.0`, "must be a number from -180 to 180"),
	},
	"SliceConfig":    sliceRules(),
	"SliceQoSConfig": profile("spec"),
	"ServiceExportConfig": append(endpoints("spec"),
		bounded("spec.serviceName", node{"maxLength": 63, "pattern": label}),
		bounded("spec.sourceCluster", node{"maxLength": 63, "pattern": label}),
		bounded("spec.sliceName", node{"maxLength": 63, "pattern": label})),
	"VpnKeyRotation": {
		bounded("spec.sliceName", node{"maxLength": 63}),
		must("", "!has(self.spec) || !has(self.spec.sliceName) || self.metadata.name == self.spec.sliceName", "the name must be the slice's"),
	},
	"SliceIpam": {
		bounded("spec.sliceName", node{"minLength": 1, "maxLength": 63}),
		bounded("spec.sliceSubnet", node{"maxLength": 18, "pattern": `^([0-9]{1,3}[.]){3}[0-9]{1,3}/([89]|1[0-9]|2[0-8])$`}),
		must("spec.sliceName", "self == oldSelf", "cannot be changed"),
		must("spec.sliceSubnet", "self == oldSelf", "cannot be changed"),
		must("spec.subnetSize", "self >= oldSelf", "cannot become less"),
	},
	"WorkerSliceConfig": {
		must("spec", "!has(oldSelf.octet) || has(self.octet) && self.octet == oldSelf.octet", "octet cannot be changed"),
		bounded("spec.octet", node{"minimum": 0, "maximum": 255}),
	},
	"WorkerSliceGateway": {
		must("spec", "!has(oldSelf.gatewayNumber) || has(self.gatewayNumber) && self.gatewayNumber == oldSelf.gatewayNumber", "gatewayNumber cannot be changed"),
	},
	"WorkerServiceImport": endpoints("spec"),
	"ServiceExport": {
		labelled,
		bounded("spec.slice", node{"maxLength": 63}),
		bounded("spec.ports", node{"maxItems": maxListed}),
		bounded("spec.ports[].containerPort", node{"minimum": 1, "maximum": 65535}),
		bounded("spec.ports[].servicePort", node{"minimum": 0, "maximum": 65535}),
		bounded("spec.ports[].protocol", node{"enum": []string{"TCP", "UDP", "SCTP"}}),
		bounded("spec.ports[].name", node{"maxLength": 63}),
		bounded("spec.aliases", node{"maxItems": maxListed}),
		bounded("spec.aliases[]", node{"maxLength": 254}),
	},
	"ServiceImport": {
		bounded("spec.ports", node{"maxItems": maxListed}),
		bounded("spec.aliases", node{"maxItems": maxListed}),
	},
	"SlicePolicy": {
		bounded("spec.appliesTo", node{"minItems": 1, "maxItems": 4000}),
		bounded("spec.policyTypes", node{"minItems": 1, "maxItems": 2}),
		bounded("spec.ingress", node{"maxItems": 4000}),
		bounded("spec.egress", node{"maxItems": 4000}),
	},
	"SliceClasses": {
		bounded("spec.classes", node{"minItems": 1, "maxItems": 16}),
	},
}
