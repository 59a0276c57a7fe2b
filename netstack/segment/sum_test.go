package segment

import (
	"math/rand/v2"
	"testing"
)

// slowSum is RFC 1071 word by word.
func slowSum(b []byte, start uint16) uint16 {
	s := uint32(start)
	for i, v := range b {
		if i%2 == 0 {
			s += uint32(v) << 8
		} else {
			s += uint32(v)
		}
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

func TestSumIsTheSumOfWords(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 71))
	b := make([]byte, 3000)
	for i := range 3_000 {
		for k := range b {
			b[k] = byte(rng.Uint32())
			if i%3 == 0 {
				b[k] = 0xff
			}
		}
		from := rng.IntN(9)
		p := b[from : from+rng.IntN(len(b)-from)]
		start := uint16(rng.Uint32())
		if got, want := Sum(p, start), slowSum(p, start); got != want {
			t.Fatalf("%d bytes from %d: %#x, want %#x", len(p), start, got, want)
		}
		if i == 200 {
			b = b[:160]
		}
	}
}

func BenchmarkSum(b *testing.B) {
	p := make([]byte, 1420)
	p[7] = 1
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for range b.N {
		if Sum(p, 0) != 1 {
			b.Fatal("wrong")
		}
	}
}

func TestSumAllocatesNothing(t *testing.T) {
	p := make([]byte, 1420)
	if n := testing.AllocsPerRun(100, func() { Sum(p, 0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
