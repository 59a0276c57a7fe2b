package router

// flowSources knows of each source how many flows it has and which of them was
// silent longest, and which source has most. All of it is under the lock of the
// flowTable. Everything is found in constant time, and no step allocates once
// as many sources were seen as there may be flows.
type flowSources struct {
	seed    uint64
	heads   []uint32 // of buckets; sources are numbered from 1
	all     []flowSource
	free    []uint32
	byCount []uint32 // the first source with that many flows
	most    int      // flows of those that have most
}

type flowSource struct {
	hi, lo         uint64
	next           uint32 // in its bucket, or free
	oldest, newest uint32 // flows
	n              int
	left, right    uint32 // among the sources with as many
}

func (s *flowSources) init(maxFlows int, seed uint64) {
	n := 64
	for n < maxFlows {
		n *= 2
	}
	s.seed, s.heads, s.byCount = seed, make([]uint32, n), make([]uint32, maxFlows+2)
}

func (s *flowSources) at(i uint32) *flowSource { return &s.all[i-1] }

func (s *flowSources) head(hi, lo uint64) *uint32 {
	h := mum(hi^s.seed, lo^0x9e3779b97f4a7c15)
	return &s.heads[(h^h>>32)&uint64(len(s.heads)-1)]
}

// get returns the source with that address, made if need be. One that has no
// flow when the lock is given back would stay for ever: add follows.
func (s *flowSources) get(hi, lo uint64) uint32 {
	head := s.head(hi, lo)
	for i := *head; i != 0; i = s.at(i).next {
		if x := s.at(i); x.hi == hi && x.lo == lo {
			return i
		}
	}
	var i uint32
	if n := len(s.free); n > 0 {
		i, s.free = s.free[n-1], s.free[:n-1]
	} else {
		s.all = append(s.all, flowSource{})
		i = uint32(len(s.all))
	}
	*s.at(i) = flowSource{hi: hi, lo: lo, next: *head}
	*head = i
	return i
}

// fullest returns who has to give up a flow when s wants one: s itself if nobody
// has more.
func (s *flowSources) fullest(i uint32) uint32 {
	if s.at(i).n == s.most {
		return i
	}
	return s.byCount[s.most]
}

func (s *flowSources) oldest(i uint32) uint32 { return s.at(i).oldest }

// recount moves a source to those with n flows.
func (s *flowSources) recount(i uint32, n int) {
	x := s.at(i)
	if x.n > 0 {
		if x.left != 0 {
			s.at(x.left).right = x.right
		} else {
			s.byCount[x.n] = x.right
		}
		if x.right != 0 {
			s.at(x.right).left = x.left
		}
	}
	x.n, x.left, x.right = n, 0, 0
	if n > 0 {
		if x.right = s.byCount[n]; x.right != 0 {
			s.at(x.right).left = i
		}
		s.byCount[n] = i
	}
	s.most = max(s.most, n)
	for s.most > 0 && s.byCount[s.most] == 0 {
		s.most--
	}
}

// add puts flow f, which is nobody's, last in the line of source i.
func (s *flowSources) add(t *flowTable, i, f uint32) {
	x, e := s.at(i), t.at(f)
	e.source, e.older, e.newer = i, x.newest, 0
	if x.newest != 0 {
		t.at(x.newest).newer = f
	} else {
		x.oldest = f
	}
	x.newest = f
	s.recount(i, x.n+1)
}

// drop takes flow f from source i, which goes with its last one.
func (s *flowSources) drop(t *flowTable, i, f uint32) {
	x, e := s.at(i), t.at(f)
	if e.older != 0 {
		t.at(e.older).newer = e.newer
	} else {
		x.oldest = e.newer
	}
	if e.newer != 0 {
		t.at(e.newer).older = e.older
	} else {
		x.newest = e.older
	}
	s.recount(i, x.n-1)
	if x.n > 0 {
		return
	}
	link := s.head(x.hi, x.lo)
	for *link != i {
		link = &s.at(*link).next
	}
	*link = x.next
	s.free = append(s.free, i)
}

// rotate puts the first flow in a source's line last.
func (s *flowSources) rotate(t *flowTable, i uint32) {
	x := s.at(i)
	f := x.oldest
	if f == x.newest {
		return
	}
	e := t.at(f)
	x.oldest = e.newer
	t.at(x.oldest).older = 0
	e.older, e.newer = x.newest, 0
	t.at(x.newest).newer = f
	x.newest = f
}
