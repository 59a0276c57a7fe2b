package gossip

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"slicewire/overlay"
)

// authority is a mesh authority whose certificates are JSON: real keys and real
// signatures, but none of X.509, which is another package's.
type authority struct {
	name string
	key  ed25519.PrivateKey

	mu    sync.Mutex
	known map[[32]byte]testCert // certificates verified before
	void  []overlay.Revocation
}

// newAuthority derives its key from the name: tests are repeatable.
func newAuthority(name string) *authority {
	seed := sha256.Sum256([]byte(name))
	return &authority{name: name, key: ed25519.NewKeyFromSeed(seed[:]), known: make(map[[32]byte]testCert)}
}

type testCert struct {
	Authority overlay.Authority
	Public    []byte
	Signature []byte // by the authority, over the rest
}

func (c testCert) signed() []byte {
	c.Signature = nil
	b, _ := json.Marshal(c)
	return b
}

func (a *authority) issue(t testing.TB, allowed overlay.Authority) *identity {
	t.Helper()
	seed := sha256.Sum256([]byte(a.name + allowed.ID.String()))
	return a.certify(t, allowed, ed25519.NewKeyFromSeed(seed[:]))
}

func (a *authority) certify(t testing.TB, allowed overlay.Authority, key ed25519.PrivateKey) *identity {
	t.Helper()
	c := testCert{Authority: allowed, Public: key.Public().(ed25519.PublicKey)}
	c.Signature = ed25519.Sign(a.key, c.signed())
	der, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return &identity{key: key, chain: [][]byte{der}}
}

// identity is a Signer.
type identity struct {
	key   ed25519.PrivateKey
	chain [][]byte
}

func (i *identity) Chain() [][]byte { return i.chain }
func (i *identity) Sign(domain string, message []byte) []byte {
	return ed25519.Sign(i.key, []byte(domain+"\x00"+string(message)))
}

var errCert = errors.New("certificate refused")

func (a *authority) parse(chain [][]byte) (c testCert, err error) {
	if len(chain) != 1 {
		return c, errCert
	}
	sum := sha256.Sum256(chain[0])
	a.mu.Lock()
	defer a.mu.Unlock()
	if c, ok := a.known[sum]; ok {
		return c, nil
	}
	if json.Unmarshal(chain[0], &c) != nil || !ed25519.Verify(a.key.Public().(ed25519.PublicKey), c.signed(), c.Signature) {
		return c, errCert
	}
	a.known[sum] = c
	return c, nil
}

// Authority makes an authority a Verifier.
func (a *authority) Authority(chain [][]byte, now time.Time) (overlay.Authority, error) {
	c, err := a.parse(chain)
	if err == nil && a.revoked(c) {
		return c.Authority, fmt.Errorf("%v: %w", c.Authority.ID, overlay.RefusedRevoked)
	}
	if err == nil && (now.Before(c.Authority.NotBefore) || !now.Before(c.Authority.NotAfter)) {
		err = errCert
	}
	return c.Authority, err
}

func (a *authority) Revoke(all []overlay.Revocation) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.void = all
}

// revoked goes by the node's name, or, for an issuer, by the sum of its key.
func (a *authority) revoked(c testCert) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(a.void, func(r overlay.Revocation) bool {
		if r.Key != ([32]byte{}) {
			return r.Key == sha256.Sum256(c.Public)
		}
		return c.Authority.Issuer == nil && r.Node == c.Authority.ID && !c.Authority.Enrolled.After(r.Until)
	})
}

func (a *authority) Signed(chain [][]byte, domain string, message, sig []byte) bool {
	c, err := a.parse(chain)
	return err == nil && len(c.Public) == ed25519.PublicKeySize && len(sig) == ed25519.SignatureSize &&
		ed25519.Verify(c.Public, []byte(domain+"\x00"+string(message)), sig)
}

const testMesh = "lab"

var begin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// allowed is the authority of a gateway of site-n, 0 <= n < 200: 10.<n>.0.0/16
// and fd00:<n>::/56 on the slice "water".
func allowed(n int) overlay.Authority {
	return overlay.Authority{
		Mesh: testMesh, ID: overlay.NodeID{Site: "site-" + string(rune('a'+n)), Node: "gw"}, Gateway: true,
		NotBefore: begin.Add(-time.Hour), NotAfter: begin.Add(1000 * time.Hour),
		Grants: []overlay.Grant{{Slice: "water", Prefixes: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n), 0, 0}), 16),
			netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0, byte(n)}), 56),
		}}},
	}
}

// facts is one record of each kind that allowed(n) permits.
func facts(n int) []overlay.Record {
	a := allowed(n)
	return []overlay.Record{
		{Key: overlay.Key{Kind: overlay.KindNode}, Node: &overlay.NodeBody{Endpoints: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n + 1)}), 51820)}}},
		{Key: overlay.Key{Kind: overlay.KindKey, Slice: "water"}, WGKey: &overlay.KeyBody{PublicKey: sha256.Sum256([]byte(a.ID.Site))}},
		{Key: overlay.Key{Kind: overlay.KindPrefix, Slice: "water"}, Prefix: &overlay.PrefixBody{Prefixes: a.Grants[0].Prefixes}},
		service(n, "web", 1),
	}
}

func service(n int, name string, backends int) overlay.Record {
	s := &overlay.ServiceBody{Ports: []overlay.ServicePort{{Name: "http", Port: 80, Protocol: overlay.TCP}, {Name: "dns", Port: 53, Protocol: overlay.UDP}}, Aliases: []string{name + ".example"}}
	for i := range backends {
		s.Endpoints = append(s.Endpoints, overlay.Endpoint{
			Name: "pod-" + string(rune('a'+i/26)) + string(rune('a'+i%26)),
			Addr: netip.AddrFrom4([4]byte{10, byte(n), 1, byte(i)}), Addr6: netip.AddrFrom16([16]byte{0xfd, 0, 0, byte(n), 15: byte(i + 1)}),
		})
	}
	return overlay.Record{Key: overlay.Key{Kind: overlay.KindService, Slice: "water", Name: "default/" + name}, Service: s}
}

// sealTest signs r as id would, whatever r says.
func sealTest(t testing.TB, id *identity, r overlay.Record) []byte {
	t.Helper()
	body, err := encodeBody(r, chain(id.chain).leaf())
	if err != nil {
		t.Fatal(err)
	}
	return seal(body, id.Sign(signRecord, body))
}

// recordsTest packs sealed records with the chain of id.
func recordsTest(t testing.TB, id *identity, raws ...[]byte) []byte {
	t.Helper()
	b, err := encodeRecords([]chain{id.chain}, raws)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
