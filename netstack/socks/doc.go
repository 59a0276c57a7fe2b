// Package socks lets local programs reach a slice without any privilege: a
// SOCKS5 proxy (RFC 1928: CONNECT and UDP ASSOCIATE, no authentication) and an
// HTTP CONNECT proxy (RFC 9110 section 9.3.6) on one listener, told apart by
// the first byte.
//
// It never resolves a name outside the slice, never connects to anything but
// through its Dialer, never listens for connections into the slice (BIND), and
// never passes on to the slice's loopback, multicast or link-local addresses.
// Anybody who can reach the listener may use it: a listener on a TCP port
// serves every user of the host, one on a unix socket those who may open it.
//
// The Server's methods may be called concurrently. It owns the listener and
// every connection and socket it gets from Listener and Dialer, and closes them.
//
//	socks5.go, http.go, datagram.go  bytes -> request, pure
//	fault.go   what went wrong, in the words of each protocol
//	dial.go    names and addresses -> connection
//	conn.go    one client's connection
//	udp.go     one UDP association
//	server.go  configuration, limits, lifecycle
package socks
