package overlay

import (
	"net/netip"
	"slices"
	"strings"
)

// A Workload is something on this node that is on a slice with addresses of its
// own for as long as it lives: a program that was run there, a network
// namespace that was attached.
type Workload struct {
	Slice     string
	Name      string     // unique on the slice on this node
	Namespace string     // that it is in, for policies; empty: none
	Addr      netip.Addr // the IPv4 address that it has and keeps; invalid when it is new
}

// key names a workload among the names that addresses are assigned to. A
// backend's key begins with a Kubernetes namespace, which has no colon.
func (w Workload) key() string { return "workload:" + w.Name }

// An AttachedWorkload is a workload with overlay addresses.
type AttachedWorkload struct {
	Name      string
	Namespace string
	BackendAddr
}

// Workload returns the workload with that name, if it has a place.
func (a *Attachment) Workload(name string) (AttachedWorkload, bool) {
	for _, w := range a.Workloads {
		if w.Name == name {
			return w, true
		}
	}
	return AttachedWorkload{}, false
}

func ofSlice(workloads []Workload, slice string) []Workload {
	return slices.DeleteFunc(slices.Clone(workloads), func(w Workload) bool { return w.Slice != slice })
}

// assignBoth assigns addresses to backends and workloads together, so that
// neither ever takes the other's: a name keeps the address that it has. When
// the block has no room for all, workloads go without, those that are new
// first: what is published stays.
func assignBoth(block, block6 netip.Prefix, previous map[string]netip.Addr, backends []string, workloads []Workload) (map[string]BackendAddr, error) {
	had := make(map[string]netip.Addr, len(previous)+len(workloads))
	for _, name := range backends {
		if addr, ok := previous[name]; ok {
			had[name] = addr
		}
	}
	slices.SortFunc(workloads, func(x, y Workload) int {
		if x.Addr.IsValid() != y.Addr.IsValid() {
			if x.Addr.IsValid() {
				return -1
			}
			return 1
		}
		return strings.Compare(x.Name, y.Name)
	})
	names := slices.Clone(backends)
	for _, w := range workloads[:min(len(workloads), roomFor(block, backends))] {
		names = append(names, w.key())
		if w.Addr.IsValid() {
			had[w.key()] = w.Addr
		}
	}
	return AssignBackends(block, block6, had, names)
}

// roomFor returns how many more names than backends the block has addresses for.
func roomFor(block netip.Prefix, backends []string) int {
	distinct := make(map[string]bool, len(backends))
	for _, name := range backends {
		distinct[name] = true
	}
	return int(max(0, freeAddrs(block)-int64(len(distinct))))
}

func (a *Attachment) addWorkloads(workloads []Workload, addrs map[string]BackendAddr) {
	for _, w := range workloads {
		if pair, ok := addrs[w.key()]; ok && w.Slice == a.Slice {
			a.Workloads = append(a.Workloads, AttachedWorkload{Name: w.Name, Namespace: w.Namespace, BackendAddr: pair})
		}
	}
	slices.SortFunc(a.Workloads, func(x, y AttachedWorkload) int { return strings.Compare(x.Name, y.Name) })
}
