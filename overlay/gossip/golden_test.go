package gossip

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"slicewire/overlay"
)

func golden(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func goldenHex(t *testing.T, name string) []byte {
	t.Helper()
	b, err := hex.DecodeString(string(bytes.TrimSpace(golden(t, name))))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// oneCert trusts exactly one certificate, read as X.509.
type oneCert struct {
	der     []byte
	key     ed25519.PublicKey
	allowed overlay.Authority
}

func goldenCert(t *testing.T) oneCert {
	t.Helper()
	block, _ := pem.Decode(golden(t, "node.pem"))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return oneCert{der: block.Bytes, key: cert.PublicKey.(ed25519.PublicKey), allowed: overlay.Authority{
		Mesh: "golden.example", ID: overlay.NodeID{Site: "worker-1", Node: "gw-a"}, NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
		Grants: []overlay.Grant{{Slice: "water", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/20"), netip.MustParsePrefix("fd00:1::/56")}}},
	}}
}

func (c oneCert) Authority(chain [][]byte, _ time.Time) (overlay.Authority, error) {
	if len(chain) != 1 || !bytes.Equal(chain[0], c.der) {
		return overlay.Authority{}, errors.New("another certificate")
	}
	return c.allowed, nil
}

func (c oneCert) Signed(chain [][]byte, domain string, message, sig []byte) bool {
	return bytes.Equal(chain[0], c.der) && ed25519.Verify(c.key, []byte(domain+"\x00"+string(message)), sig)
}

func (c oneCert) Revoke([]overlay.Revocation) {}

func goldenRecord() overlay.Record {
	return overlay.Record{
		Origin:   overlay.NodeID{Site: "worker-1", Node: "gw-a"},
		Key:      overlay.Key{Kind: overlay.KindService, Slice: "water", Name: "iperf/iperf-server"},
		Version:  overlay.Version{Epoch: 7, Seq: 1},
		NotAfter: time.Date(2026, 1, 3, 3, 4, 5, 0, time.UTC),
		Service: &overlay.ServiceBody{
			Ports:   []overlay.ServicePort{{Name: "tcp", Port: 5201, Protocol: overlay.TCP}, {Name: "udp", Port: 5201, Protocol: overlay.UDP}},
			Aliases: []string{"iperf.example"},
			Endpoints: []overlay.Endpoint{
				{Name: "pod-1", Addr: netip.MustParseAddr("10.9.1.2"), Addr6: netip.MustParseAddr("fd00:1::2")},
				{Name: "pod-2", Addr: netip.MustParseAddr("10.9.1.3")},
			},
		},
	}
}

// What an earlier version signed and stored is read as it was meant.
func TestGoldenRecord(t *testing.T) {
	c := goldenCert(t)
	s, err := unseal(goldenHex(t, "record.hex"))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s.record, goldenRecord()) {
		t.Errorf("got  %+v\nwant %+v", s.record, goldenRecord())
	}
	if s.signer != (chain{c.der}).leaf() {
		t.Errorf("signed by %x", s.signer)
	}
	if !c.Signed([][]byte{c.der}, signRecord, s.body, s.sig) {
		t.Error("the signature is not good any more")
	}
}

func TestGoldenSnapshot(t *testing.T) {
	snapshot := goldenHex(t, "snapshot.hex")
	cfg := testConfig(t, newAuthority("ca"), 0)
	cfg.Mesh, cfg.Verifier = "golden.example", goldenCert(t)
	g := newTest(t, cfg)
	if n, err := g.Restore(snapshot); n != 1 || err != nil {
		t.Fatalf("%d records, %v, refused %v", n, err, g.Refused())
	}
	if got := g.Records(); len(got) != 1 || !reflect.DeepEqual(got[0], goldenRecord()) {
		t.Errorf("got %+v", got)
	}
	if !bytes.Equal(g.Snapshot(), snapshot) {
		t.Error("it is stored otherwise than before")
	}
	g.handle(goldenMessage(t))
	if len(g.Records()) != 1 || len(g.Refused()) != 0 {
		t.Errorf("the record in a message: refused %v", g.Refused())
	}
}

func goldenMessage(t *testing.T) []byte {
	b, err := encodeRecords([]chain{{goldenCert(t).der}}, [][]byte{goldenHex(t, "record.hex")})
	if err != nil {
		t.Fatal(err)
	}
	if limit := packetSize - 255 - 2 - cipherBytes - 10; len(b) > limit {
		t.Errorf("a record with a chain takes %d bytes, a packet has room for %d", len(b), limit)
	}
	return b
}

// The terms of an export come after all else, and only where there are any, so
// that records without them are what they always were.
func TestGoldenTerms(t *testing.T) {
	r := goldenRecord()
	without, err := encodeBody(r, fingerprint{})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := unseal(goldenHex(t, "record.hex")); err != nil || !bytes.Equal(s.body[33:], without[33:]) {
		t.Errorf("a record without terms is encoded otherwise than before: %v", err)
	}
	r.Service.ExportTerms = overlay.ExportTerms{Type: overlay.Virtual, AffinitySeconds: 10800, Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	with, err := encodeBody(r, fingerprint{})
	if err != nil {
		t.Fatal(err)
	}
	const terms = "0100002a3000000000695735a5"
	if got := hex.EncodeToString(with[len(without):]); got != terms {
		t.Errorf("terms %s, want %s", got, terms)
	}
	const exported = `{"l":{"a":"b"}}`
	r.Service.Exported = exported
	more, err := encodeBody(r, fingerprint{})
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(more[len(without):]); got != terms+"000f"+hex.EncodeToString([]byte(exported)) {
		t.Errorf("terms with labels %s", got)
	}
	if back, _, err := decodeBody(more); err != nil || back.Service.Exported != exported {
		t.Errorf("read back as %+v, %v", back.Service, err)
	}
	r.Service.Exported = strings.Repeat("x", overlay.MaxExported+1)
	if _, err := encodeBody(r, fingerprint{}); err == nil {
		t.Error("labels without a bound are written")
	}
	for _, bad := range []string{"0100002a30000000006957300500", "0100002a3000000000695730050000", "0100002a300000000069573005000178ff", "00000000000000000000000000", "0200002a300000000069573005", "01", "0100002a300000000069573005ff", "0100002a30ffffffff69573005"} {
		b, _ := hex.DecodeString(bad)
		body := append(bytes.Clone(without), b...)
		at := len(without) - int(payloadOf(without))
		body[at-2], body[at-1] = byte((len(body)-at)>>8), byte(len(body)-at)
		if _, _, err := decodeBody(body); err == nil {
			t.Errorf("terms %s are read", bad)
		}
	}
}

func TestGoldenLost(t *testing.T) {
	r := goldenRecord()
	r.Key = overlay.Key{Kind: overlay.KindLost, Slice: "water"}
	r.Service, r.Lost = nil, &overlay.LostBody{Nodes: []overlay.NodeID{{Site: "worker-1", Node: "n2"}, {Site: "worker-2", Node: "gw"}}}
	body, err := encodeBody(r, fingerprint{})
	if err != nil {
		t.Fatal(err)
	}
	const payload = "0019" + "02" + "08776f726b65722d31" + "026e32" + "08776f726b65722d32" + "026777"
	if got := hex.EncodeToString(body[len(body)-27:]); got != payload {
		t.Errorf("payload %s, want %s", got, payload)
	}
	if back, _, err := decodeBody(body); err != nil || !reflect.DeepEqual(back, r) {
		t.Errorf("it reads back as %+v, %v", back, err)
	}
}

// payloadOf returns the length of a service's payload at the end of its body:
// what follows origin, key, version, lifetime and the mark of deletion.
func payloadOf(body []byte) uint16 {
	r := reader{b: body[33:]}
	_, _, _ = r.str(), r.str(), r.u8()
	_, _ = r.str(), r.str()
	r.take(8 + 8 + 8 + 1)
	return r.u16()
}

// What two versions compare, they must work out alike: otherwise they hold the
// same and tell each other everything for ever.
func TestGoldenDigests(t *testing.T) {
	raw := goldenHex(t, "record.hex")
	var l overlay.Ledger
	if l.Offer(goldenRecord(), raw) != overlay.New {
		t.Fatal("not taken")
	}
	self := overlay.NodeID{Site: "worker-2", Node: "gw"}
	digests, err := encodeDigests(self, l.Digests())
	if err != nil || !bytes.Equal(digests, goldenHex(t, "digests.hex")) {
		t.Errorf("digests (%v):\n%x", err, digests)
	}
	parts := overlay.PartSet(1) << overlay.PartOf(goldenRecord().Origin)
	part, err := encodePart(self, parts, l.SummaryOf(parts))
	if err != nil || !bytes.Equal(part, goldenHex(t, "part.hex")) {
		t.Errorf("part (%v):\n%x", err, part)
	}
}
