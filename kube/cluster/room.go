package cluster

// fit leaves out endpoints that are more than a node may publish: of services
// with many before of those with few. It returns how many by slice.
func fit(list []exported) map[string]int {
	total := make(map[string]int)
	room := make(map[string]int)
	for i := range list {
		if x := list[i].export; x != nil {
			total[x.Slice] += len(x.Backends)
			room[x.Slice] = list[i].slice.Room
		}
	}
	lost := make(map[string]int)
	for slice, n := range total {
		if n <= room[slice] {
			continue
		}
		each := level(list, slice, room[slice])
		left := room[slice]
		for i := range list {
			if x := list[i].export; x != nil && x.Slice == slice {
				keep := min(len(x.Backends), each, left)
				left -= keep
				if gone := len(x.Backends) - keep; gone > 0 {
					lost[slice] += gone
					list[i].leave("%d endpoints: a node publishes at most %d on slice %s", gone, room[slice], slice)
					x.Backends = x.Backends[:keep]
				}
			}
		}
	}
	return lost
}

// withoutIPv4 counts the endpoints of this node that get no IPv4 address, because
// their slice has too few for a node.
func withoutIPv4(list []exported) (n int) {
	room := make(map[*Slice]int)
	for i := range list {
		x := &list[i]
		if x.export == nil {
			continue
		}
		if _, counted := room[x.slice]; !counted {
			room[x.slice] = x.slice.Room4
		}
		room[x.slice] -= len(x.export.Backends)
	}
	for _, left := range room {
		n += max(0, -left)
	}
	return n
}

// level returns how many endpoints each service of a slice may have at most, so
// that all of them together are no more than room: 1 at least.
func level(list []exported, slice string, room int) int {
	for each := 1; ; each++ {
		sum := 0
		for i := range list {
			if x := list[i].export; x != nil && x.Slice == slice {
				sum += min(len(x.Backends), each+1)
			}
		}
		if sum > room || each >= room {
			return each
		}
	}
}
