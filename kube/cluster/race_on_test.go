//go:build race

package cluster

// raced says that the race detector is on.
const raced = true
