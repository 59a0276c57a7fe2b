package gateway

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestChanges(t *testing.T) {
	key := func(b byte) [32]byte { return [32]byte{b} }
	name := func(b byte) string { return hexKey(key(b)) }
	at := []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:1"), netip.MustParseAddrPort("192.0.2.1:2")}
	p := func(k byte, pfx ...string) Peer {
		return Peer{PublicKey: key(k), Endpoints: at, Prefixes: prefixes(pfx...)}
	}
	with := func(x Peer, f func(*Peer)) Peer { f(&x); return x }
	for _, tt := range []struct {
		name     string
		from, to []Peer
		want     string
		greet    int
	}{
		{"nothing", nil, nil, "", 0},
		{"a new peer, at the first endpoint that can be reached", nil, []Peer{p(1, "10.0.0.0/24")},
			"public_key=1 endpoint=192.0.2.1:2 allowed_ip=10.0.0.0/24", 1},
		{"a new peer that we cannot reach", nil, []Peer{with(p(1), func(x *Peer) { x.Endpoints = at[:1] })}, "public_key=1", 0},
		{"the same", []Peer{p(1, "10.0.0.0/24")}, []Peer{p(1, "10.0.0.0/24")}, "", 0},
		{"a prefix more, a prefix less", []Peer{p(1, "10.0.0.0/24", "10.0.1.0/24")}, []Peer{p(1, "10.0.1.0/24", "10.0.2.0/24")},
			"public_key=1 update_only=true allowed_ip=10.0.2.0/24 public_key=1 update_only=true allowed_ip=-10.0.0.0/24", 0},
		{"a prefix that moves is never without owner", []Peer{p(1, "10.0.0.0/24"), p(2)}, []Peer{p(1), p(2, "10.0.0.0/24")},
			"public_key=2 update_only=true allowed_ip=10.0.0.0/24", 0},
		{"a peer goes after its prefix has moved", []Peer{p(1, "10.0.0.0/24")}, []Peer{p(2, "10.0.0.0/24")},
			"public_key=2 endpoint=192.0.2.1:2 allowed_ip=10.0.0.0/24 public_key=1 remove=true", 1},
		{"keepalive on", []Peer{p(1)}, []Peer{with(p(1), func(x *Peer) { x.Keepalive = 24500 * time.Millisecond })},
			"public_key=1 update_only=true persistent_keepalive_interval=25", 0},
		{"another endpoint", []Peer{p(1)}, []Peer{with(p(1), func(x *Peer) {
			x.Endpoints = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:9")}
		})}, "public_key=1 update_only=true endpoint=192.0.2.9:9", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text, greet := changes(tt.from, tt.to, func(a netip.AddrPort) bool { return a.Addr().Is4() })
			for _, k := range []byte{1, 2} {
				text = strings.ReplaceAll(text, name(k), string('0'+k))
			}
			if got := strings.Join(strings.Fields(text), " "); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if len(greet) != tt.greet {
				t.Errorf("%d are greeted, want %d", len(greet), tt.greet)
			}
		})
	}
}

func TestParseState(t *testing.T) {
	a, b := hexKey([32]byte{1}), hexKey([32]byte{2})
	s := parseState("private_key=" + a + "\nlisten_port=0\npublic_key=" + a + "\nendpoint=[2001:db8::1]:7\n" +
		"last_handshake_time_sec=5\nlast_handshake_time_nsec=6\ntx_bytes=1\nrx_bytes=2\nallowed_ip=10.0.0.0/8\nallowed_ip=fd00::/8\n" +
		"public_key=" + b + "\nlast_handshake_time_sec=0\nlast_handshake_time_nsec=0\n")
	x := s[[32]byte{1}]
	if len(s) != 2 || x == nil || x.endpoint.String() != "[2001:db8::1]:7" || !x.handshake.Equal(time.Unix(5, 6)) ||
		x.tx != 1 || x.rx != 2 || fmt.Sprint(x.prefixes) != "[10.0.0.0/8 fd00::/8]" {
		t.Errorf("got %+v", x)
	}
	if y := s[[32]byte{2}]; y == nil || !y.handshake.IsZero() || y.endpoint.IsValid() {
		t.Errorf("got %+v", y)
	}
}

func TestKeys(t *testing.T) {
	k := newKey(t)
	if k[0]&7 != 0 || k[31]&0xc0 != 0x40 {
		t.Error("key is not clamped")
	}
	if PublicKey(k) == PublicKey(newKey(t)) {
		t.Error("two keys are the same")
	}
}

func FuzzParseState(f *testing.F) {
	f.Add("public_key=" + hexKey([32]byte{1}) + "\nendpoint=1.2.3.4:5\nallowed_ip=10.0.0.0/8\n")
	f.Fuzz(func(t *testing.T, s string) { parseState(s) })
}
