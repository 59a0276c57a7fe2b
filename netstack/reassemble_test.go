package netstack

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"slicewire/netstack/segment"
	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

// pieces makes fragments of a whole packet, each with size bytes of data.
func pieces(pkt []byte, id uint32, size int) [][]byte {
	var out [][]byte
	head := 20
	if pkt[0]>>4 == 6 {
		head = 40
	}
	data := pkt[head:]
	for at := 0; at < len(data); at += size {
		n, more := min(size, len(data)-at), uint16(0)
		if at+n < len(data) {
			more = 1
		}
		f := bytes.Clone(pkt[:head])
		if head == 20 {
			binary.BigEndian.PutUint16(f[2:], uint16(20+n))
			binary.BigEndian.PutUint16(f[4:], uint16(id))
			binary.BigEndian.PutUint16(f[6:], more<<13|uint16(at/8))
			f[10], f[11] = 0, 0
			binary.BigEndian.PutUint16(f[10:], ^segment.Sum(f, 0))
		} else {
			binary.BigEndian.PutUint16(f[4:], uint16(8+n))
			f[6] = 44
			f = append(f, pkt[6], 0)
			f = binary.BigEndian.AppendUint16(f, uint16(at)|more)
			f = binary.BigEndian.AppendUint32(f, id)
		}
		out = append(out, append(f, data[at:at+n]...))
	}
	return out
}

func fragmentOf(t testing.TB, pkt []byte) fragment {
	t.Helper()
	f, ok := parseFragment(pkt)
	if !ok {
		t.Fatalf("no fragment: %x", pkt)
	}
	return f
}

func TestFragmentsBecomeTheirDatagramInAnyOrder(t *testing.T) {
	const seed = 3
	rng := rand.New(rand.NewPCG(seed, seed))
	var drops overlay.Drops
	a := newAssembler(&drops)
	now := time.Now()
	for i := range 500 {
		src, dst := one4, two4
		if i%2 == 1 {
			src, dst = one6, two6
		}
		data := make([]byte, 1+rng.IntN(20_000))
		for j := range data {
			data[j] = byte(rng.Uint32())
		}
		pkt := overlaytest.UDP(netip.AddrPortFrom(src, 1), netip.AddrPortFrom(dst, 2), data)
		if src.Is4() {
			pkt[6] = 0 // DF
			overlaytest.Fix(pkt)
		}
		fs := pieces(pkt, uint32(i), 8*(10+rng.IntN(100)))
		if len(fs) == 1 {
			continue
		}
		rng.Shuffle(len(fs), func(x, y int) { fs[x], fs[y] = fs[y], fs[x] })
		for j, f := range fs {
			whole := a.add(fragmentOf(t, f), now)
			if j == len(fs)-1 {
				if binary.BigEndian.Uint16(pkt[4:]) == 0 && src.Is4() {
					binary.BigEndian.PutUint16(pkt[4:], uint16(i))
					overlaytest.Fix(pkt)
				}
				if !bytes.Equal(whole, pkt) {
					t.Fatalf("seed %d: datagram %d of %d fragments: %d bytes, want %d", seed, i, len(fs), len(whole), len(pkt))
				}
			} else if whole != nil {
				t.Fatalf("seed %d: datagram %d is whole too early", seed, i)
			}
		}
	}
	if a.bytes != 0 || len(a.partials) != 0 || len(a.order) != 0 || len(a.sources) != 0 || len(drops.Snapshot()) != 0 {
		t.Errorf("left over: %d bytes, %d datagrams, %v", a.bytes, len(a.order), drops.Snapshot())
	}
}

func TestFragmentsThatOverlapAreGivenUp(t *testing.T) {
	pkt := overlaytest.UDP(netip.AddrPortFrom(one4, 1), netip.AddrPortFrom(two4, 2), make([]byte, 400))
	fs := pieces(pkt, 7, 160) // 0, 160, 320
	at := func(p []byte, offset int, more bool) []byte {
		p = bytes.Clone(p)
		w := uint16(offset / 8)
		if more {
			w |= 0x2000
		}
		binary.BigEndian.PutUint16(p[6:], w)
		return p
	}
	other := bytes.Clone(fs[1])
	other[30] ^= 1
	for _, c := range []struct {
		name  string
		first [][]byte
		bad   []byte
		rest  [][]byte
		whole bool
		drops uint64
	}{
		{"the end of one", [][]byte{fs[0]}, at(fs[1], 152, true), [][]byte{fs[1], fs[2]}, false, 4},
		{"the start of one", [][]byte{fs[1]}, at(fs[0], 8, true), [][]byte{fs[0], fs[2]}, false, 4},
		{"the same place with other bytes", [][]byte{fs[0], fs[1]}, other, [][]byte{fs[2]}, false, 4},
		{"the same once more", [][]byte{fs[0], fs[1]}, fs[1], [][]byte{fs[2]}, true, 1},
		{"behind the end", [][]byte{fs[2]}, at(fs[1], 480, true), [][]byte{fs[0], fs[1]}, false, 4},
		{"a second end", [][]byte{fs[2]}, at(fs[1], 160, false), [][]byte{fs[0], fs[1]}, false, 4},
		{"an end before what is there", [][]byte{at(fs[2], 320, true)}, at(fs[1], 160, false), [][]byte{fs[0], fs[1]}, false, 4},
	} {
		var drops overlay.Drops
		a := newAssembler(&drops)
		var whole []byte
		for _, p := range slices.Concat(c.first, [][]byte{c.bad}, c.rest) {
			whole = a.add(fragmentOf(t, p), time.Now())
		}
		if (whole != nil) != c.whole || drops.Get(overlay.DropFragment) != c.drops {
			t.Errorf("%s: %d bytes, drops %v", c.name, len(whole), drops.Snapshot())
		}
	}
}

func TestReassemblyIsBounded(t *testing.T) {
	var drops overlay.Drops
	a := newAssembler(&drops)
	now := time.Now()
	pkt := overlaytest.UDP(netip.AddrPortFrom(one4, 1), netip.AddrPortFrom(two4, 2), make([]byte, 2000))
	sent := uint64(0)
	put := func(src netip.Addr, id uint32) {
		f := fragmentOf(t, pieces(pkt, id, 1000)[0])
		f.key.src = src
		a.add(f, now)
		sent++
	}
	put(two4, 0) // which another's flood must not push out
	for i := range uint32(10_000) {
		put(one4, i)
	}
	if a.sources[one4] > reassemblySource || a.sources[two4] == 0 {
		t.Errorf("%d bytes of one source, %d of another", a.sources[one4], a.sources[two4])
	}
	src := netip.MustParseAddr("10.9.0.0")
	for i := range uint32(20_000) {
		src = src.Next()
		put(src, i)
		if a.bytes > reassemblyBytes {
			t.Fatalf("%d bytes", a.bytes)
		}
	}
	kept := uint64(len(a.order))
	if kept < 3000 || drops.Get(overlay.DropReassembly) != sent-kept {
		t.Errorf("kept %d of %d, drops %v", kept, sent, drops.Snapshot())
	}
	now = now.Add(reassemblyTimeout + time.Second)
	put(one4, 0)
	if len(a.order) != 1 || drops.Get(overlay.DropReassembly) != sent-1 {
		t.Errorf("after the timeout: %d datagrams, %v", len(a.order), drops.Snapshot())
	}
	// Parts that cost more than they hold.
	for i := range 10_000 {
		a.add(fragment{key: fragmentKey{src: one4, id: 9}, head: pkt[:20], part: part{16 * i, make([]byte, 8)}}, now)
	}
	if n := a.partials[fragmentKey{src: one4, id: 9}]; n == nil || len(n.parts) > reassemblyParts {
		t.Errorf("%+v", n)
	}
}

func TestAStackJoinsFragments(t *testing.T) {
	st := newStack(t, two4, two6)
	defer st.Close()
	for _, c := range []struct{ src, dst netip.Addr }{{one4, two4}, {one6, two6}} {
		p, err := st.ListenUDP(netip.AddrPortFrom(c.dst, 7))
		if err != nil {
			t.Fatal(err)
		}
		data := bytes.Repeat([]byte("slice"), 3000)
		pkt := overlaytest.UDP(netip.AddrPortFrom(c.src, 1), netip.AddrPortFrom(c.dst, 7), data)
		for _, f := range pieces(pkt, 5, 1000) {
			if err := st.Link().Write([][]byte{append(make([]byte, overlay.Headroom), f...)}); err != nil {
				t.Fatal(err)
			}
		}
		_ = p.SetReadDeadline(time.Now().Add(10 * time.Second))
		got := make([]byte, 20_000)
		n, _, err := p.ReadFrom(got)
		if err != nil || !bytes.Equal(got[:n], data) {
			t.Errorf("%v: %d bytes, %v", c.dst, n, err)
		}
		p.Close()
	}
}
