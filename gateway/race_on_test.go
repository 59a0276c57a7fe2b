//go:build race

package gateway

// raceEnabled: the detector makes sync.Pool forget at random, so it allocates.
const raceEnabled = true
