package gossip

import (
	"context"
	"crypto/tls"
	"net"
	"time"
)

// serverTest and clientTest are a session's TLS without a hello.
func (g *Gossip) serverTest(raw net.Conn) (*tls.Conn, error) {
	return handshakeTest(tls.Server(livelyConn{raw}, g.sessions.server))
}

func (g *Gossip) clientTest(raw net.Conn) (*tls.Conn, error) {
	return handshakeTest(tls.Client(livelyConn{raw}, g.sessions.client))
}

func handshakeTest(c *tls.Conn) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return c, c.HandshakeContext(ctx)
}
