package simulate

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"slicewire/bench/lab"
	"slicewire/gateway"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
	"slicewire/overlay/pki"
	"slicewire/show"
)

// A world is a scenario with everything worked out that does not change.
type world struct {
	scenario *scenario
	mesh     overlay.Mesh
	nodes    []*simulated
	byName   map[string]*simulated
	byAddr   map[netip.Addr]*simulated
}

// A simulated is a node as its manifests and its certificate make it.
type simulated struct {
	id          overlay.NodeID
	addr        netip.Addr // on the network between the machines
	subject     pki.Subject
	attachments []overlay.Attachment
	keys        map[string][32]byte // private, by slice
	facts       []overlay.Record    // what it tells
	late        bool                // joins during the scenario
}

// newWorld reads the manifests and attaches every node as its daemon would.
// It writes what the manifests give reason to say to warnings.
func newWorld(s *scenario, warnings io.Writer) (*world, error) {
	mesh, problems := manifest.ReadMesh(s.Manifests, manifest.Options{Mesh: s.Mesh, Now: time.Now()})
	var errs []error
	for _, p := range problems {
		if p.Severity == manifest.Error {
			errs = append(errs, errors.New(p.String()))
			continue
		}
		fmt.Fprintln(warnings, show.Clean(p.String()))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	w := &world{scenario: s, mesh: mesh, byName: make(map[string]*simulated), byAddr: make(map[netip.Addr]*simulated)}
	for i, site := range s.Sites {
		for j, n := range site.Nodes {
			node := &simulated{
				id:   overlay.NodeID{Site: site.Name, Node: n.Name},
				addr: netip.AddrFrom4([4]byte{172, 16, byte(i), byte(j + 1)}),
				keys: make(map[string][32]byte),
			}
			if err := w.attach(node, j, n.Gateway); err != nil {
				return nil, fmt.Errorf("%v: %w", node.id, err)
			}
			w.nodes = append(w.nodes, node)
			w.byName[node.id.String()], w.byAddr[node.addr] = node, node
		}
	}
	for _, site := range s.Sites {
		if len(s.Sites) > 1 && !slices.ContainsFunc(site.Nodes, func(n nodeSpec) bool { return n.Gateway }) {
			fmt.Fprintf(warnings, "site %s has no node with gateway: true: other sites do not reach it\n", site.Name)
		}
	}
	for _, e := range s.Events {
		if e.Join != "" {
			w.byName[e.Join].late = true
		}
	}
	return w, nil
}

// slicesText says which slices there are, and where.
func slicesText(m *overlay.Mesh) string {
	var out []string
	for _, s := range m.Slices {
		var sites []string
		for _, x := range s.Sites {
			sites = append(sites, x.Name)
		}
		out = append(out, s.Name+" has "+strings.Join(sites, ", "))
	}
	return cmp.Or(strings.Join(out, "; "), "there is no SliceConfig in them")
}

func (w *world) attach(n *simulated, index int, isGateway bool) error {
	grants, err := overlay.Grants(&w.mesh, n.id.Site, index, isGateway)
	if err != nil {
		return err
	}
	if len(grants) == 0 {
		return fmt.Errorf("no slice of the manifests has this site: %s", slicesText(&w.mesh))
	}
	n.subject = pki.Subject{ID: n.id, Gateway: isGateway, Index: index, Grants: grants}
	authority := overlay.Authority{Mesh: w.mesh.Name, ID: n.id, Gateway: isGateway, Index: index, Grants: grants}
	var errs []error
	n.attachments, errs = overlay.Attach(&w.mesh, authority, nil, nil, nil)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	public := make(map[string]overlay.KeyBody)
	for i := range n.attachments {
		slice := n.attachments[i].Slice
		if n.keys[slice], err = gateway.NewPrivateKey(); err != nil {
			return err
		}
		public[slice] = overlay.KeyBody{PublicKey: gateway.PublicKey(n.keys[slice])}
	}
	n.facts = overlay.Tell(n.id, []netip.AddrPort{netip.AddrPortFrom(n.addr, 51820)}, n.attachments, public)
	return nil
}

// localLink is what joins the nodes of one site.
var localLink = lab.Link{Delay: 200 * time.Microsecond}

// policy is what the links are like while nothing is cut.
func (w *world) policy() lab.Policy {
	type way struct{ from, to netip.Addr }
	links := make(map[way]lab.Link)
	for _, a := range w.nodes {
		for _, b := range w.nodes {
			l := w.scenario.Link.link()
			if a.id.Site == b.id.Site {
				l = localLink
			}
			for _, x := range w.scenario.Links {
				if joins(x.Between, a.id, b.id) {
					l = x.link()
				}
			}
			links[way{a.addr, b.addr}] = l
		}
	}
	return func(from, to netip.Addr) lab.Link { return links[way{from, to}] }
}

// joins reports whether a link with those ends is the one between two nodes.
func joins(ends []string, a, b overlay.NodeID) bool {
	return a != b && (concerns(ends[0], a) && concerns(ends[1], b) || concerns(ends[0], b) && concerns(ends[1], a))
}

// A cutting is which ways are cut now, in the order of the nodes' addresses.
type cutting map[[2]netip.Addr]bool

// apply makes the cutting what it is after a cut or a heal.
func (w *world) apply(cut cutting, e *eventSpec) {
	ends, on := e.Cut, true
	if len(e.Heal) > 0 {
		ends, on = e.Heal, false
	}
	for _, a := range w.nodes {
		for _, b := range w.nodes {
			forth := a != b && concerns(ends[0], a.id) && concerns(ends[1], b.id)
			back := a != b && concerns(ends[0], b.id) && concerns(ends[1], a.id)
			if forth || back && (!on || !e.OneWay) {
				cut[[2]netip.Addr{a.addr, b.addr}] = on
			}
		}
	}
}

// with is a policy with some ways cut.
func (c cutting) with(p lab.Policy) lab.Policy {
	cut := make(cutting, len(c))
	for k, v := range c {
		cut[k] = v
	}
	return func(from, to netip.Addr) lab.Link {
		l := p(from, to)
		l.Cut = l.Cut || cut[[2]netip.Addr{from, to}]
		return l
	}
}
