// Package overlaytest makes IP packets for tests: well-formed ones, and ones
// that are nearly so, which is what finds faults in parsers.
//
// It is a fake network beside its seam: every byte comes from the arguments or
// from a seed, so that a failing test can be run again. It performs no I/O and
// imports the standard library only. Functions are safe for concurrent use; a
// Generator belongs to one goroutine. Returned slices belong to the caller.
package overlaytest
