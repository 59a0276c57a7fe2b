//go:build race

package dnsd

// raceEnabled: the detector makes every answer take many times as long.
const raceEnabled = true
