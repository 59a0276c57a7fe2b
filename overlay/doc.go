// Package overlay is the vocabulary of slicewire and every decision that is a
// pure function of its input: which address belongs to which site, what a
// certificate allows a node to say, which record is newer, which peers, routes
// and names a node needs.
//
// It performs no I/O, reads no clock and starts no goroutine; where time
// matters it is an argument. Values are plain data: a value handed to another
// goroutine is not changed afterwards. It imports the standard library only.
package overlay
