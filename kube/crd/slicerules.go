package crd

// sliceRules are those of SliceConfig.
func sliceRules() []rule {
	const networked = "self.overlayNetworkDeploymentMode == 'no-network' || "
	const was = "oldSelf.overlayNetworkDeploymentMode == 'no-network' || "
	const serviceTypes = "spec.sliceGatewayProvider.sliceGatewayServiceType"
	out := []rule{
		labelled,
		bounded("spec.sliceSubnet", node{"maxLength": 18}),
		bounded("spec.sliceType", node{"maxLength": 63}),
		bounded("spec.standardQosProfileName", node{"maxLength": 253}),
		bounded("spec.clusters", node{"maxItems": maxClusters}),
		bounded("spec.clusters[]", node{"maxLength": 63, "pattern": label}),
		bounded("spec.sliceGatewayProvider.sliceCaType", node{"maxLength": 63}),
		bounded(serviceTypes, node{"maxItems": maxClusters + 1}),
		bounded(serviceTypes+"[].cluster", node{"maxLength": 63}),
		bounded("spec.externalGatewayConfig", node{"maxItems": maxClusters + 1}),
		bounded("spec.topology.hubs", node{"maxItems": maxClusters}),
		bounded("spec.topology.hubs[]", node{"maxLength": 63}),
		bounded("spec.topology.spokes", node{"maxItems": maxClusters}),
		bounded("spec.topology.spokes[]", node{"maxLength": 63}),

		// What is needed.
		must("spec", networked+"has(self.sliceSubnet) && self.sliceSubnet != ''", "sliceSubnet is required"),
		must("spec.sliceSubnet", "self == '' || self.matches('"+privateSlash16+"')",
			"must be a private /16 whose third and fourth octet are 0: 10.x.0.0/16, 172.16.0.0/16 to 172.31.0.0/16, 192.168.0.0/16"),
		must("spec", networked+"has(self.sliceGatewayProvider)", "sliceGatewayProvider is required"),
		must("spec", networked+"(has(self.standardQosProfileName) && self.standardQosProfileName != '') != has(self.qosProfileDetails)",
			"give exactly one of standardQosProfileName and qosProfileDetails"),

		// What fits together.
		must("spec.clusters", "self.all(c, self.exists_one(d, c == d))", "a cluster is there twice"),
		must("spec", "!has(self.clusters) || self.clusters.size() <= self.maxClusters", "there are more clusters than maxClusters"),
		must(serviceTypes, "self.all(s, self.exists_one(t, s.cluster == t.cluster))", "a cluster is there twice"),
		must("spec", "!has(self.sliceGatewayProvider) || !has(self.sliceGatewayProvider.sliceGatewayServiceType) || "+
			"self.sliceGatewayProvider.sliceGatewayServiceType.all(s, s.cluster == '*' || has(self.clusters) && s.cluster in self.clusters)",
			"sliceGatewayServiceType names a cluster that is not one of the slice's"),
		must("spec.externalGatewayConfig", "self.all(g, !has(g.clusters) || g.clusters.all(c, self.exists_one(h, has(h.clusters) && c in h.clusters)))",
			"a cluster is in more than one entry"),
		must("spec.topology", "self.mode != 'HubAndSpoke' || has(self.hubs) && self.hubs.size() >= 1 && self.hubs.size() <= 2", "HubAndSpoke wants 1 or 2 hubs"),
		must("spec.topology", "!has(self.spokes) || !has(self.hubs) || self.spokes.all(s, !(s in self.hubs))", "a spoke is a hub too"),

		// What stays as it is.
		must("spec", was+"self.overlayNetworkDeploymentMode == oldSelf.overlayNetworkDeploymentMode", "overlayNetworkDeploymentMode can only be changed from no-network"),
		must("spec.sliceType", "self == oldSelf", "cannot be changed"),
		must("spec.maxClusters", "self == oldSelf", "cannot be changed"),
		must("spec.sliceIpamType", "self == oldSelf || self != 'Dynamic' && oldSelf != 'Dynamic'", "cannot be changed"), // Local is the old name of Static
		must("spec", "oldSelf.overlayNetworkDeploymentMode == 'no-network' && (!has(oldSelf.sliceSubnet) || oldSelf.sliceSubnet == '') || "+
			"has(self.sliceSubnet) == has(oldSelf.sliceSubnet) && (!has(self.sliceSubnet) || self.sliceSubnet == oldSelf.sliceSubnet)",
			"sliceSubnet cannot be changed"),
		must("spec", "!has(oldSelf.sliceGatewayProvider) || has(self.sliceGatewayProvider)", "sliceGatewayProvider cannot be removed"),
		must("spec.sliceGatewayProvider.sliceGatewayType", "self == oldSelf || self != 'OpenVPN' && oldSelf != 'OpenVPN'", "cannot be changed"), // Wiregaurd is Wireguard
		must("spec.sliceGatewayProvider.sliceCaType", "self == oldSelf", "cannot be changed"),
		must("spec.vpnConfig.cipher", "self == oldSelf", "cannot be changed"),
		must(serviceTypes, "self.all(s, oldSelf.all(o, o.cluster != s.cluster || o.type != 'LoadBalancer' || s.type != 'NodePort'))", "a cluster cannot go from LoadBalancer to NodePort"),
		must(serviceTypes, "self.all(s, oldSelf.all(o, o.cluster != s.cluster || o.protocol == s.protocol))", "the protocol of a cluster cannot be changed"),
	}
	out = append(out, profile("spec.qosProfileDetails")...)
	out = append(out, namespaces("spec.namespaceIsolationProfile.applicationNamespaces")...)
	out = append(out, namespaces("spec.namespaceIsolationProfile.allowedNamespaces")...)
	return append(out, selection("spec.externalGatewayConfig[].clusters")...)
}
