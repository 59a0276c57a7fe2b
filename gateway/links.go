package gateway

// Links returns the links of a slice's tunnel that sends. It asks no device, so
// that it may be called often, and fills in only what is known without: names,
// keys, prefixes (shared: not to be changed) and the state of watched links.
func (g *Gateway) Links(slice string) (out []PeerStatus) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.desired {
		d := &g.desired[i]
		t := g.running[d.id()]
		if d.Slice != slice || d.Passive || t == nil {
			continue
		}
		for _, p := range t.conf.Peers {
			l := PeerStatus{Name: p.Name, PublicKey: p.PublicKey, Prefixes: p.Prefixes}
			if p.Probe {
				t.lane.status(&l)
			}
			out = append(out, l)
		}
	}
	return out
}
