package socks

import "errors"

// maxUDPHeader is the longest header that we put before a reply: an IPv6
// address.
const maxUDPHeader = 3 + 1 + 16 + 2

var errFragment = errors.New("fragments are not supported")

// parseDatagram splits a client's datagram (RFC 1928 section 7) into where it
// goes and what. The payload is part of b.
func parseDatagram(b []byte) (t target, payload []byte, err error) {
	if len(b) < 4 {
		return t, nil, errMalformed
	}
	if b[0] != 0 || b[1] != 0 {
		return t, nil, errMalformed
	}
	if b[2] != 0 {
		return t, nil, errFragment
	}
	t, n, err := parseTarget(b[3:])
	if errors.Is(err, errShort) || err == nil && t.port == 0 {
		return t, nil, errMalformed
	}
	if err != nil {
		return t, nil, err
	}
	return t, b[3+n:], nil
}
