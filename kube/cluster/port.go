package cluster

import "hash/fnv"

// The pod's ports that doors are given: below those that the system gives to
// connections, above those that anything else of slicewire listens on.
const (
	firstDoor = 20000
	numDoors  = 12000
)

// doorPorts gives every key a port of its own. One keeps its port of before; a
// new one takes the first free port from its hash on, so that the same services
// find the same ports after a loss of what was before. Keys for which none is
// left are absent.
func doorPorts(before map[string]uint16, keys []string) map[string]uint16 {
	out := make(map[string]uint16, len(keys))
	taken := make(map[uint16]bool, len(keys))
	for _, k := range keys {
		if p, had := before[k]; had && p >= firstDoor && p < firstDoor+numDoors && !taken[p] {
			out[k], taken[p] = p, true
		}
	}
	for _, k := range keys {
		if _, has := out[k]; has || len(taken) == numDoors {
			continue
		}
		h := fnv.New32a()
		h.Write([]byte(k))
		i := h.Sum32() % numDoors
		for taken[uint16(firstDoor+i)] {
			i = (i + 1) % numDoors
		}
		p := uint16(firstDoor + i)
		out[k], taken[p] = p, true
	}
	return out
}
