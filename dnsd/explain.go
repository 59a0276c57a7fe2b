package dnsd

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// Query answers a question as a client on this machine would be answered by
// TCP, and returns the reply as text, in the form of zone files with comments.
// It fails if the name or the type is none.
func (s *Server) Query(ctx context.Context, name, qtype string) (string, error) {
	t, known := dns.StringToType[strings.ToUpper(qtype)]
	if !known {
		return "", fmt.Errorf("dns: %q is no type of record", qtype)
	}
	q := new(dns.Msg)
	if a, err := netip.ParseAddr(name); err == nil {
		name, _ = dns.ReverseAddr(a.WithZone("").Unmap().String()) // it fails for what is no address
		t = typePTR
	}
	q.SetQuestion(dns.Fqdn(name), t)
	q.SetEdns0(maxUDP, false)
	msg, err := q.Pack()
	if err != nil {
		return "", fmt.Errorf("dns: %q is no name: %w", name, err)
	}
	var reply []byte
	if s.wants(s.view.Load(), netip.IPv6Loopback(), msg) {
		reply = s.safely(msg, func() []byte { return s.forwarded(ctx, msg, maxTCP) })
	} else {
		reply = s.respond(nil, msg, maxTCP)
	}
	var m dns.Msg
	if err := m.Unpack(reply); err != nil {
		return "", fmt.Errorf("dns: the reply does not parse: %w", err)
	}
	return m.String(), nil
}
