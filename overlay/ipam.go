package overlay

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// ClusterPrefixBits returns the prefix length of one site's share of a /16
// slice with room for maxClusters sites: KubeSlice's static formula. 2 sites
// give 17, 16 sites 20, 32 sites 21.
func ClusterPrefixBits(maxClusters int) int {
	for i := 7; i >= 0; i-- {
		if maxClusters > 1<<i {
			return 17 + i
		}
	}
	return 17
}

// StaticPrefix returns the share of the site with the given 0-based index in
// the slice's subnet, a /16, by KubeSlice's static formula.
func StaticPrefix(subnet netip.Prefix, maxClusters, index int) (netip.Prefix, error) {
	if !subnet.Addr().Is4() || subnet.Bits() != 16 {
		return netip.Prefix{}, fmt.Errorf("static share of %v: the slice subnet is not an IPv4 /16", subnet)
	}
	bits := ClusterPrefixBits(maxClusters)
	if n := 1 << (bits - 16); index < 0 || index >= n {
		return netip.Prefix{}, fmt.Errorf("static share %d of %v: maxClusters %d allows indexes 0 to %d", index, subnet, maxClusters, n-1)
	}
	return nthPrefix4(subnet, bits, uint32(index)), nil
}

// AssignIndexes gives every site of clusters its 0-based index in the slice. A
// site keeps the index it has in existing; the others take the lowest free
// ones in the order of clusters. Sites that are no longer members free theirs
// at once. Negative indexes in existing count as none; where two members claim
// the same index the earlier in clusters keeps it.
func AssignIndexes(existing map[string]int, clusters []string) map[string]int {
	assigned := make(map[string]int, len(clusters))
	taken := make(map[int]bool, len(clusters))
	for _, c := range clusters {
		i, ok := existing[c]
		if _, twice := assigned[c]; !ok || twice || i < 0 || taken[i] {
			continue
		}
		assigned[c], taken[i] = i, true
	}
	next := 0
	for _, c := range clusters {
		if _, ok := assigned[c]; ok {
			continue
		}
		for taken[next] {
			next++
		}
		assigned[c], taken[next] = next, true
	}
	return assigned
}

// nthPrefix4 returns the n-th subnet of the given length inside parent. The
// caller has checked that both are IPv4 and that n fits.
func nthPrefix4(parent netip.Prefix, bits int, n uint32) netip.Prefix {
	base := addr4(parent.Masked().Addr())
	return netip.PrefixFrom(fromAddr4(base+n<<(32-bits)), bits)
}

func addr4(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func fromAddr4(v uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	return netip.AddrFrom4(b)
}
