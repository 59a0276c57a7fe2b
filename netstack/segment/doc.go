// Package segment joins consecutive TCP segments of a batch, and verifies what
// it joins: the arithmetic that the ports of a node share.
//
// It is pure: no I/O, no clock, no goroutine, nothing but the standard library.
// It never changes a packet it is given and keeps none beyond the batch. Its
// functions may be called concurrently, its types by one goroutine at a time.
package segment
