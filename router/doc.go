// Package router decides where each packet of a slice goes: from the port it
// came in by, past a strict structural check and a source check, along the
// longest matching prefix, out of another port.
//
// The stages of a packet, in order, each with its drop reason:
//
//  1. check: lengths, checksums of the header, fragments, extension headers,
//     addresses that nobody may use (check.go)
//  2. source: the source address belongs to the port it came from
//  3. flow: one that this policy has allowed passes, both ways (flowtable.go)
//  4. policy: asked about the first packet of a flow, for those of its ends that
//     are on this node (policy.go, police.go)
//  5. route: longest prefix, never back out of the port it came from, but for
//     transit from one site to another; each reader remembers what 2 and 5
//     said of its latest pairs of addresses (flows.go)
//  6. deliver (to the node itself) or forward (TTL, MSS clamp)
//  7. size: not longer than the slice's MTU
//  8. group by way out and write, one batch for each, in order
//
// The way out is looked up before 3, as only it tells whether the destination is
// here; that there is none is said after 4.
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
