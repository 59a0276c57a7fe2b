// Peers measures slicewire beside what users would pick instead, on one
// machine: two sites as network namespaces over a veth pair with MTU 1500, every
// test of one system right after the other, in several rounds, medians with
// minimum and maximum over the rounds. The first figure is the CPU time of the daemons of both
// sites for each 1e9 bytes of payload: unlike Mbit/s it does not depend on how
// the two sites share the cores.
//
// Every probe is independent of what it measures: iperf3, curl and ping as they
// are installed, and this program's own UDP sender and echo client as processes
// of their own. No system is told that it is measured.
//
// It never touches the machine's own network: the whole run happens in a PID,
// mount and network namespace of its own, which the kernel removes with
// everything in it when the run ends, however it ends. As an ordinary user it
// makes a user namespace first.
//
// Everything in this package is used by one goroutine at a time, unless a
// comment says otherwise. The figures of a run, once written, are not changed any more.
package main
