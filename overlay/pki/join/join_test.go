package join

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/pki"
)

func TestATokenLetsInWhomItNames(t *testing.T) {
	x := newTestIssuer(t)
	token := x.token()
	key, request := newRequest(t)
	got, err := Join(t.Context(), token, edge, request)
	if err != nil {
		t.Fatal(err)
	}
	if got.Gossip != nil || string(got.Root) != string(x.ca.CertPEM()) {
		t.Errorf("with root %q, gossip key %q", got.Root, got.Gossip)
	}
	id, err := pki.LoadIdentity(key, got.Chain)
	if err != nil {
		t.Fatal(err)
	}
	a, err := x.verifier.Authority(id.Chain(), begin)
	if err != nil || a.ID != edge || a.Gateway || a.Index != 1 || len(a.Grants) != 1 || a.Grants[0].Prefixes[0].String() != "10.1.1.0/24" {
		t.Errorf("%+v, %v", a, err)
	}
	if !a.NotAfter.Equal(begin.Add(DefaultLife)) || !a.Enrolled.Equal(begin) {
		t.Errorf("until %v, enrolled %v", a.NotAfter, a.Enrolled)
	}
	// An answer may get lost: the same key, and no other, is answered again.
	again, err := Join(t.Context(), token, edge, request)
	if err != nil || string(again.Chain) != string(got.Chain) {
		t.Errorf("asked again with the same key: %v", err)
	}
	if _, err := x.join(token); reason(err) != RefusedUsed {
		t.Errorf("used by another: %v", err)
	}
}

func TestOfAHundredWithOneTokenOneJoins(t *testing.T) {
	x := newTestIssuer(t)
	token := x.token()
	var wg sync.WaitGroup
	var mu sync.Mutex
	in, refused := 0, map[string]int{}
	begin := make(chan struct{})
	for range 100 {
		key, request := newRequest(t)
		wg.Go(func() {
			<-begin
			got, err := Join(t.Context(), token, edge, request)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				if _, err = pki.LoadIdentity(key, got.Chain); err == nil {
					in++
				}
				return
			}
			refused[reason(err)]++
		})
	}
	close(begin)
	wg.Wait()
	// Those that the limits turned away have no word of refusal.
	if in != 1 || in+refused[RefusedUsed]+refused[""] != 100 || refused[RefusedUsed] == 0 {
		t.Fatalf("%d joined, refused %v", in, refused)
	}
	t.Logf("1 joined, %d were told that the token is used, %d were turned away by the limits", refused[RefusedUsed], refused[""])
	// What was saved before the certificate left knows that the token is spent.
	book, err := OpenBook(x.saved, x.save)
	if err != nil || len(book.List()) != 1 || book.List()[0].Used.IsZero() {
		t.Errorf("saved: %+v, %v", book.List(), err)
	}
}

func TestTokensThatAreRefused(t *testing.T) {
	x := newTestIssuer(t)
	change := func(f func(*Token)) Token {
		c := x.token()
		f(&c)
		return c
	}
	for _, tt := range []struct {
		name  string
		token Token
		want  string
		says  string
	}{
		{"another secret", change(func(c *Token) { c.Secret[0]++ }), RefusedToken, "changed"},
		{"another id", change(func(c *Token) { c.ID[0]++ }), RefusedToken, "not known"},
		{"a later end", change(func(c *Token) { c.Expires = c.Expires.Add(time.Hour) }), RefusedToken, "changed"},
		{"another node", change(func(c *Token) { c.Node.Node = "gw" }), RefusedToken, "changed"},
		{"another site", change(func(c *Token) { c.Node.Site = "site-b" }), RefusedToken, "changed"},
		{"one more slice", change(func(c *Token) { c.Slices = append(c.Slices, "wine") }), RefusedToken, "changed"},
	} {
		if _, err := x.join(tt.token); reason(err) != tt.want || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	// A good token, but to be somebody else.
	_, request := newRequest(t)
	if _, err := Join(t.Context(), x.token(), overlay.NodeID{Site: "site-b", Node: "edge"}, request); reason(err) != RefusedNode || !strings.Contains(err.Error(), "site-a/edge") {
		t.Errorf("for another site: %v", err)
	}
	late := x.token()
	x.advance(time.Hour)
	if _, err := x.join(late); reason(err) != RefusedExpired || !strings.Contains(err.Error(), "expired at 2026-01-02T04:04:05Z") {
		t.Errorf("expired: %v", err)
	}
	if _, err := x.join(Token{Issuer: [32]byte{1}, Node: edge, Addresses: []string{x.addr}}); err == nil || !strings.Contains(err.Error(), "somebody else answers") {
		t.Errorf("an issuer that the token does not name: %v", err)
	}
}

func TestTheServerRefusesWhatAClientWouldNotSay(t *testing.T) {
	x := newTestIssuer(t)
	token := x.token()
	sum := sha256.Sum256(token.bytes())
	_, requestPEM := newRequest(t)
	conf := clientConfig(func([][]byte) error { return nil })
	say := func(r request, binding []byte) error {
		_, err := ask(t.Context(), x.addr, conf, func(s tls.ConnectionState) (request, error) {
			if binding == nil {
				binding, _ = bindingOf(s)
			}
			if r.Proof == nil && r.Verb == verbJoin {
				r.Proof = proof(token.Secret[:], sum[:], binding, string(requestPEM))
			}
			return r, nil
		})
		return err
	}
	good := request{Verb: verbJoin, Request: string(requestPEM), Token: token.Name(), Site: "site-a", Node: "edge"}
	// Who saw a proof in another session, or relays it, has nothing.
	if err := say(good, make([]byte, 32)); reason(err) != RefusedToken {
		t.Errorf("a proof from another session: %v", err)
	}
	other := good
	_, stranger := newRequest(t)
	other.Request = string(stranger)
	if err := say(other, nil); reason(err) != RefusedToken {
		t.Errorf("a proof for another key: %v", err)
	}
	elsewhere := good
	elsewhere.Site = "site-b"
	if err := say(elsewhere, nil); reason(err) != RefusedNode {
		t.Errorf("another site: %v", err)
	}
	broken := good
	broken.Request = strings.Replace(broken.Request, "M", "N", 1)
	if err := say(broken, nil); reason(err) != RefusedRequest {
		t.Errorf("a broken request: %v", err)
	}
	if err := say(request{Verb: verbRenew, Request: string(requestPEM)}, nil); reason(err) != RefusedCert {
		t.Errorf("a renewal without a certificate: %v", err)
	}
	if err := say(request{Verb: "shutdown"}, nil); err == nil || reason(err) != "" {
		t.Errorf("an unknown verb: %v", err)
	}
	if err := say(good, nil); err != nil {
		t.Errorf("after all that the token is spent: %v", err)
	}
}

func TestAKeyBelongsToOneNode(t *testing.T) {
	x := newTestIssuer(t)
	token := x.token()
	_, request := newRequest(t)
	sum, _ := pki.RequestSum(request)
	x.keys[sum] = overlay.NodeID{Site: "site-a", Node: "twin"}
	if _, err := Join(t.Context(), token, edge, request); reason(err) != RefusedKey || !strings.Contains(err.Error(), "site-a/twin") {
		t.Errorf("with a twin's key: %v", err)
	}
	x.keys[sum] = edge
	if _, err := Join(t.Context(), token, edge, request); err != nil {
		t.Errorf("with its own key, and the token not spent: %v", err)
	}
}

func TestNothingIsHandedOutThatIsNotSaved(t *testing.T) {
	x := newTestIssuer(t)
	token := x.token()
	x.fail = errors.New("disk full")
	if _, err := x.join(token); reason(err) != RefusedIssuer || strings.Contains(err.Error(), "disk") {
		t.Errorf("with a full disk: %v", err)
	}
	x.fail = nil
	if _, err := x.join(token); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestTermsBeyondTheIssuerAreRefused(t *testing.T) {
	x := newTestIssuer(t)
	token, _ := NewToken(Token{Issuer: x.issuer.Key(), Expires: begin.Add(time.Hour), Mesh: "lab", Node: edge, Addresses: []string{x.addr}})
	if err := x.book.Add(token, Terms{Node: edge, Grants: grants("10.2.0.0/16")}, begin); err != nil {
		t.Fatal(err)
	}
	if _, err := x.join(token); reason(err) != RefusedIssuer {
		t.Errorf("%v", err)
	}
}

func TestARenewalIsForTheSameKeyAndContents(t *testing.T) {
	x := newTestIssuer(t)
	id, err := x.join(x.token())
	if err != nil {
		t.Fatal(err)
	}
	renew := func() (overlay.Authority, error) {
		chain, err := Renew(t.Context(), x.addr, id, x.verifier, edge, x.clock())
		if err != nil {
			return overlay.Authority{}, err
		}
		next, err := id.Renewed(chain)
		if err != nil {
			return overlay.Authority{}, err
		}
		return x.verifier.Authority(next.Chain(), x.clock())
	}
	before, _ := x.verifier.Authority(id.Chain(), begin)
	x.advance(80 * time.Hour)
	after, err := renew()
	if err != nil || after.ID != before.ID || !after.Enrolled.Equal(before.Enrolled) || !after.NotAfter.Equal(x.clock().Add(DefaultLife)) || !slices.EqualFunc(after.Grants, before.Grants, func(a, b overlay.Grant) bool { return a.Slice == b.Slice && slices.Equal(a.Prefixes, b.Prefixes) }) {
		t.Errorf("renewed %+v, %v; before %+v", after, err, before)
	}
	conf := clientConfig(func([][]byte) error { return nil })
	conf.Certificates = []tls.Certificate{id.Certificate()}
	_, stranger := newRequest(t)
	if _, err := ask(t.Context(), x.addr, conf, func(tls.ConnectionState) (request, error) {
		return request{Verb: verbRenew, Request: string(stranger)}, nil
	}); reason(err) != RefusedRequest {
		t.Errorf("for another key: %v", err)
	}
	conf.Certificates = []tls.Certificate{x.issuer.Certificate()}
	if _, err := ask(t.Context(), x.addr, conf, func(tls.ConnectionState) (request, error) {
		return request{Verb: verbRenew, Request: string(stranger)}, nil
	}); reason(err) != RefusedCert {
		t.Errorf("shown an issuer's certificate: %v", err)
	}
	x.verifier.Revoke([]overlay.Revocation{{Node: edge, Until: x.clock()}})
	if _, err := renew(); reason(err) != RefusedCert || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("revoked: %v", err)
	}
	// A new token lets it in again, after what was revoked.
	again, err := x.join(x.token())
	if err != nil {
		t.Fatal(err)
	}
	if a, err := x.verifier.Authority(again.Chain(), x.clock().Add(time.Second)); err != nil || !a.Enrolled.After(x.clock()) {
		t.Errorf("let in again: enrolled %v, %v", a.Enrolled, err)
	}
	x.verifier.Revoke(nil)
	x.advance(100 * time.Hour)
	if _, err := renew(); reason(err) != RefusedCert {
		t.Errorf("over: %v", err)
	}
	others := newTestIssuer(t)
	if _, err := Renew(t.Context(), others.addr, id, x.verifier, edge, begin); err == nil || reason(err) != "" {
		t.Errorf("asked a stranger's issuer: %v", err)
	}
	if _, err := Renew(t.Context(), x.addr, id, x.verifier, overlay.NodeID{Site: "site-b", Node: "gw"}, begin); err == nil || !strings.Contains(err.Error(), "site-b") {
		t.Errorf("asked an issuer of another site: %v", err)
	}
}

func TestKeysAreForGatewaysThatAreNotRevoked(t *testing.T) {
	x := newTestIssuer(t)
	plain, err := x.join(x.token())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := FetchKeys(t.Context(), x.addr, plain, x.verifier, begin); reason(err) != RefusedCert {
		t.Errorf("for a node that is no gateway: %v", err)
	}
	id, err := x.join(x.gatewayToken())
	if err != nil {
		t.Fatal(err)
	}
	k, err := FetchKeys(t.Context(), x.addr, id, x.verifier, begin)
	if want := x.gossip(); err != nil || k.Version != 7 || string(k.Key) != "next key" || string(k.Old) != "gossip key" || k.UseIn != want.UseIn || k.DropIn != want.DropIn {
		t.Errorf("keys %+v, %v", k, err)
	}
	conf := clientConfig(func([][]byte) error { return nil })
	asked := func(tls.ConnectionState) (request, error) { return request{Verb: verbKeys}, nil }
	if _, err := ask(t.Context(), x.addr, conf, asked); reason(err) != RefusedCert {
		t.Errorf("without a certificate: %v", err)
	}
	conf.Certificates = []tls.Certificate{x.issuer.Certificate()}
	if _, err := ask(t.Context(), x.addr, conf, asked); reason(err) != RefusedCert {
		t.Errorf("with an issuer's: %v", err)
	}
	stranger := newTestIssuer(t)
	if _, err := FetchKeys(t.Context(), stranger.addr, id, x.verifier, begin); err == nil || reason(err) != "" {
		t.Errorf("from a stranger's issuer: %v", err)
	}
	x.verifier.Revoke([]overlay.Revocation{{Node: edge, Until: x.clock()}})
	if _, err := FetchKeys(t.Context(), x.addr, id, x.verifier, begin); reason(err) != RefusedCert {
		t.Errorf("revoked: %v", err)
	}
	// Who joins gets the key that the others send with.
	for until, want := range map[time.Duration]string{time.Minute: "gossip key", 0: "next key"} {
		x.mu.Lock()
		x.until = until
		x.mu.Unlock()
		_, request := newRequest(t)
		got, err := Join(t.Context(), x.gatewayToken(), edge, request)
		if err != nil || string(got.Gossip) != want {
			t.Errorf("a newcomer gets %q, %v, want %q", got.Gossip, err, want)
		}
	}
}

func TestWhoSaysNothingOrTooMuchIsCutOff(t *testing.T) {
	x := newTestIssuer(t)
	conn, err := tls.Dial("tcp", x.addr, clientConfig(func([][]byte) error { return nil }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{0, 1, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("a request of 64 KiB: %d, %v", n, err)
	}
	// More connections than one source may have: the rest is closed at once.
	var open []net.Conn
	for range maxSourceConns + 5 {
		c, err := net.Dial("tcp", x.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
	}
	closed := make(chan error, len(open))
	for _, c := range open {
		go func() {
			_, err := c.Read(make([]byte, 1))
			closed <- err
		}()
	}
	for range 4 { // the connection above may not have ended yet
		select {
		case <-closed:
		case <-time.After(connTime / 2): // then even those that were taken would be closed soon
			t.Fatal("not all of the surplus were closed")
		}
	}
	if len(closed) > 2 {
		t.Errorf("%d more were closed", len(closed))
	}
	for _, c := range open {
		c.Close()
	}
}

func TestTLSBelow13IsRefused(t *testing.T) {
	x := newTestIssuer(t)
	conf := clientConfig(func([][]byte) error { return nil })
	conf.MinVersion, conf.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if conn, err := tls.Dial("tcp", x.addr, conf); err == nil {
		conn.Close()
		t.Error("TLS 1.2 is spoken")
	}
}
