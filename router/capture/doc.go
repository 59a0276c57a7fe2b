// Package capture shows what crosses a slice: it picks packets by point, slice
// and filter and writes them as pcapng, which Wireshark and tshark read, with
// the reason of a drop as the packet's comment.
//
// Captures hang on the packet path as overlay.Taps. A Session copies what it
// wants into a bounded queue and never waits: what does not fit is counted, and
// the count is written into the file. It reads no files and opens nothing.
//
// Tap methods may be called concurrently; Run is called once. Filters are
// immutable.
package capture
