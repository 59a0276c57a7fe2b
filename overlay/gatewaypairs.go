package overlay

// GatewayPair is the link between two sites of a slice as KubeSlice describes
// it: two WorkerSliceGateway objects, one at each end.
type GatewayPair struct {
	Server, Client             string // sites
	ServerObject, ClientObject string // names of the two WorkerSliceGateways
	Number                     int    // gatewayNumber; not unique, see GatewayPairs
}

// GatewayPairs returns every pair of sites of a slice, in the order of
// spec.clusters: the earlier site of a pair is the server. Numbers follow
// KubeSlice's formula on the sites' 0-based indexes, which gives (0,1) and
// (0,2) the same number: report it, do not build on it.
func GatewayPairs(slice string, clusters []string, index map[string]int) []GatewayPair {
	var pairs []GatewayPair
	for i, server := range clusters {
		for _, client := range clusters[i+1:] {
			lo, hi := min(index[server], index[client]), max(index[server], index[client])
			pairs = append(pairs, GatewayPair{
				Server:       server,
				Client:       client,
				ServerObject: GatewayObjectName(slice, server, client),
				ClientObject: GatewayObjectName(slice, client, server),
				Number:       (hi-1)*(hi-2)/2 + lo,
			})
		}
	}
	return pairs
}

// GatewayObjectName returns the name of the WorkerSliceGateway at the local end
// of a pair of sites.
func GatewayObjectName(slice, local, remote string) string {
	return slice + "-" + local + "-" + remote
}
