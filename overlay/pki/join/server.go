package join

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/pki"
)

// connTime bounds a whole connection: handshake, request and answer.
const connTime = 10 * time.Second

// DefaultLife is how long certificates are valid that a Server gives out. They
// are renewed at half of it: a mesh whose issuers are all down goes on for half
// of it at least.
const DefaultLife = 7 * 24 * time.Hour

// A Config says what a Server serves. All fields are needed but for those that
// say what zero means.
type Config struct {
	Listener net.Listener // the Server closes it
	Verifier *pki.Verifier
	Book     *Book
	Keys     func() Keys   // those of the mesh's gossip, as they are now
	Life     time.Duration // of certificates; zero: DefaultLife
	// Lives returns how long certificates of a node are valid, where that is not
	// Life: zero. It may be called concurrently; zero: all live for Life.
	Lives func(id overlay.NodeID, gateway bool) time.Duration
	Now   func() time.Time // wall clock
	Log   *slog.Logger     // zero: no log
	// Holder returns the node that is known to have a key, by its pki.KeySum;
	// zero: nobody's is known.
	Holder func(key [32]byte) (overlay.NodeID, bool)
	// Pods judges a pod's token and returns the terms it is let in on, or a Refusal;
	// zero: no pods are let in. It may be called concurrently.
	Pods func(context.Context, PodRequest) (Terms, error)
}

// A Server lets nodes in and renews certificates.
type Server struct {
	cfg    Config
	conf   *tls.Config
	issuer atomic.Pointer[shown] // see Set

	mu    sync.Mutex // guards limit
	limit limiter
	conns sync.WaitGroup
}

// shown is an issuer as others see it.
type shown struct {
	issuer *pki.Issuer
	cert   tls.Certificate
}

// NewServer checks cfg. It starts nothing.
func NewServer(cfg Config, issuer *pki.Issuer) (*Server, error) {
	if cfg.Listener == nil || issuer == nil || cfg.Verifier == nil || cfg.Book == nil || cfg.Now == nil || cfg.Keys == nil {
		return nil, errors.New("join server: listener, issuer, verifier, book, gossip keys and clock are needed")
	}
	if cfg.Life == 0 {
		cfg.Life = DefaultLife
	}
	if cfg.Life < 0 {
		return nil, fmt.Errorf("join server: certificates that live %v", cfg.Life)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Holder == nil {
		cfg.Holder = func([32]byte) (overlay.NodeID, bool) { return overlay.NodeID{}, false }
	}
	s := &Server{cfg: cfg}
	s.conf = &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &s.issuer.Load().cert, nil },
		MinVersion:     tls.VersionTLS13,
		NextProtos:     []string{protocol},
		// Newcomers have none. Whether one that is shown is good, renew asks.
		ClientAuth:             tls.RequestClientCert,
		SessionTicketsDisabled: true,
	}
	s.Set(issuer)
	return s, nil
}

// Set states who signs from now on: the same key, with another certificate. It
// may be called at any time. An issuer that hangs on an authority with one before
// it shows how the one leads to the other, for those who know only the latter.
func (s *Server) Set(issuer *pki.Issuer) {
	x := &shown{issuer: issuer, cert: issuer.Certificate()}
	roots := s.cfg.Verifier.Roots()
	root, err := s.cfg.Verifier.Root(issuer.Chain())
	if last := roots.Last(); err == nil && last != nil && last.Key() == root && len(x.cert.Certificate) < pki.MaxChain {
		x.cert.Certificate = append(slices.Clip(x.cert.Certificate), last.Chain()...)
	}
	s.issuer.Store(x)
}

// Run serves until ctx ends and returns nil once every connection has ended; or
// the fault that ended it before.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.cfg.Listener.Close() })
	defer stop()
	defer s.conns.Wait()
	defer cancel()
	pause := time.Duration(0)
	for {
		conn, err := s.cfg.Listener.Accept()
		if err == nil {
			pause = 0
			s.take(ctx, conn)
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		// Out of descriptors, or a connection that died young: others are served.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.cfg.Log.Warn("join connection not taken", "err", err)
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
		}
		wait.Stop()
	}
}

// take serves a connection, or closes it at once when there are too many.
func (s *Server) take(ctx context.Context, conn net.Conn) {
	from := remote(conn)
	s.mu.Lock()
	ok := s.limit.take(from.Addr(), s.cfg.Now())
	s.mu.Unlock()
	if !ok {
		conn.Close()
		s.cfg.Log.Debug("join connection refused: too many", "peer", from.String())
		return
	}
	s.conns.Go(func() {
		defer func() {
			s.mu.Lock()
			s.limit.done(from.Addr())
			s.mu.Unlock()
		}()
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		defer stop()
		defer conn.Close()
		if err := s.serve(ctx, conn, from); err != nil {
			s.cfg.Log.Debug("join connection", "peer", from.String(), "err", err)
		}
	})
}

func remote(conn net.Conn) netip.AddrPort {
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

// serve answers one connection's one request.
func (s *Server) serve(ctx context.Context, raw net.Conn, from netip.AddrPort) error {
	if err := raw.SetDeadline(time.Now().Add(connTime)); err != nil {
		return err
	}
	conn := tls.Server(raw, s.conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	b, err := readFrame(conn, maxRequest)
	if err != nil {
		return err
	}
	r, err := decodeRequest(b)
	if err != nil {
		return err
	}
	out, err := s.answer(ctx, r, conn.ConnectionState(), from)
	if err != nil {
		refusal, ok := errors.AsType[Refusal](err)
		if !ok { // a fault here, of which strangers need not know more
			s.cfg.Log.Error("certificate not issued", "peer", from.String(), "err", err)
			refusal = Refusal{RefusedIssuer, "the issuer cannot do it now: its log says why"}
		} else {
			s.cfg.Log.Log(ctx, refusal.level(), "certificate refused", "peer", from.String(), "reason", refusal.Reason, "err", refusal.Text)
		}
		out = answer{Reason: refusal.Reason, Text: refusal.Text}
	}
	if err := writeFrame(conn, out); err != nil {
		return err
	}
	return conn.Close()
}

// level is how loud a refusal is said: what any stranger can bring about must
// not fill the log, what takes a token or a key of the mesh is worth a look.
func (r Refusal) level() slog.Level {
	switch r.Reason {
	case RefusedToken, RefusedRequest, RefusedCert:
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

func (s *Server) answer(ctx context.Context, r request, session tls.ConnectionState, from netip.AddrPort) (answer, error) {
	switch r.Verb {
	case verbRenew:
		return s.renew(r, session, from)
	case verbKeys:
		return s.keys(session, from)
	case verbPod:
		return s.pod(ctx, r, from)
	default:
		return s.join(r, session, from)
	}
}

// join lets a newcomer in.
func (s *Server) join(r request, session tls.ConnectionState, from netip.AddrPort) (answer, error) {
	binding, err := bindingOf(session)
	if err != nil {
		return answer{}, err
	}
	now, isGateway := s.cfg.Now(), false
	chain, err := s.cfg.Book.spend(r, binding, now, func(t Terms) ([]byte, error) {
		isGateway = t.Gateway
		key, err := pki.RequestSum([]byte(r.Request))
		if err != nil {
			return nil, err
		}
		return s.admit(r, t, key, now)
	})
	if err != nil {
		return answer{}, err
	}
	s.cfg.Log.Info("node let in", "node", r.Site+"/"+r.Node, "peer", from.String(), "token", r.Token)
	return s.admission(chain, isGateway), nil
}

// admit certifies a newcomer's key, unless it is another node's.
func (s *Server) admit(r request, t Terms, key [32]byte, now time.Time) ([]byte, error) {
	if id, known := s.cfg.Holder(key); known && id != t.Node {
		return nil, Refusal{RefusedKey, fmt.Sprintf("this key is that of %v: every node makes its own, so do not copy a state folder", id)}
	}
	return s.issue(r, pki.Subject{ID: t.Node, Gateway: t.Gateway, Index: t.Index, Grants: t.Grants, Enrolled: s.enrolment(t.Node, now)}, now)
}

// admission is what a newcomer gets: a gateway the gossip's key too.
func (s *Server) admission(chain []byte, gateway bool) answer {
	out := answer{Chain: chain, Root: s.cfg.Verifier.Roots().Text()}
	if gateway {
		k := s.cfg.Keys()
		if out.Gossip = k.Key; k.UseIn > 0 {
			out.Gossip = k.Old
		}
	}
	return out
}

// enrolment is when a node is let in: now, and after whatever was revoked of it.
func (s *Server) enrolment(id overlay.NodeID, now time.Time) time.Time {
	// Both are of whole seconds in the certificate.
	if until := s.cfg.Verifier.RevokedUntil(id); !now.Truncate(time.Second).After(until) {
		return until.Add(time.Second)
	}
	return now
}

// renew gives a node that shows a good certificate a younger one: the same
// contents and the same key, so that a revocation holds for both.
func (s *Server) renew(r request, session tls.ConnectionState, from netip.AddrPort) (answer, error) {
	now := s.cfg.Now()
	chain, a, err := s.node(session, now)
	if err != nil {
		return answer{}, err
	}
	held, err := pki.ChainSum(chain)
	if err != nil {
		return answer{}, err
	}
	if asked, err := pki.RequestSum([]byte(r.Request)); err != nil || asked != held {
		return answer{}, Refusal{RefusedRequest, "a renewal is for the key of the certificate shown"}
	}
	out, err := s.issue(r, pki.Subject{ID: a.ID, Gateway: a.Gateway, Index: a.Index, Grants: a.Grants, Enrolled: a.Enrolled}, now)
	if err != nil {
		return answer{}, err
	}
	s.cfg.Log.Info("certificate renewed", "node", a.ID.String(), "peer", from.String())
	return answer{Chain: out}, nil
}

// keys tells a gateway that shows a good certificate the keys of the gossip,
// which other nodes do without.
func (s *Server) keys(session tls.ConnectionState, from netip.AddrPort) (answer, error) {
	_, a, err := s.node(session, s.cfg.Now())
	if err != nil {
		return answer{}, err
	}
	if !a.Gateway {
		return answer{}, Refusal{RefusedCert, "only gateways have the gossip key"}
	}
	k := s.cfg.Keys()
	s.cfg.Log.Debug("gossip keys handed out", "node", a.ID.String(), "peer", from.String())
	return answer{Keys: &k}, nil
}

// node returns who is at the other end: a node with a good certificate, or
// nobody.
func (s *Server) node(session tls.ConnectionState, now time.Time) ([][]byte, overlay.Authority, error) {
	var chain [][]byte
	for _, c := range session.PeerCertificates {
		chain = append(chain, c.Raw)
	}
	if len(chain) == 0 {
		return nil, overlay.Authority{}, Refusal{RefusedCert, "that needs a certificate: join with a token first"}
	}
	a, err := s.cfg.Verifier.Authority(chain, now)
	if err != nil || a.Issuer != nil {
		return nil, a, Refusal{RefusedCert, fmt.Sprintf("the certificate shown is no good (%v): join again with a new token", err)}
	}
	return chain, a, nil
}

func (s *Server) issue(r request, subject pki.Subject, now time.Time) ([]byte, error) {
	issuer := s.issuer.Load().issuer
	if err := issuer.Permits(subject); err != nil {
		return nil, Refusal{RefusedIssuer, err.Error()}
	}
	if _, err := s.cfg.Verifier.Authority(issuer.Chain(), now); err != nil {
		return nil, Refusal{RefusedIssuer, "the issuer's own certificate is no good: " + err.Error()}
	}
	life := s.cfg.Life
	if s.cfg.Lives != nil {
		life = cmp.Or(s.cfg.Lives(subject.ID, subject.Gateway), life)
	}
	return issuer.Issue([]byte(r.Request), subject, now, life)
}
