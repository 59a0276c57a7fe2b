// Package segment joins consecutive TCP segments and datagrams of a batch,
// verifies what it joins, and cuts such a joined packet again: the arithmetic
// that the ports of a node share.
//
// It is pure: no I/O, no clock, no goroutine, nothing but the standard library.
// It never changes a packet it is given and keeps none beyond the batch. Its
// functions may be called concurrently, its types by one goroutine at a time.
package segment
