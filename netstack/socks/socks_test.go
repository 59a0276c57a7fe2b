package socks

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/proxy"
)

func TestAStandardClientReachesNamesAndAddresses(t *testing.T) {
	checkLeaks(t)
	sl := newSlice()
	sl.echo(t, "10.1.0.5:80")
	sl.echo(t, "[fd00::5]:80")
	sl.names["web.shop.svc.slice.local"] = []netip.Addr{netip.MustParseAddr("10.1.0.5")}
	for _, listener := range []net.Listener{tcpListener(t), unixListener(t)} {
		s := start(t, sl, Config{Listener: listener})
		d, err := proxy.SOCKS5(s.addr().Network(), s.addr().String(), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, dst := range []string{"web.shop.svc.slice.local:80", "10.1.0.5:80", "[fd00::5]:80", "[::ffff:10.1.0.5]:80"} {
			c, err := d.Dial("tcp", dst)
			if err != nil {
				t.Fatalf("%s: %v", dst, err)
			}
			c.SetDeadline(time.Now().Add(deadline))
			io.WriteString(c, "hello "+dst)
			halfClose(t, c)
			if got, err := io.ReadAll(c); err != nil || string(got) != "hello "+dst {
				t.Errorf("%s: %q, %v", dst, got, err)
			}
			c.Close()
		}
		eventually(t, "clients gone", func() bool { return s.Stats().Conns == 0 })
		if st := s.Stats(); st.Accepted != 4 || st.BytesUp != st.BytesDown || st.BytesUp == 0 || len(st.Failed) != 0 {
			t.Errorf("stats %+v", st)
		}
	}
}

func halfClose(t *testing.T, c net.Conn) {
	t.Helper()
	h, ok := c.(interface{ CloseWrite() error })
	if !ok {
		t.Fatalf("%T has no CloseWrite", c)
	}
	if err := h.CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// web is an HTTPS service in the slice.
func web(t *testing.T, sl *slice) (client *http.Transport, cert *x509.Certificate) {
	t.Helper()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s", r.Host, r.URL) }))
	t.Cleanup(srv.Close)
	sl.publish("10.1.0.6:443", srv.Listener.Addr())
	sl.names["example.com"] = []netip.Addr{netip.MustParseAddr("10.1.0.6")} // in the test certificate
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}, srv.Certificate()
}

func TestGoHTTPClientUsesCONNECT(t *testing.T) {
	checkLeaks(t)
	sl := newSlice()
	transport, _ := web(t, sl)
	s := start(t, sl, Config{})
	for _, scheme := range []string{"http", "socks5"} {
		tr := transport.Clone()
		tr.Proxy = http.ProxyURL(&url.URL{Scheme: scheme, Host: s.addr().String()})
		c := &http.Client{Transport: tr, Timeout: deadline}
		resp, err := c.Get("https://example.com/a?b")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != "example.com /a?b" {
			t.Errorf("%s: %q", scheme, body)
		}
		if _, err := c.Get("https://nope.example/"); err == nil {
			t.Errorf("%s: a name that the slice does not have is reached", scheme)
		}
		tr.CloseIdleConnections()
	}
}

func TestCurl(t *testing.T) {
	checkLeaks(t)
	sl := newSlice()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "slice says "+r.Host) }))
	t.Cleanup(srv.Close)
	sl.publish("10.1.0.7:80", srv.Listener.Addr())
	sl.names["web.slice.local"] = []netip.Addr{netip.MustParseAddr("10.1.0.7")}
	s := start(t, sl, Config{})
	u := start(t, sl, Config{Listener: unixListener(t)})
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--socks5-hostname", s.addr().String(), "http://web.slice.local/"}, "slice says web.slice.local"},
		{[]string{"--socks5-hostname", s.addr().String(), "http://10.1.0.7/"}, "slice says 10.1.0.7"},
		{[]string{"--proxytunnel", "-x", "http://" + s.addr().String(), "http://web.slice.local/"}, "slice says web.slice.local"},
		{[]string{"-x", "socks5h://localhost" + u.addr().String(), "http://web.slice.local/"}, "slice says web.slice.local"},
		{[]string{"-x", "http://" + s.addr().String(), "http://web.slice.local/"}, errMethod.text + "\n"},
	} {
		out, err := exec.Command("curl", append([]string{"-sS", "--max-time", "10", "--noproxy", ""}, c.args...)...).CombinedOutput()
		if err != nil || string(out) != c.want {
			t.Errorf("curl %v: %v %q, want %q", c.args, err, out, c.want)
		}
	}
	// The exit codes tell people what is wrong.
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--socks5-hostname", s.addr().String(), "http://nope.slice.local/"}, "exit status 97"},
		{[]string{"--socks4", s.addr().String(), "http://10.1.0.7/"}, "exit status 97"},
	} {
		if err := exec.Command("curl", append([]string{"-sS", "--max-time", "10"}, c.args...)...).Run(); err == nil || err.Error() != c.want {
			t.Errorf("curl %v: %v, want %s", c.args, err, c.want)
		}
	}
}

// hello is a greeting that offers no authentication.
const hello = "\x05\x01\x00"

func TestEveryRefusalSaysWhy(t *testing.T) {
	checkLeaks(t)
	sl := newSlice()
	addr := netip.MustParseAddr
	for i, err := range []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EACCES, syscall.ETIMEDOUT, errors.New("odd"), context.DeadlineExceeded} {
		sl.fails[addr(fmt.Sprintf("10.9.0.%d", i))] = err
	}
	sl.names["refused.slice.local"] = []netip.Addr{addr("10.9.0.2"), addr("fd00::9"), addr("10.9.0.1")} // the refusal says most
	sl.names["rebound.slice.local"] = []netip.Addr{addr("127.0.0.1"), addr("::1")}
	sl.names["empty.slice.local"] = nil
	s := start(t, sl, Config{DialTimeout: 200 * time.Millisecond})
	for _, c := range []struct {
		dst    string // host:port
		code   byte
		status int
		proxy  string
	}{
		{"10.9.0.0:1", 5, 502, "connection_refused"},
		{"10.9.0.1:1", 4, 502, "destination_unavailable"},
		{"10.9.0.2:1", 3, 502, "destination_ip_unroutable"},
		{"10.9.0.3:1", 2, 403, "destination_ip_prohibited"},
		{"10.9.0.4:1", 4, 504, "connection_timeout"},
		{"10.9.0.5:1", 1, 502, "proxy_internal_error"},
		{"10.9.0.6:1", 4, 504, "connection_timeout"},
		{"nope.slice.local:1", 4, 502, "dns_error"},
		{"empty.slice.local:1", 4, 502, "dns_error"},
		{"refused.slice.local:1", 5, 502, "connection_refused"},
		{"rebound.slice.local:1", 2, 403, "destination_ip_prohibited"},
		{"127.0.0.1:22", 2, 403, "destination_ip_prohibited"},
		{"[::1]:22", 2, 403, "destination_ip_prohibited"},
		{"[::ffff:127.0.0.1]:22", 2, 403, "destination_ip_prohibited"},
		{"0.0.0.0:22", 2, 403, "destination_ip_prohibited"},
		{"169.254.169.254:80", 2, 403, "destination_ip_prohibited"},
		{"[fe80::1]:80", 2, 403, "destination_ip_prohibited"},
		{"224.0.0.1:80", 2, 403, "destination_ip_prohibited"},
		{"255.255.255.255:80", 2, 403, "destination_ip_prohibited"},
	} {
		host, port, _ := net.SplitHostPort(c.dst)
		for _, asName := range []bool{true, false} {
			b := []byte(hello + "\x05\x01\x00")
			if a, err := netip.ParseAddr(host); err == nil && !asName {
				ap := netip.MustParseAddrPort(c.dst)
				if a.Is4In6() {
					v := a.As16()
					b = append(append(append(b, addrIPv6), v[:]...), 0, byte(ap.Port()))
				} else {
					b = appendAddr(b, ap)
				}
			} else {
				b = append(append(append(b, addrName, byte(len(host))), host...), 0, 1)
			}
			conn := connect(t, s)
			conn.Write(b)
			if got, err := io.ReadAll(conn); err != nil || len(got) != 12 || got[3] != c.code {
				t.Errorf("SOCKS %s: %x, %v, want code %d", c.dst, got, err, c.code)
			}
		}
		conn := connect(t, s)
		fmt.Fprintf(conn, "CONNECT %s:%s HTTP/1.1\r\nHost: x\r\n\r\n", bracket(host), port)
		got, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(got), fmt.Sprintf("HTTP/1.1 %d ", c.status)) || !strings.Contains(string(got), "error="+c.proxy) {
			t.Errorf("CONNECT %s: %s %v, want %d %s", c.dst, got, err, c.status, c.proxy)
		}
	}
}

func bracket(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

func TestHostileInput(t *testing.T) {
	checkLeaks(t)
	sl := newSlice()
	sl.echo(t, "10.1.0.5:80")
	s := start(t, sl, Config{HandshakeTimeout: 300 * time.Millisecond})
	for _, c := range []struct {
		name, send string
		want       string // hex, or the beginning of text
		shut       bool   // the client ends its side
	}{
		{"nothing", "", "", true},
		{"nothing, and it waits", "", "", false},
		{"SOCKS4", "\x04\x01\x00\x50\x0a\x01\x00\x05me\x00", "005b000000000000", false},
		{"TLS", "\x16\x03\x01\x02\x00\x01", "", false},
		{"half a greeting", "\x05\x02\x00", "", false},
		{"a greeting without methods", "\x05\x00", "05ff", false},
		{"only user and password", "\x05\x01\x02", "05ff", false},
		{"all methods", "\x05\xff" + strings.Repeat("\x00", 255), "0500", false},
		{"a request cut off", hello + "\x05\x01\x00\x01\x0a", "0500", true},
		{"another version", hello + "\x04\x01\x00\x01\x0a\x01\x00\x05\x00\x50", "050005010001000000000000", false},
		{"a reserved byte", hello + "\x05\x01\x01\x01\x0a\x01\x00\x05\x00\x50", "050005010001000000000000", false},
		{"BIND", hello + "\x05\x02\x00\x01\x0a\x01\x00\x05\x00\x50", "050005070001000000000000", false},
		{"an unknown command", hello + "\x05\xf0\x00\x01\x0a\x01\x00\x05\x00\x50", "050005070001000000000000", false},
		{"an unknown address type", hello + "\x05\x01\x00\x02\x0a\x01\x00\x05\x00\x50", "050005080001000000000000", false},
		{"an empty name", hello + "\x05\x01\x00\x03\x00\x00\x50", "050005010001000000000000", false},
		{"a name with a line end", hello + "\x05\x01\x00\x03\x03a\nb\x00\x50", "050005010001000000000000", false},
		{"an address with a zone", hello + "\x05\x01\x00\x03\x09fe80::1%1\x00\x50", "050005010001000000000000", false},
		{"GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 405 Method Not Allowed\r\n", false},
		{"GET with a body that goes on", "POST / HTTP/1.1\r\nHost: x\r\n\r\n" + strings.Repeat("x", 50000), "HTTP/1.1 405 ", false},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 505 ", false},
		{"no version", "CONNECT a:1\r\n\r\n", "HTTP/1.1 400 ", false},
		{"bare line ends", "CONNECT 10.1.0.5:80 HTTP/1.1\n\n", "HTTP/1.1 400 ", false},
		{"no port", "CONNECT 10.1.0.5 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", false},
		{"port 0", "CONNECT 10.1.0.5:0 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", false},
		{"port 65536", "CONNECT 10.1.0.5:65536 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", false},
		{"user information", "CONNECT me@10.1.0.5:80 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", false},
		{"a name in brackets", "CONNECT [web]:80 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", false},
		{"a content", "CONNECT 10.1.0.5:80 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 400 ", false},
		{"chunks", "CONNECT 10.1.0.5:80 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 400 ", false},
		{"a field without a colon", "CONNECT 10.1.0.5:80 HTTP/1.1\r\nnonsense\r\n\r\n", "HTTP/1.1 400 ", false},
		{"a folded field", "CONNECT 10.1.0.5:80 HTTP/1.1\r\nA: b\r\n c: d\r\n\r\n", "HTTP/1.1 400 ", false},
		{"a header without end", "CONNECT 10.1.0.5:80 HTTP/1.1\r\nA: " + strings.Repeat("x", 9000), "HTTP/1.1 431 ", false},
		{"a request line without end", strings.Repeat("x", 9000), "HTTP/1.1 431 ", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn := connect(t, s)
			io.WriteString(conn, c.send)
			if c.shut {
				conn.(*net.TCPConn).CloseWrite()
			}
			got, err := io.ReadAll(conn)
			if err != nil && c.want != "" {
				t.Errorf("read: %v", err)
			}
			if want, bad := hex.DecodeString(c.want); bad == nil {
				if !bytes.Equal(got, want) {
					t.Errorf("got %x, want %s", got, c.want)
				}
			} else if !strings.HasPrefix(string(got), c.want) || !strings.Contains(string(got), "Connection: close\r\n") {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestAClientThatDoesNotWaitLosesNothing(t *testing.T) {
	checkLeaks(t)
	sl := newSlice()
	sl.echo(t, "10.1.0.5:80")
	s := start(t, sl, Config{})
	payload := strings.Repeat("0123456789", 5000)
	for _, c := range []struct{ name, request, reply string }{
		{"SOCKS5", hello + "\x05\x01\x00\x01\x0a\x01\x00\x05\x00\x50", "\x05\x00\x05\x00\x00\x01"},
		{"CONNECT", "CONNECT 10.1.0.5:80 HTTP/1.1\r\nHost: 10.1.0.5:80\r\nContent-Length: 0\r\n\r\n", established},
	} {
		for _, chunk := range []int{1 << 20, 1} {
			conn := connect(t, s)
			go func() {
				all := []byte(c.request + payload[:min(len(payload), 1000*chunk)])
				for i := 0; i < len(all); i += chunk {
					conn.Write(all[i:min(i+chunk, len(all))])
				}
				conn.(*net.TCPConn).CloseWrite()
			}()
			got, err := io.ReadAll(conn)
			if err != nil || !strings.HasPrefix(string(got), c.reply) || !strings.HasSuffix(string(got), payload[:min(len(payload), 1000*chunk)]) {
				t.Errorf("%s in pieces of %d: %d bytes, %v", c.name, chunk, len(got), err)
			}
		}
	}
}

func TestTooManyClientsAreReset(t *testing.T) {
	checkLeaks(t)
	sl := newSlice()
	s := start(t, sl, Config{MaxConns: 2})
	a, b := connect(t, s), connect(t, s)
	eventually(t, "two clients", func() bool { return s.Stats().Conns == 2 })
	c, err := net.Dial("tcp", s.addr().String())
	if err == nil { // else the reset came while connecting
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the third client sees %v", err)
	}
	a.Close()
	eventually(t, "a place", func() bool { return s.Stats().Conns == 1 })
	d := connect(t, s)
	io.WriteString(d, "\x05\x01\x02")
	if got, err := io.ReadAll(d); err != nil || string(got) != "\x05\xff" {
		t.Errorf("%x, %v", got, err)
	}
	if st := s.Stats(); st.Refused != 1 {
		t.Errorf("stats %+v", st)
	}
	b.Close()
}

func TestTheEndOfRunResetsClientsInEveryState(t *testing.T) {
	checkLeaks(t)
	sl := newSlice()
	sl.echo(t, "10.1.0.5:80")
	sl.fails[netip.MustParseAddr("10.9.0.6")] = context.DeadlineExceeded
	p, err := New(Config{Listener: tcpListener(t), Dialer: sl, Resolver: sl})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	var conns []net.Conn
	for _, send := range []string{"", hello, hello + "\x05\x01\x00\x01\x0a\x01\x00\x05\x00\x50", hello + "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", hello + "\x05\x01\x00\x01\x0a\x09\x00\x06\x00\x50"} {
		c := connect(t, p)
		io.WriteString(c, send)
		conns = append(conns, c)
	}
	eventually(t, "all taken", func() bool { st := p.Stats(); return st.Conns == 5 && st.Associations == 1 })
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Run = %v", err)
		}
	case <-time.After(deadline):
		t.Fatal("Run does not return")
	}
	for i, c := range conns {
		if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("client %d: %v", i, err)
		}
	}
	if err := p.Run(context.Background()); err == nil {
		t.Error("Run runs twice")
	}
}

func TestAListenerClosedByOthersIsAFault(t *testing.T) {
	checkLeaks(t)
	sl := newSlice()
	l := tcpListener(t)
	p, err := New(Config{Listener: l, Dialer: sl, Resolver: sl})
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := p.Run(context.Background()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run = %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	sl := newSlice()
	l := tcpListener(t)
	defer l.Close()
	for name, cfg := range map[string]Config{
		"no listener":       {Dialer: sl, Resolver: sl},
		"no dialer":         {Listener: l, Resolver: sl},
		"no resolver":       {Listener: l, Dialer: sl},
		"a negative limit":  {Listener: l, Dialer: sl, Resolver: sl, MaxConns: -1},
		"a negative period": {Listener: l, Dialer: sl, Resolver: sl, UDPIdle: -1},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
