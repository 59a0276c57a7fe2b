package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"time"
)

// A udpRun is what a stream of numbered datagrams came to.
type udpRun struct {
	Sent     int64   // datagrams that the sender's kernel took
	Received int64   // datagrams of the run that arrived, each counted once
	Seconds  float64 // while the sender sent
}

// lossPercent is the share that did not arrive.
func (u udpRun) lossPercent() float64 {
	if u.Sent == 0 {
		return 0
	}
	return 100 * float64(u.Sent-min(u.Received, u.Sent)) / float64(u.Sent)
}

// udpMinBytes is the smallest datagram: the number of the run and its own.
const udpMinBytes = 16

// A udpFlow is a stream of datagrams between two namespaces. Several may run at
// once, each with a port of its own.
type udpFlow struct {
	client, server string // namespaces, with the tag of their lab
	to, port       string // the receiver as the client sees it
	size           int
	perSecond      float64 // 0: as fast as one thread can
	nice           int     // of sender and receiver; 0 is everybody's
}

// udpStream sends datagrams of size bytes for a time, at perSecond or, when
// that is 0, as fast as one thread can. Sender and receiver are processes.
func udpStream(ctx context.Context, j *joined, self string, size int, perSecond float64, length time.Duration) (udpRun, error) {
	f := udpFlow{client: j.tag + j.client, server: j.tag + j.server, to: j.udp, port: portUDP, size: size, perSecond: perSecond}
	return f.run(ctx, self, length)
}

// run starts the receiver, sends for a time and returns what arrived.
func (f udpFlow) run(ctx context.Context, self string, length time.Duration) (udpRun, error) {
	ctx, cancel := context.WithTimeout(ctx, length+10*time.Second)
	defer cancel()
	receiver := f.command(ctx, f.server, self, "probe-udp-receive", ":"+f.port)
	stdin, errIn := receiver.StdinPipe()
	stdout, errOut := receiver.StdoutPipe()
	if err := errors.Join(errIn, errOut); err != nil {
		return udpRun{}, err
	}
	if err := receiver.Start(); err != nil {
		return udpRun{}, err
	}
	answers := json.NewDecoder(stdout)
	var ready string
	errReady := answers.Decode(&ready)
	var run udpRun
	var errSend error
	if errReady == nil {
		run, errSend = f.send(ctx, self, length)
	}
	// The end of its input asks the receiver for its count.
	errClose := stdin.Close()
	errCount := answers.Decode(&run.Received)
	return run, errors.Join(errReady, errSend, errClose, errCount, receiver.Wait())
}

// send only sends: nobody need be there.
func (f udpFlow) send(ctx context.Context, self string, length time.Duration) (run udpRun, err error) {
	out, err := output(f.command(ctx, f.client, self, "probe-udp-send", net.JoinHostPort(f.to, f.port),
		strconv.Itoa(f.size), strconv.FormatFloat(f.perSecond, 'f', 0, 64), length.String()))
	if err != nil {
		return run, err
	}
	return run, json.Unmarshal(out, &run)
}

func (f udpFlow) command(ctx context.Context, space, self string, args ...string) *exec.Cmd {
	if f.nice == 0 {
		return inside(ctx, space, self, args...)
	}
	return inside(ctx, space, "nice", append([]string{"-n", strconv.Itoa(f.nice), self}, args...)...)
}

// udpSend is the program "probe-udp-send".
func udpSend(addr string, size int, perSecond float64, length time.Duration) (udpRun, error) {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return udpRun{}, err
	}
	defer conn.Close()
	packet := make([]byte, max(size, udpMinBytes))
	binary.BigEndian.PutUint64(packet, udpMark)
	var run udpRun
	begin := time.Now()
	for n := int64(0); ; {
		elapsed := time.Since(begin)
		if elapsed >= length {
			run.Seconds = elapsed.Seconds()
			return run, nil
		}
		due := n + 64
		if perSecond > 0 {
			// A sender that cannot keep up still has to look at the time.
			due = min(int64(perSecond*elapsed.Seconds()), n+udpBurst)
		}
		if due <= n {
			time.Sleep(100 * time.Microsecond) // until the next datagram is due
			continue
		}
		for ; n < due; n++ {
			binary.BigEndian.PutUint64(packet[8:], uint64(n))
			if _, err := conn.Write(packet); err == nil {
				run.Sent++ // else the kernel had no buffer: not sent
			}
		}
	}
}

// udpBurst is the most that is sent without a look at the time: some 10 ms.
const udpBurst = 4096

// udpMark tells the probe's datagrams from anything else.
const udpMark = 0x736c6963_65776972

// udpLate is how long after the last datagram the receiver goes on.
const udpLate = 200 * time.Millisecond

// A seen set counts each number once.
type seen struct {
	bits  []uint64
	count int64
}

// seenMax bounds the numbers that are told apart: more than can be sent in a run.
const seenMax = 1 << 28

func (s *seen) add(n uint64) {
	if n >= seenMax {
		return
	}
	word := int(n / 64)
	for word >= len(s.bits) {
		s.bits = append(s.bits, make([]uint64, len(s.bits)+1024)...)
	}
	if bit := uint64(1) << (n % 64); s.bits[word]&bit == 0 {
		s.bits[word] |= bit
		s.count++
	}
}

// udpReceive counts datagrams on conn until stop is closed and nothing has come
// for udpLate.
func udpReceive(conn *net.UDPConn, stop <-chan struct{}) (int64, error) {
	_ = conn.SetReadBuffer(4 << 20) // what the kernel grants
	go func() {
		<-stop
		_ = conn.SetReadDeadline(time.Now().Add(udpLate)) // of a socket that is open
	}()
	var s seen
	buf := make([]byte, 1<<16)
	for {
		n, err := conn.Read(buf)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return s.count, nil
		}
		if err != nil {
			return s.count, fmt.Errorf("receive: %w", err)
		}
		if n >= udpMinBytes && binary.BigEndian.Uint64(buf) == udpMark {
			s.add(binary.BigEndian.Uint64(buf[8:]))
		}
	}
}

// highestRate searches for the highest rate at which try loses at most
// lossMax percent: it goes up from the given rate by doubling and then halves
// the interval. steps bounds the number of tries.
func highestRate(from, lossMax float64, steps int, try func(perSecond float64) (loss float64, err error)) (float64, error) {
	good, bad := 0.0, 0.0
	rate := from
	for range steps {
		loss, err := try(rate)
		if err != nil {
			return good, err
		}
		if loss <= lossMax {
			good = rate
		} else {
			bad = rate
		}
		switch {
		case bad == 0:
			rate *= 2
		case good == 0:
			rate /= 2
		default:
			rate = (good + bad) / 2
		}
	}
	return good, nil
}
