package dnsd

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// An upstream asks other servers. Whoever wants to have a false answer taken has
// to guess the port and the id of the question and the case of every letter of
// its name, in one try: a third reply that does not fit has the question asked
// again by TCP.
type upstream struct {
	servers []netip.AddrPort
	private []string // zones in wire form whose names may have private addresses
	marker  [8]byte  // in every question; one that comes back to us went in a circle
	forged  atomic.Uint64
	asked   atomic.Uint64
}

const (
	askFor     = time.Second // one server by one transport
	askAllFor  = 2500 * time.Millisecond
	maxDoubt   = 3     // replies that do not fit until TCP is asked
	markerCode = 65077 // of the range for local use: RFC 6891 section 9
	maxChain   = 12    // names that an answer may lead over
)

var (
	errUnanswered = errors.New("no server answers")
	errLoop       = errors.New("the question came back to the server that asks")
	errPrivate    = errors.New("the answer leads to an address that is not public")
	errDoubt      = errors.New("replies that do not belong to the question")
	errTruncated  = errors.New("truncated")
)

// ask asks the servers in their order until one has an answer.
func (u *upstream) ask(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, askAllFor)
	defer cancel()
	u.asked.Add(1)
	var errs []error
	for _, server := range u.servers {
		m, err := u.askOne(ctx, server, name, qtype)
		if err == nil && m.Rcode != rcodeSuccess && m.Rcode != rcodeNXDomain {
			err = fmt.Errorf("it says %s", dns.RcodeToString[m.Rcode])
		}
		if err == nil {
			m.Answer = chainOf(m.Question[0].Name, m.Answer)
			return m, u.guard(name, m)
		}
		errs = append(errs, fmt.Errorf("ask %v: %w", server, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(append(errs, errUnanswered)...)
}

// askOne asks one server by UDP, and by TCP where that leaves doubt.
func (u *upstream) askOne(ctx context.Context, server netip.AddrPort, name string, qtype uint16) (*dns.Msg, error) {
	for _, network := range []string{"udp", "tcp"} {
		q, err := u.question(name, qtype)
		if err != nil {
			return nil, err
		}
		m, err := u.exchange(ctx, network, server, q)
		if !errors.Is(err, errDoubt) && !errors.Is(err, errTruncated) {
			return m, err
		}
	}
	return nil, errDoubt
}

// question makes a query with a random id and letters of random case.
func (u *upstream) question(name string, qtype uint16) ([]byte, error) {
	var random [2 + maxName/8 + 1]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, err
	}
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	q.Id = binary.BigEndian.Uint16(random[:])
	q.SetEdns0(maxUDP, false)
	opt := q.IsEdns0()
	opt.Option = append(opt.Option, &dns.EDNS0_LOCAL{Code: markerCode, Data: u.marker[:]})
	b, err := q.Pack()
	if err != nil {
		return nil, err
	}
	for i, off := 0, headerBytes; b[off] != 0; {
		n := int(b[off])
		for k := off + 1; k <= off+n; k++ {
			if c := lower(b[k]); 'a' <= c && c <= 'z' {
				b[k] = c &^ (random[2+i/8] >> (i % 8) & 1 << 5)
				i++
			}
		}
		off += 1 + n
	}
	return b, nil
}

// belongs reports whether a reply is one to a query: id, opcode and question,
// with the case of each letter. By a stream, which nobody else writes into, the
// case may differ: some servers do not keep it.
func belongs(query, reply []byte, stream bool) bool {
	if len(reply) < headerBytes || reply[0] != query[0] || reply[1] != query[1] {
		return false
	}
	flags := binary.BigEndian.Uint16(reply[2:])
	if flags&flagQR == 0 || flags&opcodeMask != 0 || binary.BigEndian.Uint16(reply[4:]) != 1 {
		return false
	}
	end := headerBytes
	for query[end] != 0 {
		end += 1 + int(query[end])
	}
	end += 5
	if len(reply) < end {
		return false
	}
	if !stream {
		return string(reply[headerBytes:end]) == string(query[headerBytes:end])
	}
	a, at := readName(nil, query, headerBytes)
	b, _ := readName(nil, reply, headerBytes)
	return string(a) == string(b) && string(reply[at:end]) == string(query[at:end])
}

// exchange sends a query from a port of its own, which the kernel chooses at
// random, and waits for the reply that belongs to it.
func (u *upstream) exchange(ctx context.Context, network string, server netip.AddrPort, query []byte) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer closeWith(ctx, c)()
	stream := network == "tcp"
	if stream {
		query = append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(query)), uint16(len(query))), query...)
	}
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	if stream {
		query = query[2:]
	}
	buf := make([]byte, maxQuery)
	for doubt := 0; doubt < maxDoubt; doubt++ {
		reply, err := readReply(c, stream, buf)
		if err != nil {
			return nil, err
		}
		if !belongs(query, reply, stream) {
			u.forged.Add(1)
			continue
		}
		if !stream && reply[2]&(flagTC>>8) != 0 {
			return nil, errTruncated
		}
		m := new(dns.Msg)
		if err := m.Unpack(reply); err != nil || !m.Response || len(m.Question) != 1 {
			u.forged.Add(1)
			continue
		}
		return m, nil
	}
	return nil, errDoubt
}

func readReply(c net.Conn, stream bool, buf []byte) ([]byte, error) {
	if !stream {
		n, err := c.Read(buf)
		return buf[:n], err
	}
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return nil, err
	}
	reply := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(c, reply)
	return reply, err
}

// chainOf keeps of an answer what belongs to the name that was asked for, over
// aliases in the order in which they lead to each other: nothing else is for
// this server to say.
func chainOf(name string, answer []dns.RR) (out []dns.RR) {
	for range maxChain {
		next := ""
		for _, rr := range answer {
			if !strings.EqualFold(rr.Header().Name, name) || rr.Header().Class != classIN {
				continue
			}
			out = append(out, rr)
			if c, is := rr.(*dns.CNAME); is {
				next = c.Target
			}
		}
		if next == "" {
			break
		}
		name = next
	}
	return out
}

// guard refuses answers that lead a name of the outside to an address of the
// inside, by which a page of a stranger would get there (DNS rebinding).
func (u *upstream) guard(name string, m *dns.Msg) error {
	if wire, ok := appendName(nil, name); ok {
		for _, zone := range u.private {
			if below(wire, zone) {
				return nil
			}
		}
	}
	for _, rr := range m.Answer {
		var a netip.Addr
		switch rr := rr.(type) {
		case *dns.A:
			a, _ = netip.AddrFromSlice(rr.A)
		case *dns.AAAA:
			a, _ = netip.AddrFromSlice(rr.AAAA)
		case *dns.SVCB:
			return u.guardHints(rr)
		case *dns.HTTPS:
			return u.guardHints(&rr.SVCB)
		default:
			continue
		}
		if !public(a) {
			return fmt.Errorf("%s: %v: %w", name, a, errPrivate)
		}
	}
	return nil
}

func (u *upstream) guardHints(rr *dns.SVCB) error {
	for _, v := range rr.Value {
		var ips []net.IP
		switch v := v.(type) {
		case *dns.SVCBIPv4Hint:
			ips = v.Hint
		case *dns.SVCBIPv6Hint:
			ips = v.Hint
		}
		for _, ip := range ips {
			if a, _ := netip.AddrFromSlice(ip); !public(a) {
				return fmt.Errorf("%v: %w", a, errPrivate)
			}
		}
	}
	return nil
}

// notPublic are networks that netip does not know to be special.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("fec0::/10"),
}

// embedding are networks whose addresses hold an IPv4 address, and where.
var embedding = []struct {
	net netip.Prefix
	at  int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12}, {netip.MustParsePrefix("64:ff9b:1::/48"), 12},
	{netip.MustParsePrefix("::/96"), 12}, {netip.MustParsePrefix("2002::/16"), 2},
}

// public reports whether an address is one of the internet at large.
func public(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsValid() || !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() {
		return false
	}
	for _, p := range notPublic {
		if p.Contains(a) {
			return false
		}
	}
	for _, e := range embedding {
		if e.net.Contains(a) {
			b := a.As16()
			return public(netip.AddrFrom4([4]byte(b[e.at : e.at+4])))
		}
	}
	return true
}
