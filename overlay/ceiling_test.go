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
		{"who is silent leaves the rest", []float64{90, 0}, []float64{96, 4}},
		{"who wants less than its part has it, and some more", []float64{20, 76}, []float64{21, 79}},
		{"both want all", []float64{80, 80}, []float64{50, 50}},
		{"what nobody wants is left equally", []float64{8, 16}, []float64{8.4 + 37.4, 16.8 + 37.4}},
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

func TestDemandIsRoundedUp(t *testing.T) {
	for part, want := range map[float64]float64{-1: 0, 0: 0, 0.001: 0.01, 0.05: 0.05, 0.5: 0.5, 0.511: 0.52, 1: 1, 7: 1} {
		if d := DemandOf(part); d == 0 || math.Abs(d.Part()-want) > 1e-9 {
			t.Errorf("%v of a ceiling is told as %v, want %v", part, d.Part(), want)
		}
	}
	if Demand(0).Part() >= 0 || Demand(255).Part() > 1 {
		t.Error("what is not known, or not possible, is taken for a demand")
	}
}

// Gateways whose loads change, each of which looks every 150 ms and hears of the
// others a little later: together they never have more than the ceiling, and six
// seconds after a change each sends what it would, or its fair part.
func TestGatewaysFindTheirParts(t *testing.T) {
	const ceiling, step, look, settled = 1e6, 10 * time.Millisecond, 150 * time.Millisecond, 6 * time.Second
	for range 40 {
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 5))
		n := 2 + rng.IntN(3)
		type gateway struct {
			use    CeilingUse
			part   CeilingPart
			phase  time.Duration
			load   float64 // of the ceiling
			may    float64
			sent   float64
			held   time.Duration
			told   []Demand // by step
			demand Demand
		}
		all := make([]gateway, n)
		for i := range all {
			all[i].phase, all[i].may = time.Duration(rng.Int64N(int64(look))), 1/float64(n)
			all[i].load = rng.Float64() * 1.5 * float64(rng.IntN(2))
		}
		news := time.Duration(rng.Int64N(int64(250 * time.Millisecond)))
		changed, begin := time.Duration(0), time.Unix(1, 0)
		for now := time.Duration(0); now < 60*time.Second; now += step {
			if rng.IntN(800) == 0 {
				all[rng.IntN(n)].load, changed = rng.Float64()*1.5*float64(rng.IntN(2)), now
			}
			sum, loads, sends := 0.0, 0.0, 0.0
			for i := range all {
				g := &all[i]
				g.sent += min(g.load, g.may) * ceiling * step.Seconds()
				if g.load > g.may {
					g.held += step
				}
				if (now+g.phase)%look < step {
					g.demand = g.use.Next(begin.Add(now), uint64(g.sent), g.held, ceiling)
					used := make([]float64, n)
					for j := range all {
						used[j] = -1
						if k := int((now - news) / step); k >= 0 && k < len(all[j].told) {
							used[j] = all[j].told[k].Part()
						}
					}
					used[i] = g.demand.Part()
					g.may = g.part.Next(begin.Add(now), DivideCeiling(1, used)[i])
				}
				g.told = append(g.told, g.demand)
				sum, loads, sends = sum+g.may, loads+g.load, sends+min(g.load, g.may)
			}
			if sum > 1+1e-9 {
				t.Fatalf("seed %d: %v of the ceiling at %v", seed, sum, now)
			}
			if now-changed < settled {
				continue
			}
			for i := range all { // nobody who would send more has less than an equal part
				if g := &all[i]; g.may < g.load && g.may < 0.95/float64(n) {
					t.Fatalf("seed %d: %d has %v of the ceiling and would send %v at %v", seed, i, g.may, g.load, now)
				}
			}
			if want := min(loads, 1); sends < 0.9*want {
				t.Fatalf("seed %d: %v of the ceiling is sent of %v at %v", seed, sends, want, now)
			}
		}
	}
}
