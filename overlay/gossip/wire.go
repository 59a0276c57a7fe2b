package gossip

// The wire format of a record. Integers are big-endian; str is a length of one
// byte and as many bytes; addr is a byte 4 or 6 and 4 or 16 bytes.
//
//	sealed  = u16 length of body, body, 64 bytes signature
//	body    = u8 version (1)
//	          32 bytes SHA-256 of the signer's certificate (DER)
//	          str site, str node               the origin
//	          u8 kind, str slice, str name     the key
//	          u64 epoch, u64 sequence          the version
//	          i64 seconds since 1970           not after
//	          u8 deleted (0 or 1)
//	          u16 length of payload, payload   empty if deleted, else by kind:
//	node    = u8 n, n × (addr, u16 port)
//	key     = 32 bytes, [u64 generation, [32 bytes, u64 generation]]  the next key comes second;
//	          what is all zero is left out
//	prefix  = u8 n, n × (addr, u8 bits)
//	service = u8 n, n × (str name, u16 port, u8 1 for TCP or 2 for UDP)
//	          u8 n, n × str alias
//	          u16 n, n × (str name, u8 families, [4 bytes], [16 bytes])
//	                     families: 1 IPv4, 2 IPv6, 3 both
//	          [u8 type, u32 seconds of affinity, i64 seconds since 1970]  the terms
//	          of the export; what is all zero is left out
//	revocation = i64 seconds since 1970          0 for a key
//	issuer  = as node, [u64 version of the key, if not 0]
//	lost    = u8 n, n × (str site, str node)
//	root    = 1 to 4096 bytes, see pki.Succession
//
// The signature is over the body, in the domain signRecord: it covers the
// certificate's fingerprint, so that nobody can attach a record to another
// certificate of the same key. There is one encoding of a record: whatever is
// decoded encodes to the same bytes, and nothing may be left over.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"slicewire/overlay"
)

const (
	signRecord = "slicewire record v1"

	wireVersion   = 1
	signatureSize = 64
	maxBody       = 32 << 10         // a service with every list full fits
	maxSealed     = 2 + maxBody + 64 // of one sealed record
	maxUnixTime   = 253402300799     // the last second of year 9999
	familyV4      = 4                // of addr
	familyV6      = 6                // of addr
	hasV4, hasV6  = 1, 2             // families of a service's endpoint
	protoTCP      = 1                // of a service's port
	protoUDP      = 2                // of a service's port
)

var errMalformed = errors.New("malformed")

// A fingerprint is the SHA-256 of a certificate.
type fingerprint [32]byte

// sealed is a record as it was received: raw holds body and signature, which
// point into it.
type sealed struct {
	record overlay.Record
	signer fingerprint
	body   []byte
	sig    []byte
	raw    []byte
}

// encodeBody returns the bytes that are signed for r.
func encodeBody(r overlay.Record, signer fingerprint) ([]byte, error) {
	if r.NotAfter.Nanosecond() != 0 || r.NotAfter.Unix() < 0 || r.NotAfter.Unix() > maxUnixTime {
		return nil, fmt.Errorf("record of %v: lifetime %v", r.Origin, r.NotAfter)
	}
	w := writer{b: make([]byte, 0, 512)}
	w.u8(wireVersion)
	w.b = append(w.b, signer[:]...)
	w.str(r.Origin.Site)
	w.str(r.Origin.Node)
	w.u8(int(r.Key.Kind))
	w.str(r.Key.Slice)
	w.str(r.Key.Name)
	w.u64(r.Version.Epoch)
	w.u64(r.Version.Seq)
	w.u64(uint64(r.NotAfter.Unix()))
	deleted := 0
	if r.Deleted {
		deleted = 1
	}
	w.u8(deleted)
	at := len(w.b)
	w.u16(0)
	w.payload(r)
	w.bad = w.bad || len(w.b) > maxBody
	if w.bad {
		return nil, fmt.Errorf("record of %v, kind %d: does not fit the wire format", r.Origin, r.Key.Kind)
	}
	binary.BigEndian.PutUint16(w.b[at:], uint16(len(w.b)-at-2))
	return w.b, nil
}

// seal joins a body with its signature.
func seal(body, sig []byte) []byte {
	raw := make([]byte, 0, 2+len(body)+len(sig))
	raw = binary.BigEndian.AppendUint16(raw, uint16(len(body)))
	raw = append(raw, body...)
	return append(raw, sig...)
}

// unseal reads exactly one sealed record. The result points into raw.
func unseal(raw []byte) (sealed, error) {
	r := reader{b: raw}
	s := sealed{raw: raw}
	s.body = r.take(int(r.u16()))
	s.sig = r.take(signatureSize)
	if r.bad || len(r.b) != 0 || len(s.body) > maxBody {
		return sealed{}, fmt.Errorf("sealed record of %d bytes: %w", len(raw), errMalformed)
	}
	var err error
	s.record, s.signer, err = decodeBody(s.body)
	return s, err
}

// decodeBody reads what encodeBody writes.
func decodeBody(body []byte) (overlay.Record, fingerprint, error) {
	r := reader{b: body}
	var rec overlay.Record
	var signer fingerprint
	version := r.u8()
	copy(signer[:], r.take(len(signer)))
	rec.Origin = overlay.NodeID{Site: r.str(), Node: r.str()}
	rec.Key = overlay.Key{Kind: overlay.Kind(r.u8()), Slice: r.str(), Name: r.str()}
	rec.Version = overlay.Version{Epoch: r.u64(), Seq: r.u64()}
	seconds := r.u64()
	deleted := r.u8()
	payload := reader{b: r.take(int(r.u16()))}
	if r.bad || len(r.b) != 0 || version != wireVersion || deleted > 1 || seconds > maxUnixTime {
		return overlay.Record{}, signer, fmt.Errorf("record of version %d: %w", version, errMalformed)
	}
	rec.NotAfter = time.Unix(int64(seconds), 0).UTC()
	rec.Deleted = deleted == 1
	payload.into(&rec)
	if payload.bad || len(payload.b) != 0 {
		return overlay.Record{}, signer, fmt.Errorf("payload of kind %d: %w", rec.Key.Kind, errMalformed)
	}
	return rec, signer, nil
}

// payload writes the body of r's kind. A record with another body than that of
// its kind, or with one although it is deleted, has no encoding.
func (w *writer) payload(r overlay.Record) {
	bodies := 0
	for _, has := range []bool{r.Node != nil, r.WGKey != nil, r.Prefix != nil, r.Service != nil, r.Revocation != nil, r.Issuer != nil, r.Root != nil, r.Lost != nil} {
		if has {
			bodies++
		}
	}
	if r.Deleted {
		w.bad = w.bad || r.Key.Kind < overlay.KindNode || r.Key.Kind > overlay.LastKind || bodies != 0
		return
	}
	switch {
	case bodies != 1:
		w.bad = true
	case r.Key.Kind == overlay.KindNode && r.Node != nil:
		w.endpoints(r.Node.Endpoints)
	case r.Key.Kind == overlay.KindIssuer && r.Issuer != nil:
		w.endpoints(r.Issuer.Endpoints)
		if r.Issuer.Keys != 0 {
			w.u64(r.Issuer.Keys)
		}
	case r.Key.Kind == overlay.KindLost && r.Lost != nil:
		w.count(len(r.Lost.Nodes))
		for _, n := range r.Lost.Nodes {
			w.str(n.Site)
			w.str(n.Node)
		}
	case r.Key.Kind == overlay.KindKey && r.WGKey != nil:
		w.keys(r.WGKey)
	case r.Key.Kind == overlay.KindPrefix && r.Prefix != nil:
		w.count(len(r.Prefix.Prefixes))
		for _, p := range r.Prefix.Prefixes {
			w.addr(p.Addr())
			w.bad = w.bad || !p.IsValid()
			w.u8(p.Bits())
		}
	case (r.Key.Kind == overlay.KindService || r.Key.Kind == overlay.KindWorkloads) && r.Service != nil:
		w.service(r.Service)
	case r.Key.Kind == overlay.KindRoot && r.Root != nil:
		n := len(r.Root.Statement)
		w.bad = w.bad || n == 0 || n > overlay.MaxRootStatement
		w.b = append(w.b, r.Root.Statement...)
	case r.Key.Kind == overlay.KindRevocation && r.Revocation != nil:
		seconds := int64(0)
		if until := r.Revocation.Until; !until.IsZero() {
			seconds = until.Unix()
			w.bad = w.bad || seconds <= 0 || seconds > maxUnixTime || until.Nanosecond() != 0
		}
		w.u64(uint64(seconds))
	default:
		w.bad = true
	}
}

func (w *writer) endpoints(eps []netip.AddrPort) {
	w.count(len(eps))
	for _, e := range eps {
		w.addr(e.Addr())
		w.u16(int(e.Port()))
	}
}

func (r *reader) endpoints() (eps []netip.AddrPort) {
	for n := r.u8(); n > 0 && !r.bad; n-- {
		eps = append(eps, netip.AddrPortFrom(r.addr(), r.u16()))
	}
	return eps
}

func (w *writer) keys(k *overlay.KeyBody) {
	w.b = append(w.b, k.PublicKey[:]...)
	next := k.Next != (overlay.SliceKey{})
	if k.Generation != 0 || next {
		w.u64(k.Generation)
	}
	if next {
		w.b = append(w.b, k.Next.PublicKey[:]...)
		w.u64(k.Next.Generation)
	}
}

func (r *reader) keys() *overlay.KeyBody {
	k := &overlay.KeyBody{}
	copy(k.PublicKey[:], r.take(32))
	if len(r.b) == 0 {
		return k
	}
	k.Generation = r.u64()
	if len(r.b) == 0 {
		r.bad = r.bad || k.Generation == 0
		return k
	}
	copy(k.Next.PublicKey[:], r.take(32))
	k.Next.Generation = r.u64()
	r.bad = r.bad || k.Next == overlay.SliceKey{}
	return k
}

func (w *writer) service(s *overlay.ServiceBody) {
	w.count(len(s.Ports))
	for _, p := range s.Ports {
		w.str(p.Name)
		w.u16(int(p.Port))
		switch p.Protocol {
		case overlay.TCP:
			w.u8(protoTCP)
		case overlay.UDP:
			w.u8(protoUDP)
		default:
			w.bad = true
		}
	}
	w.count(len(s.Aliases))
	for _, a := range s.Aliases {
		w.str(a)
	}
	w.bad = w.bad || len(s.Endpoints) > overlay.MaxRecordBackends
	w.u16(len(s.Endpoints))
	for _, e := range s.Endpoints {
		w.str(e.Name)
		families := 0
		if e.Addr != (netip.Addr{}) {
			families |= hasV4
			w.bad = w.bad || !e.Addr.Is4()
		}
		if e.Addr6 != (netip.Addr{}) {
			families |= hasV6
			w.bad = w.bad || !e.Addr6.Is6() || e.Addr6.Zone() != ""
		}
		w.bad = w.bad || families == 0
		w.u8(families)
		w.b = append(w.b, e.Addr.AsSlice()...)
		w.b = append(w.b, e.Addr6.AsSlice()...)
	}
	w.terms(s.ExportTerms)
}

// into reads the payload of rec's kind into rec. Counts need no bound of their
// own here: each entry takes bytes that must be there.
func (r *reader) into(rec *overlay.Record) {
	if rec.Deleted {
		r.bad = r.bad || rec.Key.Kind < overlay.KindNode || rec.Key.Kind > overlay.LastKind
		return
	}
	switch rec.Key.Kind {
	case overlay.KindNode:
		rec.Node = &overlay.NodeBody{Endpoints: r.endpoints()}
	case overlay.KindIssuer:
		rec.Issuer = &overlay.IssuerBody{Endpoints: r.endpoints()}
		if len(r.b) > 0 {
			rec.Issuer.Keys = r.u64()
			r.bad = r.bad || rec.Issuer.Keys == 0
		}
	case overlay.KindLost:
		rec.Lost = &overlay.LostBody{}
		for n := r.u8(); n > 0 && !r.bad; n-- {
			rec.Lost.Nodes = append(rec.Lost.Nodes, overlay.NodeID{Site: r.str(), Node: r.str()})
		}
	case overlay.KindRoot:
		n := len(r.b)
		r.bad = r.bad || n == 0 || n > overlay.MaxRootStatement
		rec.Root = &overlay.RootBody{Statement: append([]byte(nil), r.take(n)...)}
	case overlay.KindRevocation:
		rec.Revocation = &overlay.RevocationBody{}
		seconds := r.u64()
		r.bad = r.bad || seconds > maxUnixTime
		if seconds != 0 {
			rec.Revocation.Until = time.Unix(int64(seconds), 0).UTC()
		}
	case overlay.KindKey:
		rec.WGKey = r.keys()
	case overlay.KindPrefix:
		rec.Prefix = &overlay.PrefixBody{}
		for n := r.u8(); n > 0 && !r.bad; n-- {
			p := netip.PrefixFrom(r.addr(), int(r.u8()))
			r.bad = r.bad || !p.IsValid()
			rec.Prefix.Prefixes = append(rec.Prefix.Prefixes, p)
		}
	case overlay.KindService, overlay.KindWorkloads:
		rec.Service = r.service()
	default:
		r.bad = true
	}
}

func (r *reader) service() *overlay.ServiceBody {
	s := &overlay.ServiceBody{}
	for n := r.u8(); n > 0 && !r.bad; n-- {
		p := overlay.ServicePort{Name: r.str(), Port: r.u16()}
		switch r.u8() {
		case protoTCP:
			p.Protocol = overlay.TCP
		case protoUDP:
			p.Protocol = overlay.UDP
		default:
			r.bad = true
		}
		s.Ports = append(s.Ports, p)
	}
	for n := r.u8(); n > 0 && !r.bad; n-- {
		s.Aliases = append(s.Aliases, r.str())
	}
	n := r.u16()
	r.bad = r.bad || n > overlay.MaxRecordBackends
	if n > 0 && !r.bad { // as many as are said, or as could be there: a mesh may have 50,000
		s.Endpoints = make([]overlay.Endpoint, 0, min(int(n), len(r.b)/leastEndpoint))
	}
	for ; n > 0 && !r.bad; n-- {
		e := overlay.Endpoint{Name: r.str()}
		families := r.u8()
		r.bad = r.bad || families < 1 || families > hasV4|hasV6
		if families&hasV4 != 0 {
			e.Addr, _ = netip.AddrFromSlice(r.take(4))
		}
		if families&hasV6 != 0 {
			e.Addr6, _ = netip.AddrFromSlice(r.take(16))
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	s.ExportTerms = r.terms()
	return s
}

// leastEndpoint is the least that an endpoint takes: a name's length, which
// families follow, and an IPv4 address.
const leastEndpoint = 1 + 1 + 4
