// Package activate opens ports of this host whose sockets are handed over when
// they are first called, as inetd does. A gateway has a port for every service
// that its cluster imports, most of which nobody calls at a time: one of net's
// sockets with the goroutine that waits at it takes 4 KB, a port here little more
// than its descriptor. From its first call on a port is as any other.
package activate
