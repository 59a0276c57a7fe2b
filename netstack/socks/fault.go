package socks

import (
	"context"
	"errors"
	"net"
	"syscall"
)

// What a Dialer or Resolver may report, besides the system's error numbers
// (ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, EADDRNOTAVAIL, ETIMEDOUT, EACCES,
// EPERM) and errors whose Timeout is true.
var (
	// ErrNoName says that a name has no address on the slice.
	ErrNoName = errors.New("no such name on the slice")
	// ErrNotAllowed says that policy forbids the destination.
	ErrNotAllowed = errors.New("destination is not allowed")
)

// A fault is why a client does not get what it asked for, in the words of
// RFC 1928 section 6, HTTP and RFC 9209.
type fault struct {
	name        string // in Stats
	code        byte
	status      int
	proxyStatus string
	text        string
	rank        int // of several failed attempts the client hears of the highest
}

var (
	faultGeneral  = fault{"general", 1, 502, "proxy_internal_error", "the proxy could not connect", 0}
	faultDenied   = fault{"not-allowed", 2, 403, "destination_ip_prohibited", "the destination is not allowed", 3}
	faultNetwork  = fault{"network-unreachable", 3, 502, "destination_ip_unroutable", "the slice has no route to the destination", 1}
	faultHost     = fault{"host-unreachable", 4, 502, "destination_unavailable", "the destination is unreachable", 2}
	faultName     = fault{"no-name", 4, 502, "dns_error", "the slice has no such name", 2}
	faultTimeout  = fault{"timeout", 4, 504, "connection_timeout", "the destination does not answer", 2}
	faultRefused  = fault{"refused", 5, 502, "connection_refused", "the destination refused the connection", 4}
	faultCommand  = fault{"command", 7, 0, "", "", 0}
	faultAddrType = fault{"address-type", 8, 0, "", "", 0}
)

func classify(err error) fault {
	var timeout net.Error
	switch {
	case errors.Is(err, ErrNoName):
		return faultName
	case errors.Is(err, ErrNotAllowed), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return faultDenied
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return faultRefused
	case errors.Is(err, syscall.EHOSTUNREACH):
		return faultHost
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL): // or no address of that family
		return faultNetwork
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT), errors.As(err, &timeout) && timeout.Timeout():
		return faultTimeout
	}
	return faultGeneral
}
