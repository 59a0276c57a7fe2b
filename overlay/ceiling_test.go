package overlay

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestDivideCeiling(t *testing.T) {
	for _, tt := range []struct {
		name string
		used []float64
		want []float64
	}{
		{"one node has all", []float64{3}, []float64{100}},
		{"equal parts when nobody knows", []float64{-1, -1}, []float64{50, 50}},
		{"equal parts when one is not known", []float64{90, -1}, []float64{50, 50}},
		{"equal parts when nobody sends", []float64{0, 0}, []float64{50, 50}},
		{"who is silent leaves the rest", []float64{90, 0}, []float64{97.5, 2.5}},
		{"who wants less than its part has it, and some more", []float64{20, 75}, []float64{25, 75}},
		{"both want all", []float64{80, 80}, []float64{50, 50}},
		{"what nobody wants is left equally", []float64{8, 16}, []float64{10 + 35, 20 + 35}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for i, got := range DivideCeiling(100, tt.used) {
				if math.Abs(got-tt.want[i]) > 1e-6 {
					t.Errorf("part %d is %v, want %v", i, got, tt.want[i])
				}
			}
		})
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 2000 {
		used := make([]float64, 1+rng.IntN(6))
		for i := range used {
			used[i] = rng.Float64() * 200
		}
		sum := 0.0
		for i, x := range DivideCeiling(100, used) {
			sum += x
			if x < 100*ceilingFloor/float64(len(used))-1e-6 {
				t.Fatalf("seed %d: part %d of %v is %v", seed, i, used, x)
			}
		}
		if math.Abs(sum-100) > 1e-6 {
			t.Fatalf("seed %d: the parts of %v are %v", seed, used, sum)
		}
	}
}

// Two nodes whose wishes change, each of which hears of the other's after a time:
// together they never have more than the ceiling, and within two seconds of a
// change they have their parts.
func TestPartsOfACeilingNeverExceedIt(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 2))
	const step = 10 * time.Millisecond
	for range 50 {
		news := time.Duration(rng.Int64N(int64(CeilingHold) * 9 / 20))
		var parts [2]CeilingPart
		var told [2][]float64 // by step
		wish := []float64{rng.Float64() * 150, rng.Float64() * 150}
		changed, begin := 0, time.Unix(0, 0)
		for i := range 2000 {
			if rng.IntN(300) == 0 {
				wish[rng.IntN(2)] = rng.Float64() * 150
				changed = i
			}
			sum := 0.0
			for me := range parts {
				told[me] = append(told[me], wish[me])
			}
			for me := range parts {
				other := told[1-me][max(0, len(told[1-me])-1-int(news/step))]
				used := []float64{wish[me], other}
				if me == 1 {
					used[0], used[1] = other, wish[me]
				}
				sum += parts[me].Next(begin.Add(time.Duration(i)*step), DivideCeiling(100, used)[me])
			}
			if sum > 100+1e-6 {
				t.Fatalf("seed %d: %v of 100 with news after %v", seed, sum, news)
			}
			if time.Duration(i-changed)*step > 2*time.Second && sum < 99.99 {
				t.Fatalf("seed %d: only %v of 100 two seconds after a change", seed, sum)
			}
		}
	}
}

func TestDSCPNames(t *testing.T) {
	for name, want := range map[string]int{
		"Default": 0, "EF": 46, "AF11": 10, "AF13": 14, "AF42": 36, "AF43": 38, "CS0": 0, "CS5": 40, "CS7": 56, "46": 46, "0": 0, "63": 63,
		"AF14": -1, "AF51": -1, "AF1": -1, "CS8": -1, "64": -1, "-1": -1, "": -1, "046": -1, "ef": -1, "AF11 ": -1,
	} {
		got, ok := DSCP(name)
		if ok != (want >= 0) || ok && int(got) != want {
			t.Errorf("%q: %d, %v, want %d", name, got, ok, want)
		}
	}
}
