// Package shaper decides when a packet may go: it stands between a slice's
// router and its tunnel. What may go is divided as HTB does, between a node's
// slices (Uplink) and a slice's classes (Plan): guarantees first, then the rest by
// priority and guarantee, never above a ceiling. Inside a class are the flow
// queues of RFC 8290: every flow has a queue of its own, queues take turns by
// bytes, one that was empty goes first, and CoDel (RFC 8289) drops from, or
// marks in, a queue in which packets have waited too long for too long. What
// waits is bounded in memory; when that is full, the longest queue pays.
//
// A packet that stands for several (overlay.Meta) is queued whole and cut when
// it leaves, straight into the reader's buffers; where the rate is low, it is cut
// when it comes.
//
// What decides is pure (bucket, level, tree, flows, codel): time is an argument,
// the lock is the caller's.
//
// It never waits for the tunnel, never reorders a flow and never looks into
// payload. All methods may be called concurrently, but Read by one goroutine at
// a time. Callers keep their buffers: Write copies in, Read copies out.
package shaper
