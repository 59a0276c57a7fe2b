package main

import (
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

// arrivals are the times at which numbered packets came, and their numbers.
type arrivals struct {
	mu   sync.Mutex
	at   []time.Time
	seq  []uint64
	last uint64
}

func (a *arrivals) add(seq uint64) {
	a.mu.Lock()
	a.at, a.seq = append(a.at, time.Now()), append(a.seq, seq)
	a.last = max(a.last, seq)
	a.mu.Unlock()
}

func (a *arrivals) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.at)
}

// since returns the longest silence after a time, how many numbers are missing
// of those that arrived after it, and how many came late or twice.
func (a *arrivals) since(begin time.Time) (dark time.Duration, lost, odd int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.at, func(at time.Time) bool { return at.After(begin) })
	if i < 0 {
		return time.Since(begin), -1, 0
	}
	prev, highest := begin, uint64(0)
	if i > 0 {
		prev, highest = a.at[i-1], a.seq[i-1]
	}
	first, got := highest, 0
	for ; i < len(a.at); i++ {
		dark = max(dark, a.at[i].Sub(prev))
		prev = a.at[i]
		if a.seq[i] <= highest {
			odd++
			continue
		}
		highest = a.seq[i]
		got++
	}
	return max(dark, time.Since(prev)), int(highest-first) - got, odd
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

func newEchoService(t *testing.T) *echoService {
	t.Helper()
	e := &echoService{done: make(chan struct{})}
	var err error
	if e.udp, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if e.tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
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
			if n == 8 {
				e.came.add(binary.BigEndian.Uint64(buf))
			} else if n == floodBytes {
				_, _ = e.udp.WriteTo(buf[:n], from)
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
				_, _ = e.udp.WriteTo(binary.BigEndian.AppendUint64(nil, seq), to)
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
	conn, err := net.Dial("udp", relay)
	if err != nil {
		l.t.Fatal(err)
	}
	head := append([]byte{0, 0, 0, 1}, to.Addr().AsSlice()...)
	head = binary.BigEndian.AppendUint16(head, to.Port())
	s := &stream{}
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		pace(done, func(seq uint64) { _, _ = conn.Write(binary.BigEndian.AppendUint64(slices.Clip(head), seq)) })
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
			if k == len(head)+8 {
				s.came.add(binary.BigEndian.Uint64(buf[len(head):]))
			}
		}
	})
	s.stop = sync.OnceFunc(func() { close(done); conn.Close(); control.Close(); wait.Wait() })
	l.t.Cleanup(s.stop)
	return s
}

// associate asks a proxy for UDP; the association lives as long as control.
func (l *pathLab) associate(n *labNode) (control net.Conn, relay string) {
	l.t.Helper()
	c, err := net.Dial("tcp", n.proxy)
	if err != nil {
		l.t.Fatal(err)
	}
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

// dial opens a TCP connection to the echo service through a node's proxy.
func (l *pathLab) dial(n *labNode, to netip.AddrPort) net.Conn {
	l.t.Helper()
	d, err := proxy.SOCKS5("tcp", n.proxy, nil, proxy.Direct)
	if err != nil {
		l.t.Fatal(err)
	}
	c, err := d.Dial("tcp", to.String())
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}
