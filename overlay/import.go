package overlay

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// A ServiceView is a service as the slice imports it: what all its exports say,
// merged.
type ServiceView struct {
	Name       string
	Namespace  string
	Type       ServiceType
	Affinity   uint32         // seconds
	Exported   Exported       // of the oldest export
	DNSNames   []string       // the canonical name and aliases, lower case, without the final dot
	Ports      []ServicePort  // of all exports
	Endpoints  []EndpointView // sorted by site, node, name
	Virtual    netip.Addr     // of type Virtual; invalid when there was none left
	Virtual6   netip.Addr
	Conditions []Condition // where exports contradict each other
}

// An EndpointView is an endpoint and the node that announced it.
type EndpointView struct {
	Endpoint
	Origin NodeID
	Ports  []ServicePort // of its own export; shared, not to be changed
}

// A Condition says that an export was not taken as it is, because an older one
// says otherwise.
type Condition struct {
	Origin  NodeID // whose export gave way
	Reason  string // as the Multi-Cluster Services API names it
	Message string
}

// The reasons of conditions.
const (
	ConflictPort     = "PortConflict"
	ConflictType     = "TypeConflict"
	ConflictAffinity = "SessionAffinityConflict"
	ConflictLabels   = "LabelsConflict"
	ConflictNotes    = "AnnotationsConflict"
	ConflictAlias    = "AliasConflict"
)

// An export is one node's record of a service.
type export struct {
	origin NodeID
	body   *ServiceBody
}

// An Importer works out views like Look and remembers the services of the last
// one, so that those of which nobody says anything new cost next to nothing. The
// zero Importer is ready. It is not safe for concurrent use.
type Importer struct {
	known map[string]imported // by namespace/name
}

// An imported service is what was made of some exports, but for what depends on
// other services: aliases and the virtual address.
type imported struct {
	exports []export
	view    ServiceView
}

// of returns what exports make, from memory if they are the ones of last time.
func (im *Importer) of(name, namespace string, exports []export) imported {
	if was, ok := im.known[namespace+"/"+name]; ok && slices.Equal(was.exports, exports) {
		return was
	}
	v := merge(name, namespace, exports)
	v.DNSNames, v.Conditions = slices.Clip(v.DNSNames), slices.Clip(v.Conditions) // what is appended is not remembered
	return imported{exports, v}
}

// services merges the exports of every service by the rules of the
// Multi-Cluster Services API, oldest export first, nodes in order where ages are
// equal:
//
//  1. Endpoints are those of all exports, each with the ports of its own.
//  2. Ports are those of all exports. A port that has the name of an older one
//     but another number or protocol, or the number and protocol but another
//     name, is a conflict: the older stands.
//  3. Type and session affinity are the oldest export's; who differs conflicts.
//  4. Aliases are those of all exports. One that is another service's, or lies
//     in a zone of ours, conflicts: it stays with the service whose export is
//     older. It is unique within the slice and only there.
//
// Exports by nodes of one site count as the site's one export and are compared
// alike. records are sorted by origin.
func (im *Importer) services(s *Slice, records []Record) []ServiceView {
	byName := make(map[string][]export)
	for _, r := range records {
		if r.Deleted || r.Key.Kind != KindService || r.Key.Slice != s.Name {
			continue
		}
		namespace, name, ok := strings.Cut(r.Key.Name, "/")
		if ok && ValidLabel(name) && ValidLabel(namespace) && s.binds(namespace, r.Origin.Site) {
			byName[r.Key.Name] = append(byName[r.Key.Name], export{r.Origin, r.Service})
		}
	}
	out := make([]ServiceView, 0, len(byName))
	oldest := make([]ExportTerms, 0, len(byName))
	keys := make([]string, 0, len(byName))
	for key := range byName {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	known := make(map[string]imported, len(keys))
	for _, key := range keys {
		exports := byName[key]
		slices.SortStableFunc(exports, func(a, b export) int {
			switch {
			case a.body.older(b.body.ExportTerms):
				return -1
			case b.body.older(a.body.ExportTerms):
				return 1
			}
			return 0
		})
		namespace, name, _ := strings.Cut(key, "/")
		one := im.of(name, namespace, exports)
		known[key] = one
		out = append(out, one.view)
		oldest = append(oldest, exports[0].body.ExportTerms)
	}
	im.known = known
	resolveAliases(out, oldest, byName)
	assignVirtual(s, out)
	return out
}

// merge makes one service of its exports, the oldest first; but for aliases.
func merge(name, namespace string, exports []export) ServiceView {
	first := exports[0].body
	v := ServiceView{Name: name, Namespace: namespace, Type: first.Type, Affinity: first.AffinitySeconds, Exported: DecodeExported(first.Exported), DNSNames: []string{ServiceDNSName(name, namespace)}}
	n := 0
	for _, e := range exports {
		n += len(e.body.Endpoints)
	}
	v.Endpoints = make([]EndpointView, 0, n)
	for _, e := range exports {
		conflict := func(reason, message string) {
			v.Conditions = append(v.Conditions, Condition{e.origin, reason, message})
		}
		if e.body.Type != v.Type {
			conflict(ConflictType, "exported as "+e.body.Type.String()+", the oldest export says "+v.Type.String())
		}
		if e.body.AffinitySeconds != v.Affinity {
			conflict(ConflictAffinity, "the session affinity differs from that of the oldest export")
		}
		if e.body.Exported != first.Exported {
			x := DecodeExported(e.body.Exported)
			if !maps.Equal(x.Labels, v.Exported.Labels) {
				conflict(ConflictLabels, "the exported labels differ from those of the oldest export")
			}
			if !maps.Equal(x.Annotations, v.Exported.Annotations) {
				conflict(ConflictNotes, "the exported annotations differ from those of the oldest export")
			}
		}
		ports := e.body.Ports[:0:0]
		for _, p := range e.body.Ports {
			i := slices.IndexFunc(v.Ports, func(q ServicePort) bool {
				return p.Name != "" && q.Name == p.Name || q.Port == p.Port && q.Protocol == p.Protocol
			})
			switch {
			case i < 0:
				v.Ports = append(v.Ports, p)
			case v.Ports[i] != p:
				conflict(ConflictPort, "port "+p.String()+" contradicts "+v.Ports[i].String()+" of an older export")
				continue
			}
			ports = append(ports, p)
		}
		for _, x := range e.body.Endpoints {
			v.Endpoints = append(v.Endpoints, EndpointView{Endpoint: x, Origin: e.origin, Ports: ports})
		}
	}
	slices.SortStableFunc(v.Endpoints, func(a, b EndpointView) int {
		return cmp.Or(cmp.Compare(a.Origin.Site, b.Origin.Site), cmp.Compare(a.Origin.Node, b.Origin.Node), cmp.Compare(a.Name, b.Name))
	})
	return v
}

// resolveAliases gives every alias to one service.
func resolveAliases(services []ServiceView, oldest []ExportTerms, exports map[string][]export) {
	order := make([]int, len(services))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case oldest[a].older(oldest[b]):
			return -1
		case oldest[b].older(oldest[a]):
			return 1
		}
		return 0
	})
	owner := make(map[string]int)
	for _, i := range order {
		s := &services[i]
		for _, e := range exports[s.Namespace+"/"+s.Name] {
			for _, alias := range e.body.Aliases {
				alias = strings.ToLower(strings.TrimSuffix(alias, "."))
				had, taken := owner[alias]
				switch {
				case InZones(alias):
					s.Conditions = append(s.Conditions, Condition{e.origin, ConflictAlias, "alias " + alias + " lies in a zone of the slice"})
				case taken && had != i:
					s.Conditions = append(s.Conditions, Condition{e.origin, ConflictAlias,
						"alias " + alias + " is that of " + services[had].Namespace + "/" + services[had].Name})
				case !taken:
					owner[alias] = i
					s.DNSNames = append(s.DNSNames, alias)
				}
			}
		}
	}
}
