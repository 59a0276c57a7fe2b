// Package lab is a network in memory with everything that goes wrong on a real
// one, and whole meshes of nodes on it, in one process.
//
// A Network carries packets and streams between Hosts, as a Policy says: with
// loss, delay, jitter, duplication, reordering and corruption, cut one way or
// both. A Host can be stalled, as a machine is that does not get to run, and
// switched off. A Clock is a wall clock that can be set. What it does to the
// n-th packet from one host to another follows from the seed alone.
//
// All of it goes by the time of package time: in a bubble of testing/synctest an
// hour takes seconds, and outside of one it takes an hour.
//
// A Wire does the same to the IP packets of real processes, each in a network
// namespace of its own with a TUN that the Wire serves, in real time.
//
// A Mesh is nodes with certificates of a real authority whose gossip runs over
// such a network: what is under test is the code that runs in production, down
// to the socket.
//
// Every exported method may be called concurrently, unless it says otherwise.
package lab
