package join

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"slicewire/overlay"
	"slicewire/overlay/pki"
)

// testIssuer is a mesh with one issuer, for site-a, which serves on loopback.
type testIssuer struct {
	t        *testing.T
	ca       *pki.CA
	issuer   *pki.Issuer
	verifier *pki.Verifier
	book     *Book
	addr     string

	mu    sync.Mutex // guards what follows
	now   time.Time
	saved []byte
	fail  error                       // of the next saves
	until time.Duration               // the next gossip key is used
	keys  map[[32]byte]overlay.NodeID // for Holder
	pods  func(PodRequest) (Terms, error)
	lives func(overlay.NodeID, bool) time.Duration // set before the first request
}

var begin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func grants(p ...string) []overlay.Grant {
	g := overlay.Grant{Slice: "water"}
	for _, x := range p {
		g.Prefixes = append(g.Prefixes, netip.MustParsePrefix(x))
	}
	return []overlay.Grant{g}
}

func newTestIssuer(t *testing.T) *testIssuer {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	ca, err := pki.NewCA("lab", begin, 10000*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	x := &testIssuer{t: t, ca: ca, now: begin, until: time.Minute, keys: make(map[[32]byte]overlay.NodeID)}
	if x.verifier, err = pki.NewVerifier("lab", ca.CertPEM()); err != nil {
		t.Fatal(err)
	}
	key, request := newRequest(t)
	cert, err := ca.IssueIssuer(request, pki.Scope{Sites: []string{"site-a"}, Grants: grants("10.1.0.0/16")}, begin, 1000*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if x.issuer, err = pki.LoadIssuer(key, cert); err != nil {
		t.Fatal(err)
	}
	if x.book, err = OpenBook(nil, x.save); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x.addr = l.Addr().String()
	s, err := NewServer(Config{
		Listener: l, Verifier: x.verifier, Book: x.book, Keys: x.gossip, Now: x.clock, Holder: x.holder, Pods: x.judge, Lives: x.life,
	}, x.issuer)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := goleak.Find(leaks); err != nil {
			t.Error(err)
		}
	})
	return x
}

// gossip are the keys that the issuer hands out: one is being changed.
func (x *testIssuer) gossip() Keys {
	x.mu.Lock()
	defer x.mu.Unlock()
	return Keys{Version: 7, Key: []byte("next key"), Old: []byte("gossip key"), UseIn: x.until, DropIn: time.Hour}
}

func (x *testIssuer) clock() time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.now
}

func (x *testIssuer) advance(d time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.now = x.now.Add(d)
}

func (x *testIssuer) save(b []byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.fail == nil {
		x.saved = b
	}
	return x.fail
}

func (x *testIssuer) holder(key [32]byte) (overlay.NodeID, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	id, ok := x.keys[key]
	return id, ok
}

func (x *testIssuer) judge(_ context.Context, r PodRequest) (Terms, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.pods(r)
}

func (x *testIssuer) life(id overlay.NodeID, gateway bool) time.Duration {
	if x.lives == nil {
		return 0
	}
	return x.lives(id, gateway)
}

var edge = overlay.NodeID{Site: "site-a", Node: "edge"}

// token gives out a token for edge that is good for an hour.
func (x *testIssuer) token() Token {
	return x.tokenFor(Terms{Node: edge, Index: 1, Grants: grants("10.1.1.0/24")})
}

// gatewayToken is one for a gateway of the same name.
func (x *testIssuer) gatewayToken() Token {
	return x.tokenFor(Terms{Node: edge, Gateway: true, Index: 1, Grants: grants("10.1.1.0/24")})
}

func (x *testIssuer) tokenFor(terms Terms) Token {
	x.t.Helper()
	t, err := NewToken(Token{Issuer: x.issuer.Key(), Expires: x.clock().Add(time.Hour), Mesh: "lab", Node: edge, Slices: []string{"water"}, Addresses: []string{x.addr}})
	if err != nil {
		x.t.Fatal(err)
	}
	if err := x.book.Add(t, terms, x.clock()); err != nil {
		x.t.Fatal(err)
	}
	return t
}

func newRequest(t testing.TB) (keyPEM, requestPEM []byte) {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := pki.NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, request
}

// join lets a new key in.
func (x *testIssuer) join(t Token) (*pki.Identity, error) {
	key, request := newRequest(x.t)
	got, err := Join(x.t.Context(), t, t.Node, request)
	if err != nil {
		return nil, err
	}
	return pki.LoadIdentity(key, got.Chain)
}

func reason(err error) string {
	if r, ok := errors.AsType[Refusal](err); ok {
		return r.Reason
	}
	return ""
}
