package main

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/proxy"
)

// canary is in every payload that a lab sends on its slice, and must never be
// seen below it.
const canary = "canary of a slice"

// probePacket is a numbered packet of a probe stream.
func probePacket(seq uint64) []byte { return binary.BigEndian.AppendUint64([]byte(canary), seq) }

// arrivals are the times at which numbered packets came, and their numbers.
type arrivals struct {
	mu  sync.Mutex
	at  []time.Time
	seq []uint64
	bad int // were not what was sent
}

// add notes what came.
func (a *arrivals) add(payload []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	number, ok := bytes.CutPrefix(payload, []byte(canary))
	if !ok || len(number) != 8 {
		a.bad++
		return
	}
	a.at, a.seq = append(a.at, time.Now()), append(a.seq, binary.BigEndian.Uint64(number))
}

func (a *arrivals) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.at)
}

// passage is what came of a stream one way during some time.
type passage struct {
	dark  time.Duration // the longest silence
	first time.Duration // until something came
	lost  int           // numbers that are missing
	late  int           // came after a later one, for the first time
	twice int
	bad   int // in all
}

// since returns what came after a time.
func (a *arrivals) since(begin time.Time) passage {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := passage{bad: a.bad}
	prev, highest := begin, uint64(0)
	seen := make(map[uint64]bool, len(a.at))
	i := 0
	for ; i < len(a.at) && !a.at[i].After(begin); i++ {
		prev, highest = a.at[i], max(highest, a.seq[i])
		seen[a.seq[i]] = true
	}
	if i == len(a.at) {
		p.dark, p.first, p.lost = time.Since(prev), time.Since(begin), -1
		return p
	}
	p.first = a.at[i].Sub(begin)
	base, got := highest, 0
	if i == 0 {
		base = a.seq[0] - 1
	}
	for ; i < len(a.at); i++ {
		n := a.seq[i]
		p.dark = max(p.dark, a.at[i].Sub(prev))
		prev = a.at[i]
		switch {
		case seen[n]:
			p.twice++
			continue
		case n < highest:
			p.late++
		}
		seen[n] = true
		highest = max(highest, n)
		if n > base {
			got++
		}
	}
	p.dark = max(p.dark, time.Since(prev))
	p.lost = int(highest-base) - got
	return p
}

// calm reports whether packets came steadily for so long, all of it after begin.
func (a *arrivals) calm(begin time.Time, long time.Duration) bool {
	from := time.Now().Add(-long)
	if from.Before(begin) {
		return false
	}
	p := a.since(from)
	return p.lost >= 0 && p.dark < long/3
}

// echoService is what the slice's service leads to: over UDP it notes what
// comes and sends its own numbered packets back to whoever sent last, over TCP
// it returns what it gets.
type echoService struct {
	udp  net.PacketConn
	tcp  net.Listener
	came arrivals
	done chan struct{}
	wait sync.WaitGroup
	once sync.Once
}

// probeEvery is the pace of a probe stream, each way.
const probeEvery = 10 * time.Millisecond

// newEchoService makes its sockets where do calls what it is given.
func newEchoService(t *testing.T, do func(func() error) error) *echoService {
	t.Helper()
	e := &echoService{done: make(chan struct{})}
	err := do(func() (err error) {
		if e.udp, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			return err
		}
		e.tcp, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	back := make(chan net.Addr, 1)
	e.wait.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := e.udp.ReadFrom(buf)
			if err != nil {
				return
			}
			if n == floodBytes {
				_, _ = e.udp.WriteTo(buf[:n], from)
			} else {
				e.came.add(buf[:n])
			}
			select {
			case back <- from:
			default:
			}
		}
	})
	e.wait.Go(func() {
		var to net.Addr
		pace(e.done, func(seq uint64) {
			select {
			case to = <-back:
			default:
			}
			if to != nil {
				_, _ = e.udp.WriteTo(probePacket(seq), to)
			}
		})
	})
	e.wait.Go(func() {
		for {
			c, err := e.tcp.Accept()
			if err != nil {
				return
			}
			e.wait.Go(func() {
				defer c.Close()
				go func() { <-e.done; c.Close() }()
				_, _ = io.Copy(c, c)
			})
		}
	})
	return e
}

func (e *echoService) close() {
	e.once.Do(func() {
		close(e.done)
		e.udp.Close()
		e.tcp.Close()
		e.wait.Wait()
	})
}

// pace calls send with 1, 2, 3 ... every probeEvery until done is closed.
func pace(done <-chan struct{}, send func(uint64)) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for seq := uint64(1); ; seq++ {
		select {
		case <-done:
			return
		case <-tick.C:
			send(seq)
		}
	}
}

// A stream sends numbered packets from a node to the echo service, and notes
// what comes back.
type stream struct {
	came arrivals
	stop func()
}

// stream begins one through the node's SOCKS5 proxy.
func (l *pathLab) stream(n *labNode, to netip.AddrPort) *stream {
	l.t.Helper()
	control, relay := l.associate(n)
	conn := l.dialHere(n, "udp", relay)
	head := append([]byte{0, 0, 0, 1}, to.Addr().AsSlice()...)
	head = binary.BigEndian.AppendUint16(head, to.Port())
	s := &stream{}
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		pace(done, func(seq uint64) { _, _ = conn.Write(append(slices.Clip(head), probePacket(seq)...)) })
	})
	wait.Go(func() {
		buf := make([]byte, 2048)
		for {
			k, err := conn.Read(buf)
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				continue
			}
			s.came.add(buf[min(k, len(head)):k])
		}
	})
	s.stop = sync.OnceFunc(func() { close(done); conn.Close(); control.Close(); wait.Wait() })
	l.t.Cleanup(s.stop)
	return s
}

// associate asks a proxy for UDP; the association lives as long as control.
func (l *pathLab) associate(n *labNode) (control net.Conn, relay string) {
	l.t.Helper()
	c := l.dialHere(n, "tcp", n.proxy)
	_ = c.SetDeadline(time.Now().Add(patience))
	answer := make([]byte, 12)
	_, err1 := c.Write([]byte{5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0})
	_, err2 := io.ReadFull(c, answer)
	if err := cmp.Or(err1, err2); err != nil || answer[3] != 0 {
		l.t.Fatalf("udp associate: %v, % x", err, answer)
	}
	_ = c.SetDeadline(time.Time{})
	return c, fmt.Sprintf("%v:%d", netip.AddrFrom4([4]byte(answer[6:10])), binary.BigEndian.Uint16(answer[10:]))
}

// dialHere opens a connection where a node is, to an address there.
func (l *pathLab) dialHere(n *labNode, network, addr string) net.Conn {
	l.t.Helper()
	c, err := here{l, n}.Dial(network, addr)
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// here is a proxy.Dialer.
type here struct {
	l *pathLab
	n *labNode
}

func (h here) Dial(network, addr string) (c net.Conn, err error) {
	err = h.l.under.do(h.n, func() (err error) {
		c, err = net.Dial(network, addr)
		return err
	})
	return c, err
}

// dial opens a TCP connection to the echo service through a node's proxy.
func (l *pathLab) dial(n *labNode, to netip.AddrPort) (net.Conn, error) {
	d, err := proxy.SOCKS5("tcp", n.proxy, nil, here{l, n})
	if err != nil {
		return nil, err
	}
	return d.Dial("tcp", to.String())
}
