package socks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// The numbers of RFC 1928.
const (
	version5 = 5

	methodNone         = 0
	methodNoAcceptable = 0xff

	cmdConnect      = 1
	cmdUDPAssociate = 3

	addrIPv4 = 1
	addrName = 3
	addrIPv6 = 4
)

// What parsing can come to besides a request. errShort asks for more bytes.
var (
	errShort       = errors.New("message is not complete")
	errMalformed   = errors.New("malformed message")
	errAddressType = errors.New("unknown address type")
)

// A target is where a client wants to go: a name, or else an address.
type target struct {
	name string
	addr netip.Addr
	port uint16
}

func (t target) String() string {
	if t.name != "" {
		return fmt.Sprintf("%s:%d", t.name, t.port)
	}
	return netip.AddrPortFrom(t.addr, t.port).String()
}

// A request is what a SOCKS5 client asks for. The command may be one that we do
// not know.
type request struct {
	cmd byte
	target
}

// parseGreeting reads the client's first message and reports whether it can do
// without authentication. n is the message's length.
func parseGreeting(b []byte) (noAuth bool, n int, err error) {
	if len(b) < 2 {
		return false, 0, errShort
	}
	if b[0] != version5 {
		return false, 0, errMalformed
	}
	if n = 2 + int(b[1]); len(b) < n {
		return false, 0, errShort
	}
	for _, m := range b[2:n] {
		noAuth = noAuth || m == methodNone
	}
	return noAuth, n, nil
}

// parseRequest reads the client's second message.
func parseRequest(b []byte) (r request, n int, err error) {
	if len(b) < 3 {
		return r, 0, errShort
	}
	if b[0] != version5 || b[2] != 0 {
		return r, 0, errMalformed
	}
	t, n, err := parseTarget(b[3:])
	return request{b[1], t}, 3 + n, err
}

// parseTarget reads ATYP, address and port.
func parseTarget(b []byte) (t target, n int, err error) {
	if len(b) < 2 {
		return t, 0, errShort
	}
	start, end := 1, 0
	switch b[0] {
	case addrIPv4:
		end = start + 4
	case addrIPv6:
		end = start + 16
	case addrName:
		start++
		end = start + int(b[1])
	default:
		return t, 0, errAddressType
	}
	if len(b) < end+2 {
		return t, 0, errShort
	}
	t, err = makeTarget(b[0] == addrName, b[start:end], binary.BigEndian.Uint16(b[end:]))
	return t, end + 2, err
}

func makeTarget(isName bool, host []byte, port uint16) (target, error) {
	if !isName {
		a, _ := netip.AddrFromSlice(host)
		return target{addr: a.Unmap(), port: port}, nil
	}
	return parseHost(string(host), port)
}

// parseHost takes a name or an address in text form: curl and others send
// addresses as names. It refuses what no host is called, so that nothing odd
// gets to resolvers and logs.
func parseHost(host string, port uint16) (target, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" {
			return target{}, errMalformed
		}
		return target{addr: a.Unmap(), port: port}, nil
	}
	if host == "" || len(host) > 255 {
		return target{}, errMalformed
	}
	for _, c := range []byte(host) {
		if c <= ' ' || c > '~' {
			return target{}, errMalformed
		}
	}
	return target{name: host, port: port}, nil
}

// appendReply appends the server's reply: a code and the address that the
// proxy uses for the client, or the unspecified one.
func appendReply(b []byte, code byte, bound netip.AddrPort) []byte {
	return appendAddr(append(b, version5, code, 0), bound)
}

// appendAddr appends ATYP, address and port.
func appendAddr(b []byte, a netip.AddrPort) []byte {
	ip := a.Addr().Unmap()
	switch {
	case ip.Is6():
		v := ip.As16()
		b = append(append(b, addrIPv6), v[:]...)
	case ip.Is4():
		v := ip.As4()
		b = append(append(b, addrIPv4), v[:]...)
	default:
		b = append(b, addrIPv4, 0, 0, 0, 0)
	}
	return binary.BigEndian.AppendUint16(b, a.Port())
}
