package gossip

// What one node sends another, in the notation of wire.go:
//
//	message = u8 version (1), u8 type, then by type:
//	records = u8 n, n × chain, u16 n, n × sealed      chains of these records' signers
//	chain   = u8 n (1 to 4), n × (u16 length, DER)    leaf first
//	summary = sender, u16 n, n × (origin, u64 epoch, u64 sequence, u32 count, 16 bytes digest)
//	digests = sender, 64 × 16 bytes                   of the parts of what the sender holds
//	part    = u64 parts, summary                      of the origins in these parts
//	want    = sender, u8 back, u16 n, n × (origin, u16 n, n × mark)
//	          back is 1 in a question that a question gave rise to
//	mark    = 8 bytes key, u64 epoch, u64 sequence, 8 bytes digest
//	sender, origin = str site, str node
//
// A sender is a claim, good for nothing but to choose the member, already
// known, to which an answer goes.

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"slicewire/overlay"
)

const (
	typeRecords = 1
	typeSummary = 2
	typeWant    = 3
	typeDigests = 4
	typePart    = 5

	maxMessage     = 1 << 20 // bytes accepted in one message
	bulkMessage    = 128 << 10
	maxChain       = 4
	maxCertificate = 16 << 10
)

// message is one decoded message: records and chains, or a summary, digests or
// wants.
// Everything points into the bytes it was decoded from.
type message struct {
	kind    uint8
	chains  []chain
	records []sealed
	refused int // records that are malformed, and thereby skipped
	sender  overlay.NodeID
	summary []overlay.OriginSummary
	parts   overlay.PartSet // that the summary is of
	digests *[overlay.Parts]overlay.Digest
	wants   []want
	back    bool // the wants came back for wants
}

// chain is a certificate chain (DER, leaf first).
type chain [][]byte

func (c chain) leaf() fingerprint { return sha256.Sum256(c[0]) }

// want asks for what is held of an origin beyond the marks.
type want struct {
	origin overlay.NodeID
	marks  []overlay.Mark
}

// encodeRecords returns a message of sealed records and the chains they need.
func encodeRecords(chains []chain, raws [][]byte) ([]byte, error) {
	w := writer{b: []byte{wireVersion, typeRecords}}
	w.u8(len(chains))
	for _, c := range chains {
		w.chain(c)
	}
	w.u16(len(raws))
	for _, raw := range raws {
		w.b = append(w.b, raw...)
	}
	return w.done("records")
}

func (w *writer) chain(c chain) {
	w.bad = w.bad || len(c) < 1 || len(c) > maxChain
	w.u8(len(c))
	for _, der := range c {
		w.bad = w.bad || len(der) > maxCertificate
		w.u16(len(der))
		w.b = append(w.b, der...)
	}
}

func (r *reader) chain() chain {
	n := r.u8()
	r.bad = r.bad || n < 1 || n > maxChain
	var c chain
	for ; n > 0 && !r.bad; n-- {
		size := int(r.u16())
		r.bad = r.bad || size > maxCertificate
		c = append(c, r.take(size))
	}
	return c
}

func encodeSummary(sender overlay.NodeID, summary []overlay.OriginSummary) ([]byte, error) {
	w := writer{b: []byte{wireVersion, typeSummary}}
	w.summary(sender, summary)
	return w.done("summary")
}

func encodePart(sender overlay.NodeID, parts overlay.PartSet, summary []overlay.OriginSummary) ([]byte, error) {
	w := writer{b: []byte{wireVersion, typePart}}
	w.u64(uint64(parts))
	w.summary(sender, summary)
	return w.done("part of a summary")
}

func encodeDigests(sender overlay.NodeID, digests [overlay.Parts]overlay.Digest) ([]byte, error) {
	w := writer{b: []byte{wireVersion, typeDigests}}
	w.id(sender)
	for i := range digests {
		w.b = append(w.b, digests[i][:]...)
	}
	return w.done("digests")
}

func (w *writer) summary(sender overlay.NodeID, summary []overlay.OriginSummary) {
	w.id(sender)
	w.u16(len(summary))
	for _, s := range summary {
		w.id(s.Origin)
		w.u64(s.Newest.Epoch)
		w.u64(s.Newest.Seq)
		w.u32(uint32(s.Count))
		w.b = append(w.b, s.Digest[:]...)
	}
}

func encodeWants(sender overlay.NodeID, wants []want, back bool) ([]byte, error) {
	w := writer{b: []byte{wireVersion, typeWant}}
	w.id(sender)
	if back {
		w.u8(1)
	} else {
		w.u8(0)
	}
	w.u16(len(wants))
	for _, x := range wants {
		w.id(x.origin)
		w.u16(len(x.marks))
		for _, m := range x.marks {
			w.u64(m.Key)
			w.u64(m.Version.Epoch)
			w.u64(m.Version.Seq)
			w.u64(m.Raw)
		}
	}
	return w.done("wants")
}

func (w *writer) id(id overlay.NodeID) {
	w.str(id.Site)
	w.str(id.Node)
}

func (r *reader) id() overlay.NodeID { return overlay.NodeID{Site: r.str(), Node: r.str()} }

func (w *writer) done(what string) ([]byte, error) {
	if w.bad || len(w.b) > maxMessage {
		return nil, fmt.Errorf("message of %s, %d bytes: does not fit the wire format", what, len(w.b))
	}
	return w.b, nil
}

// decodeMessage reads one message. The frame must be whole and nothing left
// over; a record in it that cannot be read is counted and skipped, for the
// others did nothing wrong.
func decodeMessage(b []byte) (message, error) {
	r := reader{b: b}
	r.bad = len(b) > maxMessage || r.u8() != wireVersion
	m := message{kind: r.u8()}
	switch m.kind {
	case typeRecords:
		m.readRecords(&r)
	case typeSummary:
		m.parts = overlay.AllParts
		m.readSummary(&r)
	case typePart:
		m.parts = overlay.PartSet(r.u64())
		m.readSummary(&r)
	case typeDigests:
		m.readDigests(&r)
	case typeWant:
		m.readWants(&r)
	default:
		r.bad = true
	}
	if r.bad || len(r.b) != 0 {
		return message{}, fmt.Errorf("message of %d bytes, type %d: %w", len(b), m.kind, errMalformed)
	}
	return m, nil
}

func (m *message) readRecords(r *reader) {
	for n := r.u8(); n > 0 && !r.bad; n-- {
		m.chains = append(m.chains, r.chain())
	}
	for n := r.u16(); n > 0 && !r.bad; n-- {
		if len(r.b) < 2 {
			r.bad = true
			return
		}
		raw := r.take(2 + int(binary.BigEndian.Uint16(r.b)) + signatureSize)
		s, err := unseal(raw)
		if err != nil {
			m.refused++
			continue
		}
		m.records = append(m.records, s)
	}
}

func (m *message) readSummary(r *reader) {
	m.sender = r.id()
	n := r.u16()
	r.bad = r.bad || n > overlay.MaxOrigins
	for ; n > 0 && !r.bad; n-- {
		s := overlay.OriginSummary{Origin: r.id(), Newest: overlay.Version{Epoch: r.u64(), Seq: r.u64()}, Count: int(r.u32())}
		copy(s.Digest[:], r.take(len(s.Digest)))
		m.summary = append(m.summary, s)
	}
}

func (m *message) readDigests(r *reader) {
	m.sender = r.id()
	m.digests = new([overlay.Parts]overlay.Digest)
	for i := range m.digests {
		copy(m.digests[i][:], r.take(len(m.digests[i])))
	}
}

func (m *message) readWants(r *reader) {
	m.sender = r.id()
	back := r.u8()
	r.bad = r.bad || back > 1
	m.back = back == 1
	n := r.u16()
	r.bad = r.bad || n > overlay.MaxOrigins
	for ; n > 0 && !r.bad; n-- {
		x := want{origin: r.id()}
		k := r.u16()
		r.bad = r.bad || k > overlay.MaxRecordsPerOrigin
		for ; k > 0 && !r.bad; k-- {
			x.marks = append(x.marks, overlay.Mark{Key: r.u64(), Version: overlay.Version{Epoch: r.u64(), Seq: r.u64()}, Raw: r.u64()})
		}
		m.wants = append(m.wants, x)
	}
}
