package gossip

// What goes over a session beside the messages of message.go, each in a frame:
//
//	frame    = u32 length (maxMessage at most), message    empty: the sender is alive
//	hello    = u8 version (1), u8 type, chain, 16 bytes instance, 64 bytes signature
//	           the first in each direction; the leaf's comes first
//	signed   = u8 role (1 leaf, 2 gateway), str mesh, 16 bytes instance, 32 bytes binding
//	           what the signature is over, in the domain signSession; the binding is the
//	           session's own, by TLS (RFC 5705, label bindingLabel)
//	check    = u8 version, u8 type, 16 bytes             the beginning of the SHA-256 of all
//	           that the summary says: who holds something else answers with a summary
//	gateways = u8 version, u8 type, u8 n, n × (str name, addr, u16 port, 97 bytes)
//	           members that take sessions, each with the proof of members.go
//	bye      = u8 version, u8 type, u8 reason            the last of a session
//
// An instance is a number that a node makes up at its start.

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
)

const (
	typeHello    = 16
	typeCheck    = 17
	typeGateways = 18
	typeBye      = 19

	signSession  = "slicewire session v1"
	bindingLabel = "EXPERIMENTAL slicewire session v1"
	roleLeaf     = 1
	roleGateway  = 2

	maxHello    = 4 + 64 + signatureSize + maxChain*(2+maxCertificate)
	maxGateways = 64 // in one message
)

// Why a session ends.
const (
	byeLeaving = 1 // the sender leaves the mesh
	byeMoving  = 2 // the leaf goes on elsewhere, or with another session
	byeFull    = 3 // the gateway has as many sessions as it takes
)

type instance [16]byte

type hello struct {
	chain    chain
	instance instance
	sig      []byte
}

func encodeHello(h hello) ([]byte, error) {
	w := writer{b: []byte{wireVersion, typeHello}}
	w.chain(h.chain)
	w.b = append(w.b, h.instance[:]...)
	w.b = append(w.b, h.sig...)
	return w.done("hello")
}

func decodeHello(b []byte) (hello, error) {
	r := reader{b: b}
	r.bad = r.u8() != wireVersion || r.u8() != typeHello
	h := hello{chain: r.chain()}
	copy(h.instance[:], r.take(len(h.instance)))
	h.sig = r.take(signatureSize)
	if r.bad || len(r.b) != 0 {
		return hello{}, fmt.Errorf("hello of %d bytes: %w", len(b), errMalformed)
	}
	return h, nil
}

// sessionClaim is what a hello's signature is over.
func sessionClaim(role int, mesh string, i instance, binding []byte) []byte {
	var w writer
	w.u8(role)
	w.str(mesh)
	w.b = append(w.b, i[:]...)
	w.b = append(w.b, binding...)
	return w.b
}

type digest [16]byte

// digestOf is the digest of a summary message, whoever sends it.
func digestOf(summary []byte) (d digest) {
	sum := sha256.Sum256(summary)
	copy(d[:], sum[:])
	return d
}

func encodeCheck(d digest) []byte { return append([]byte{wireVersion, typeCheck}, d[:]...) }

func decodeCheck(b []byte) (d digest, err error) {
	if len(b) != 2+len(d) || b[0] != wireVersion || b[1] != typeCheck {
		return d, fmt.Errorf("check of %d bytes: %w", len(b), errMalformed)
	}
	return digest(b[2:]), nil
}

// A gatewayEntry is a gateway that takes sessions and the proof, by its own
// certificate, that it is to be reached there.
type gatewayEntry struct {
	name string
	addr netip.AddrPort
	meta []byte
}

func (w *writer) gateway(e gatewayEntry) {
	w.str(e.name)
	w.addr(e.addr.Addr())
	w.u16(int(e.addr.Port()))
	w.bad = w.bad || len(e.meta) != metaSize
	w.b = append(w.b, e.meta...)
}

func (r *reader) gateway() gatewayEntry {
	e := gatewayEntry{name: r.str()}
	a := r.addr()
	e.addr = netip.AddrPortFrom(a, r.u16())
	e.meta = r.take(metaSize)
	return e
}

func encodeGateways(list []gatewayEntry) ([]byte, error) {
	w := writer{b: []byte{wireVersion, typeGateways}}
	w.u8(len(list))
	for _, e := range list {
		w.gateway(e)
	}
	return w.done("gateways")
}

func decodeGateways(b []byte) (out []gatewayEntry, err error) {
	r := reader{b: b}
	r.bad = r.u8() != wireVersion || r.u8() != typeGateways
	n := r.u8()
	r.bad = r.bad || n > maxGateways
	for ; n > 0 && !r.bad; n-- {
		out = append(out, r.gateway())
	}
	if r.bad || len(r.b) != 0 {
		return nil, fmt.Errorf("gateways of %d bytes: %w", len(b), errMalformed)
	}
	return out, nil
}

func encodeBye(reason byte) []byte { return []byte{wireVersion, typeBye, reason} }

func decodeBye(b []byte) (reason byte, err error) {
	if len(b) != 3 || b[0] != wireVersion || b[1] != typeBye {
		return 0, fmt.Errorf("bye of %d bytes: %w", len(b), errMalformed)
	}
	return b[2], nil
}
