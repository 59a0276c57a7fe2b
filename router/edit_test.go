package router

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"slicewire/overlay/overlaytest"
)

func TestDecrementTTLKeepsTheChecksumRight(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for range 200_000 {
		p := overlaytest.AppendIP(nil, here4, there4, 6, nil)
		binary.BigEndian.PutUint32(p[12:], rng.Uint32())
		binary.BigEndian.PutUint16(p[4:], uint16(rng.Uint32()))
		p[8] = byte(2 + rng.IntN(254))
		overlaytest.Fix(p)
		want := slices.Clone(p)
		want[8]--
		overlaytest.Fix(want)
		if !decrementTTL(p, false) {
			t.Fatalf("TTL %d refused", p[8])
		}
		// Zero has two forms in one's complement; both verify.
		if !headerSumOK(p) || !slices.Equal(p[:10], want[:10]) {
			t.Fatalf("got %x, want %x", p, want)
		}
	}
}

func TestDecrementTTLStopsAtOne(t *testing.T) {
	for _, ttl := range []byte{0, 1} {
		p, q := tcp4(), tcp6()
		p[8], q[7] = ttl, ttl
		if decrementTTL(p, false) || decrementTTL(q, true) || p[8] != ttl || q[7] != ttl {
			t.Errorf("TTL %d went on", ttl)
		}
	}
}

func TestClampMSS(t *testing.T) {
	for _, c := range []struct {
		name    string
		options []byte
		want    []byte
	}{
		{"a large value is lowered", []byte{2, 4, 0x05, 0xb4}, []byte{2, 4, 0x05, 0x64}},
		{"a small value stays", []byte{2, 4, 0x02, 0x18}, []byte{2, 4, 0x02, 0x18}},
		{"a value at an odd offset is lowered", []byte{1, 2, 4, 0xff, 0xff, 3, 3, 7}, []byte{1, 2, 4, 0x05, 0x64, 3, 3, 7}},
		{"what follows the end of options stays", []byte{0, 2, 4, 0xff, 0xff, 0, 0, 0}, []byte{0, 2, 4, 0xff, 0xff, 0, 0, 0}},
		{"an option of length zero ends the walk", []byte{3, 0, 2, 4, 0xff, 0xff, 0, 0}, []byte{3, 0, 2, 4, 0xff, 0xff, 0, 0}},
		{"an option past the end ends the walk", []byte{1, 1, 2, 4}, []byte{1, 1, 2, 4}},
		{"an MSS of a wrong length stays", []byte{2, 6, 0xff, 0xff, 0, 0, 1, 1}, []byte{2, 6, 0xff, 0xff, 0, 0, 1, 1}},
		{"a kind without a length ends the walk", []byte{1, 1, 1, 2}, []byte{1, 1, 1, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := overlaytest.TCP(ap(here4, 1), ap(there4, 2), 9, 9, overlaytest.SYN, c.options, nil)
			clampMSS(p[20:], 1380)
			if !slices.Equal(p[40:], c.want) || !overlaytest.ChecksumsOK(p) {
				t.Errorf("got %x, checksums right %v, want %x", p[40:], overlaytest.ChecksumsOK(p), c.want)
			}
		})
	}
}

func TestClampMSSKeepsAWrongChecksumWrong(t *testing.T) {
	p := overlaytest.TCP(ap(here4, 1), ap(there4, 2), 9, 9, overlaytest.SYN, []byte{2, 4, 0x05, 0xb4}, nil)
	p[36] ^= 0x40
	clampMSS(p[20:], 1380)
	if overlaytest.ChecksumsOK(p) {
		t.Error("the edit repaired a checksum that was wrong")
	}
}
