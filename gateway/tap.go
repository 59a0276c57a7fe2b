package gateway

import (
	"net/netip"

	"slicewire/overlay"
)

// What captures see at the underlay: the datagrams of one slice, as they go to
// the socket and as they come from it.

func (b *bind) sight(peer netip.AddrPort, out bool) overlay.Sight {
	return overlay.Sight{Slice: b.slice, Port: "underlay", Point: overlay.PointUnderlay, Out: out, Peer: peer, Local: b.mux.local}
}

func (b *bind) see(taps []overlay.Tap, bufs [][]byte, to netip.AddrPort) {
	s := b.sight(to, true)
	for _, p := range bufs {
		for _, t := range taps {
			t.See(s, p)
		}
	}
}

func (b *bind) seeRuns(taps []overlay.Tap, runs []run) {
	for _, r := range runs {
		s := b.sight(r.from.addr, false)
		for off := r.off; off < r.end; off += r.size {
			for _, t := range taps {
				t.See(s, r.buf.b[off:min(off+r.size, r.end)])
			}
		}
	}
}
