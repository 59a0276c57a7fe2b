package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A system is one way to join two sites, or to get out of a namespace without
// root. To add one, write its start function and list it in systems.
type system struct {
	name    string
	about   string   // one line for the table's legend
	needs   []string // programs, looked up in the folders of the toolbox and then in PATH
	quick   bool     // part of the quick run
	brief   bool     // for orientation: fewer and shorter tests
	streams bool     // carries TCP only, no packets

	// start makes the namespaces and starts the daemons in l. It need not wait
	// until they are ready: the first answer of the echo service says that.
	start func(ctx context.Context, l *lab, tools toolbox) (*joined, error)
}

// ours reports whether the system is a mode of slicewire.
func (s system) ours() bool { return strings.HasPrefix(s.name, "slicewire") }

// joined says where the probes find each other through a started system.
// The server's programs listen on all addresses of the namespace server.
type joined struct {
	tag            string // of the lab, which its runner fills in
	client, server string // namespaces
	daemons        []*daemon

	iperf string // host:port of the iperf3 server as the client sees it; empty: bulk goes by curl
	web   string // URL of the web server as the client sees it, for curl
	echo  string // host:port of the echo service as the client sees it
	proxy string // host:port of a SOCKS5 proxy that curl and the echo client go through, or empty

	ping string // address to ping, or empty where ICMP is not carried
	udp  string // address to send datagrams to, or empty where only streams are carried
}

// inClient returns a command that runs where the client is.
func (j *joined) inClient(ctx context.Context, name string, args ...string) *exec.Cmd {
	return inside(ctx, j.tag+j.client, name, args...)
}

// direct is joined for systems that carry packets: everything is at one address.
func direct(client, server, addr string, daemons ...*daemon) *joined {
	return &joined{
		client: client, server: server, daemons: daemons,
		iperf: addr + ":" + portIperf, echo: addr + ":" + portEcho, ping: addr, udp: addr,
	}
}

// Ports of the probes' servers, in namespaces where nothing else listens.
const (
	portIperf = "5201"
	portEcho  = "5202"
	portWeb   = "5203"
	portUDP   = "5204"
)

// systems are all systems, in the order of the table, which is the order of
// measuring as well: what is compared stands side by side. A mode of slicewire
// is listed when the daemon has it.
func systems() []system {
	return []system{
		{name: "raw", about: "the underlay itself: no VPN, one veth pair", brief: true, start: startRaw},
		{name: "openvpn", about: "OpenVPN, AES-256-GCM over UDP, kernel TUN, no DCO", needs: []string{"openvpn"}, brief: true, start: startOpenVPN},
		{name: "kubeslice-chain", about: "KubeSlice's shape: workload, router, OpenVPN gateway, gateway, router, workload in six namespaces", needs: []string{"openvpn"}, quick: true, brief: true, start: startChain},
		{name: "tailscale", about: "tailscaled 1.102.5, kernel TUN, with the control server of its own tests", needs: []string{"tailscaled", "tailscale", "testcontrol"}, brief: true, start: startTailscale},
		{name: "nebula", about: "nebula 1.11.0 (the newest that builds with Go 1.26; 1.12 needs Go 1.27 and is faster with its offloads switched on), AES-256-GCM, kernel TUN", needs: []string{"nebula", "nebula-cert"}, start: startNebula},
		{name: "wireguard-go", about: "wireguard-go, kernel TUN, MTU 1420", needs: []string{"wireguard"}, quick: true, start: startWireguard},
		{name: "slicewire-tun", about: "slicewire, kernel TUN (attach), routing, source check, policy and shaping on", needs: []string{"slicewire"}, quick: true, start: slicewireTUN(1, guardUsual)},
		{name: "slicewire-run", about: "slicewire, programs of uid 65534 started by `slicewire run`: own namespaces, AF_PACKET where /dev/net/tun is root's", needs: []string{"slicewire", "setpriv"}, quick: true, start: slicewireRun},
		{name: "slicewire-tun-open", about: "slicewire-tun without policy and without a QoS profile", needs: []string{"slicewire"}, brief: true, start: slicewireTUN(1, guardNone)},
		{name: "slicewire-tun-rules", about: "slicewire-tun with a policy of 100 rules more", needs: []string{"slicewire"}, brief: true, start: slicewireTUN(1, guardRules)},
		{name: "slicewire-tun-5", about: "slicewire-tun with five slices joined, traffic on the first", needs: []string{"slicewire"}, brief: true, start: slicewireTUN(5, guardUsual)},
		{name: "slicewire-forward-5", about: "slicewire-forward with five slices joined, traffic on the first", needs: []string{"slicewire"}, streams: true, brief: true, start: slicewireForward(5)},
		{name: "slicewire-forward", about: "slicewire, iperf3 through a local port (forward) to a published service; TCP only", needs: []string{"slicewire"}, streams: true, start: slicewireForward(1)},
		{name: "tailscale-user", about: "tailscaled 1.102.5, userspace networking, curl through its SOCKS5 server", needs: []string{"tailscaled", "tailscale", "testcontrol"}, streams: true, quick: true, start: startTailscaleUser},
		{name: "slicewire-socks", about: "slicewire, curl through its SOCKS5 proxy to a published web server", needs: []string{"slicewire"}, streams: true, quick: true, start: slicewireSocks},
		{name: "wireguard-netstack", about: "wireguard-go on the tun/netstack it ships, curl through a plain SOCKS5 proxy; the libraries' versions are slicewire's", needs: []string{"wireguard-netstack"}, streams: true, quick: true, start: startWireguardNetstack},
		{name: "slirp4netns", about: "slirp4netns, MTU 65520; no encryption, leaves the namespace on one machine", needs: []string{"slirp4netns"}, brief: true, start: startSlirp(65520)},
		{name: "slirp4netns-1500", about: "slirp4netns, MTU 1500; no encryption", needs: []string{"slirp4netns"}, brief: true, start: startSlirp(1500)},
		{name: "pasta", about: "pasta, its default MTU; no encryption, leaves the namespace on one machine", needs: []string{"pasta"}, brief: true, start: startPasta},
	}
}

// A toolbox finds the programs of the systems.
type toolbox struct {
	dirs []string // looked through before PATH
	self string   // this program, for the probes' processes
}

// newToolbox makes a toolbox of a list of folders.
func newToolbox(dirs string) (toolbox, error) {
	self, err := os.Executable()
	if err != nil {
		return toolbox{}, fmt.Errorf("find this program: %w", err)
	}
	t := toolbox{self: self}
	for _, dir := range filepath.SplitList(dirs) {
		dir, err := filepath.Abs(dir)
		if err != nil {
			return t, fmt.Errorf("folder of tools: %w", err)
		}
		t.dirs = append(t.dirs, dir)
	}
	return t, nil
}

// find returns the path of a program, or its name when it is nowhere.
func (t toolbox) find(name string) string {
	for _, dir := range t.dirs {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return name
}

// missing returns the programs of s that are nowhere.
func (t toolbox) missing(s system) []string {
	var none []string
	for _, n := range s.needs {
		if t.find(n) == n {
			none = append(none, n)
		}
	}
	return none
}

func startRaw(_ context.Context, l *lab, _ toolbox) (*joined, error) {
	if err := l.sites(); err != nil {
		return nil, err
	}
	return direct("a", "b", underlayB), nil
}
