package main

import (
	"errors"
	"net"
	"os"
	"strings"
)

// listenStream opens "host:port" or "unix:/path". A unix socket left behind by
// a process that is gone is replaced; it is open to this user only.
func listenStream(addr string) (net.Listener, error) {
	path, unix := strings.CutPrefix(addr, "unix:")
	if !unix {
		return net.Listen("tcp", addr)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// listenBoth opens the same address for UDP and TCP.
func listenBoth(addr string) (net.PacketConn, net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	p, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		return nil, nil, errors.Join(err, l.Close())
	}
	return p, l, nil
}
