//go:build !race

package dnsd

const raceEnabled = false
