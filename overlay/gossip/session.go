package gossip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"slicewire/overlay"
)

// Timing of sessions. Each end says something every beatEvery and gives the
// other up after silence: no answer is waited for, so an end that is busy with
// reading is not taken for dead.
const (
	beatEvery    = 800 * time.Millisecond
	silence      = 2500 * time.Millisecond
	writeTime    = 5 * time.Second // for the other end to take some bytes
	helloTime    = 4 * time.Second // for TLS and both hellos
	checkEvery   = 10 * time.Second
	gatewaysAt   = 5 * time.Second // how often a leaf is told of other gateways, if they are others
	goodbyeTime  = 500 * time.Millisecond
	maxQuestions = 16 // of one session that wait for their answer
	answerPiece  = 32 // origins answered for at a time
)

// A session is a stream between a leaf and a gateway. Three goroutines work for
// it: one reads and judges, one answers questions, one writes. The reader never
// waits for the writer, or two ends with much to say would wait for each other.
type session struct {
	g        *Gossip
	conn     net.Conn
	peer     overlay.NodeID
	addr     netip.AddrPort // where the other end is
	chain    chain          // of the other end
	own      fingerprint    // of this node's certificate, as the other end knows it
	instance instance
	dialed   bool // this end is the leaf
	since    time.Time

	out       outbox
	questions chan message
	pace      *sessionPace // of all sessions of this node; set by sessions.add
	done      chan struct{}
	ending    chan byte // capacity 1: the reason to say good-bye for

	mu     sync.Mutex // guards what follows
	ended  bool       // done is closed
	leaves bool       // this end wanted it
	why    error
	told   []gatewayEntry // what a gateway said of others, not verified
}

var (
	errHostile  = errors.New("the other end says what no node says")
	errReplaced = errors.New("replaced by another session of the same node")
	errVoid     = errors.New("its certificate is no good any more")
	errBye      = errors.New("the other end said good-bye")
)

// A goodbye is the end of a session that the other end wanted.
type goodbye struct{ reason byte }

func (e goodbye) Error() string { return fmt.Sprintf("%v (%d)", errBye, e.reason) }
func (e goodbye) Unwrap() error { return errBye }

// end closes the session; the first reason counts.
func (s *session) end(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		if s.leaves {
			why = nil
		}
		s.ended, s.why = true, why
		close(s.done)
		_ = s.conn.Close()
	}
}

// leaving reports whether this end wants the session to end.
func (s *session) leaving() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leaves
}

// leave says good-bye and waits a little until the other end closes.
func (s *session) leave(reason byte) {
	s.mu.Lock()
	s.leaves = true
	s.mu.Unlock()
	select {
	case s.ending <- reason:
	default:
	}
	timer := time.NewTimer(goodbyeTime)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
		s.end(nil)
	}
}

// run serves the session until it ends and returns why, nil if this end wanted it.
func (s *session) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.end(nil) })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { s.end(s.read()) })
	wg.Go(func() { s.end(s.write()) })
	wg.Go(s.answerQuestions)
	wg.Wait()
	return s.why
}

// tell sends messages as far as there is room; what is dropped is counted, and
// found by a check once there is room again.
func (s *session) tell(messages [][]byte) {
	for _, b := range messages {
		if !s.out.put(b) {
			s.g.refused.add(RefusedQueue, 1)
			s.out.missed()
		}
	}
}

func (s *session) read() error {
	for {
		b, err := readFrame(s.conn, maxMessage)
		if err != nil {
			return err
		}
		if wait := s.pace.take(time.Now(), len(b)); wait > 0 {
			s.g.refused.add(RefusedRate, 1)
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-s.done:
			}
			timer.Stop()
		}
		if len(b) == 0 {
			continue
		}
		if err := s.hear(b); err != nil {
			return err
		}
	}
}

// hear works on one message.
func (s *session) hear(b []byte) error {
	malformed := func() error {
		s.g.refused.add(RefusedMalformed, 1)
		return errHostile
	}
	if len(b) < 2 {
		return malformed()
	}
	switch b[1] {
	case typeCheck:
		d, err := decodeCheck(b)
		if err != nil {
			return malformed()
		}
		if s.g.digest() != d {
			s.tell([][]byte{s.g.state()})
		}
		return nil
	case typeGateways:
		list, err := decodeGateways(b)
		if err != nil || !s.dialed {
			return malformed()
		}
		s.mu.Lock()
		s.told = list
		s.mu.Unlock()
		wake(s.g.sessions.look)
		return nil
	case typeBye:
		reason, err := decodeBye(b)
		if err != nil {
			return malformed()
		}
		return goodbye{reason}
	}
	m, err := decodeMessage(b)
	if err != nil {
		return malformed()
	}
	if m.kind == typeRecords {
		return s.g.takeFrom(s, m)
	}
	select {
	case s.questions <- m:
	default:
		// Sooner or later a check asks the same.
		s.g.refused.add(RefusedQueue, 1)
	}
	return nil
}

// answerQuestions answers one after the other, in pieces: an answer may be all
// that is known, and waits for the other end to take it.
func (s *session) answerQuestions() {
	for {
		select {
		case m := <-s.questions:
			s.answer(m)
		case <-s.done:
			return
		}
	}
}

func (s *session) answer(m message) {
	for piece := range s.g.answers(m) {
		for _, b := range piece {
			if !s.out.putWait(b, s.done) {
				return
			}
		}
	}
}

func (s *session) write() error {
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	check := time.NewTicker(jitter(checkEvery))
	defer check.Stop()
	gateways := time.NewTicker(jitter(gatewaysAt))
	defer gateways.Stop()
	var told []byte
	list := func() {
		if b := s.g.gatewaysFor(s.peer); !s.dialed && string(b) != string(told) {
			told = b
			s.tell([][]byte{b})
		}
	}
	if list(); s.dialed {
		s.tell([][]byte{encodeCheck(s.g.digest())})
	}
	for {
		b, behind := s.out.take()
		if behind {
			b = encodeCheck(s.g.digest())
		}
		if b != nil {
			if err := writeFrame(s.conn, b); err != nil {
				return err
			}
			continue
		}
		select {
		case <-s.out.news:
		case <-beat.C:
			if err := writeFrame(s.conn, nil); err != nil {
				return err
			}
		case <-check.C:
			if s.dialed {
				s.tell([][]byte{encodeCheck(s.g.digest())})
			}
		case <-gateways.C:
			list()
		case reason := <-s.ending:
			if err := s.flush(); err != nil {
				return err
			}
			if err := writeFrame(s.conn, encodeBye(reason)); err != nil {
				return err
			}
			<-s.done // the reader ends it, or leave
			return nil
		case <-s.done:
			return nil
		}
	}
}

// flush writes what waits to be sent: a node that ends may just have said so.
func (s *session) flush() error {
	for {
		b, _ := s.out.take()
		if b == nil {
			return nil
		}
		if err := writeFrame(s.conn, b); err != nil {
			return err
		}
	}
}

// readFrame reads one frame into memory that grows as the bytes come: who
// announces much has to send it.
func readFrame(r io.Reader, limit int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n > limit {
		return nil, fmt.Errorf("frame of %d bytes, at most %d: %w", n, limit, errHostile)
	}
	const piece = 64 << 10
	b := make([]byte, 0, min(n, piece))
	for len(b) < n {
		at := len(b)
		b = append(b, make([]byte, min(n-at, piece))...)
		if _, err := io.ReadFull(r, b[at:]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func writeFrame(w io.Writer, b []byte) error {
	out := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b)))
	_, err := w.Write(append(out, b...))
	return err
}

// A livelyConn gives each of its reads and writes a time of its own: an end that
// goes on sending is alive, however much there is to send.
type livelyConn struct{ net.Conn }

func (c livelyConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(silence)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c livelyConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// What one session may say: a newcomer's or a whole mesh's knowledge at once,
// and then a little. More waits in the other end's buffers.
const (
	paceBytes    = 16 << 20
	paceBytesPer = 256 << 10 // a second
	paceFrames   = 1024
	paceFramePer = 64
)

// sessionPace counts what a node has said over its sessions, so that nobody
// begins anew with a new one.
type sessionPace struct {
	mu            sync.Mutex // guards what follows
	at            time.Time
	bytes, frames float64 // left; negative: to wait for
}

// take notes a frame and returns how long to wait because of it.
func (p *sessionPace) take(now time.Time, bytes int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at.IsZero() {
		p.bytes, p.frames = paceBytes, paceFrames
	} else if d := now.Sub(p.at).Seconds(); d > 0 {
		p.bytes = min(paceBytes, p.bytes+d*paceBytesPer)
		p.frames = min(paceFrames, p.frames+d*paceFramePer)
	}
	p.at = now
	p.bytes -= float64(bytes)
	p.frames--
	wait := max(-p.bytes/paceBytesPer, -p.frames/paceFramePer, 0)
	return time.Duration(wait * float64(time.Second))
}
