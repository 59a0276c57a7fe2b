package overlay

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Tell lists everything a node has to say of itself: where it is reached and,
// per slice, its WireGuard public key, its prefixes and its part of every
// service. The records carry no version and no lifetime yet; whoever signs
// them adds both. keys holds the public keys per slice.
func Tell(self NodeID, endpoints []netip.AddrPort, attachments []Attachment, keys map[string]KeyBody) []Record {
	out := []Record{{Origin: self, Key: Key{Kind: KindNode}, Node: &NodeBody{Endpoints: endpoints}}}
	for i := range attachments {
		a := &attachments[i]
		key, ok := keys[a.Slice]
		if !ok {
			continue
		}
		out = append(out,
			Record{Origin: self, Key: Key{Kind: KindKey, Slice: a.Slice}, WGKey: &key},
			Record{Origin: self, Key: Key{Kind: KindPrefix, Slice: a.Slice}, Prefix: &PrefixBody{Prefixes: a.Announce}})
		out = append(out, tellServices(self, a)...)
		out = append(out, tellWorkloads(self, a)...)
	}
	return out
}

// tellWorkloads says which workloads are in which namespace, so that others'
// policies know them. A label of their own stands for names that are none.
func tellWorkloads(self NodeID, a *Attachment) []Record {
	var out []Record
	for n, w := range a.Workloads {
		if w.Namespace == "" {
			continue
		}
		i := slices.IndexFunc(out, func(r Record) bool { return r.Key.Name == w.Namespace })
		if i < 0 {
			i = len(out)
			out = append(out, Record{
				Origin: self, Key: Key{Kind: KindWorkloads, Slice: a.Slice, Name: w.Namespace}, Service: new(ServiceBody),
			})
		}
		e := Endpoint{Name: w.Name, Addr: w.Addr, Addr6: w.Addr6}
		taken := func(x Endpoint) bool { return x.Name == e.Name }
		for k := n; !ValidLabel(e.Name) || slices.ContainsFunc(out[i].Service.Endpoints, taken); k++ {
			e.Name = fmt.Sprintf("workload--%d", k)
		}
		out[i].Service.Endpoints = append(out[i].Service.Endpoints, e)
	}
	return out
}

func tellServices(self NodeID, a *Attachment) []Record {
	var out []Record
	at := make(map[string]int)
	begin := func(s *Service) int {
		name := s.Namespace + "/" + s.Name
		i, told := at[name]
		if !told {
			i = len(out)
			at[name] = i
			out = append(out, Record{
				Origin:  self,
				Key:     Key{Kind: KindService, Slice: a.Slice, Name: name},
				Service: &ServiceBody{Ports: s.Ports, Aliases: aliases(*s), ExportTerms: s.ExportTerms},
			})
		}
		return i
	}
	for i := range a.Exports {
		begin(&a.Exports[i])
	}
	for _, b := range slices.Concat(a.Backends, a.Hosts) {
		body := out[begin(&b.Service)].Service
		body.Endpoints = append(body.Endpoints, Endpoint{Name: b.Name, Addr: b.Addr, Addr6: b.Addr6})
	}
	return out
}

// aliases returns a service's names but the canonical one.
func aliases(s Service) []string {
	canonical := ServiceDNSName(s.Name, s.Namespace)
	return slices.DeleteFunc(slices.Clone(s.DNSNames), func(n string) bool { return strings.EqualFold(n, canonical) })
}
