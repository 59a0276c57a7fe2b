//go:build race

package netstack

// raceEnabled: the detector makes sync.Pool forget at random, so it allocates.
const raceEnabled = true
