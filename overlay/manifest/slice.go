package manifest

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"slicewire/overlay"
)

// everywhere stands for all clusters of a slice.
const everywhere = "*"

// defaultSliceSuffix ends the name of a project's default slice, which gives
// its namespaces up to any slice that asks.
const defaultSliceSuffix = "-default-slice"

var (
	privateNets   = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16")}
	namespaceForm = regexp.MustCompile(`^[a-zA-Z0-9-]+$`) // KubeSlice's
)

// buildSlices checks every SliceConfig and adds the good ones to the mesh.
func (b *builder) buildSlices() {
	owners := map[[2]string]*Object{} // (cluster, namespace): the slice that has it
	dynamic := map[[2]string]*Object{}
	indexes := b.octets()
	for _, o := range b.byKind["SliceConfig"] {
		spec := &o.Body.(*SliceConfig).Spec
		b.checkSlice(o, spec)
		b.checkOwners(o, spec, owners)
		if spec.SliceIpamType == "Dynamic" {
			key := [2]string{o.Namespace, spec.SliceSubnet}
			if f := dynamic[key]; f != nil {
				b.fail(o, "spec.sliceSubnet", "%s is also the subnet of slice %s, which is Dynamic too", spec.SliceSubnet, f.Name)
			} else {
				dynamic[key] = o
			}
		}
		var out overlay.Slice
		if !o.Broken {
			out = b.assemble(o, spec, indexes[o.Name])
		}
		if o.Broken {
			b.leftOut[o.Name] = true
			continue
		}
		b.mesh.Slices = append(b.mesh.Slices, out)
	}
}

// checkSlice holds the rules of KubeSlice's webhook that one SliceConfig and
// the objects it names can break.
func (b *builder) checkSlice(o *Object, spec *SliceConfigSpec) {
	networked := spec.OverlayNetworkDeploymentMode != string(overlay.NoNetwork)
	b.checkSiteName(o, "metadata.name", o.Name)
	if networked {
		b.checkSubnet(o, spec.SliceSubnet)
		b.checkQoSChoice(o, spec)
		if spec.SliceGatewayProvider == nil {
			b.fail(o, "spec.sliceGatewayProvider", "is required")
		}
	}
	if n := len(spec.Clusters); spec.MaxClusters > 0 && n > spec.MaxClusters {
		b.fail(o, "spec.clusters", "%d clusters are more than maxClusters %d", n, spec.MaxClusters)
		return // what refers to clusters is not worth the time
	}
	b.checkProvider(o, spec)
	b.checkMembers(o, spec, networked)
	b.checkBindings(o, spec, "applicationNamespaces", spec.NamespaceIsolationProfile.ApplicationNamespaces)
	for i, ns := range spec.NamespaceIsolationProfile.ApplicationNamespaces {
		if slices.Contains(clustersOwn, ns.Namespace) {
			b.fail(o, fmt.Sprintf("spec.namespaceIsolationProfile.applicationNamespaces[%d].namespace", i),
				"%s is Kubernetes' own: a slice that had it would isolate the cluster's DNS and what else runs there; export from another namespace", ns.Namespace)
		}
	}
	b.checkBindings(o, spec, "allowedNamespaces", spec.NamespaceIsolationProfile.AllowedNamespaces)
	b.checkExternalGateways(o, spec)
	b.checkTopology(o, spec)
	if spec.VPNConfig != nil && spec.VPNConfig.Cipher != "" {
		b.warn(o, "spec.vpnConfig.cipher", "%s is ignored: WireGuard has one cipher, ChaCha20-Poly1305", spec.VPNConfig.Cipher)
	}
	if networked && spec.OverlayNetworkDeploymentMode == string(overlay.MultiNetwork) {
		b.warn(o, "spec.overlayNetworkDeploymentMode", "multi-network slices get no addresses and no tunnels from slicewire")
	}
}

func (b *builder) checkSubnet(o *Object, text string) {
	const field = "spec.sliceSubnet"
	if text == "" {
		b.fail(o, field, "is required")
		return
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		b.fail(o, field, "%q is not a CIDR", text)
	case !slices.ContainsFunc(privateNets, func(n netip.Prefix) bool { return n.Contains(p.Addr()) }):
		b.fail(o, field, "%s is not private (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16)", text)
	case p.Bits() != 16:
		b.fail(o, field, "%s must be a /16", text)
	case p != p.Masked():
		b.fail(o, field, "%s: the third and fourth octet must be 0", text)
	}
}

func (b *builder) checkQoSChoice(o *Object, spec *SliceConfigSpec) {
	name, details := spec.StandardQosProfileName, spec.QosProfileDetails
	switch {
	case name != "" && details != nil:
		b.fail(o, "spec.standardQosProfileName", "give standardQosProfileName or qosProfileDetails, not both")
	case name == "" && details == nil:
		b.fail(o, "spec.standardQosProfileName", "give standardQosProfileName or qosProfileDetails")
	case details != nil:
		b.checkProfile(o, "spec.qosProfileDetails", details)
	default:
		if p := b.find("SliceQoSConfig", name, o); p == nil && name != defaultProfileName {
			b.fail(o, "spec.standardQosProfileName", "there is no SliceQoSConfig %q%s", name, didYouMean(name, b.names("SliceQoSConfig")))
		} else if p != nil && p.Broken {
			b.fail(o, "spec.standardQosProfileName", "SliceQoSConfig %q has errors", name)
		}
	}
}

func (b *builder) checkProvider(o *Object, spec *SliceConfigSpec) {
	p := spec.SliceGatewayProvider
	if p == nil {
		return
	}
	const at = "spec.sliceGatewayProvider."
	switch p.SliceGatewayType {
	case "OpenVPN":
		b.openVPN = append(b.openVPN, o)
	case "Wiregaurd":
		b.warn(o, at+"sliceGatewayType", "Wiregaurd is taken for Wireguard; KubeSlice itself refuses it")
	}
	if p.SliceCaType != "Local" {
		b.warn(o, at+"sliceCaType", "%q is served by the mesh's own CA, as Local is", p.SliceCaType)
	}
	seen := map[string]bool{}
	for i, s := range p.SliceGatewayServiceType {
		field := fmt.Sprintf("%ssliceGatewayServiceType[%d]", at, i)
		if seen[s.Cluster] {
			b.fail(o, field+".cluster", "%q is there twice", s.Cluster)
		}
		seen[s.Cluster] = true
		b.checkMember(o, spec, field+".cluster", s.Cluster, true)
		if s.Type == "LoadBalancer" {
			b.warn(o, field+".type", "LoadBalancer is not supported: nodes are reached at the addresses they advertise")
		}
		if s.Protocol == "TCP" {
			b.warn(o, field+".protocol", "TCP is not supported: tunnels use UDP")
		}
	}
}

// checkMember reports a name that is no cluster of the slice.
func (b *builder) checkMember(o *Object, spec *SliceConfigSpec, field, cluster string, starAllowed bool) {
	if starAllowed && cluster == everywhere || slices.Contains(spec.Clusters, cluster) {
		return
	}
	b.fail(o, field, "%q is not one of the slice's clusters%s", cluster, didYouMean(cluster, spec.Clusters))
}

func (b *builder) checkMembers(o *Object, spec *SliceConfigSpec, networked bool) {
	known := b.byKind["Cluster"]
	for i, name := range spec.Clusters {
		field := fmt.Sprintf("spec.clusters[%d]", i)
		if slices.Contains(spec.Clusters[:i], name) {
			b.fail(o, field, "%q is there twice", name)
			continue
		}
		b.checkSiteName(o, field, name)
		c := b.find("Cluster", name, o)
		switch {
		case c == nil && len(known) > 0:
			b.warn(o, field, "there is no Cluster object %q%s", name, didYouMean(name, b.names("Cluster")))
		case c != nil:
			b.checkReady(o, spec, field, c.Body.(*Cluster), networked)
		}
	}
}

// checkReady holds the rules on the state of a member, which only a Cluster
// object with a status tells.
func (b *builder) checkReady(o *Object, spec *SliceConfigSpec, field string, c *Cluster, networked bool) {
	st, name := c.Status, c.Metadata.Name
	sev := b.worst()
	if st == nil {
		return
	}
	if st.RegistrationStatus != "Registered" {
		b.report(sev, o, field, "cluster %s is not Registered (status.registrationStatus is %q)", name, st.RegistrationStatus)
	}
	if st.ClusterHealth == nil || st.ClusterHealth.ClusterHealthStatus != "Normal" {
		b.report(sev, o, field, "the health of cluster %s is not Normal (status.clusterHealth)", name)
	}
	if c.Spec.NodeIP == "" && len(c.Spec.NodeIPs) == 0 && len(st.NodeIPs) == 0 {
		b.report(sev, o, field, "cluster %s has no node IPs (spec.nodeIPs)", name)
	}
	if !networked {
		return
	}
	if !st.NetworkPresent {
		b.report(sev, o, field, "cluster %s has no slice network (status.networkPresent is false)", name)
	}
	if len(st.CniSubnet) == 0 {
		b.report(sev, o, field, "cluster %s has no status.cniSubnet", name)
	}
	subnet, err := netip.ParsePrefix(spec.SliceSubnet)
	if err != nil {
		return // reported already
	}
	for _, s := range st.CniSubnet {
		if cni, err := netip.ParsePrefix(s); err == nil && cni.Overlaps(subnet) {
			b.report(sev, o, "spec.sliceSubnet", "%s overlaps the CNI subnet %s of cluster %s", subnet, cni, name)
		}
	}
}

func (b *builder) checkBindings(o *Object, spec *SliceConfigSpec, list string, bindings []SliceNamespaceSelection) {
	if len(bindings) > maxListed {
		b.fail(o, "spec.namespaceIsolationProfile."+list, "has more than %d entries", maxListed)
		return
	}
	seen := map[string]bool{}
	for i, ns := range bindings {
		at := fmt.Sprintf("spec.namespaceIsolationProfile.%s[%d]", list, i)
		switch {
		case ns.Namespace == "":
			b.fail(o, at+".namespace", "is required")
		case !namespaceForm.MatchString(ns.Namespace):
			b.fail(o, at+".namespace", "%q has other characters than letters, digits and hyphens", ns.Namespace)
		case len(ns.Namespace) > maxNamespace:
			b.fail(o, at+".namespace", "has %d characters: at most %d", len(ns.Namespace), maxNamespace)
		case seen[ns.Namespace]:
			b.fail(o, at+".namespace", "%q is there twice", ns.Namespace)
		}
		seen[ns.Namespace] = true
		if len(ns.Clusters) == 0 {
			b.fail(o, at+".clusters", "is required")
		}
		b.checkClusterList(o, spec, at+".clusters", ns.Clusters)
	}
}

// checkClusterList checks clusters that a part of the slice is meant for: "*"
// alone, or members, each once.
func (b *builder) checkClusterList(o *Object, spec *SliceConfigSpec, field string, clusters []string) {
	if len(clusters) > 1 && slices.Contains(clusters, everywhere) {
		b.fail(o, field, `"*" must be the only entry`)
	}
	seen := map[string]bool{}
	for i, c := range clusters {
		at := fmt.Sprintf("%s[%d]", field, i)
		if seen[c] {
			b.fail(o, at, "%q is there twice", c)
			continue
		}
		seen[c] = true
		b.checkMember(o, spec, at, c, true)
	}
}

// checkOwners holds that a namespace of a cluster is on one slice only.
func (b *builder) checkOwners(o *Object, spec *SliceConfigSpec, owners map[[2]string]*Object) {
	if o.Broken || strings.HasSuffix(o.Name, defaultSliceSuffix) {
		return
	}
	type claim struct{ cluster, namespace string }
	var claims []claim
	for i, ns := range spec.NamespaceIsolationProfile.ApplicationNamespaces {
		field := fmt.Sprintf("spec.namespaceIsolationProfile.applicationNamespaces[%d].namespace", i)
		for _, cluster := range expand(ns.Clusters, spec.Clusters) {
			if other := owners[[2]string{cluster, ns.Namespace}]; other != nil {
				b.fail(o, field, "namespace %s of cluster %s is already on slice %s", ns.Namespace, cluster, other.Name)
				break
			}
			if holder := b.holder(o, cluster, ns.Namespace); holder != "" {
				b.fail(o, field, "namespace %s of cluster %s is already on slice %s (the cluster's status)", ns.Namespace, cluster, holder)
				break
			}
			claims = append(claims, claim{cluster, ns.Namespace})
		}
	}
	if o.Broken {
		return // it will not exist, so it holds nothing
	}
	for _, c := range claims {
		owners[[2]string{c.cluster, c.namespace}] = o
	}
}

// holder returns the other slice that a Cluster's status says has a namespace.
func (b *builder) holder(o *Object, cluster, namespace string) string {
	c := b.find("Cluster", cluster, o)
	if c == nil || c.Body.(*Cluster).Status == nil {
		return ""
	}
	for _, n := range c.Body.(*Cluster).Status.Namespaces {
		if n.Name == namespace && n.SliceName != o.Name && !strings.HasSuffix(n.SliceName, defaultSliceSuffix) {
			return n.SliceName
		}
	}
	return ""
}

func expand(list, all []string) []string {
	if slices.Contains(list, everywhere) {
		return all
	}
	return list
}

func (b *builder) checkExternalGateways(o *Object, spec *SliceConfigSpec) {
	entryOf := map[string]int{}
	for i, g := range spec.ExternalGatewayConfig {
		at := fmt.Sprintf("spec.externalGatewayConfig[%d]", i)
		b.checkClusterList(o, spec, at+".clusters", g.Clusters)
		for j, c := range g.Clusters {
			if first, ok := entryOf[c]; ok && first != i {
				b.fail(o, fmt.Sprintf("%s.clusters[%d]", at, j), "%q is also in externalGatewayConfig[%d]", c, first)
				continue
			}
			entryOf[c] = i
		}
		if g.GatewayType == "istio" || g.GatewayType == "envoy" {
			b.warn(o, at+".gatewayType", "%s gateways are not supported; the entry is ignored", g.GatewayType)
		}
	}
}

func (b *builder) checkTopology(o *Object, spec *SliceConfigSpec) {
	t := spec.Topology
	if t == nil || t.Mode != "HubAndSpoke" {
		return
	}
	if n := len(t.Hubs); n < 1 || n > 2 {
		b.fail(o, "spec.topology.hubs", "%d hubs: HubAndSpoke wants 1 or 2", n)
	}
	if n := len(t.Hubs) + len(t.Spokes); n > maxListed {
		b.fail(o, "spec.topology", "has more than %d entries", maxListed)
		return
	}
	for i, h := range t.Hubs {
		field := fmt.Sprintf("spec.topology.hubs[%d]", i)
		if slices.Contains(t.Hubs[:i], h) {
			b.fail(o, field, "%q is there twice", h)
		}
		b.checkMember(o, spec, field, h, false)
	}
	for i, s := range t.Spokes {
		field := fmt.Sprintf("spec.topology.spokes[%d]", i)
		if slices.Contains(t.Spokes[:i], s) {
			b.fail(o, field, "%q is there twice", s)
		}
		if slices.Contains(t.Hubs, s) {
			b.fail(o, field, "%q is a hub", s)
		}
		b.checkMember(o, spec, field, s, false)
	}
}

// maxNamespace is how long a namespace's name may be.
const maxNamespace = 63

// clustersOwn are namespaces that no slice may have as its own. It is never written
// to.
var clustersOwn = []string{"kube-system", "kube-public", "kube-node-lease"}
