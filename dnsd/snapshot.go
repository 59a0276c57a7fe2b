package dnsd

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"slicewire/overlay"
)

// A snapshot is one state of the view. It is immutable but for the turns,
// which only spread load.
type snapshot struct {
	zones    []zone             // the longest first
	names    map[string]*record // by wire form; zones and what lies above a name too, but not what lies below a service
	networks []netip.Prefix     // whose addresses have names here
	reverses []reverse          // sorted by address
	forward  map[netip.Addr]bool
	lenient  bool
	ttl      uint32 // seconds
	soa      []byte // the data of every SOA record

	mode  Mode // as the view had it
	reach map[overlay.NodeID]overlay.Reach
}

// A zone is a domain that we speak for.
type zone struct {
	wire string
	mcs  bool // services have names there by the rules of KEP-1645
}

// A record is what a name has.
type record struct {
	exact  bool // outside the zones: we answer for this name alone
	v4, v6 addrSet
	each   addrSet  // of a service: one address of each endpoint, for who connects to any of them
	svc    *service // whose name it is
	text   string   // TXT
}

// An addrSet is one family's addresses of a name, in groups of equals. Each
// family takes turns of its own: a client that asks for both would else see
// only every second turn.
type addrSet struct {
	addrs  []netip.Addr
	packed []byte // one record per address, the owner pointing at the question
	groups []int  // where each group but the first begins
	most   int    // of the addresses in an answer; 0: all
	turn   atomic.Uint32

	last uint8               // while it is filled: the rank of the newest address
	seen map[netip.Addr]bool // and what is in it, when that is much
}

const (
	// ownerIsQuestion is a compression pointer to the question's name.
	ownerIsQuestion = 0xc000 | headerBytes
	headerBytes     = 12
	rrBytes         = 12 // of a record before its data, the owner a pointer

	// Zone transfer timers of the SOA. Nobody transfers from us; the values
	// are RIPE-203's, so that checkers stay quiet.
	soaRefresh = 86400
	soaRetry   = 7200
	soaExpire  = 3600000

	manyAddrs = 32 // from so many on, repeated ones are found by a map
)

// newSnapshot indexes a view below zones, of which the first is the primary.
// It returns the entries' names that are no names. Services that are in before,
// which may be nil, as they are now keep their records and with them their turns.
func newSnapshot(zones []zone, ttl time.Duration, serial uint32, v View, before *snapshot) (*snapshot, []string) {
	s := &snapshot{
		zones:    slices.SortedFunc(slices.Values(zones), func(a, b zone) int { return len(b.wire) - len(a.wire) }),
		names:    make(map[string]*record, len(v.Entries)+(1+len(zones))*len(v.Services)),
		networks: slices.Clone(v.Reverse),
		lenient:  v.Lenient,
		forward:  make(map[netip.Addr]bool, len(v.Forward)),
		ttl:      uint32((ttl + time.Second - 1) / time.Second),
		mode:     v.Mode,
		reach:    maps.Clone(v.Reach),
	}
	s.soa = packSOA(zones[0].wire, serial, s.ttl)
	for _, a := range v.Forward {
		s.forward[a] = true
	}
	var bad []string
	for _, z := range zones {
		s.names[z.wire] = &record{}
		version := overlay.Zone
		if z.mcs {
			version = overlay.ClusterSetZone
		}
		s.record("\x0bdns-version" + z.wire).text = dnsVersions[version]
	}
	for _, e := range v.Entries {
		wire, ok := appendName(nil, e.Name)
		if !ok {
			bad = append(bad, e.Name)
			continue
		}
		r := s.record(string(wire))
		for _, a := range e.Addrs {
			r.add(a, 0)
			if e.Reverse {
				s.reverses = append(s.reverses, reverse{addr: a, name: e.Name})
			}
		}
	}
	for _, r := range s.names {
		r.v4.pack(typeA, s.ttl)
		r.v6.pack(typeAAAA, s.ttl)
	}
	kept := newKeeper(before, s, serial)
	for i := range v.Services {
		if kept.keep(s, &v.Services[i], v) {
			continue
		}
		svc := newService(&v.Services[i], v.Reach)
		svc.serial = serial
		if x, is := v.StandIns[svc.Namespace+"/"+svc.Name]; is {
			svc.standIn = &x
		}
		bad = append(bad, s.addService(svc, v.Mode)...)
	}
	s.reverses = kept.reverses(s.reverses)
	return s, bad
}

// addService gives a service its names, and its addresses theirs.
func (s *snapshot) addService(svc *service, mode Mode) (bad []string) {
	s.addServiceReverses(svc)
	var all, mcs record
	svc.addresses(&all, mode)
	all.v4.pack(typeA, s.ttl)
	all.v6.pack(typeAAAA, s.ttl)
	all.each.seen = nil
	special := svc.mcsAddresses(&mcs)
	mcs.v4.pack(typeA, s.ttl)
	mcs.v6.pack(typeAAAA, s.ttl)
	for _, z := range s.zones {
		wire, ok := appendName(nil, svc.Name+"."+svc.Namespace+".svc")
		if !ok || len(wire)-1+len(z.wire) > maxName {
			bad = append(bad, svc.Namespace+"/"+svc.Name)
			continue
		}
		if z.mcs && svc.Type == overlay.Headless && len(svc.Endpoints) == 0 {
			continue // KEP-1645: the name of a headless service without ready endpoints does not exist
		}
		r := s.record(string(wire[:len(wire)-1]) + z.wire)
		r.svc = svc
		if z.mcs && special {
			r.share(&mcs)
		} else {
			r.share(&all)
		}
	}
	for _, alias := range svc.DNSNames[min(1, len(svc.DNSNames)):] {
		wire, ok := appendName(nil, alias)
		if !ok || s.zoneOf(wire) != nil {
			bad = append(bad, alias)
			continue
		}
		r := s.record(string(wire))
		r.svc = svc
		r.share(&all)
	}
	return bad
}

// addServiceReverses gives a service's addresses their names.
func (s *snapshot) addServiceReverses(svc *service) {
	if len(svc.live) > 0 {
		s.addReverses(svc.ownAddrs(), svc, -1)
	}
	for _, i := range svc.live {
		e := &svc.Endpoints[i]
		if svc.standIn != nil {
			s.addReverses(svc.addrsOf(e), svc, i)
			continue
		}
		s.addReverses([]netip.Addr{e.Addr, e.Addr6}, svc, i)
	}
}

func (s *snapshot) addReverses(addrs []netip.Addr, svc *service, endpoint int32) {
	for _, a := range addrs {
		if a.IsValid() {
			s.reverses = append(s.reverses, reverse{addr: a, service: svc, endpoint: endpoint})
		}
	}
}

// record returns the record of a name, which is new if need be.
func (s *snapshot) record(name string) *record {
	if r := s.names[name]; r != nil {
		return r
	}
	z := s.zoneOf([]byte(name))
	r := &record{exact: z == nil}
	if z == nil {
		s.names[name] = r
	} else {
		s.put(name, r)
	}
	return r
}

// put puts a name of a zone in, and all above it (RFC 8020: they exist).
func (s *snapshot) put(name string, r *record) {
	z := s.zoneOf([]byte(name))
	s.names[name] = r
	for up := parent(name); up != z.wire && len(up) > len(z.wire); up = parent(up) {
		if s.names[up] != nil {
			break // and what is above it is there too
		}
		s.names[up] = &record{}
	}
}

// share gives r the addresses of from, with turns of its own.
func (r *record) share(from *record) {
	for _, x := range []struct{ to, from *addrSet }{{&r.v4, &from.v4}, {&r.v6, &from.v6}, {&r.each, &from.each}} {
		x.to.addrs, x.to.packed, x.to.groups, x.to.most = x.from.addrs, x.from.packed, x.from.groups, x.from.most
	}
}

func (r *record) addAll(addrs []netip.Addr, rank uint8) {
	for _, a := range addrs {
		r.add(a, rank)
	}
}

// add adds an address once. Ranks never fall from one call to the next.
func (r *record) add(a netip.Addr, rank uint8) {
	if !a.IsValid() {
		return
	}
	set := &r.v6
	if a = a.Unmap().WithZone(""); a.Is4() {
		set = &r.v4
	}
	set.add(a, rank)
}

// add adds an address once. Ranks never fall from one call to the next.
func (a *addrSet) add(addr netip.Addr, rank uint8) {
	n := len(a.addrs)
	if n == manyAddrs {
		a.seen = make(map[netip.Addr]bool)
		for _, b := range a.addrs {
			a.seen[b] = true
		}
	}
	if a.seen != nil && a.seen[addr] || a.seen == nil && slices.Contains(a.addrs, addr) {
		return
	}
	if a.seen != nil {
		a.seen[addr] = true
	}
	if n > 0 && rank != a.last {
		a.groups = append(a.groups, n)
	}
	a.last = rank
	a.addrs = append(a.addrs, addr)
}

// zoneOf returns the closest zone that holds name, or nil.
func (s *snapshot) zoneOf(name []byte) *zone {
	for i := range s.zones {
		if below(name, s.zones[i].wire) {
			return &s.zones[i]
		}
	}
	return nil
}

func (a *addrSet) pack(qtype uint16, ttl uint32) {
	a.seen = nil
	if len(a.packed) > 0 {
		return
	}
	if len(a.addrs) > 0 {
		a.packed = make([]byte, 0, len(a.addrs)*(rrBytes+a.addrs[0].BitLen()/8))
	}
	for _, addr := range a.addrs {
		a.packed = appendRR(a.packed, ownerIsQuestion, qtype, ttl, addr.AsSlice())
	}
}

// count is how many addresses an answer has at most.
func (a *addrSet) count() int {
	if a.most > 0 {
		return min(a.most, len(a.addrs))
	}
	return len(a.addrs)
}

// next returns which turn it is.
func (a *addrSet) next() int { return int(a.turn.Add(1) - 1) }

// group returns where the group of equals of that number ends.
func (a *addrSet) group(i int) (to int) {
	if i < len(a.groups) {
		return a.groups[i]
	}
	return len(a.addrs)
}

// appendRotated appends the first n records of a turn: group by group, each
// from where the turn starts in it.
func (a *addrSet) appendRotated(out []byte, turn, n int) []byte {
	size := len(a.packed) / len(a.addrs)
	for from, i := 0, 0; n > 0 && from < len(a.addrs); i++ {
		to := a.group(i)
		start := from + turn%(to-from)
		tail := min(n, to-start)
		out = append(out, a.packed[start*size:(start+tail)*size]...)
		rest := min(n-tail, start-from)
		out = append(out, a.packed[from*size:(from+rest)*size]...)
		n -= tail + rest
		from = to
	}
	return out
}

// rotated returns the first n addresses of a turn.
func (a *addrSet) rotated(turn, n int) (out []netip.Addr) {
	for from, i := 0, 0; n > 0 && from < len(a.addrs); i++ {
		to := a.group(i)
		for k := range min(n, to-from) {
			out = append(out, a.addrs[from+(turn+k)%(to-from)])
		}
		n -= min(n, to-from)
		from = to
	}
	return out
}

// ordered returns all addresses, each group of equals by rendezvous hash with a
// client.
func (a *addrSet) ordered(client netip.Addr) []netip.Addr {
	weight := func(x netip.Addr) uint64 {
		h := fnv.New64a()
		b, c := client.As16(), x.As16()
		h.Write(b[:])
		h.Write(c[:])
		v := h.Sum64()
		v = (v ^ v>>30) * 0xbf58476d1ce4e5b9
		return v ^ v>>31
	}
	out := slices.Clone(a.addrs)
	for from, i := 0, 0; from < len(out); i++ {
		to := a.group(i)
		slices.SortFunc(out[from:to], func(x, y netip.Addr) int { return cmp.Compare(weight(y), weight(x)) })
		from = to
	}
	return out
}

// appendRR appends a record of class IN whose owner is a compression pointer.
func appendRR(b []byte, owner, rrtype uint16, ttl uint32, data []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, owner)
	b = binary.BigEndian.AppendUint16(b, rrtype)
	b = binary.BigEndian.AppendUint16(b, classIN)
	b = binary.BigEndian.AppendUint32(b, ttl)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}

// packSOA makes the data of our SOA records. It holds no compression pointer,
// so that it fits into any message. RFC 2308: the last field is how long
// clients may remember that a name does not exist.
func packSOA(zone string, serial, minimum uint32) []byte {
	b := append([]byte("\x02ns\x03dns"), zone...)
	b = append(append(b, "\x0ahostmaster"...), zone...)
	for _, v := range [...]uint32{serial, soaRefresh, soaRetry, soaExpire, minimum} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}
