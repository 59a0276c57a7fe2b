//go:build race

package main

// slack multiplies what tests of real daemons allow in time and loss: with the
// detector every process takes several times as long.
const slack = 5
