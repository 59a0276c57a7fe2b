package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// rtts are round trips, in the order they were taken.
type rtts []time.Duration

// micros returns the p-quantile in microseconds.
func (r rtts) micros(p float64) float64 {
	return float64(quantile(r, p)) / float64(time.Microsecond)
}

func quantile(values []time.Duration, p float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}

var pingLine = regexp.MustCompile(`(?m)^\d+ bytes from .* time=([0-9.]+) ms`)

// parsePing reads the round trips that ping prints.
func parsePing(text string) (rtts, error) {
	var r rtts
	for _, m := range pingLine.FindAllStringSubmatch(text, -1) {
		ms, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return nil, fmt.Errorf("ping: %w", err)
		}
		r = append(r, time.Duration(ms*float64(time.Millisecond)))
	}
	if len(r) == 0 {
		return nil, errors.New("ping: no answer")
	}
	return r, nil
}

// ping sends count echo requests, 100 a second, with the system's ping.
func ping(ctx context.Context, j *joined, count int) (rtts, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(count)*10*time.Millisecond+20*time.Second)
	defer cancel()
	out, err := output(j.inClient(ctx, "ping", "-n", "-i", "0.01", "-c", strconv.Itoa(count), "-w", strconv.Itoa(count/100+5), j.ping))
	r, errParse := parsePing(string(out))
	if errParse != nil {
		return nil, errors.Join(errParse, err)
	}
	return r, nil // ping fails when some answers are lost, which is no fault
}

// echoes asks the echo service for round trips during a time, in a process in
// the client's namespace.
func echoes(ctx context.Context, j *joined, self string, length time.Duration) (rtts, error) {
	ctx, cancel := context.WithTimeout(ctx, length+10*time.Second)
	defer cancel()
	out, err := output(j.inClient(ctx, self, "probe-echo", j.echo, length.String(), j.proxy))
	if err != nil {
		return nil, err
	}
	return parseEchoes(string(out))
}

// parseEchoes reads round trips in nanoseconds, one to a line.
func parseEchoes(text string) (rtts, error) {
	var r rtts
	for line := range strings.Lines(text) {
		ns, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil || ns < 0 {
			return nil, fmt.Errorf("echo: %q is no time", line)
		}
		r = append(r, time.Duration(ns))
	}
	if len(r) == 0 {
		return nil, errors.New("echo: no answer")
	}
	return r, nil
}

// echoGap is the pause between two round trips: a probe that never pauses
// would keep caches warm and queues awake that an idle system has cold.
const echoGap = 5 * time.Millisecond

// echoClient is the program "probe-echo": over one TCP connection it sends 64
// bytes, waits for them to come back, and prints the nanoseconds it took.
func echoClient(w io.Writer, addr string, length time.Duration, proxy string) error {
	conn, err := dialEcho(addr, proxy)
	if err != nil {
		return err
	}
	defer conn.Close()
	end := time.Now().Add(length)
	if err := conn.SetDeadline(end.Add(5 * time.Second)); err != nil {
		return err
	}
	var message, answer [64]byte
	pause := time.NewTicker(echoGap)
	defer pause.Stop()
	for i := uint64(0); i == 0 || time.Now().Before(end); i++ {
		binary.BigEndian.PutUint64(message[:], i)
		begin := time.Now()
		if _, err := conn.Write(message[:]); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, answer[:]); err != nil {
			return err
		}
		took := time.Since(begin)
		if answer != message {
			return errors.New("the echo is not what was sent")
		}
		fmt.Fprintln(w, took.Nanoseconds())
		<-pause.C
	}
	return nil
}

func dialEcho(addr, proxy string) (net.Conn, error) {
	if proxy == "" {
		return net.DialTimeout("tcp", addr, 3*time.Second)
	}
	conn, err := net.DialTimeout("tcp", proxy, 3*time.Second)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(conn.SetDeadline(time.Now().Add(5*time.Second)), socksConnect(conn, addr)); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// socksConnect asks a SOCKS5 proxy that wants no password for addr, by name
// (RFC 1928).
func socksConnect(conn io.ReadWriter, addr string) error {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || len(host) > 255 {
		return fmt.Errorf("socks: address %q", addr)
	}
	if _, err := conn.Write([]byte{5, 1, 0}); err != nil {
		return err
	}
	var method [2]byte
	if _, err := io.ReadFull(conn, method[:]); err != nil {
		return err
	}
	if method != [2]byte{5, 0} {
		return fmt.Errorf("socks: method %d", method[1])
	}
	request := append([]byte{5, 1, 0, 3, byte(len(host))}, host...)
	if _, err := conn.Write(binary.BigEndian.AppendUint16(request, uint16(port))); err != nil {
		return err
	}
	var head [4]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	if head[1] != 0 {
		return fmt.Errorf("socks: refused with %d", head[1])
	}
	rest := map[byte]int{1: 4 + 2, 4: 16 + 2}[head[3]]
	if head[3] == 3 {
		var n [1]byte
		if _, err := io.ReadFull(conn, n[:]); err != nil {
			return err
		}
		rest = int(n[0]) + 2
	}
	_, err = io.ReadFull(conn, make([]byte, rest))
	return err
}
