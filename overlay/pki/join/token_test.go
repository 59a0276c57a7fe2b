package join

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/pki"
)

func tokenTest() Token {
	return Token{
		ID: [8]byte{1, 2, 3}, Secret: [16]byte{4, 5, 6}, Issuer: [32]byte{7, 8, 9}, Root: [32]byte{10, 11, 12}, Expires: begin,
		Mesh: "lab.example", Node: edge, Slices: []string{"earth", "water"}, Addresses: []string{"192.0.2.1:51820", "[2001:db8::1]:51820", "gw.example:443"},
	}
}

// What an earlier version gave out is read as it was meant.
const goldenToken = "slicewire2.AQIDAAAAAAAEBQYAAAAAAAAAAAAAAAAABwgJAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAKCwwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABpVzWlC2xhYi5leGFtcGxlBnNpdGUtYQRlZGdlAgVlYXJ0aAV3YXRlcgMPMTkyLjAuMi4xOjUxODIwE1syMDAxOmRiODo6MV06NTE4MjAOZ3cuZXhhbXBsZTo0NDPxPruV"

func TestATokenIsReadAsItIsWritten(t *testing.T) {
	want := tokenTest()
	text := want.Text()
	if text != goldenToken {
		t.Errorf("written otherwise than before: %s", text)
	}
	got, err := ParseToken("\n  " + goldenToken + " \n")
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v", got, err)
	}
	// One changed or missing character anywhere is noticed, in words for people.
	for i := range text {
		for _, bad := range []string{text[:i] + "A" + text[i+1:], text[:i] + text[i+1:], text[:i]} {
			if bad == text {
				continue
			}
			if _, err := ParseToken(bad); err == nil || !strings.Contains(err.Error(), "whole join token") {
				t.Fatalf("changed at %d: %v", i, err)
			}
		}
	}
}

func TestTokensThatCannotBe(t *testing.T) {
	for name, change := range map[string]func(*Token){
		"no mesh":              func(c *Token) { c.Mesh = "" },
		"no node":              func(c *Token) { c.Node.Node = "" },
		"a site in capitals":   func(c *Token) { c.Node.Site = "Site" },
		"unsorted slices":      func(c *Token) { c.Slices = []string{"b", "a"} },
		"no address":           func(c *Token) { c.Addresses = nil },
		"an address of blanks": func(c *Token) { c.Addresses = []string{"a b:1"} },
		"no port":              func(c *Token) { c.Addresses = []string{"192.0.2.1"} },
		"port 0":               func(c *Token) { c.Addresses = []string{"192.0.2.1:0"} },
		"a terminal's escape":  func(c *Token) { c.Addresses = []string{"\x1b[2J:1"} },
		"too many addresses":   func(c *Token) { c.Addresses = make([]string, 9) },
		"no end":               func(c *Token) { c.Expires = time.Unix(0, 0) },
	} {
		c := tokenTest()
		change(&c)
		if _, err := ParseToken(c.Text()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestTheBookIsBoundedAndForgets(t *testing.T) {
	b, err := OpenBook(nil, func([]byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	add := func(now time.Time) error {
		c := tokenTest()
		c.Expires = now.Add(time.Hour)
		c, err := NewToken(c)
		if err != nil {
			t.Fatal(err)
		}
		return b.Add(c, Terms{Node: edge}, now)
	}
	for i := range maxEntries - 1 {
		id := strconv.Itoa(i)
		b.entries[id] = &entry{ID: id, Expires: begin.Add(time.Hour)}
	}
	if err := add(begin); err != nil {
		t.Fatal(err)
	}
	if err := add(begin.Add(2 * time.Hour)); err == nil {
		t.Error("one more than it holds")
	}
	if err := add(begin.Add(2*time.Hour + keepSpent)); err != nil || len(b.List()) != 1 {
		t.Errorf("a day later: %v, %d entries", err, len(b.List()))
	}
	if err := b.Add(tokenTest(), Terms{Node: edge}, begin); err == nil {
		t.Error("a token that is over")
	}
	if err := b.Add(tokenTest(), Terms{}, begin.Add(-time.Hour)); err == nil {
		t.Error("terms for another node")
	}
	for _, bad := range []string{"{", "[null]", `[{"id":"x"}]`} {
		if _, err := OpenBook([]byte(bad), nil); err == nil {
			t.Errorf("%s: read", bad)
		}
	}
}

func TestTheLimiterIsFair(t *testing.T) {
	var l limiter
	one, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")
	now := begin
	taken := 0
	for range 1000 {
		if l.take(one, now) {
			taken++
			l.done(netip.MustParseAddr("2001:db8::2")) // the same /64
		}
	}
	if taken != sourceBurst {
		t.Errorf("%d taken of one source at once, want %d", taken, sourceBurst)
	}
	if !l.take(other, now) {
		t.Error("another source waits for the first")
	}
	l.done(other)
	if l.take(one, now.Add(time.Second/4)) || !l.take(one, now.Add(time.Second)) {
		t.Error("the pace is not kept")
	}
	l.done(one)
	// Many sources cannot fill the memory, and quiet ones give way.
	now = now.Add(time.Hour)
	for i := range maxSources + 100 {
		now = now.Add(20 * time.Millisecond)
		a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		if !l.take(a, now) {
			t.Fatalf("source %d waits", i)
		}
		l.done(a)
	}
	if len(l.sources) > maxSources || l.conns != 0 {
		t.Errorf("%d sources, %d connections", len(l.sources), l.conns)
	}
	for i := range maxConns + 10 {
		l.take(netip.AddrFrom4([4]byte{11, 0, 0, byte(i)}), now.Add(time.Hour))
	}
	if l.conns != maxConns {
		t.Errorf("%d connections at once", l.conns)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(goldenToken)
	f.Add(tokenPrefix)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseToken(text)
		if err != nil {
			return
		}
		if again := got.Text(); again != strings.TrimSpace(text) {
			t.Fatalf("%q is read, but written as %q", text, again)
		}
	})
}

// The checksum would stop a fuzzer at the door: this one is past it.
func FuzzDecodeToken(f *testing.F) {
	c := tokenTest()
	f.Add(c.bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ok := decodeToken(b)
		if ok && got.check() == nil && !bytes.Equal(got.bytes(), b) {
			t.Fatalf("%x is read, but written as %x", b, got.bytes())
		}
	})
}

func FuzzDecodeRequest(f *testing.F) {
	for _, r := range []request{
		{Verb: verbRenew, Request: "x"},
		{Verb: verbJoin, Request: "x", Token: "0102030000000000", Site: "a", Node: "b", Proof: make([]byte, 32)},
	} {
		b, _ := json.Marshal(r)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRequest(b)
		if err != nil {
			return
		}
		again, _ := json.Marshal(r)
		if back, err := decodeRequest(again); err != nil || !reflect.DeepEqual(back, r) {
			t.Fatalf("%q reads as %+v, and that as %+v (%v)", b, r, back, err)
		}
		e := entry{Terms: Terms{Node: overlay.NodeID{Site: "a", Node: "b"}}, Secret: make([]byte, 16), Expires: begin.Add(time.Hour)}
		if decide(&e, r, "", nil, begin) == nil {
			t.Fatal("a request without a proof is let in")
		}
	})
}

func TestATokenIsTakenBack(t *testing.T) {
	x := newTestIssuer(t)
	token := x.token()
	x.fail = errors.New("no space left")
	if err := x.book.Remove(token.Name()); err == nil || len(x.book.List()) != 1 {
		t.Errorf("taken back without being saved: %v", err)
	}
	x.fail = nil
	if err := x.book.Remove(token.Name()); err != nil {
		t.Fatal(err)
	}
	if _, err := x.join(token); reason(err) != RefusedToken {
		t.Errorf("it still lets in: %v", err)
	}
	if err := x.book.Remove(token.Name()); err == nil {
		t.Error("taken back twice")
	}
	used := x.token()
	if _, err := x.join(used); err != nil {
		t.Fatal(err)
	}
	if err := x.book.Remove(used.Name()); err == nil || !strings.Contains(err.Error(), "revoke the node") {
		t.Errorf("taken back after its use: %v", err)
	}
}

// A token names the authority: a certificate below another is not what its maker
// meant, unless that came after it.
func TestATokenPinsTheAuthority(t *testing.T) {
	ca, err := pki.NewCA("lab", begin, 1000*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := pki.ParseRoots(ca.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	first := roots.Newest()
	_, s, err := ca.Succeed(begin, 1000*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if roots, err = roots.Add(s); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name         string
		mesh         string
		pinned, root [32]byte
		ok           bool
	}{
		{"the very one", "lab", first, first, true},
		{"the one after it", "lab", first, s.Key(), true},
		{"the one before it", "lab", s.Key(), first, false},
		{"a stranger's", "lab", [32]byte{1}, s.Key(), false},
		{"another mesh", "other", first, first, false},
	} {
		token := Token{Mesh: tt.mesh, Root: tt.pinned}
		if err := token.Pins(roots, tt.root); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
