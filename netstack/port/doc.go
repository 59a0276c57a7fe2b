// Package port opens the devices through which the programs of a host use a
// slice, each as a Link of the router: a kernel TUN, an AF_PACKET socket on one
// end of a veth pair where /dev/net/tun may not be opened, and, by way of
// water, a TAP or a TUN without offloads.
//
// With offloads a device hands over TCP and UDP packets of up to 64 KiB with
// unfinished checksums. Read cuts them to size, straight into the reader's
// buffers; what does not fit a batch comes with the next Read. Write joins
// consecutive segments of a batch again without copying their data. Headers
// that the device puts before a packet are believed only as far as the packet
// confirms them. What the kernel cannot do is found when the device is opened,
// or at the first refusal, and done without from then on.
//
// Devices are L3 for the slice. Those that are L2 for the kernel have no ARP:
// with NOARP every frame of the workload carries the address of its own
// interface, which is no neighbour's, and frames to it carry the same. So
// nothing has to be resolved or answered, and the kernel behind the far end of
// a veth pair, for whom no frame is, ignores them all.
//
// A device is opened and configured inside its network namespace by a locked
// thread that comes back or ends; netlink sockets are opened there, too. A TUN
// goes with its file descriptor; a veth pair that a killed process left is
// known by its alias and removed by Cleanup.
//
// The package never looks at addresses, never routes, and never waits in Write.
// Read is for one goroutine at a time, Write and Close for any. Buffers are the
// caller's and unchanged by Write.
package port
