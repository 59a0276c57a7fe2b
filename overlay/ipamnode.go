package overlay

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
)

// ErrBlockFull says that a node's block has no address left for a workload.
var ErrBlockFull = errors.New("no address left in the node's block")

// NodeBlock returns the block of a site's prefix that belongs to the node with
// the given 0-based index: a sixteenth of the site, but no larger than a /24.
// The /24 whose third octet is 255 is never given away: in every /16 slice it
// is KubeSlice's tunnel network.
func NodeBlock(site netip.Prefix, index int) (netip.Prefix, error) {
	if !site.IsValid() || !site.Addr().Is4() {
		return netip.Prefix{}, fmt.Errorf("node block %d of %v: not an IPv4 prefix", index, site)
	}
	bits := min(max(24, site.Bits()+4), 32)
	if n := 1 << (bits - site.Bits()); index < 0 || index >= n {
		return netip.Prefix{}, fmt.Errorf("node block %d of %v: the site has blocks 0 to %d", index, site, n-1)
	}
	block := nthPrefix4(site, bits, uint32(index))
	if block.Addr().As4()[2] == 255 {
		return netip.Prefix{}, fmt.Errorf("node block %d of %v: %v lies in the reserved tunnel network (third octet 255)", index, site, block)
	}
	return block, nil
}

// NodeAddr returns the node's own address in its block: the first after the
// block's address, or the address itself of a /32.
func NodeAddr(block netip.Prefix) netip.Addr {
	if a := block.Masked().Addr(); block.Bits() < 32 {
		return a.Next()
	}
	return block.Addr()
}

// NodeBlock6 returns the /64 of a site's /56 that belongs to the node with the
// given index, 0 to 255.
func NodeBlock6(site6 netip.Prefix, index int) (netip.Prefix, error) {
	if !site6.Addr().Is6() || site6.Bits() != 56 {
		return netip.Prefix{}, fmt.Errorf("node block %d of %v: not an IPv6 /56", index, site6)
	}
	if index < 0 || index > 255 {
		return netip.Prefix{}, fmt.Errorf("node block %d of %v: the site has blocks 0 to 255", index, site6)
	}
	b := site6.Masked().Addr().As16()
	b[7] = byte(index)
	return netip.PrefixFrom(netip.AddrFrom16(b), 64), nil
}

// NodeAddr6 returns the node's own address in its /64: ::1.
func NodeAddr6(block6 netip.Prefix) netip.Addr { return hostAddr6(block6, 1) }

// BackendAddr is the pair of addresses that a published backend has on a slice.
type BackendAddr struct {
	Addr  netip.Addr // IPv4; invalid: the node's block had none left
	Addr6 netip.Addr // IPv6, with the same offset in its block
}

// MaxBackends is how many backends a node publishes on a slice at most: what it
// tells of them fits what others keep of a node (MaxBytesPerOrigin).
const MaxBackends = 6000

// AssignBackends gives every named backend addresses of its own in the node's
// blocks: never the block's address, the node's or the broadcast address. A name
// keeps its IPv4 address in previous while that is free and inside the block; a
// new one starts at the hash of its name and takes the next free address, so that
// the same names find the same addresses after a loss of previous. Repeated names
// count once.
//
// An IPv4 block is small. Where there are more names than it has addresses, some
// have one in the IPv6 block only: the second and third of a service before the
// first of any, and of equals those that had none before. A service is what
// stands before a name's last slash.
func AssignBackends(block, block6 netip.Prefix, previous map[string]netip.Addr, names []string) (map[string]BackendAddr, error) {
	if !block.IsValid() || !block.Addr().Is4() || !block6.IsValid() || !block6.Addr().Is6() || block6.Bits() > 64 {
		return nil, fmt.Errorf("backends of %v and %v: want an IPv4 prefix and an IPv6 /64", block, block6)
	}
	names = slices.Clone(names)
	slices.Sort(names)
	names = slices.Compact(names)

	base := addr4(block.Masked().Addr())
	const first = firstBackend
	free := freeAddrs(block)
	names, without := entitled(names, previous, free)
	assigned := make(map[string]BackendAddr, len(names)+len(without))
	taken := make(map[int64]bool, len(names)+len(without))
	give := func(name string, offset int64) {
		taken[offset] = true
		assigned[name] = BackendAddr{
			Addr:  fromAddr4(base + uint32(offset)),
			Addr6: hostAddr6(block6, uint32(offset)),
		}
	}
	for _, name := range names {
		a, ok := previous[name]
		if !ok || !a.Is4() || !block.Contains(a) {
			continue
		}
		if offset := int64(addr4(a) - base); offset >= first && offset < first+free && !taken[offset] {
			give(name, offset)
		}
	}
	for _, name := range names {
		if _, ok := assigned[name]; ok {
			continue
		}
		i := int64(hashName(name)) % free
		for taken[first+i] {
			i = (i + 1) % free
		}
		give(name, first+i)
	}
	for _, name := range without {
		i := int64(hashName(name)) % onlyIPv6
		for taken[onlyIPv6+i] {
			i = (i + 1) % onlyIPv6
		}
		taken[onlyIPv6+i] = true
		assigned[name] = BackendAddr{Addr6: hostAddr6(block6, uint32(onlyIPv6+i))}
	}
	return assigned, nil
}

// onlyIPv6 is the offset in an IPv6 block from which on there are backends
// without an IPv4 address, and how many there could be: no IPv4 block has such
// offsets.
const onlyIPv6 = int64(1) << 31

func hashName(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()
}

// entitled splits sorted names into those that get an IPv4 address, of which
// there are n, and those that do not.
func entitled(names []string, previous map[string]netip.Addr, n int64) (with, without []string) {
	if int64(len(names)) <= n {
		return names, nil
	}
	type ranked struct {
		name string
		rank int // among the names of its service
		had  bool
	}
	list := make([]ranked, len(names))
	seen := make(map[string]int)
	for i, name := range names {
		service := name[:max(0, strings.LastIndexByte(name, '/'))]
		_, had := previous[name]
		list[i] = ranked{name, seen[service], had}
		seen[service]++
	}
	slices.SortStableFunc(list, func(a, b ranked) int {
		switch {
		case a.rank != b.rank:
			return a.rank - b.rank
		case a.had && !b.had:
			return -1
		case b.had && !a.had:
			return 1
		}
		return 0
	})
	for i, r := range list {
		if int64(i) < n {
			with = append(with, r.name)
		} else {
			without = append(without, r.name)
		}
	}
	slices.Sort(with)
	slices.Sort(without)
	return with, without
}

// firstBackend is the offset in a block of the first address for a backend:
// after the block's address and the node's.
const firstBackend = 2

// Room returns how many backends and workloads a node's block has IPv4 addresses
// for.
func Room(block netip.Prefix) int { return int(freeAddrs(block)) }

// freeAddrs returns how many addresses a block has for backends: those from
// firstBackend to before the broadcast address.
func freeAddrs(block netip.Prefix) int64 {
	return max(0, int64(1)<<(32-block.Bits())-1-firstBackend)
}

// hostAddr6 returns the address with the given number in the last 32 bits.
func hostAddr6(block6 netip.Prefix, host uint32) netip.Addr {
	b := block6.Masked().Addr().As16()
	b[12], b[13], b[14], b[15] = byte(host>>24), byte(host>>16), byte(host>>8), byte(host)
	return netip.AddrFrom16(b)
}
