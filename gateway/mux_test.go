package gateway

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"slicewire/overlay"
)

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
	x.sweep(usedSeconds)
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
	for i := range uint32(indexMax + 500) {
		x.learn(i, a, 1000, usedSeconds)
	}
	if n := x.len(); n > indexMax {
		t.Errorf("%d entries, the bound is %d", n, indexMax)
	}
	if x.find(indexMax+499, 1000) != a {
		t.Error("a full table refuses new ones")
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
			inside: newGovernor(defaultLimit()), outside: newGovernor(defaultLimit())}
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
