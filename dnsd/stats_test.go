package dnsd

import (
	"context"
	"maps"
	"net/netip"
	"testing"
	"time"
)

func TestQueriesAreCountedByTypeAndOrigin(t *testing.T) {
	up := upstreamOf(t, replying(t, "@ 60 IN A 192.0.43.8"))
	s, err := New(Config{Upstream: []netip.AddrPort{up.addr}})
	if err != nil {
		t.Fatal(err)
	}
	s.Set(View{Entries: testEntries()})
	for _, c := range []struct {
		name  string
		qtype uint16
		times int
	}{{"web.shop.svc.slice.local", typeA, 3}, {"web.shop.svc.slice.local", typeAAAA, 2}, {"nope.slice.local", typeA, 1}, {"slice.local", typeSOA, 1}, {"web.shop.svc.slice.local", 15, 1}, {"example.org", typeA, 1}} {
		for range c.times {
			s.respond(nil, pack(t, query(c.name, c.qtype)), maxUDP)
		}
	}
	s.respond(nil, headerOnlyQuery(), maxUDP)
	s.respond(nil, []byte("short"), maxUDP)
	outside := pack(t, query("www.example.com", typeA))
	for range 3 { // asked once, known twice
		s.safely(outside, func() []byte { return s.forwarded(context.Background(), outside, maxUDP) })
	}
	up.down.Store(true)
	never := pack(t, query("other.example.com", typeA))
	s.safely(never, func() []byte { return s.forwarded(context.Background(), never, maxUDP) })

	st := s.Stats()
	for qtype, want := range map[string]map[string]uint64{
		"A": {"noerror": 6, "nxdomain": 1, "refused": 1, "servfail": 1}, "AAAA": {"noerror": 2}, "SOA": {"noerror": 1}, "other": {"noerror": 1}, "none": {"formerr": 1},
	} {
		if !maps.Equal(st.Queries[qtype], want) {
			t.Errorf("%s: %v, want %v", qtype, st.Queries[qtype], want)
		}
	}
	if want := map[string]uint64{"local": 10, "upstream": 1, "cache": 2, "failed": 1}; !maps.Equal(st.From, want) {
		t.Errorf("from %v, want %v", st.From, want)
	}
	n := uint64(0)
	for _, k := range st.Took.Counts {
		n += k
	}
	if n != 14 || st.Took.Sum <= 0 || st.Dropped["malformed"] != 1 {
		t.Errorf("%d took %v, dropped %v", n, st.Took.Sum, st.Dropped)
	}
}

func headerOnlyQuery() []byte { return []byte{1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0} }

func TestDurationsFallBelowTheirBounds(t *testing.T) {
	for _, d := range []time.Duration{0, 1, 4095, 4096, 16383, 16384, time.Millisecond, time.Second, 4294967295, 4294967296, time.Hour} {
		var c counters
		c.count(make([]byte, headerBytes), d)
		for i := range c.took {
			if c.took[i].Load() == 0 {
				continue
			}
			if i < durationBuckets-1 && d >= DurationBound(i) || i > 0 && d < DurationBound(i-1) {
				t.Errorf("%v is counted below %v", d, DurationBound(i))
			}
		}
	}
}
