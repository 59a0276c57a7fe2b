package overlay

import (
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
	}
	return out
}

func tellServices(self NodeID, a *Attachment) []Record {
	var out []Record
	for _, b := range a.Backends {
		name := b.Namespace + "/" + b.Backend.Service
		i := slices.IndexFunc(out, func(r Record) bool { return r.Key.Name == name })
		if i < 0 {
			i = len(out)
			out = append(out, Record{
				Origin:  self,
				Key:     Key{Kind: KindService, Slice: a.Slice, Name: name},
				Service: &ServiceBody{Ports: b.Service.Ports, Aliases: aliases(b.Service), ExportTerms: b.Service.ExportTerms},
			})
		}
		body := out[i].Service
		body.Endpoints = append(body.Endpoints, Endpoint{Name: b.Name, Addr: b.Addr, Addr6: b.Addr6})
	}
	return out
}

// aliases returns a service's names but the canonical one.
func aliases(s Service) []string {
	canonical := ServiceDNSName(s.Name, s.Namespace)
	return slices.DeleteFunc(slices.Clone(s.DNSNames), func(n string) bool { return strings.EqualFold(n, canonical) })
}
