//go:build race

package gossip

// raced says that everything takes ten times as long.
const raced = true
