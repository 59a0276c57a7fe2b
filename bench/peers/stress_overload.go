package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"
)

const (
	// overloadCount slices are on both sites; the first is overloaded.
	overloadCount = 5
	// overloadTimes what the first slice can carry is offered to it.
	overloadTimes = 10
	// overloadBytes in a datagram: the payload of a full packet of most programs.
	overloadBytes = 1200
	// overloadNice is how far the senders and receivers stand back. In a real
	// network they are on other machines than the other slices' programs; here
	// all share the CPUs, and what the senders take is not what is examined.
	overloadNice = 10
	// overloadSenders at most: more only take turns.
	overloadSenders = 8
	// overloadMin is the shortest overload in which round trips can be taken.
	overloadMin = 500 * time.Millisecond
	// overloadPort is that of the first sender's receiver; the others follow.
	overloadPort = 5300

	// What the daemon may hold: the design's goals.
	overloadMiB         = 256
	overloadMiBPerSlice = 30
	// overloadRTTTimes the idle p99 is what the other slices may have.
	overloadRTTTimes = 1.5
)

// An overloadReport is what the overload scenario found.
type overloadReport struct {
	Slices        int                `json:"slices"`
	Bytes         int                `json:"datagram_bytes"`
	Nice          int                `json:"senders_nice"`
	Senders       int                `json:"senders"`
	CarriesKpps   float64            `json:"carries_kpps"` // alone, with at most 1 % loss
	WantedKpps    float64            `json:"wanted_kpps"`
	Sent          int64              `json:"sent"`
	Delivered     int64              `json:"delivered"`
	SentKpps      float64            `json:"sent_kpps"`
	DeliveredKpps float64            `json:"delivered_kpps"`
	DeadEndKpps   float64            `json:"dead_end_sent_kpps"`
	PeakMiB       map[string]float64 `json:"rss_peak_mib"` // by daemon
	Phases        []rttPhase         `json:"phases"`
	Goals         []goal             `json:"goals"`
}

// An rttPhase holds the round trips of the other slices at one time.
type rttPhase struct {
	Name    string             `json:"name"`
	Foreign float64            `json:"foreign_cpus"` // used by others meanwhile
	Daemons float64            `json:"daemon_cpus"`
	All     rttFigures         `json:"all"`
	Slice   map[int]rttFigures `json:"by_slice"`
}

type rttFigures struct {
	N   int     `json:"n"`
	P50 float64 `json:"p50_us"`
	P99 float64 `json:"p99_us"`
	Max float64 `json:"max_us"`
}

func describeRTT(r rtts) rttFigures {
	return rttFigures{len(r), r.micros(0.5), r.micros(0.99), r.micros(1)}
}

// worst is the slice with the highest p99.
func (p rttPhase) worst() (slice int, f rttFigures) {
	for _, s := range slices.Sorted(maps.Keys(p.Slice)) {
		if p.Slice[s].P99 > f.P99 {
			slice, f = s, p.Slice[s]
		}
	}
	return slice, f
}

// An overload is the scenario while it is played.
type overload struct {
	lab     *lab
	self    string
	daemons []*daemon
	addr    [overloadCount + 1]string // of site b on each slice, from 1
	say     func(string, ...any)
	report  *overloadReport
}

// overloadSlices joins two sites by five slices, offers the first ten times
// what it carries, and looks at the others and at the daemons meanwhile.
func overloadSlices(ctx context.Context, tools toolbox, length time.Duration, say func(string, ...any)) (report *overloadReport, err error) {
	l, err := newLab("")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	o := &overload{lab: l, self: tools.self, say: say,
		report: &overloadReport{Slices: overloadCount, Bytes: overloadBytes, Nice: overloadNice, PeakMiB: make(map[string]float64)}}
	say("overload: %d slices on two sites, a TUN for each slice and site", overloadCount)
	if err := o.start(ctx, tools.find("slicewire")); err != nil {
		return nil, fmt.Errorf("start: %w\n%s", err, l.logs())
	}
	if err := o.play(ctx, length); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, l.logs())
	}
	return o.report, nil
}

func spaceOf(site string, slice int) string { return fmt.Sprintf("%s-%d", site, slice) }

// start joins the sites, puts a namespace on each slice of each site and makes
// the dead end.
func (o *overload) start(ctx context.Context, program string) (err error) {
	if o.daemons, err = startSlicewire(ctx, o.lab, program, overloadCount, guardUsual); err != nil {
		return err
	}
	for slice := 1; slice <= overloadCount; slice++ {
		for _, site := range []string{"a", "b"} {
			space := spaceOf(site, slice)
			if err := o.lab.space(space); err != nil {
				return err
			}
			if o.addr[slice], err = slicewireAttach(ctx, o.lab, program, site, slice, space); err != nil {
				return err
			}
		}
		if _, err := o.lab.start(spaceOf("b", slice), "servers-"+strconv.Itoa(slice), o.self, "probe-serve"); err != nil {
			return err
		}
	}
	if err := o.makeDeadEnd(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	return poll(ctx, 100*time.Millisecond, func() (bool, error) {
		_, err := o.roundTrips(ctx, 0)
		return err == nil, o.lab.anyEnded()
	})
}

// deadEnd is an address behind a veth pair, of a host that nobody is: the kernel
// at the other end throws its packets away without an answer.
const (
	deadEnd    = "10.98.0.9"
	deadEndMAC = "02:00:00:00:00:09"
)

func (o *overload) makeDeadEnd() error {
	if err := o.lab.space("away", "dead-end"); err != nil {
		return err
	}
	if err := o.lab.link("away", "10.98.0.1/24", "dead-end", "10.98.0.2/24"); err != nil {
		return err
	}
	return o.lab.ip("away", "neigh", "add", deadEnd, "lladdr", deadEndMAC, "dev", "to-dead-end")
}

// play takes the three phases: nobody sends, somebody sends elsewhere, somebody
// sends on slice 1.
func (o *overload) play(ctx context.Context, length time.Duration) error {
	r, calm := o.report, max(length/3, overloadMin)
	trial := min(length/10, time.Second)
	idle, err := o.phase(ctx, "idle", calm)
	if err != nil {
		return err
	}
	if err := o.plan(ctx, trial); err != nil {
		return err
	}
	flows := make([]udpFlow, r.Senders)
	for i := range flows {
		flows[i] = udpFlow{client: spaceOf("a", 1), server: spaceOf("b", 1), to: o.addr[1], port: strconv.Itoa(overloadPort + i),
			size: overloadBytes, perSecond: 1e3 * r.WantedKpps / float64(r.Senders), nice: overloadNice}
	}
	during, runs, err := o.loaded(ctx, "overload", length, flows, udpFlow.run)
	if err != nil {
		return err
	}
	for _, run := range runs {
		r.Sent += run.Sent
		r.Delivered += run.Received
		r.SentKpps += float64(run.Sent) / run.Seconds / 1e3
		r.DeliveredKpps += float64(run.Received) / run.Seconds / 1e3
	}
	for i := range flows { // the same rate as was sent, now past slicewire
		flows[i].client, flows[i].to = "away", deadEnd
		flows[i].perSecond = float64(runs[i].Sent) / runs[i].Seconds
	}
	beside, runs, err := o.loaded(ctx, "dead end", calm, flows, udpFlow.send)
	if err != nil {
		return err
	}
	for _, run := range runs {
		r.DeadEndKpps += float64(run.Sent) / run.Seconds / 1e3
	}
	r.Phases = []rttPhase{idle, beside, during}
	return o.judge()
}

// plan finds out what the slice carries and how many senders offer ten times
// as much.
func (o *overload) plan(ctx context.Context, trial time.Duration) error {
	r := o.report
	j := &joined{client: spaceOf("a", 1), server: spaceOf("b", 1), udp: o.addr[1]}
	carries, err := highestRate(20e3, lossMaxPercent, 7, func(rate float64) (float64, error) {
		u, err := udpStream(ctx, j, o.self, overloadBytes, rate, trial)
		if err == nil && float64(u.Sent) < 0.97*rate*u.Seconds {
			return 100, nil // the sender cannot keep up: not a rate of the slice
		}
		return u.lossPercent(), err
	})
	if err != nil {
		return fmt.Errorf("what slice 1 carries: %w", err)
	}
	one, err := udpFlow{client: "away", to: deadEnd, port: portUDP, size: overloadBytes}.send(ctx, o.self, trial)
	if err != nil {
		return fmt.Errorf("what one sender sends: %w", err)
	}
	oneRate := float64(one.Sent) / one.Seconds
	r.CarriesKpps, r.WantedKpps = carries/1e3, overloadTimes*carries/1e3
	r.Senders = sendersFor(overloadTimes*carries, oneRate)
	o.say("  slice 1 carries %.1f kpps; %.1f are wanted, one sender makes %.1f: %d senders, nice %d", r.CarriesKpps, r.WantedKpps, oneRate/1e3, r.Senders, overloadNice)
	return nil
}

// sendersFor returns how many senders of a rate make the wanted one.
func sendersFor(wanted, one float64) int {
	return int(min(max(math.Ceil(wanted/max(one, 1)), 1), overloadSenders))
}

// loaded takes a phase while all flows are sent.
func (o *overload) loaded(ctx context.Context, name string, length time.Duration, flows []udpFlow,
	send func(udpFlow, context.Context, string, time.Duration) (udpRun, error)) (rttPhase, []udpRun, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		i   int
		run udpRun
		err error
	}
	results, settles := make(chan result, len(flows)), min(loadSettles, length)
	for i, f := range flows {
		go func() {
			run, err := send(f, ctx, o.self, settles+length+time.Second)
			results <- result{i, run, err}
		}()
	}
	settled := time.NewTimer(settles)
	defer settled.Stop()
	select {
	case r := <-results:
		return rttPhase{}, nil, errors.Join(r.err, errors.New("a sender ended early"))
	case <-settled.C:
	}
	p, err := o.phase(ctx, name, length)
	if err != nil {
		cancel() // nobody needs the load any more
	}
	runs, errs := make([]udpRun, len(flows)), []error{err}
	for range flows {
		r := <-results
		runs[r.i] = r.run
		errs = append(errs, r.err)
	}
	return p, runs, errors.Join(errs...)
}

// phase takes round trips on the other slices for a time.
func (o *overload) phase(ctx context.Context, name string, length time.Duration) (rttPhase, error) {
	p := rttPhase{Name: name, Slice: make(map[int]rttFigures)}
	before, err := measureUsage(o.daemons)
	if err != nil {
		return p, err
	}
	bySlice, err := o.roundTrips(ctx, length)
	if err != nil {
		return p, fmt.Errorf("%s: %w", name, err)
	}
	after, err := measureUsage(o.daemons)
	if err != nil {
		return p, err
	}
	s := after.since(before)
	p.Foreign, p.Daemons = s.foreign, s.daemons.Seconds()/s.wall.Seconds()
	var all rtts
	for slice, r := range bySlice {
		p.Slice[slice] = describeRTT(r)
		all = append(all, r...)
	}
	p.All = describeRTT(all)
	o.say("  %-8s slices 2 to %d: p50 %.0f us, p99 %.0f us, longest %.0f us, %d round trips%s",
		name, overloadCount, p.All.P50, p.All.P99, p.All.Max, p.All.N, noisy(s.foreign))
	return p, o.lab.anyEnded()
}

// roundTrips asks the echo services of all slices but the first, at once.
func (o *overload) roundTrips(ctx context.Context, length time.Duration) (map[int]rtts, error) {
	type result struct {
		slice int
		rtts  rtts
		err   error
	}
	results := make(chan result)
	for slice := 2; slice <= overloadCount; slice++ {
		go func() {
			j := &joined{client: spaceOf("a", slice), echo: o.addr[slice] + ":" + portEcho}
			r, err := echoes(ctx, j, o.self, length)
			results <- result{slice, r, err}
		}()
	}
	bySlice := make(map[int]rtts)
	var errs []error
	for range overloadCount - 1 {
		r := <-results
		bySlice[r.slice] = r.rtts
		if r.err != nil {
			errs = append(errs, fmt.Errorf("slice %d: %w", r.slice, r.err))
		}
	}
	return bySlice, errors.Join(errs...)
}

// judge reads the daemons' memory and sets the goals.
func (o *overload) judge() error {
	const scenario = "overload"
	r := o.report
	for _, d := range o.daemons {
		_, peak, err := memory(d.pid())
		if err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		mib := float64(peak) / (1 << 20)
		r.PeakMiB[d.name] = mib
		r.Goals = append(r.Goals, newGoal(scenario, "memory of "+d.name, mib, overloadMiB+overloadMiBPerSlice*overloadCount, "MiB"))
	}
	idle, during := r.Phases[0], r.Phases[2]
	r.Goals = append(r.Goals, newGoal(scenario, "p99 RTT of the other slices", during.All.P99, overloadRTTTimes*idle.All.P99, "us"))
	return nil
}
