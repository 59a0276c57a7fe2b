package gossip

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"slices"
	"time"

	"slicewire/overlay"
)

// How a session is protected: TLS 1.3 with a key that lives as long as the
// process, and in it a hello of each side, the leaf's first, which the node's
// key signs together with a value that only these two ends of this connection
// have. So the node's key signs nothing but what it is named for, whom to trust
// is the Verifier's business as it is for records, and a stranger does not even
// learn whose port it is. The gossip key has no part in it.

// firstOfTLS is the first byte of every TLS client; memberlist's is labelByte.
const firstOfTLS = 22

const sessionProtocol = "slicewire-gossip/1"

// sessionTLS returns both sides' configurations. Who is at the other end is not
// TLS's business here.
func sessionTLS() (client, server *tls.Config, err error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("key of sessions: %w", err)
	}
	// Nobody looks at it; 1970 to 9999, as nobody's clock matters.
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(maxUnixTime, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate of sessions: %w", err)
	}
	both := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{sessionProtocol}, SessionTicketsDisabled: true}
	client = both.Clone()
	client.InsecureSkipVerify = true // the hellos verify
	server = both
	server.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	return client, server, nil
}

var (
	errSession  = errors.New("session refused")
	errUnwanted = errors.New("the gateway wants no session with this node, or is none")
)

// open makes a session of a connection: TLS, then both hellos. It closes the
// connection if it comes to nothing.
func (g *Gossip) open(ctx context.Context, raw net.Conn, dialed bool) (_ *session, err error) {
	defer func() {
		if err != nil {
			_ = raw.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	conn := tls.Server(livelyConn{raw}, g.sessions.server)
	if dialed {
		conn = tls.Client(livelyConn{raw}, g.sessions.client)
	}
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	state := conn.ConnectionState()
	binding, err := state.ExportKeyingMaterial(bindingLabel, nil, 32)
	if err != nil || state.NegotiatedProtocol != sessionProtocol {
		return nil, fmt.Errorf("protocol %q: %w", state.NegotiatedProtocol, errSession)
	}
	s := &session{
		g: g, conn: conn, addr: addrPortOf(raw.RemoteAddr()), dialed: dialed, since: time.Now(),
		questions: make(chan message, maxQuestions), done: make(chan struct{}), ending: make(chan byte, 1),
	}
	s.out.init()
	if dialed {
		if err := s.sayHello(roleLeaf, binding); err != nil {
			return nil, err
		}
		err := s.hearHello(roleGateway, binding)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
			err = fmt.Errorf("%w (%w)", errUnwanted, err)
		}
		return s, err
	}
	if err := s.hearHello(roleLeaf, binding); err != nil {
		return nil, err
	}
	return s, s.sayHello(roleGateway, binding)
}

func (s *session) sayHello(role int, binding []byte) error {
	c, fp := s.g.ownChain()
	s.own = fp
	i := s.g.sessions.instance
	b, err := encodeHello(hello{c, i, s.g.cfg.Signer.Sign(signSession, sessionClaim(role, s.g.cfg.Mesh, i, binding))})
	if err != nil {
		return err
	}
	return writeFrame(s.conn, b)
}

// hearHello learns who is at the other end.
func (s *session) hearHello(role int, binding []byte) error {
	b, err := readFrame(s.conn, maxHello)
	if err != nil {
		return err
	}
	h, err := decodeHello(b)
	if err != nil {
		s.g.refused.add(RefusedMalformed, 1)
		return err
	}
	a, err := s.g.cfg.Verifier.Authority(h.chain, s.g.cfg.Now())
	switch {
	case errors.Is(err, overlay.RefusedRevoked):
		s.g.refused.add(string(overlay.RefusedRevoked), 1)
	case err != nil || a.Mesh != s.g.cfg.Mesh || a.Issuer != nil || role == roleGateway && !a.Gateway:
		s.g.refused.add(RefusedSession, 1)
		if err == nil {
			err = errors.New("it does not let its holder in here")
		}
		err = fmt.Errorf("certificate: %w: %w", err, errSession)
	case !s.g.cfg.Verifier.Signed(h.chain, signSession, sessionClaim(role, s.g.cfg.Mesh, h.instance, binding), h.sig):
		s.g.refused.add(RefusedSession, 1)
		err = fmt.Errorf("hello of %v: not its signature: %w", a.ID, errSession)
	}
	if err != nil {
		return err
	}
	s.peer, s.chain, s.instance = a.ID, slices.Clone(h.chain), h.instance
	return nil
}
