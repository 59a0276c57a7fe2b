package socks

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// incremental checks that a parser which asks for more bytes until it has all
// comes to the same as one that sees all at once, and stays within its input.
func incremental[T comparable](t *testing.T, b []byte, parse func([]byte) (T, int, error)) {
	t.Helper()
	want, n, err := parse(b)
	if n > len(b) || n < 0 {
		t.Fatalf("%d bytes taken of %d", n, len(b))
	}
	if err != nil {
		return
	}
	for i := range n {
		if _, _, err := parse(b[:i]); !errors.Is(err, errShort) {
			t.Fatalf("with %d of %d bytes: %v", i, n, err)
		}
	}
	got, m, err := parse(bytes.Clone(b[:n]))
	if got != want || m != n || err != nil {
		t.Fatalf("%v %d %v, want %v %d", got, m, err, want, n)
	}
}

func checkTarget(t *testing.T, x target) {
	t.Helper()
	switch {
	case (x.name == "") != x.addr.IsValid():
		t.Fatalf("name %q and address %v", x.name, x.addr)
	case x.addr.Is4In6(), x.addr.Zone() != "":
		t.Fatalf("address %v", x.addr)
	case len(x.name) > 255, strings.ContainsAny(x.name, " \r\n\x00"):
		t.Fatalf("name %q", x.name)
	}
}

func FuzzSOCKS5(f *testing.F) {
	f.Add([]byte(hello))
	f.Add([]byte("\x05\x01\x00\x01\x0a\x01\x00\x05\x00\x50"))
	f.Add([]byte("\x05\x03\x00\x03\x03web\x00\x50rest"))
	f.Add([]byte("\x05\x01\x00\x04" + strings.Repeat("\x00", 10) + "\xff\xff\x7f\x00\x00\x01\x00\x50"))
	f.Fuzz(func(t *testing.T, b []byte) {
		incremental(t, b, parseGreeting)
		incremental(t, b, parseRequest)
		r, _, err := parseRequest(b)
		if err != nil {
			return
		}
		checkTarget(t, r.target)
		if r.addr.IsValid() {
			back, n, err := parseTarget(appendAddr(nil, netip.AddrPortFrom(r.addr, r.port)))
			if err != nil || back != r.target || n < 7 {
				t.Fatalf("%v reads back as %v, %v", r.target, back, err)
			}
		}
	})
}

func FuzzDatagram(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x01\x0a\x01\x00\x05\x00\x35payload"))
	f.Add([]byte("\x00\x00\x00\x03\x03web\x00\x35"))
	f.Add([]byte("\x00\x00\x01\x01\x0a\x01\x00\x05\x00\x35fragment"))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, payload, err := parseDatagram(b)
		if err != nil {
			return
		}
		checkTarget(t, x)
		if x.port == 0 || b[2] != 0 || !bytes.HasSuffix(b, payload) || len(payload) > len(b)-7 {
			t.Fatalf("%v %x of %x", x, payload, b)
		}
	})
}

func FuzzCONNECT(f *testing.F) {
	f.Add([]byte("CONNECT web.slice.local:80 HTTP/1.1\r\nHost: web\r\n\r\nrest"))
	f.Add([]byte("CONNECT [fd00::1]:443 HTTP/1.0\r\n\r\n"))
	f.Add([]byte("GET http://x/ HTTP/1.1\r\nA:b\r\n\r\n"))
	f.Add([]byte("CONNECT a:1 HTTP/1.1\r\nContent-Length: 0\r\nA : b\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		incremental(t, b, parseConnect)
		x, n, err := parseConnect(b)
		if err != nil {
			return
		}
		checkTarget(t, x)
		if x.port == 0 || !bytes.HasPrefix(b, []byte("CONNECT ")) || !bytes.HasSuffix(b[:n], []byte("\r\n\r\n")) || bytes.Index(b, []byte("\r\n\r\n")) != n-4 {
			t.Fatalf("%v of %q", x, b)
		}
	})
}
