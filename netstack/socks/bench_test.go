package socks

import (
	"io"
	"net"
	"testing"
	"time"
)

// BenchmarkConnect is one whole request: connect to the proxy, CONNECT, close.
func BenchmarkConnect(b *testing.B) {
	sl := newSlice()
	sl.echo(b, "10.1.0.5:80")
	s := start(b, sl, Config{})
	reply := make([]byte, 12)
	b.ReportAllocs()
	for b.Loop() {
		c, err := net.Dial("tcp", s.addr().String())
		if err != nil {
			b.Fatal(err)
		}
		io.WriteString(c, hello+"\x05\x01\x00\x01\x0a\x01\x00\x05\x00\x50")
		if _, err := io.ReadFull(c, reply); err != nil || reply[3] != 0 {
			b.Fatalf("%x %v", reply, err)
		}
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
}

// BenchmarkBulk sends through the proxy and reads nothing back; compare the
// pump's benchmark.
func BenchmarkBulk(b *testing.B) {
	sl := newSlice()
	l := tcpListener(b)
	sl.publish("10.1.0.5:80", l.Addr())
	got := make(chan int64, 1)
	go func() {
		c, err := l.Accept()
		l.Close()
		if err != nil {
			got <- -1
			return
		}
		defer c.Close()
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256<<10))
		got <- n
	}()
	s := start(b, sl, Config{})
	c := connect(b, s)
	c.SetDeadline(time.Time{})
	io.WriteString(c, hello+"\x05\x01\x00\x01\x0a\x01\x00\x05\x00\x50")
	if _, err := io.ReadFull(c, make([]byte, 12)); err != nil {
		b.Fatal(err)
	}
	chunk := make([]byte, 256<<10)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	c.(*net.TCPConn).CloseWrite()
	if n := <-got; n != int64(b.N)*int64(len(chunk)) {
		b.Fatalf("%d bytes arrived", n)
	}
}
