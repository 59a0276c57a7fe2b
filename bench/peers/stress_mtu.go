package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"
	"time"
)

const (
	// jumboMTU is that of both sites' own links, unless a way says otherwise:
	// nothing at a site tells that the way between them is narrower.
	jumboMTU = 9000
	// mtuStream is how long the stream lasts unless the command line says: the
	// 2 s of the goal and as much again for the slow start after a stall.
	mtuStream = 5 * time.Second
	// mtuInterval is the finest that iperf3 reports.
	mtuInterval = 100 * time.Millisecond
	// mtuStallMax is the longest that a stream may stand still.
	mtuStallMax = 2 * time.Second
	// mtuSlowerMax is how many times slower than over the best way a stream may
	// be. One that moves a packet with every retransmission does not stand still.
	mtuSlowerMax = 10
)

// An mtuReport is what the mtu scenario found.
type mtuReport struct {
	Rungs []mtuRung `json:"rungs"`
	Goals []goal    `json:"goals"`
}

// An mtuRung is one TCP stream through a slice over one way.
type mtuRung struct {
	Way     string  `json:"mtu"` // of the link in the middle; /ends if those are narrow too
	Mbps    float64 `json:"mbps"`
	Bytes   int64   `json:"bytes"`
	Stall   float64 `json:"longest_stall_s"`
	Seconds float64 `json:"seconds"`
	Unheard int     `json:"too_big_unheard"` // packets that were too long and could not be cut
	Error   string  `json:"error,omitempty"`
	foreign float64
}

// climbMTUs sends a TCP stream through a slice over ways of different MTUs,
// whose routers never say that a packet is too long.
func climbMTUs(ctx context.Context, tools toolbox, ways []way, length time.Duration, say func(string, ...any)) (*mtuReport, error) {
	if _, err := exec.LookPath("nft"); err != nil {
		return nil, fmt.Errorf("the routers cannot be silenced: %w", err)
	}
	say("mtu: one TCP stream of %v through a slice; both sites' links have %d, the routers say nothing", length, jumboMTU)
	r := new(mtuReport)
	best := 0.0
	for _, w := range ways {
		g, err := climbMTU(ctx, tools, w, length, say)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			g.Error = err.Error()
			say("  %v: %v", w, err)
		}
		r.Rungs = append(r.Rungs, g)
		stall := newGoal("mtu", fmt.Sprintf("MTU %v: longest stall", w), g.Stall, mtuStallMax.Seconds(), "s")
		stall.Met = stall.Met && g.Error == ""
		r.Goals = append(r.Goals, stall)
		best = max(best, g.Mbps)
	}
	for _, g := range r.Rungs {
		// No less than 1 bit/s: JSON knows no infinity.
		r.Goals = append(r.Goals, newGoal("mtu", fmt.Sprintf("MTU %s: times slower than the best", g.Way), best/max(g.Mbps, 1e-6), mtuSlowerMax, "times"))
	}
	return r, nil
}

// climbMTU makes new sites, so that nobody remembers another way, and measures.
func climbMTU(ctx context.Context, tools toolbox, w way, length time.Duration, say func(string, ...any)) (g mtuRung, err error) {
	g.Way = w.String()
	l, err := newLab("")
	if err != nil {
		return g, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	if err := l.routedSites(w); err != nil {
		return g, err
	}
	defer func() {
		n, errCount := l.unheard()
		g.Unheard, err = n, errors.Join(err, errCount)
		say("  %-9v %8.0f Mbit/s, longest stall %.1f s, %d packets too long for the way%s", w, g.Mbps, g.Stall, g.Unheard, noisy(g.foreign))
	}()
	program := tools.find("slicewire")
	daemons, err := joinSlicewire(ctx, l, program, 1, guardUsual)
	if err != nil {
		return g, fmt.Errorf("join: %w\n%s", err, l.logs())
	}
	var server string
	for _, site := range []string{"a", "b"} {
		if server, err = slicewireAttach(ctx, l, program, site, 1, site); err != nil {
			return g, err
		}
	}
	r := &runner{lab: l, joined: direct("a", "b", server, daemons...), self: tools.self, say: say}
	if err := r.ready(ctx); err != nil {
		return g, fmt.Errorf("not ready: %w\n%s", err, l.logs())
	}
	var stream intervals
	s, err := r.during(func() (err error) {
		stream, err = steadyStream(ctx, r.joined, length)
		return err
	})
	g.foreign, g.Bytes, g.Seconds = s.foreign, stream.bytes, stream.elapsed.Seconds()
	g.Stall = max(stream.stall, length-stream.elapsed).Seconds()
	if stream.elapsed > 0 {
		g.Mbps = float64(stream.bytes) * 8 / stream.elapsed.Seconds() / 1e6
	}
	return g, errors.Join(err, l.anyEnded())
}

// The routers between the sites of the mtu scenario: a - ra - rb - b.
var mtuRouters = []struct{ name, site, addr, toSite, toOther string }{
	{"ra", "a", underlayA, "10.99.1.1", "10.99.1.2"},
	{"rb", "b", underlayB, "10.99.1.2", "10.99.1.1"},
}

// routedSites makes the two sites and two routers between them, which send no
// ICMP.
func (l *lab) routedSites(w way) error {
	if err := l.space("a", "b", "ra", "rb"); err != nil {
		return err
	}
	if err := l.linkMTU("ra", mtuRouters[0].toSite+"/32", "rb", mtuRouters[1].toSite+"/32", w.between); err != nil {
		return err
	}
	for i, r := range mtuRouters {
		other := mtuRouters[1-i]
		if err := l.linkMTU(r.site, r.addr+"/32", r.name, r.toSite+"/32", w.ends); err != nil {
			return err
		}
		if err := errors.Join(
			l.ip(r.site, "route", "add", "default", "via", r.toSite, "dev", "to-"+r.name, "onlink"),
			l.ip(r.name, "route", "add", r.addr, "dev", "to-"+r.site),
			l.ip(r.name, "route", "add", other.addr, "via", r.toOther, "dev", "to-"+other.name, "onlink"),
			l.silence(r.name),
		); err != nil {
			return err
		}
	}
	return l.forwarding("ra", "rb")
}

// silence throws away all ICMP that a namespace itself would send, and counts
// what would have said that a packet is too long.
func (l *lab) silence(space string) error {
	_, err := output(inside(context.Background(), space, "nft", "add table inet silent; "+
		"add chain inet silent out { type filter hook output priority 0; }; "+
		"add rule inet silent out icmp type destination-unreachable icmp code frag-needed counter drop; "+
		"add rule inet silent out meta l4proto { icmp, ipv6-icmp } drop"))
	return err
}

var nftCounter = regexp.MustCompile(`counter packets (\d+)`)

// unheard returns how often the silenced routers did not say that a packet is
// too long.
func (l *lab) unheard() (int, error) {
	sum := 0
	for _, r := range mtuRouters {
		rules, err := output(inside(context.Background(), r.name, "nft", "list", "table", "inet", "silent"))
		if err != nil {
			return 0, err
		}
		m := nftCounter.FindSubmatch(rules)
		if m == nil {
			return 0, fmt.Errorf("nft: no counter in %q", rules)
		}
		n, err := strconv.Atoi(string(m[1]))
		if err != nil {
			return 0, fmt.Errorf("nft: %w", err)
		}
		sum += n
	}
	return sum, nil
}

// intervals are what a stream's receiver saw, interval by interval.
type intervals struct {
	bytes   int64
	elapsed time.Duration
	stall   time.Duration // the longest time without a byte
}

// parseIntervals reads the intervals of iperf3's JSON, of one TCP stream. A
// report that ends with an error still has those before it.
func parseIntervals(data []byte) (intervals, error) {
	var r struct {
		Error     string `json:"error"`
		Intervals []struct {
			Sum struct {
				Seconds float64 `json:"seconds"`
				Bytes   int64   `json:"bytes"`
			} `json:"sum"`
		} `json:"intervals"`
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return intervals{}, fmt.Errorf("iperf3: %w", err)
	}
	var v intervals
	var still time.Duration
	for _, i := range r.Intervals {
		if !(i.Sum.Seconds >= 0) || i.Sum.Seconds > 1e6 || i.Sum.Bytes < 0 {
			return v, fmt.Errorf("iperf3: an interval of %v s with %d bytes", i.Sum.Seconds, i.Sum.Bytes)
		}
		length := time.Duration(i.Sum.Seconds * float64(time.Second))
		v.bytes += i.Sum.Bytes
		v.elapsed += length
		if still += length; i.Sum.Bytes > 0 {
			still = 0
		}
		v.stall = max(v.stall, still)
	}
	if r.Error != "" {
		return v, fmt.Errorf("iperf3: %s", r.Error)
	}
	if v.bytes == 0 {
		return v, errors.New("iperf3: nothing was received")
	}
	return v, nil
}

// steadyStream moves one TCP stream from the server to the client, which is the
// way in which the client reports what arrived, not what was handed to the kernel.
func steadyStream(ctx context.Context, j *joined, length time.Duration) (intervals, error) {
	ctx, cancel := context.WithTimeout(ctx, length+10*time.Second)
	defer cancel()
	available, err := os.ReadFile("/proc/sys/net/ipv4/tcp_available_congestion_control")
	if err != nil {
		return intervals{}, err
	}
	cmd := j.inClient(ctx, "iperf3", "-c", j.udp, "-p", portIperf, "-J", "-R", "-t", strconv.Itoa(int(length.Seconds())),
		"-i", strconv.FormatFloat(mtuInterval.Seconds(), 'f', 1, 64), "--connect-timeout", "5000", "-C", iperfCongestion(string(available)))
	// Asked to end, iperf3 still writes its report; killed, it does not.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	out, err := output(cmd)
	v, errParse := parseIntervals(out)
	if errParse != nil {
		return v, errors.Join(errParse, err)
	}
	return v, err
}
