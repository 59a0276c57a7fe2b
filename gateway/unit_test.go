package gateway

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slicewire/overlay"
)

func TestCredits(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name string
		do   func(c *credits)
		want int // in flight
	}{
		{"what leaves is given back", func(c *credits) { c.take(0, 5); c.give(3) }, 2},
		{"more than entered cannot leave", func(c *credits) { c.take(0, 5); c.give(9); c.take(0, 1) }, 1},
		{"silence on time means that nothing is left", func(c *credits) {
			c.take(0, 7)
			c.startPoll(0)
			for i := time.Duration(1); i <= quietAfter/quietPoll; i++ {
				c.poll(i * quietPoll)
			}
		}, 0},
		{"a shorter silence means nothing", func(c *credits) {
			c.take(0, 7)
			c.startPoll(0)
			for i := time.Duration(1); i < quietAfter/quietPoll; i++ {
				c.poll(i * quietPoll)
			}
		}, 7},
		{"silence of a machine that is late means nothing", func(c *credits) {
			c.take(0, 7)
			c.startPoll(0)
			for i := time.Duration(1); i < 50; i++ {
				c.poll(i * 5 * quietPoll)
			}
		}, 7},
		{"what leaves during the silence begins it anew", func(c *credits) {
			c.take(0, 100)
			c.startPoll(0)
			for i := time.Duration(1); i < 50; i++ {
				if i%3 == 0 {
					c.give(1)
				}
				c.poll(i * quietPoll)
			}
		}, 84},
		{"what entered long ago is lost, the rest is not", func(c *credits) {
			c.take(0, 10)
			c.take(lostAfter/2, 10)
			c.take(lostAfter, 10)
		}, 20},
		{"what left meanwhile counts as the oldest", func(c *credits) {
			c.take(0, 10)
			c.give(8)
			c.take(lostAfter/2, 10)
			c.take(lostAfter, 10)
		}, 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := credits{limit: 100}
			tt.do(&c)
			if got := c.inFlight(); got != tt.want {
				t.Errorf("%d in flight, want %d", got, tt.want)
			}
		})
	}
	t.Run("a leak of any rate never closes it for longer than lostAfter", func(t *testing.T) {
		c := credits{limit: 64}
		rnd := rand.New(rand.NewPCG(1, 1))
		var now, open time.Duration
		for ; now < 20*time.Second; now += ms / 2 {
			if c.inFlight() < c.limit {
				open = now
				n := 1 + rnd.IntN(32)
				c.take(now, n)
				c.give(rnd.IntN(n + 1)) // the others are swallowed
				continue
			}
			c.age(now)
			if now-open > lostAfter+markEvery {
				t.Fatalf("closed since %v at %v", open, now)
			}
		}
		if c.peak > 64+32 {
			t.Errorf("%d in flight", c.peak)
		}
	})
}

func TestQueueAgainstAModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 2))
	pool := bufferPool{size: smallBytes, keep: 4}
	var q queue
	var model []byte // one number for each packet
	next := byte(0)
	for range 20000 {
		if rnd.IntN(2) == 0 {
			k := 1 + rnd.IntN(40)
			b := pool.get()
			r := run{buf: b, size: 16, end: int32(k*16 - rnd.IntN(16)), data: true}
			for i := range k {
				b.b[i*16] = next + byte(i)
			}
			if !q.push(r) {
				b.release()
				if len(model)+k <= queuePackets && q.bytes+smallBytes <= queueBytes {
					t.Fatal("refused below its bounds")
				}
				continue
			}
			for i := range k {
				model = append(model, next+byte(i))
			}
			next += byte(k)
		} else {
			limit := rnd.IntN(33)
			n := 0
			for _, r := range q.pop(nil, limit) {
				for off := r.off; off < r.end; off += r.size {
					if got := r.buf.b[off]; got != model[n] {
						t.Fatalf("packet %d, want %d", got, model[n])
					}
					n++
				}
				r.buf.release()
			}
			if n != min(limit, len(model)) {
				t.Fatalf("%d packets, want %d", n, min(limit, len(model)))
			}
			model = model[n:]
		}
		if q.packets != len(model) {
			t.Fatalf("queue counts %d, holds %d", q.packets, len(model))
		}
	}
}

func TestAHandshakeFitsBehindAFloodOfData(t *testing.T) {
	pool := bufferPool{size: smallBytes, keep: 4}
	var q queue
	b := pool.get()
	data := run{buf: b, end: 100, size: 100, data: true}
	for q.push(data) {
	}
	if !q.push(run{buf: b, end: 148, size: 148}) {
		t.Error("refused")
	}
	if q.push(data) {
		t.Error("data took the reserve")
	}
}

func TestLeading(t *testing.T) {
	for _, tt := range []struct {
		name  string
		sizes string // comma-separated, NxS for N of S
		want  int
	}{
		{"one", "1x100", 1},
		{"all equal", "10x1452", 10},
		{"no more than 64", "100x100", 64},
		{"no more than 65000 bytes", "64x1452", 44},
		{"a shorter one ends the message", "5x1000,1x10,5x1000", 6},
		{"a longer one begins another", "5x1000,1x1001", 5},
		{"an empty one does not count as shorter", "5x1000,1x0", 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var bufs [][]byte
			for f := range strings.SplitSeq(tt.sizes, ",") {
				var n, size int
				if _, err := fmt.Sscanf(f, "%dx%d", &n, &size); err != nil {
					t.Fatal(err)
				}
				for range n {
					bufs = append(bufs, make([]byte, size))
				}
			}
			if got := leading(bufs); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestIndex(t *testing.T) {
	a, b := new(bind), new(bind)
	var x index
	x.learn(7, a, 0, awaitedSeconds)
	x.learn(8, b, 0, awaitedSeconds)
	x.learn(9, b, 0, awaitedSeconds)
	if x.find(7, 0) != a || x.find(8, 1) != b || x.find(10, 0) != nil {
		t.Fatal("wrong slice")
	}
	x.sweep(awaitedSeconds + 1)
	if x.len() != 2 || x.find(9, awaitedSeconds+1) != nil {
		t.Error("the one never used should be gone, and only it")
	}
	x.sweep(awaitedSeconds + usedSeconds)
	if x.len() != 2 {
		t.Error("those in use should stay")
	}
	x.learn(7, b, 700, awaitedSeconds)
	if x.find(7, 700) != b {
		t.Error("the later one should have a number that two drew")
	}
	x.forget(b)
	if x.len() != 0 {
		t.Errorf("%d left of a forgotten slice", x.len())
	}
	for i := range uint32(indexMax + 5000) {
		x.learn(i, a, 1000, usedSeconds)
	}
	if n := x.len(); n > indexMax {
		t.Errorf("%d entries, the bound is %d", n, indexMax)
	}
	if x.find(indexMax+4999, 1000) != a {
		t.Error("a full table refuses new ones")
	}
}

func TestInitiationLimit(t *testing.T) {
	var l initiationLimit
	one, known := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	count := func(n int, allow func(i int) bool) (ok int) {
		for i := range n {
			if allow(i) {
				ok++
			}
		}
		return ok
	}
	if n := count(1000, func(int) bool { return l.allow(one, false, 0) }); n != strangerBurst {
		t.Errorf("a stranger gets %d at once", n)
	}
	if n := count(1000, func(i int) bool { return l.allow(one, false, time.Duration(i)*10*time.Millisecond) }); n < 95 || n > 105 {
		t.Errorf("a stranger gets %d in 10 s", n)
	}
	if n := count(1000, func(int) bool { return l.allow(known, true, 0) }); n != knownBurst {
		t.Errorf("a configured endpoint gets %d at once", n)
	}
	spoofed := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	if n := count(100000, func(i int) bool { return l.allow(spoofed(i), false, 20*time.Second) }); n > strangersBurst {
		t.Errorf("%d spoofed sources get through at once", n)
	}
	if len(l.sources) > sourcesMax {
		t.Errorf("%d sources are remembered", len(l.sources))
	}
	if !l.allow(netip.MustParseAddr("192.0.2.3"), true, 20*time.Second) {
		t.Error("strangers keep a configured endpoint out")
	}
	six := func(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i)) }
	var l6 initiationLimit
	if n := count(1000, func(i int) bool { return l6.allow(six(i), false, 0) }); n != strangerBurst {
		t.Errorf("one /64 gets %d at once", n)
	}
}

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

func TestGateAgainstItsRule(t *testing.T) {
	live, down := newKey(t), newKey(t)
	peers := []Peer{peer(live, netip.AddrPort{}, "10.1.2.0/24", "fd00:2::/64"), peer(down, netip.AddrPort{}, "10.1.0.0/16", "fd00:3::/64")}
	isDown := func(p *Peer) bool { return p.PublicKey == PublicKey(down) }
	if newGate(peers[:1], isDown) != nil {
		t.Error("a gate with nobody to bound")
	}
	g := newGate(peers, isDown)
	var drops overlay.Drops
	pass := func(dst string, n int) (passed int) {
		src := "10.1.1.1"
		if strings.Contains(dst, ":") {
			src = "fd00:1::1"
		}
		for range n {
			p := packet(src, dst, 0, 100)
			sizes := []int{len(p)}
			g.admit([][]byte{append(make([]byte, overlay.Headroom), p...)}, sizes, &drops)
			if sizes[0] == len(p) {
				passed++
			}
		}
		return passed
	}
	if n := pass("10.1.2.1", 500); n != 500 {
		t.Errorf("%d of 500 pass to a live peer", n)
	}
	if n := pass("10.1.3.1", 500) + pass("fd00:3::1", 500); n != 2*silentPackets && n != silentPackets {
		t.Errorf("%d pass to a silent peer", n)
	}
	if n := pass("192.0.2.1", 10) + pass("fd00:9::1", 10); n != 0 {
		t.Errorf("%d pass to nobody", n)
	}
	if drops.Get(overlay.DropNoPeer) != 20 || drops.Get(overlay.DropQueueFull) == 0 {
		t.Errorf("counted %v", drops.Snapshot())
	}
	sizes := []int{0}
	g.admit([][]byte{make([]byte, overlay.Headroom)}, sizes, &drops) // no packet at all
	if n := testing.AllocsPerRun(100, func() { pass2(g, &drops) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

var gatePacket = func() []byte {
	return append(make([]byte, overlay.Headroom), packet("10.1.1.1", "10.1.2.1", 0, 100)...)
}()

func pass2(g *gate, drops *overlay.Drops) {
	var bufs [1][]byte
	var sizes [1]int
	bufs[0], sizes[0] = gatePacket, 100
	g.admit(bufs[:], sizes[:], drops)
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

func TestSockaddrsGoThereAndBack(t *testing.T) {
	for _, s := range []string{"192.0.2.1:51820", "[2001:db8::1]:1", "[fe80::1%7]:65535"} {
		a := netip.MustParseAddrPort(s)
		for _, inet6 := range []bool{false, true} {
			var b [unix.SizeofSockaddrInet6]byte
			n := putSockaddr(&b, a, inet6)
			if !inet6 && a.Addr().Is6() {
				if n != 0 {
					t.Errorf("%v can be reached over IPv4", a)
				}
				continue
			}
			if got := parseSockaddr(&b); got != a {
				t.Errorf("%v comes back as %v", a, got)
			}
		}
	}
	e := newEndpoint(netip.MustParseAddrPort("[::ffff:192.0.2.1]:5"), true)
	if e.DstIP() != netip.MustParseAddr("192.0.2.1") || e.DstToString() != "192.0.2.1:5" || len(e.DstToBytes()) != 6 {
		t.Errorf("mapped address: %v %v %x", e.DstIP(), e, e.DstToBytes())
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

func TestCrossing(t *testing.T) {
	near, far := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:1")
	both := netip.MustParseAddrPort("192.0.2.3:1")
	own := [32]byte{5}
	var c crossing
	c.setPeers(own, []Peer{
		{PublicKey: [32]byte{9}, Endpoints: []netip.AddrPort{near, both}},
		{PublicKey: [32]byte{1}, Endpoints: []netip.AddrPort{far}},
		{PublicKey: [32]byte{8}, Endpoints: []netip.AddrPort{both}},
	})
	if c.ours(near, 0) {
		t.Error("passed over without having sent")
	}
	for _, a := range []netip.AddrPort{near, far, both} {
		c.note(a, time.Second)
	}
	for _, tt := range []struct {
		name string
		from netip.AddrPort
		at   time.Duration
		want bool
	}{
		{"the lesser key goes first", near, time.Second + crossingWindow/2, true},
		{"only at the same time", near, time.Second + crossingWindow, false},
		{"the greater key does not", far, time.Second, false},
		{"an address of two peers is nobody's", both, time.Second, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if c.ours(tt.from, tt.at) != tt.want {
				t.Errorf("want %v", tt.want)
			}
		})
	}
}

func TestSendWithoutSegmentation(t *testing.T) {
	out, in := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	defer in.Close()
	s, err := newSocket(out, testLog())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	raw, err := out.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	// A socket that sends no checksum cannot segment: EINVAL, as on a path
	// whose MTU is less than a segment.
	if err := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	to := newEndpoint(in.LocalAddr().(interface{ AddrPort() netip.AddrPort }).AddrPort(), false)
	var bufs [][]byte
	for i := range 40 {
		bufs = append(bufs, bytes.Repeat([]byte{byte(i)}, 100))
	}
	for range 2 {
		if lost := s.send(bufs, to); lost != 0 {
			t.Fatalf("%d lost", lost)
		}
		got := make([]byte, 200)
		for i := range bufs {
			if n, err := in.Read(got); err != nil || !bytes.Equal(got[:n], bufs[i]) {
				t.Fatalf("packet %d: %d bytes of %d, %v", i, n, got[0], err)
			}
		}
	}
	if !to.noGSO.Load() || !s.gso.Load() {
		t.Error("this path should be without segmentation, others not")
	}
	if lost := s.send([][]byte{make([]byte, 65508), {1}}, to); lost != 1 {
		t.Errorf("%d lost, want the one that is too long", lost)
	}
	six := newEndpoint(netip.MustParseAddrPort("[::1]:1"), false)
	if lost := s.send(bufs, six); lost != len(bufs) {
		t.Error("an IPv4 socket reached IPv6")
	}
}

// outer returns a message of the given type and receiver index.
func outer(typ, id uint32, n int) []byte {
	p := make([]byte, n)
	binary.LittleEndian.PutUint32(p, typ)
	binary.LittleEndian.PutUint32(p[4:], id)
	if typ == typeResponse {
		binary.LittleEndian.PutUint32(p[8:], id)
	}
	return p
}

// testMux returns a mux without transport and two open binds with indices 1
// and 2, the first with a known key.
func testMux(t testing.TB) (*mux, [2]*bind) {
	m := newMux(nil, false, testLog())
	var all [2]*bind
	for i := range all {
		b := &bind{mux: m, drops: new(overlay.Drops), ready: make(chan struct{}, 1), fresh: func() {},
			inside: newGovernor(insideLimit), outside: newGovernor(outsideLimit)}
		b.mac1.Store(newMAC1(PublicKey(newKey(t))))
		if _, _, err := b.Open(0); err != nil {
			t.Fatal(err)
		}
		m.index.learn(uint32(i+1), b, 0, usedSeconds)
		all[i] = b
	}
	binds := all[:]
	m.binds.Store(&binds)
	return m, all
}

// contents returns what waits for a bind.
func contents(b *bind) (all [][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.queue.pop(nil, 1<<20) {
		for off := r.off; off < r.end; off += r.size {
			all = append(all, bytes.Clone(r.buf.b[off:min(off+r.size, r.end)]))
		}
		r.buf.release()
	}
	return all
}

func TestATrainIsDividedBetweenSlices(t *testing.T) {
	for _, size := range []int{64, 1452, 4000} { // copied, copied, kept
		m, b := testMux(t)
		d := datagram{buf: m.trains.get(), size: size, from: netip.MustParseAddrPort("192.0.2.1:1")}
		for i, id := range []uint32{1, 1, 2, 7, 1, 2, 2} {
			p := outer(typeData, id, size)
			p[20] = byte(i)
			if i == 6 {
				p = p[:40]
			}
			d.n += copy(d.buf.b[d.n:], p)
		}
		first := d.buf
		m.deliver(&d, 0)
		m.flush()
		var got [2]string
		for i := range b {
			for _, p := range contents(b[i]) {
				got[i] += fmt.Sprint(p[20])
			}
		}
		if got != [2]string{"014", "256"} {
			t.Errorf("size %d: slices got %v", size, got)
		}
		if m.drops.Get(overlay.DropUnknownSlice) != 1 {
			t.Errorf("size %d: dropped %v", size, m.drops.Snapshot())
		}
		if kept := d.buf != first; kept != (size == 4000) {
			t.Errorf("size %d: buffer kept: %v", size, kept)
		}
		if n := len(m.trains.free) + len(m.mediums.free) + len(m.smalls.free); n != 1 {
			t.Errorf("size %d: %d buffers came back, want 1", size, n)
		}
	}
}

func FuzzDeliver(f *testing.F) {
	f.Add(outer(typeData, 1, 100), 100)
	f.Add(append(outer(typeData, 1, 100), outer(typeData, 2, 60)...), 100)
	f.Add(outer(typeInitiation, 0, initiationBytes), initiationBytes)
	f.Add(outer(typeResponse, 2, responseBytes), responseBytes)
	f.Add(outer(typeCookie, 2, cookieBytes), cookieBytes)
	f.Add([]byte{4, 0, 0}, 1)
	f.Fuzz(func(t *testing.T, p []byte, size int) {
		m, b := testMux(t)
		d := datagram{buf: m.trains.get(), from: netip.MustParseAddrPort("192.0.2.1:1")}
		d.n = copy(d.buf.b, p)
		if d.size = size; size <= 0 || size > d.n {
			d.size = d.n
		}
		want := 0
		if d.n > 0 {
			want = (d.n + d.size - 1) / d.size
		}
		m.deliver(&d, 0)
		m.flush()
		got := 0
		for i := range b {
			for _, q := range contents(b[i]) {
				got++
				if typ := messageType(q); typ == 0 || typ != typeInitiation && receiverIndex(q, typ) != uint32(i+1) {
					t.Fatalf("slice %d got %x", i, q)
				}
			}
		}
		for _, n := range m.drops.Snapshot() {
			got += int(n)
		}
		if got != max(want, 1) {
			t.Fatalf("%d messages came in, %d are accounted for", want, got)
		}
	})
}

func FuzzControlMessages(f *testing.F) {
	f.Add(make([]byte, 64), 100)
	c := newTxCall()
	gro := bytes.Clone(c.ctrl[0])
	gro[12] = unix.UDP_GRO
	f.Add(gro, 5000)
	f.Fuzz(func(t *testing.T, ctrl []byte, n int) {
		aligned := make([]byte, controlBytes)
		ctrl = aligned[:copy(aligned, ctrl)]
		if got := segmentSize(ctrl, n); got != n && (got <= 0 || got > n) {
			t.Fatalf("segments of %d in %d", got, n)
		}
	})
}

func FuzzParseState(f *testing.F) {
	f.Add("public_key=" + hexKey([32]byte{1}) + "\nendpoint=1.2.3.4:5\nallowed_ip=10.0.0.0/8\n")
	f.Fuzz(func(t *testing.T, s string) { parseState(s) })
}
