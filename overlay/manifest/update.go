package manifest

import (
	"fmt"
	"time"

	"slicewire/overlay"
)

// ValidateUpdate returns what KubeSlice refuses to change in an object that
// exists. now and rotating, whether the slice's keys are being rotated, matter
// for renewBefore only. Objects of kinds without such rules may change freely.
func ValidateUpdate(old, updated *Object, now time.Time, rotating bool) []Problem {
	u := &update{o: updated}
	if old.Kind != updated.Kind || old.Name != updated.Name || old.Namespace != updated.Namespace {
		u.fail("metadata.name", "%s cannot become %s", old.ID(), updated.ID())
		return u.problems
	}
	switch was := old.Body.(type) {
	case *SliceConfig:
		u.slice(&was.Spec, &updated.Body.(*SliceConfig).Spec, now, rotating)
	case *WorkerSliceConfig:
		is := updated.Body.(*WorkerSliceConfig)
		if was.Spec.Octet != nil && (is.Spec.Octet == nil || *is.Spec.Octet != *was.Spec.Octet) {
			u.fail("spec.octet", "%d cannot be changed", *was.Spec.Octet)
		}
	case *WorkerSliceGateway:
		unchanged(u, "spec.gatewayNumber", was.Spec.GatewayNumber, updated.Body.(*WorkerSliceGateway).Spec.GatewayNumber)
	case *SliceIpam:
		u.ipam(was, updated.Body.(*SliceIpam))
	}
	return u.problems
}

type update struct {
	o        *Object
	problems []Problem
}

func (u *update) fail(field, format string, args ...any) {
	u.problems = append(u.problems, Problem{Error, u.o.File, u.o.lineOf(field), u.o.ID(), field, fmt.Sprintf(format, args...)})
}

func unchanged[T comparable](u *update, field string, was, is T) {
	if was != is {
		u.fail(field, "%v cannot be changed to %v", was, is)
	}
}

func (u *update) slice(was, is *SliceConfigSpec, now time.Time, rotating bool) {
	fresh := was.OverlayNetworkDeploymentMode == string(overlay.NoNetwork)
	if !fresh {
		unchanged(u, "spec.overlayNetworkDeploymentMode", was.OverlayNetworkDeploymentMode, is.OverlayNetworkDeploymentMode)
	}
	unchanged(u, "spec.sliceType", was.SliceType, is.SliceType)
	unchanged(u, "spec.maxClusters", was.MaxClusters, is.MaxClusters)
	unchanged(u, "spec.sliceIpamType", ipamType(was), ipamType(is))
	if !fresh || was.SliceSubnet != "" {
		unchanged(u, "spec.sliceSubnet", was.SliceSubnet, is.SliceSubnet)
	}
	if !fresh || was.VPNConfig != nil {
		unchanged(u, "spec.vpnConfig.cipher", cipher(was), cipher(is))
	}
	if p, q := was.SliceGatewayProvider, is.SliceGatewayProvider; p != nil {
		if q == nil {
			u.fail("spec.sliceGatewayProvider", "cannot be removed")
		} else {
			unchanged(u, "spec.sliceGatewayProvider.sliceGatewayType", gatewayType(p), gatewayType(q))
			unchanged(u, "spec.sliceGatewayProvider.sliceCaType", p.SliceCaType, q.SliceCaType)
			u.serviceTypes(p, is)
		}
	}
	if !is.RenewBefore.IsZero() && !is.RenewBefore.Equal(was.RenewBefore) {
		switch {
		case is.RenewBefore.After(now):
			u.fail("spec.renewBefore", "%s is in the future", is.RenewBefore.Format(time.RFC3339))
		case rotating:
			u.fail("spec.renewBefore", "the slice's keys are being rotated already")
		}
	}
}

// serviceTypes holds that the gateways of a cluster may go from NodePort to
// LoadBalancer but not back, and that they keep their protocol.
func (u *update) serviceTypes(was *SliceGatewayProvider, is *SliceConfigSpec) {
	const field = "spec.sliceGatewayProvider.sliceGatewayServiceType"
	for _, c := range is.Clusters {
		before, after := serviceTypeOf(was, c), serviceTypeOf(is.SliceGatewayProvider, c)
		if before.Type == "LoadBalancer" && after.Type == "NodePort" {
			u.fail(field, "cluster %s cannot go from LoadBalancer to NodePort", c)
		}
		if before.Protocol != after.Protocol {
			u.fail(field, "the protocol of cluster %s cannot go from %s to %s", c, before.Protocol, after.Protocol)
		}
	}
}

// serviceTypeOf returns what holds for a cluster: its own entry, else that of
// all clusters, else KubeSlice's default.
func serviceTypeOf(p *SliceGatewayProvider, cluster string) SliceGatewayServiceType {
	found := SliceGatewayServiceType{Type: "NodePort", Protocol: "UDP"}
	for _, s := range p.SliceGatewayServiceType {
		if s.Cluster == cluster {
			return s
		}
		if s.Cluster == everywhere {
			found = s
		}
	}
	return found
}

// ipamType returns the type with KubeSlice's old name for Static replaced.
func ipamType(s *SliceConfigSpec) string {
	if s.SliceIpamType == "Local" {
		return "Static"
	}
	return s.SliceIpamType
}

func gatewayType(p *SliceGatewayProvider) string {
	if p.SliceGatewayType == "Wiregaurd" {
		return "Wireguard"
	}
	return p.SliceGatewayType
}

func cipher(s *SliceConfigSpec) string {
	if s.VPNConfig == nil || s.VPNConfig.Cipher == "" {
		return "AES-256-CBC" // KubeSlice's default
	}
	return s.VPNConfig.Cipher
}

func (u *update) ipam(was, is *SliceIpam) {
	unchanged(u, "spec.sliceName", was.Spec.SliceName, is.Spec.SliceName)
	unchanged(u, "spec.sliceSubnet", was.Spec.SliceSubnet, is.Spec.SliceSubnet)
	if was.Spec.SubnetSize == is.Spec.SubnetSize {
		return
	}
	active := 0
	if is.Status != nil {
		for _, a := range is.Status.AllocatedSubnets {
			if a.Status != string(overlay.SubnetReleased) {
				active++
			}
		}
	}
	switch {
	case active > 0:
		u.fail("spec.subnetSize", "cannot be changed while %d subnets are allocated", active)
	case is.Spec.SubnetSize < was.Spec.SubnetSize:
		u.fail("spec.subnetSize", "%d cannot go down to %d", was.Spec.SubnetSize, is.Spec.SubnetSize)
	}
}
