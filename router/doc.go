// Package router decides where each packet of a slice goes: from the port it
// came in by, past a strict structural check and a source check, along the
// longest matching prefix, out of another port.
//
// The stages of a packet, in order, each with its drop reason:
//
//  1. check: lengths, checksums of the header, fragments, extension headers,
//     addresses that nobody may use (check.go)
//  2. source: the source address belongs to the port it came from
//  3. route: longest prefix, never back out of the port it came from, but for
//     transit from one site to another; each reader remembers what 2 and 3
//     said of its latest flows (flows.go)
//  4. deliver (to the node itself) or forward (TTL, MSS clamp)
//  5. size: not longer than the slice's MTU
//  6. group by way out and write, one batch for each, in order
//
// What is dropped at 3, 4 or 5 goes to the slow path (slow.go), as a copy and if
// there is room: it answers with an ICMP error, or cuts what may be cut.
//
// A Router serves one slice; two slices with the same addresses are two
// Routers, which share nothing. It never waits for a way out: a full one drops
// and counts. It makes no packets of its own but ICMP errors, reassembles nothing and
// knows neither tunnels nor sockets.
//
// All methods may be called concurrently. Buffers of a batch belong to whoever
// reads it; the router changes them in place (TTL, MSS) and keeps none after a
// Write returns. State is swapped as a whole, so that a batch sees either the
// old one or the new one.
package router
