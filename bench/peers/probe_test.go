package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestEchoClientTimesRoundTrips(t *testing.T) {
	l := listen(t)
	go serveEcho(l)
	var out bytes.Buffer
	if err := echoClient(&out, l.Addr().String(), 0, ""); err != nil {
		t.Fatal(err)
	}
	r, err := parseEchoes(out.String())
	if err != nil || len(r) != 1 || r[0] <= 0 {
		t.Errorf("%v, %v", r, err)
	}
}

func TestEchoClientNoticesAForeignAnswer(t *testing.T) {
	l := listen(t)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Write(bytes.Repeat([]byte{7}, 64))
		_, _ = io.Copy(io.Discard, conn)
	}()
	if err := echoClient(io.Discard, l.Addr().String(), 0, ""); err == nil {
		t.Error("took it for an echo")
	}
}

func TestSOCKSConnect(t *testing.T) {
	const request = "\x05\x01\x00\x05\x01\x00\x03\x04host\x14\x52"
	for _, c := range []struct{ name, answer, err string }{
		{"an IPv4 address is read to its end", "\x05\x00" + "\x05\x00\x00\x01" + "\x01\x02\x03\x04\x05\x06", ""},
		{"so is an IPv6 address", "\x05\x00" + "\x05\x00\x00\x04" + strings.Repeat("\x01", 18), ""},
		{"so is a name", "\x05\x00" + "\x05\x00\x00\x03\x02ab\x05\x06", ""},
		{"a refusal is an error", "\x05\x00" + "\x05\x04\x00\x01", "refused with 4"},
		{"so is another method", "\x05\xff", "method 255"},
		{"so is an early end", "\x05\x00\x05", "unexpected EOF"},
	} {
		rw := &struct {
			io.Reader
			bytes.Buffer
		}{Reader: strings.NewReader(c.answer)}
		conn := struct {
			io.Reader
			io.Writer
		}{rw.Reader, &rw.Buffer}
		err := socksConnect(conn, "host:5202")
		if c.err == "" && (err != nil || rw.String() != request) {
			t.Errorf("%s: %v, sent %q", c.name, err, rw.String())
		}
		if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v", c.name, err)
		}
		if rest, _ := io.ReadAll(rw.Reader); c.err == "" && len(rest) != 0 {
			t.Errorf("%s: %d bytes are left", c.name, len(rest))
		}
	}
}

func TestWebServerCountsWhatArrives(t *testing.T) {
	s := httptest.NewServer(webHandler())
	defer s.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.URL+"/up", strings.NewReader(strings.Repeat("x", 300000)))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err != nil || string(body) != "300000" {
		t.Errorf("%q, %v", body, err)
	}
	down, err := http.Get(s.URL + "/down?length=10ms")
	if err != nil {
		t.Fatal(err)
	}
	defer down.Body.Close()
	if n, err := io.Copy(io.Discard, down.Body); err != nil || n == 0 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestDatagramsAreCountedOnce(t *testing.T) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stop, counted := make(chan struct{}), make(chan int64)
	go func() {
		n, err := udpReceive(conn, stop)
		if err != nil {
			t.Error(err)
		}
		counted <- n
	}()
	run, err := udpSend(conn.LocalAddr().String(), 64, 2000, 50*time.Millisecond)
	if err != nil || run.Sent == 0 || run.Sent > 2000 || run.Seconds < 0.05 {
		t.Fatalf("%+v, %v", run, err)
	}
	// What is not the probe's does not count.
	other, err := net.Dial("udp", conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	fmt.Fprint(other, "short")
	fmt.Fprint(other, strings.Repeat("foreign", 9))
	close(stop)
	if n := <-counted; n == 0 || n > run.Sent {
		t.Errorf("%d of %d", n, run.Sent)
	}
}

func TestProbesRefuseWrongArguments(t *testing.T) {
	for _, args := range [][]string{{"probe-echo"}, {"probe-echo", "x", "soon", ""}, {"probe-udp-send", "x", "y", "z", "0s"}, {"probe-relay", "tcp"}} {
		if known, err := runProbe(args); !known || err == nil {
			t.Errorf("%v: %v, %v", args, known, err)
		}
	}
	if known, _ := runProbe([]string{"-quick"}); known {
		t.Error("-quick is no probe")
	}
	if known, _ := runProbe(nil); known {
		t.Error("nothing is no probe")
	}
}

func TestZerosLastFromWhenTheyAreRead(t *testing.T) {
	z := &zeros{length: time.Nanosecond}
	n, err := io.Copy(io.Discard, z)
	if err != nil || n <= pipeHolds {
		t.Errorf("%d bytes, %v", n, err)
	}
}
