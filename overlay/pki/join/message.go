package join

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// On a connection there is one request and one answer, each as four bytes of
// length, big-endian, and a JSON object.
const (
	protocol   = "slicewire-join/1" // ALPN
	maxRequest = 16 << 10
	maxAnswer  = 256 << 10
)

// What may be asked.
const (
	verbJoin  = "join"
	verbRenew = "renew"
	verbKeys  = "keys"
	verbPod   = "pod"
)

// request is what a node asks. A renewal has only the verb and the request, a
// question for keys only the verb: the TLS session says whose it is.
type request struct {
	Verb    string `json:"verb"`
	Request string `json:"request,omitempty"` // PKCS #10, in PEM
	Token   string `json:"token,omitempty"`   // its Name
	Site    string `json:"site,omitempty"`    // who the newcomer wants to be
	Node    string `json:"node,omitempty"`
	Proof   []byte `json:"proof,omitempty"`
	Bearer  string `json:"bearer,omitempty"` // a pod's token of its service account
}

// answer is what the issuer says: a Refusal, a chain, or keys.
type answer struct {
	Reason string `json:"reason,omitempty"` // of a refusal
	Text   string `json:"text,omitempty"`
	Chain  []byte `json:"chain,omitempty"`  // PEM
	Root   []byte `json:"root,omitempty"`   // PEM, for a newcomer
	Gossip []byte `json:"gossip,omitempty"` // for a newcomer
	Keys   *Keys  `json:"keys,omitempty"`
}

// Keys are the keys of the mesh's gossip as an issuer hands them out. Times are
// from now: the clocks of nodes differ.
type Keys struct {
	Version uint64        `json:"version"` // higher for every change
	Key     []byte        `json:"key"`
	Old     []byte        `json:"old,omitempty"` // the one before, while it is taken
	UseIn   time.Duration `json:"useIn"`         // until nodes send with Key; 0: they do
	DropIn  time.Duration `json:"dropIn"`        // until nodes take Old no more
}

var errMessage = errors.New("malformed message")

// decodeRequest reads one request, and nothing else.
func decodeRequest(b []byte) (request, error) {
	var r request
	if err := decodeStrict(b, &r); err != nil {
		return request{}, err
	}
	if r.Bearer != "" && r.Verb != verbPod {
		return request{}, fmt.Errorf("verb %q: %w", r.Verb, errMessage)
	}
	switch {
	case r.Verb == verbPod && r.Proof == nil && r.Token == "" && r.Site != "" && r.Node != "" && r.Request != "" && r.Bearer != "" && len(r.Bearer) <= maxBearer:
	case r.Verb == verbJoin && len(r.Proof) == sha256.Size && r.Token != "" && r.Site != "" && r.Node != "" && r.Request != "":
	case r.Verb == verbKeys && r.Proof == nil && r.Token == "" && r.Site == "" && r.Node == "" && r.Request == "":
	case r.Verb == verbRenew && r.Proof == nil && r.Token == "" && r.Site == "" && r.Node == "" && r.Request != "":
	default:
		return request{}, fmt.Errorf("verb %q: %w", r.Verb, errMessage)
	}
	return r, nil
}

func decodeStrict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", errMessage, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows", errMessage)
	}
	return nil
}

// readFrame reads one message of at most limit bytes.
func readFrame(r io.Reader, limit int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || int64(n) > int64(limit) {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", errMessage, n, limit)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeFrame(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

// proof shows that its maker knows the token, in this TLS session and for this
// request only: neither a listener nor a relay can use it elsewhere.
func proof(secret, tokenSum, binding []byte, request string) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte("slicewire join v1\x00"))
	h.Write(binding)
	h.Write(tokenSum)
	sum := sha256.Sum256([]byte(request))
	h.Write(sum[:])
	return h.Sum(nil)
}

// bindingOf names a TLS session: both ends compute the same, nobody else can.
func bindingOf(s tls.ConnectionState) ([]byte, error) {
	return s.ExportKeyingMaterial("EXPORTER-slicewire-join", nil, 32)
}
