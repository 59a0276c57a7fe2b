package pump

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const deadline = 20 * time.Second

// pair is a client and the far end of a connection that is carried by Move.
type pair struct {
	client, server *net.TCPConn
	moved          *Bytes
	done           chan error
	cancel         context.CancelFunc
}

// join makes client <-> a =Move= b <-> server on loopback.
func join(t testing.TB, p *Pump) *pair {
	t.Helper()
	client, a := loopback(t)
	b, server := loopback(t)
	ctx, cancel := context.WithCancel(context.Background())
	x := &pair{client: client, server: server, moved: &Bytes{}, done: make(chan error, 1), cancel: cancel}
	go func() { x.done <- p.Move(ctx, a, b, x.moved) }()
	for _, c := range []net.Conn{client, server} {
		if err := c.SetDeadline(time.Now().Add(deadline)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { cancel(); client.Close(); server.Close() })
	return x
}

func loopback(t testing.TB) (dialed, accepted *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

func (x *pair) wait(t testing.TB) error {
	t.Helper()
	select {
	case err := <-x.done:
		return err
	case <-time.After(deadline):
		t.Fatal("Move does not return")
		return nil
	}
}

func TestBytesArriveExactlyAndEachDirectionEndsByItself(t *testing.T) {
	defer goleak.VerifyNone(t)
	x := join(t, new(Pump))
	const seed, size = 7, 16 << 20
	up := make([]byte, size)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for i := range up {
		up[i] = byte(rnd.Uint32())
	}
	down := bytes.Repeat([]byte("late answer "), 1<<16)

	go func() {
		x.client.Write(up)
		x.client.CloseWrite()
	}()
	h := sha256.New()
	if _, err := io.Copy(h, x.server); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(h.Sum(nil), sum(up)) {
		t.Fatalf("the upward bytes differ (seed %d)", seed)
	}
	// The client has ended its direction; the answer still has to come.
	go func() {
		x.server.Write(down)
		x.server.Close()
	}()
	got, err := io.ReadAll(x.client)
	if err != nil || !bytes.Equal(got, down) {
		t.Fatalf("downward after a half-close: %d of %d bytes, %v", len(got), len(down), err)
	}
	if err := x.wait(t); err != nil {
		t.Errorf("Move = %v", err)
	}
	if u, d := x.moved.Up.Load(), x.moved.Down.Load(); u != size || d != uint64(len(down)) {
		t.Errorf("counted %d up and %d down, want %d and %d", u, d, size, len(down))
	}
}

func sum(b []byte) []byte { s := sha256.Sum256(b); return s[:] }

func TestAResetIsPassedOnAsAReset(t *testing.T) {
	defer goleak.VerifyNone(t)
	for _, from := range []string{"client", "server"} {
		x := join(t, new(Pump))
		sender, receiver := x.client, x.server
		if from == "server" {
			sender, receiver = receiver, sender
		}
		sender.Write([]byte("x"))
		if _, err := io.ReadFull(receiver, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		Reset(sender)
		if _, err := receiver.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("reset by the %s arrives as %v", from, err)
		}
		if err := x.wait(t); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Move = %v, want the reset", err)
		}
	}
}

func TestTheEndOfTheContextResetsBothSides(t *testing.T) {
	defer goleak.VerifyNone(t)
	x := join(t, new(Pump))
	x.cancel()
	if err := x.wait(t); !errors.Is(err, context.Canceled) {
		t.Errorf("Move = %v", err)
	}
	for _, c := range []net.Conn{x.client, x.server} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read = %v, want a reset", err)
		}
	}
}

// whole hides CloseWrite and SetLinger.
type whole struct{ net.Conn }

func TestAConnectionWithoutHalfCloseIsClosedWhole(t *testing.T) {
	defer goleak.VerifyNone(t)
	client, a := net.Pipe()
	b, server := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- new(Pump).Move(context.Background(), a, whole{b}, &Bytes{}) }()
	client.Close()
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read = %v, want EOF", err)
	}
	select {
	case <-done:
	case <-time.After(deadline):
		t.Fatal("Move does not return")
	}
}

type aborting struct {
	net.Conn
	aborted bool
}

func (c *aborting) Abort() { c.aborted = true }

func TestResetPrefersAbort(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	c := &aborting{Conn: a}
	Reset(c)
	Reset(c)
	if !c.aborted {
		t.Error("Abort was not called")
	}
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection is open: %v", err)
	}
}

// sizes records how large the buffers are that a reader is offered.
type sizes struct {
	net.Conn
	queue []int // bytes available at each read, then EOF
	asked []int
}

func (c *sizes) Read(b []byte) (int, error) {
	c.asked = append(c.asked, len(b))
	if len(c.queue) == 0 {
		return 0, io.EOF
	}
	n := min(c.queue[0], len(b))
	if c.queue[0] -= n; c.queue[0] == 0 {
		c.queue = c.queue[1:]
	}
	return n, nil
}
func (c *sizes) Write(b []byte) (int, error)     { return len(b), nil }
func (c *sizes) SetReadDeadline(time.Time) error { return nil }
func (c *sizes) CloseWrite() error               { return nil }
func (c *sizes) Close() error                    { return nil }

func TestOnlyADirectionWithQueuedBytesHoldsALargeBuffer(t *testing.T) {
	for _, c := range []struct {
		name  string
		queue []int
		want  []int
	}{
		{"chatter waits small", []int{10, 20}, []int{waitBytes, waitBytes, waitBytes}},
		{"a full read takes a large one until the queue is drained", []int{waitBytes + bulkBytes + 5},
			[]int{waitBytes, bulkBytes, bulkBytes, waitBytes}},
	} {
		src := &sizes{queue: c.queue}
		var p Pump
		var half atomic.Bool
		var moved atomic.Uint64
		if err := p.copy(&sizes{}, src, &half, &moved); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(src.asked, c.want) {
			t.Errorf("%s: asked %v, want %v", c.name, src.asked, c.want)
		}
	}
}

// BenchmarkMove is the cost of carrying bulk, both sockets of the kernel
// included; the time per byte is that of client, pump and server together.
func BenchmarkMove(b *testing.B) {
	x := join(b, new(Pump))
	x.client.SetDeadline(time.Time{})
	x.server.SetDeadline(time.Time{})
	chunk := make([]byte, 256<<10)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	got := make(chan int64, 1)
	go func() {
		sink := make([]byte, 256<<10)
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{x.server}, sink)
		got <- n
	}()
	for b.Loop() {
		if _, err := x.client.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	x.client.CloseWrite()
	if n := <-got; n != int64(b.N)*int64(len(chunk)) {
		b.Fatalf("%d bytes arrived, want %d", n, int64(b.N)*int64(len(chunk)))
	}
}

// BenchmarkShortConnection is what the pump adds to a connection that carries
// one small exchange.
func BenchmarkShortConnection(b *testing.B) {
	p := new(Pump)
	b.ReportAllocs()
	for b.Loop() {
		var moved Bytes
		if err := p.Move(context.Background(), &sizes{queue: []int{100}}, &sizes{queue: []int{100}}, &moved); err != nil {
			b.Fatal(err)
		}
		if moved.Up.Load() != 100 || moved.Down.Load() != 100 {
			b.Fatal("bytes are missing")
		}
	}
}
