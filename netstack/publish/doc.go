// Package publish lets members of a slice reach services of this host without
// any privilege: what arrives at a backend's overlay address and port is
// carried to a host and port, or a unix socket, on the host's side.
//
// It never adds an address to the slice's stack, never listens on the host,
// never reads what it carries and never reaches a target that its
// configuration does not name. Targets see the host as the client; the member's
// address is passed on to those that read the PROXY protocol (Port.Proxied).
//
// A stack accepts a TCP connection before we can ask the target, so a target
// that is down shows as a connection that is reset at once and not as one that
// is refused. The reset needs Abort or SetLinger on the stack's connections;
// without them members see an end of stream.
//
// The Publisher's methods may be called concurrently. It owns what it gets from
// its Stack and closes it.
//
//	backend.go    what is published, and its check, pure
//	flows.go      which UDP flows live and which gives way, pure
//	publisher.go  Set, Run: which ports are open
//	tcp.go, udp.go  one port
package publish
