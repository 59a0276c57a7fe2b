package dnsd

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"slicewire/overlay"
)

const (
	maxForwards  = 128             // questions that wait for an upstream at once
	maxRemember  = 4096            // answers
	maxFresh     = time.Hour       // an answer's, whatever its TTL says
	staleFor     = 24 * time.Hour  // RFC 8767: better old than nothing
	staleTTL     = 30              // seconds
	failureFor   = 2 * time.Second // RFC 9520
	negativeFor  = time.Minute     // without an SOA that says less
	loopSilence  = time.Minute     // nothing is asked after a question came back
	forwardQueue = maxForwards
)

// A forwarder answers what is not ours for those who may ask: from memory, from
// upstream, or from memory that is stale where upstream does not answer.
type forwarder struct {
	up    upstream
	slots chan struct{}

	mu      sync.Mutex // guards what follows
	known   map[asked]*remembered
	waiting map[asked]*flight
	silent  time.Time // nothing is asked before
}

type asked struct {
	name  string // lower case
	qtype uint16
}

// A remembered answer belongs to all that read it: it is never changed.
type remembered struct {
	msg   *dns.Msg // nil: a failure
	err   error
	at    time.Time
	fresh time.Duration
}

// A flight is a question under way, for all that ask it meanwhile.
type flight struct {
	done   chan struct{}
	result *remembered
}

func newForwarder(servers []netip.AddrPort, private []string) (*forwarder, error) {
	f := &forwarder{
		up: upstream{servers: servers}, slots: make(chan struct{}, forwardQueue),
		known: make(map[asked]*remembered), waiting: make(map[asked]*flight),
	}
	for _, z := range private {
		wire, ok := appendName(nil, z)
		if !ok {
			return nil, errors.New("dns: private zone " + z + " is not a domain name")
		}
		f.up.private = append(f.up.private, string(wire))
	}
	_, err := rand.Read(f.up.marker[:])
	return f, err
}

// wants reports whether a message is a question that is to be forwarded: a
// plain one that asks for recursion, for a name that is not ours, from a client
// that may.
func (s *Server) wants(view *snapshot, client netip.Addr, msg []byte) bool {
	if s.forward == nil || len(msg) < headerBytes || !client.IsLoopback() && !view.forward[client] {
		return false
	}
	flags := binary.BigEndian.Uint16(msg[2:])
	if flags&(flagQR|opcodeMask) != 0 || flags&flagRD == 0 || binary.BigEndian.Uint16(msg[4:]) != 1 {
		return false
	}
	var space [maxName]byte
	name, end := readName(space[:0], msg, headerBytes)
	if end < 0 || end+4 > len(msg) {
		return false
	}
	qtype, qclass := binary.BigEndian.Uint16(msg[end:]), binary.BigEndian.Uint16(msg[end+2:])
	switch qtype {
	case typeAXFR, typeIXFR, typeANY, typeOPT:
		return false
	}
	return qclass == classIN && !neverForwarded(name) && view.decide(name, qtype, qclass).rcode == rcodeRefused
}

// neverForwarded are names that mean this machine or this link: nobody
// upstream has business with them (RFC 6761, 6762).
func neverForwarded(name []byte) bool {
	for _, zone := range []string{"\x05local\x00", "\x09localhost\x00", "\x07invalid\x00", "\x05onion\x00"} {
		if below(name, zone) {
			return true
		}
	}
	return len(name) == 1
}

// forwarded answers a message that wants it. It may take seconds.
func (s *Server) forwarded(ctx context.Context, msg []byte, limit int) []byte {
	var q dns.Msg
	if q.Unpack(msg) != nil || len(q.Question) != 1 {
		return headerOnly(msg, rcodeFormErr)
	}
	opt, ok := optOf(&q)
	if !ok || !complete(&q, msg) || opt != nil && opt.Version() != 0 {
		return s.view.Load().general(msg, limit)
	}
	if opt != nil && s.forward.marked(opt) {
		s.cfg.Log.Warn("a forwarded question came back: the upstream asks this server; nothing is forwarded for a while")
		s.forward.silence(time.Now())
		return s.view.Load().general(msg, limit)
	}
	name := strings.ToLower(q.Question[0].Name)
	got, stale := s.forward.answer(ctx, asked{name, q.Question[0].Qtype}, time.Now())
	reply := new(dns.Msg).SetReply(&q)
	reply.RecursionAvailable, reply.Compress = true, true
	why := uint16(edeNone)
	switch {
	case got.msg != nil:
		age := uint32(time.Since(got.at) / time.Second)
		reply.Rcode = got.msg.Rcode
		reply.Answer, reply.Ns = aged(got.msg.Answer, age, stale), aged(soaOf(got.msg.Ns), age, stale)
		for _, rr := range reply.Answer {
			if strings.EqualFold(rr.Header().Name, name) {
				rr.Header().Name = q.Question[0].Name
			}
		}
		if stale {
			why = edeStale
		}
	case errors.Is(got.err, errPrivate):
		reply.Rcode, why = rcodeRefused, edeBlocked
	case errors.Is(got.err, errLoop):
		reply.Rcode, why = rcodeServFail, edeNoReachable
	default:
		reply.Rcode, why = rcodeServFail, edeNetwork
	}
	size := plainUDP
	if opt != nil {
		size = int(opt.UDPSize())
		addOPT(reply, opt.Do(), why)
	}
	return packWithin(reply, msg, replyLimit(limit, size))
}

func (f *forwarder) marked(opt *dns.OPT) bool {
	for _, o := range opt.Option {
		if l, is := o.(*dns.EDNS0_LOCAL); is && l.Code == markerCode && string(l.Data) == string(f.up.marker[:]) {
			return true
		}
	}
	return false
}

func (f *forwarder) silence(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.silent = now.Add(loopSilence)
}

// answer returns what is known of a question, or learns it.
func (f *forwarder) answer(ctx context.Context, q asked, now time.Time) (got *remembered, stale bool) {
	f.mu.Lock()
	old := f.known[q]
	switch w := f.waiting[q]; {
	case old != nil && now.Sub(old.at) < old.fresh:
		f.mu.Unlock()
		return old, false
	case now.Before(f.silent):
		f.mu.Unlock()
		return f.orStale(old, &remembered{err: errLoop, at: now}, now)
	case w != nil:
		f.mu.Unlock()
		select {
		case <-w.done:
			return f.orStale(old, w.result, now)
		case <-ctx.Done():
			return &remembered{err: ctx.Err(), at: now}, false
		}
	}
	w := &flight{done: make(chan struct{})}
	f.waiting[q] = w
	f.mu.Unlock()
	msg, err := f.up.ask(ctx, q.name, q.qtype)
	w.result = &remembered{msg: msg, err: err, at: time.Now(), fresh: failureFor}
	if err != nil {
		w.result.msg = nil
	} else {
		w.result.fresh = freshFor(msg)
	}
	f.mu.Lock()
	delete(f.waiting, q)
	if ctx.Err() == nil && (err == nil || old == nil || old.msg == nil) {
		f.keepLocked(q, w.result)
	} else if old != nil && err != nil { // stale, and not asked for again at once
		again := *old
		again.fresh = time.Since(old.at) + failureFor
		f.keepLocked(q, &again)
	}
	f.mu.Unlock()
	close(w.done)
	return f.orStale(old, w.result, now)
}

// orStale prefers an old answer to a new failure, unless that says that the
// answer must not be given.
func (f *forwarder) orStale(old, got *remembered, now time.Time) (*remembered, bool) {
	if got.err != nil && !errors.Is(got.err, errPrivate) && old != nil && old.msg != nil && now.Sub(old.at) < staleFor {
		return old, true
	}
	return got, false
}

// keepLocked remembers an answer; when there are too many, any other gives way.
func (f *forwarder) keepLocked(q asked, r *remembered) {
	if _, had := f.known[q]; !had && len(f.known) >= maxRemember {
		for k := range f.known {
			delete(f.known, k)
			break
		}
	}
	f.known[q] = r
}

// freshFor is how long an answer may be given: its shortest TTL, or what the
// SOA says of a name without data.
func freshFor(m *dns.Msg) time.Duration {
	d := maxFresh
	for _, rr := range m.Answer {
		d = min(d, time.Duration(rr.Header().Ttl)*time.Second)
	}
	if len(m.Answer) > 0 {
		return d
	}
	d = negativeFor
	for _, rr := range soaOf(m.Ns) {
		d = min(d, time.Duration(min(rr.Header().Ttl, rr.(*dns.SOA).Minttl))*time.Second)
	}
	return d
}

func soaOf(ns []dns.RR) (out []dns.RR) {
	for _, rr := range ns {
		if _, is := rr.(*dns.SOA); is {
			out = append(out, rr)
		}
	}
	return out[:min(len(out), 1)]
}

// aged copies records with what is left of their TTL.
func aged(list []dns.RR, age uint32, stale bool) (out []dns.RR) {
	for _, rr := range list {
		rr = dns.Copy(rr)
		h := rr.Header()
		if h.Ttl -= min(age, h.Ttl); stale {
			h.Ttl = staleTTL
		}
		out = append(out, rr)
	}
	return out
}

// forwardPacket answers a datagram from upstream, in its own time. When too many
// wait already, the client has to ask again.
func (s *Server) forwardPacket(ctx context.Context, wg *sync.WaitGroup, msg []byte, limit int, send func([]byte)) {
	select {
	case s.forward.slots <- struct{}{}:
	default:
		s.stats.drops.Add(overlay.DropQueueFull, 1)
		return
	}
	msg = append([]byte(nil), msg...)
	wg.Go(func() {
		defer func() { <-s.forward.slots }()
		reply := s.safely(msg, func() []byte { return s.forwarded(ctx, msg, limit) })
		send(reply)
	})
}
