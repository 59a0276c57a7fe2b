package dnsd

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// resident is how many bytes of memory the process holds.
func resident(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// flood asks for one name, and for names that do not exist, in turn, at 100,000
// questions a second, until ctx ends. It returns how many it sent.
func flood(ctx context.Context, c net.Conn, msgs [][]byte) int {
	sent := 0
	for start := time.Now(); ctx.Err() == nil; {
		_, _ = c.Write(msgs[sent%len(msgs)]) // lost or not: it is a flood
		if sent++; sent%100 == 0 {
			if ahead := time.Duration(sent)*10*time.Microsecond - time.Since(start); ahead > 0 {
				<-time.After(ahead)
			}
		}
	}
	return sent
}

func floodMessages(t *testing.T) (msgs [][]byte) {
	for i := range 4096 { // none of them again within 80 ms
		msgs = append(msgs, pack(t, query("web.shop.svc.slice.local", typeA)), pack(t, query(fmt.Sprintf("no-%d.shop.svc.slice.local", i), typeA)))
	}
	return msgs
}

// questionsFor asks for so long one question after the other, 500 a second at most.
// It returns how many, and how long the answers took, in order of length.
func questionsFor(t *testing.T, c *net.UDPConn, long time.Duration) (asked int, took []time.Duration) {
	t.Helper()
	pace := time.NewTicker(2 * time.Millisecond)
	defer pace.Stop()
	for began := time.Now(); time.Since(began) < long; asked++ {
		<-pace.C
		q := query("v4.shop.svc.slice.local", typeA)
		q.Id = uint16(asked)
		start := time.Now()
		if _, err := c.Write(pack(t, q)); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(start.Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		var buf [512]byte
		for {
			n, err := c.Read(buf[:])
			if err != nil {
				break // lost
			}
			if n > 2 && buf[0] == byte(q.Id>>8) && buf[1] == byte(q.Id) {
				took = append(took, time.Since(start))
				break
			}
		}
	}
	slices.Sort(took)
	return asked, took
}

// swallow reads a socket until it is closed, and closes done.
func swallow(pc net.PacketConn, done chan<- struct{}) {
	defer close(done)
	var buf [maxUDP]byte
	for {
		if _, _, err := pc.ReadFrom(buf[:]); err != nil {
			return
		}
	}
}

// One client's flood of ten seconds does not keep others from their answers:
// what is over its rate costs next to nothing, no memory and no goroutines. The
// flood shares the machine's processors with the server, so it is first sent to
// nobody: what that makes late is not the server's doing.
func TestAFloodLeavesOthersTheirAnswers(t *testing.T) {
	s, addr := listening(t, Config{}, View{Entries: testEntries()})
	sink, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	swallowed := make(chan struct{})
	go swallow(sink, swallowed)
	dial := func(host net.IP, to net.Addr) *net.UDPConn {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: host}, to.(*net.UDPAddr))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	other, msgs := dial(net.IPv4(127, 1, 1, 1), addr), floodMessages(t)
	beside := func(to net.Addr, long time.Duration) (sent, asked int, took []time.Duration) {
		c := dial(net.IPv4(127, 9, 9, 9), to)
		ctx, cancel := context.WithCancel(t.Context())
		var flooding sync.WaitGroup
		flooding.Go(func() { sent = flood(ctx, c, msgs) })
		asked, took = questionsFor(t, other, long)
		cancel()
		flooding.Wait()
		return sent, asked, took
	}
	_, _, calm := beside(sink.LocalAddr(), 3*time.Second)
	sink.Close()
	<-swallowed
	if len(calm) == 0 {
		t.Fatal("nobody is answered beside a flood at somebody else")
	}
	debug.FreeOSMemory()
	before, goroutines := resident(t), runtime.NumGoroutine()
	sent, asked, took := beside(addr, 10*time.Second)
	grown, more := resident(t)-before, runtime.NumGoroutine()-goroutines
	dropped := s.Stats().Dropped["rate-limited"]
	p99 := func(d []time.Duration) time.Duration { return d[len(d)*99/100] }
	t.Logf("%d of %d answered beside %d questions of a flood, of which %d were over the rate; p99 %v (%v with the flood elsewhere); %+.1f MiB, %+d goroutines",
		len(took), asked, sent, dropped, p99(took), p99(calm), float64(grown)/(1<<20), more)
	if dropped == 0 && sent > 100*DefaultRate {
		t.Error("nothing was over the rate")
	}
	if more > 10 {
		t.Errorf("%d more goroutines", more)
	}
	if raceEnabled { // it holds several times the memory, and is late
		return
	}
	// Where others leave the machine not even half of the flood's rate, what is
	// lost says nothing about the server.
	if sent >= 500_000 && len(took)*100 < asked*99 {
		t.Errorf("only %d of %d answered", len(took), asked)
	}
	if grown > 32<<20 {
		t.Errorf("it took %d MiB", grown>>20)
	}
}

// Nothing in how long an answer takes tells another slice's name from none.
func TestTimingTellsNothing(t *testing.T) {
	s := serviceServer(t, testView())
	out := make([]byte, 0, maxUDP)
	least := [2]time.Duration{time.Hour, time.Hour}
	msgs := [2][]byte{pack(t, query("else.shop.svc.slice.local", typeA)), pack(t, query("qzxj.shop.svc.slice.local", typeA))}
	for range 400 { // in turn, and the least of many short times: others run on this machine, too
		for i, msg := range msgs {
			start := time.Now()
			for range 100 {
				s.respond(out, msg, maxUDP)
			}
			least[i] = min(least[i], time.Since(start))
		}
	}
	elsewhere, random := least[0], least[1]
	ratio := float64(elsewhere) / float64(random)
	t.Logf("a name of another slice by a random one: %.3f", ratio)
	if ratio < 0.9 || ratio > 1.1 {
		t.Errorf("it differs by more than a tenth: %v and %v", elsewhere, random)
	}
}
