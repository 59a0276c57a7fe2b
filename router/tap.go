package router

import "slicewire/overlay"

// Stages of a capture: what a port brings is seen before the router changes it,
// what goes out as it goes, what is dropped as it is then. Nothing here runs
// while there is no tap.

func (r *Router) sight(p *port, buf []byte, out bool) overlay.Sight {
	s := overlay.Sight{Slice: r.slice, Port: p.name, Point: overlay.PointPort, Out: out}
	if p.role == Outside {
		s.Point = overlay.PointTunnel
	} else {
		s.Piece = overlay.MetaOf(buf).Piece
	}
	return s
}

// see shows a batch that comes in or goes out by a port.
func (r *Router) see(taps []overlay.Tap, p *port, bufs [][]byte, out bool) {
	for _, buf := range bufs {
		s := r.sight(p, buf, out)
		if out {
			s.Piece = overlay.MetaOf(buf).Piece
		}
		for _, t := range taps {
			t.See(s, buf[overlay.Headroom:])
		}
	}
}

// seeDrop shows one that goes no further.
func (r *Router) seeDrop(taps []overlay.Tap, p *port, buf []byte, drop overlay.Drop) {
	s := r.sight(p, buf, false)
	s.Point, s.Drop = overlay.PointDrop, drop
	for _, t := range taps {
		t.See(s, buf[overlay.Headroom:])
	}
}
