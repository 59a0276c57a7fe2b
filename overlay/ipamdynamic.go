package overlay

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// ReclaimAfter is how long a released subnet waits for its former site before
// another may have it: KubeSlice's fixed grace period.
const ReclaimAfter = 24 * time.Hour

// ErrNoSubnets says that a pool has nothing left to give.
var ErrNoSubnets = errors.New("no available subnets")

// AllocationStatus is the state of an allocated subnet, by KubeSlice's words.
type AllocationStatus string

// The states. A subnet that was never given away has no Allocation.
const (
	SubnetAllocated AllocationStatus = "Allocated"
	SubnetInUse     AllocationStatus = "InUse"
	SubnetReleased  AllocationStatus = "Released"
)

// Allocation is one subnet that a site has, or had until ReleasedAt.
type Allocation struct {
	Site        string
	Prefix      netip.Prefix
	Status      AllocationStatus
	AllocatedAt time.Time
	ReleasedAt  time.Time // zero unless Status is SubnetReleased
}

// Pool is the state of one slice's dynamic address management: subnets of
// length Bits inside Subnet, given to sites as they join. Its methods leave the
// receiver as it was and return the new state.
type Pool struct {
	Subnet      netip.Prefix // IPv4, masked
	Bits        int          // Subnet.Bits() <= Bits <= 32
	Allocations []Allocation
}

// Capacity returns how many subnets the pool has in all.
func (p Pool) Capacity() int { return 1 << max(0, p.Bits-p.Subnet.Bits()) }

// Available returns how many subnets no site holds; released ones count.
func (p Pool) Available() int {
	held := 0
	for _, a := range p.Allocations {
		if a.Status != SubnetReleased {
			held++
		}
	}
	return p.Capacity() - held
}

// Join gives site its subnet: the one it has, else the one it released (however
// long ago, if it is still there), else the first that another site released
// ReclaimAfter ago or earlier, else the lowest that was never used. The error
// is ErrNoSubnets when none is left.
func (p Pool) Join(site string, now time.Time) (Pool, netip.Prefix, error) {
	i := slices.IndexFunc(p.Allocations, func(a Allocation) bool { return a.Site == site && a.Status != SubnetReleased })
	if i >= 0 {
		return p, p.Allocations[i].Prefix, nil
	}
	i = slices.IndexFunc(p.Allocations, func(a Allocation) bool { return a.Site == site })
	if i < 0 {
		i = slices.IndexFunc(p.Allocations, func(a Allocation) bool {
			return a.Status == SubnetReleased && now.Sub(a.ReleasedAt) >= ReclaimAfter
		})
	}
	p.Allocations = slices.Clone(p.Allocations)
	if i >= 0 {
		prefix := p.Allocations[i].Prefix
		p.Allocations[i] = Allocation{Site: site, Prefix: prefix, Status: SubnetAllocated, AllocatedAt: now}
		return p, prefix, nil
	}
	used := make(map[netip.Prefix]bool, len(p.Allocations))
	for _, a := range p.Allocations {
		used[a.Prefix] = true
	}
	for n := range p.Capacity() {
		prefix := nthPrefix4(p.Subnet, p.Bits, uint32(n))
		if used[prefix] {
			continue
		}
		p.Allocations = append(p.Allocations, Allocation{Site: site, Prefix: prefix, Status: SubnetAllocated, AllocatedAt: now})
		return p, prefix, nil
	}
	return p, netip.Prefix{}, fmt.Errorf("subnet of %v for %s: %w", p.Subnet, site, ErrNoSubnets)
}

// Leave marks what site holds as released at now. A site that holds nothing
// changes nothing.
func (p Pool) Leave(site string, now time.Time) Pool {
	p.Allocations = slices.Clone(p.Allocations)
	for i, a := range p.Allocations {
		if a.Site == site && a.Status != SubnetReleased {
			p.Allocations[i].Status, p.Allocations[i].ReleasedAt = SubnetReleased, now
		}
	}
	return p
}

// NthSubnet returns the pool's n-th subnet in address order. The error is
// ErrNoSubnets when the pool has no n-th.
func (p Pool) NthSubnet(n int) (netip.Prefix, error) {
	if n < 0 || n >= p.Capacity() {
		return netip.Prefix{}, fmt.Errorf("subnet %d of %v: the pool has %d: %w", n, p.Subnet, p.Capacity(), ErrNoSubnets)
	}
	return nthPrefix4(p.Subnet, p.Bits, uint32(n)), nil
}
