// Package netstack makes a node a host of its own on a slice: addresses, TCP,
// UDP and ping inside the slice, in userspace, on gVisor's network stack. It is
// where published services listen and where proxies dial.
//
// A Stack is one slice's; its Link is the node's port on the slice's router. It
// never forwards a packet between networks and never opens a socket of the
// kernel. Packets reach it through the router's strict check; it verifies what
// it relies on once more, since one panic would be every slice's.
//
// The life of a packet inward: verify lengths and checksums, join segments of
// one flow into one (package segment), copy into the stack's memory. Outward: the
// stack hands over segments of up to 64 KiB, which Link.Read copies as they are
// (flatten.go); they are cut to the MTU where they leave the node.
//
// All methods may be called concurrently. Link.Write copies and keeps no
// buffer; Link.Read copies into the caller's. Connections are the caller's to
// close; Close ends those that are left.
package netstack
