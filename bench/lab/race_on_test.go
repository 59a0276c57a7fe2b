//go:build race

package lab

// raced: the race detector makes all of it ten times slower, and gives up itself
// in bubbles in which too much happens. The stories are shorter then.
const raced = true
