package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A bulkRun is what a bulk transfer moved.
type bulkRun struct {
	bytes   int64         // payload that arrived
	elapsed time.Duration // by the receiver's clock
	retrans int64         // segments the sender repeated; -1 where nobody knows
	client  time.Duration // CPU of the client program
}

func (b bulkRun) mbps() float64 { return float64(b.bytes) * 8 / b.elapsed.Seconds() / 1e6 }

// iperfReport is the part of iperf3's JSON that is used.
type iperfReport struct {
	Error string `json:"error"`
	End   struct {
		SumSent struct {
			Retransmits *int64 `json:"retransmits"`
		} `json:"sum_sent"`
		SumReceived struct {
			Seconds float64 `json:"seconds"`
			Bytes   int64   `json:"bytes"`
		} `json:"sum_received"`
	} `json:"end"`
}

// parseIperf reads the JSON that iperf3 prints for a TCP run.
func parseIperf(data []byte) (bulkRun, error) {
	var r iperfReport
	if err := json.Unmarshal(data, &r); err != nil {
		return bulkRun{}, fmt.Errorf("iperf3: %w", err)
	}
	if r.Error != "" {
		return bulkRun{}, fmt.Errorf("iperf3: %s", r.Error)
	}
	got := r.End.SumReceived
	if got.Bytes <= 0 || !(got.Seconds > 0) || got.Seconds > 1e6 {
		return bulkRun{}, errors.New("iperf3: nothing was received")
	}
	b := bulkRun{bytes: got.Bytes, elapsed: time.Duration(got.Seconds * float64(time.Second)), retrans: -1}
	if n := r.End.SumSent.Retransmits; n != nil {
		b.retrans = *n
	}
	return b, nil
}

// bulk moves data for a time over a number of TCP streams: up from client to
// server, else down. It uses iperf3 where the system gives a port for it, and
// otherwise curl through the proxy.
func bulk(ctx context.Context, j *joined, streams int, up bool, length time.Duration) (bulkRun, error) {
	ctx, cancel := context.WithTimeout(ctx, length+20*time.Second)
	defer cancel()
	if j.iperf == "" {
		return curlBulk(ctx, j, streams, up, length)
	}
	host, port, _ := strings.Cut(j.iperf, ":")
	args := []string{"-c", host, "-p", port, "-J", "-P", strconv.Itoa(streams), "-t", strconv.Itoa(int(length.Seconds())), "--connect-timeout", "5000"}
	available, err := os.ReadFile("/proc/sys/net/ipv4/tcp_available_congestion_control")
	if err != nil {
		return bulkRun{}, err
	}
	args = append(args, "-C", iperfCongestion(string(available)))
	if !up {
		args = append(args, "-R")
	}
	cmd := j.inClient(ctx, "iperf3", args...)
	out, err := output(cmd)
	b, errParse := parseIperf(out)
	if errParse != nil {
		return b, errors.Join(errParse, err)
	}
	b.client = processTime(cmd)
	return b, err
}

// iperfCongestion is CUBIC, what most senders use, where the kernel has it.
func iperfCongestion(available string) string {
	if slices.Contains(strings.Fields(available), "cubic") {
		return "cubic"
	}
	return relayCongestion
}

func processTime(cmd *exec.Cmd) time.Duration {
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// curlBulk runs as many curls as streams. Down, the server sends for the given
// time; up, curl's standard input lasts that long and the server answers with
// the number of bytes that arrived.
func curlBulk(ctx context.Context, j *joined, streams int, up bool, length time.Duration) (bulkRun, error) {
	type result struct {
		run bulkRun
		err error
	}
	results := make(chan result)
	for range streams {
		go func() {
			r, err := curlOne(ctx, j, up, length)
			results <- result{r, err}
		}()
	}
	total := bulkRun{retrans: -1}
	var errs []error
	for range streams {
		r := <-results
		total.bytes += r.run.bytes
		total.elapsed = max(total.elapsed, r.run.elapsed)
		total.client += r.run.client
		errs = append(errs, r.err)
	}
	return total, errors.Join(errs...)
}

func curlOne(ctx context.Context, j *joined, up bool, length time.Duration) (bulkRun, error) {
	args := []string{"-sS", "--fail", "--socks5-hostname", j.proxy}
	if up {
		args = append(args, "-w", " %{time_total}", "-H", "Expect:", "-T", "-", j.web+"/up")
	} else {
		args = append(args, "-w", "%{size_download} %{time_total}", "-o", os.DevNull, fmt.Sprintf("%s/down?length=%s", j.web, length))
	}
	cmd := j.inClient(ctx, "curl", args...)
	if up {
		cmd.Stdin = &zeros{length: length}
	}
	out, err := output(cmd)
	if err != nil {
		return bulkRun{}, err
	}
	run, err := parseCurl(string(out))
	run.client = processTime(cmd)
	return run, err
}

// parseCurl reads a size and curl's total time in seconds.
func parseCurl(text string) (bulkRun, error) {
	fields := strings.Fields(text)
	if len(fields) != 2 {
		return bulkRun{}, fmt.Errorf("curl: %q is no size and time", text)
	}
	n, errSize := strconv.ParseInt(fields[0], 10, 64)
	t, errTime := strconv.ParseFloat(fields[1], 64)
	if err := errors.Join(errSize, errTime); err != nil {
		return bulkRun{}, fmt.Errorf("curl: %w", err)
	}
	if n <= 0 || !(t > 0) || t > 1e6 {
		return bulkRun{}, fmt.Errorf("curl: %q: nothing arrived", text)
	}
	return bulkRun{bytes: n, elapsed: time.Duration(t * float64(time.Second)), retrans: -1}, nil
}

// pipeHolds is more than the pipe to curl takes before curl reads from it.
const pipeHolds = 128 << 10

// zeros reads as zeros for a time, which begins when curl has: when more was
// read than a pipe holds.
type zeros struct {
	length time.Duration
	read   int
	until  time.Time
}

func (z *zeros) Read(p []byte) (int, error) {
	switch {
	case z.read <= pipeHolds:
		z.until = time.Now().Add(z.length)
	case !time.Now().Before(z.until):
		return 0, io.EOF
	}
	z.read += len(p)
	return len(p), nil
}
