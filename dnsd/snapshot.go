package dnsd

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// A snapshot is one state of the view. It is immutable but for the turns,
// which only spread load.
type snapshot struct {
	zones []string           // wire form; the longest first
	names map[string]*record // every name that exists, zones and empty non-terminals too
	ttl   uint32             // seconds
	soa   []byte             // the data of every SOA record
}

// A record is what a name has.
type record struct {
	exact  bool // outside the zones: we answer for this name alone
	v4, v6 addrSet
	turn   atomic.Uint32 // for Lookup
}

// An addrSet is one family's addresses of a name. Each family takes turns of
// its own: a client that asks for both would else see only every second turn.
type addrSet struct {
	addrs  []netip.Addr
	packed []byte // one record per address, the owner pointing at the question
	turn   atomic.Uint32
}

const (
	// ownerIsQuestion is a compression pointer to the question's name.
	ownerIsQuestion = 0xc000 | headerBytes
	headerBytes     = 12

	// Zone transfer timers of the SOA. Nobody transfers from us; the values
	// are RIPE-203's, so that checkers stay quiet.
	soaRefresh = 86400
	soaRetry   = 7200
	soaExpire  = 3600000
)

// newSnapshot indexes entries below zones, of which the first is the primary.
// It returns the entries' names that are no names.
func newSnapshot(zones []string, ttl time.Duration, serial uint32, entries []Entry) (*snapshot, []string) {
	s := &snapshot{
		zones: slices.SortedFunc(slices.Values(zones), func(a, b string) int { return len(b) - len(a) }),
		names: make(map[string]*record, len(entries)),
		ttl:   uint32((ttl + time.Second - 1) / time.Second),
	}
	s.soa = packSOA(zones[0], serial, s.ttl)
	var bad []string
	for _, zone := range zones {
		s.names[zone] = &record{}
	}
	for _, e := range entries {
		wire, ok := appendName(nil, e.Name)
		if !ok {
			bad = append(bad, e.Name)
			continue
		}
		s.add(string(wire), e.Addrs)
	}
	for _, r := range s.names {
		r.v4.pack(typeA, s.ttl)
		r.v6.pack(typeAAAA, s.ttl)
	}
	return s, bad
}

func (s *snapshot) add(name string, addrs []netip.Addr) {
	r := s.names[name]
	if r == nil {
		r = &record{}
		s.names[name] = r
	}
	zone := s.zoneOf([]byte(name))
	r.exact = zone == ""
	for up := name; zone != "" && up != zone; up = parent(up) {
		if s.names[up] == nil {
			s.names[up] = &record{} // RFC 8020: names above a name exist
		}
	}
	for _, a := range addrs {
		if !a.IsValid() {
			continue
		}
		set := &r.v6
		if a = a.Unmap().WithZone(""); a.Is4() {
			set = &r.v4
		}
		if !slices.Contains(set.addrs, a) {
			set.addrs = append(set.addrs, a)
		}
	}
}

// zoneOf returns the closest zone that holds name, or "".
func (s *snapshot) zoneOf(name []byte) string {
	for _, z := range s.zones {
		if below(name, z) {
			return z
		}
	}
	return ""
}

func (a *addrSet) pack(qtype uint16, ttl uint32) {
	for _, addr := range a.addrs {
		a.packed = appendRR(a.packed, ownerIsQuestion, qtype, ttl, addr.AsSlice())
	}
}

// next returns where this answer's rotation starts.
func (a *addrSet) next() int { return int((a.turn.Add(1) - 1) % uint32(len(a.addrs))) }

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
