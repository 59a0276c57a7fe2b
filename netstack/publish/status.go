package publish

import (
	"net/netip"
	"slices"
	"strings"

	"slicewire/overlay"
)

// BackendStatus is how a backend fares. Counts are totals since it was first
// set.
type BackendStatus struct {
	Name      string
	Ports     []PortStatus // sorted by address, port and protocol
	Conns     int          // TCP connections now
	Flows     int          // UDP flows now
	Accepted  uint64       // TCP connections taken and UDP flows begun
	Refused   uint64       // TCP connections reset because of a limit
	Unreached uint64       // the target did not take a connection or flow
	Evicted   uint64       // UDP flows that gave way to newer ones
	Dropped   uint64       // datagrams lost
	BytesIn   uint64       // payload from the slice to the target
	BytesOut  uint64       // payload from the target to the slice
	LastFault string       // why the target could not be reached the last time; empty once it is
}

// PortStatus is one socket on the slice.
type PortStatus struct {
	Name      string
	Addr      netip.AddrPort
	Protocol  overlay.Protocol
	Target    string
	Listening bool
	Fault     string // why not
}

// Status tells of every backend of the last Set, sorted by name. Ports that Set
// refused are only in its error.
func (p *Publisher) Status() []BackendStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	byName := make(map[string]*BackendStatus)
	for _, s := range p.wanted {
		b := byName[s.backend]
		if b == nil {
			b = p.shares[s.backend].status(s.backend)
			byName[s.backend] = b
		}
		ps := PortStatus{Name: s.port, Addr: s.key.addr, Protocol: overlay.TCP, Target: s.target.addr, Listening: p.open[s.key] != nil}
		if s.key.udp {
			ps.Protocol = overlay.UDP
		}
		if s.target.network == "unix" {
			ps.Target = "unix:" + s.target.addr
		}
		if err := p.failed[s.key]; err != nil {
			ps.Fault = err.Error()
		}
		b.Ports = append(b.Ports, ps)
	}
	var out []BackendStatus
	for _, b := range byName {
		slices.SortFunc(b.Ports, func(x, y PortStatus) int {
			if c := x.Addr.Compare(y.Addr); c != 0 {
				return c
			}
			return strings.Compare(string(x.Protocol), string(y.Protocol))
		})
		out = append(out, *b)
	}
	slices.SortFunc(out, func(a, b BackendStatus) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (s *share) status(name string) *BackendStatus {
	b := &BackendStatus{
		Name:      name,
		Conns:     int(s.conns.Load()),
		Flows:     int(s.flows.Load()),
		Accepted:  s.accepted.Load(),
		Refused:   s.refused.Load(),
		Unreached: s.unreached.Load(),
		Evicted:   s.evicted.Load(),
		Dropped:   s.dropped.Load(),
		BytesIn:   s.bytes.Up.Load(),
		BytesOut:  s.bytes.Down.Load(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil {
		b.LastFault = s.last.Error()
	}
	return b
}
