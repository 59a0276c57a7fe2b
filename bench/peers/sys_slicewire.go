package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A guard is what the slices of a run have to do with each packet, beside
// routing and the source check.
type guard int

const (
	guardUsual guard = iota // the isolation of namespaces and a QoS profile, as KubeSlice's samples have them
	guardNone               // neither: no policy, no rates
	guardRules              // guardUsual and a SlicePolicy of 100 rules
)

// slicewireForward starts slicewire with a number of slices. A local port of
// site a leads to each probe's server, published by site b on the first slice.
func slicewireForward(slices int) func(context.Context, *lab, toolbox) (*joined, error) {
	return func(ctx context.Context, l *lab, tools toolbox) (*joined, error) {
		daemons, err := startSlicewire(ctx, l, tools.find("slicewire"), slices, guardUsual)
		if err != nil {
			return nil, err
		}
		return &joined{client: "a", server: "b", daemons: daemons, iperf: "127.0.0.1:" + portIperf, echo: "127.0.0.1:" + portEcho}, nil
	}
}

// slicewireSocks is the same pair of daemons, used through the SOCKS5 proxy.
func slicewireSocks(ctx context.Context, l *lab, tools toolbox) (*joined, error) {
	daemons, err := startSlicewire(ctx, l, tools.find("slicewire"), 1, guardUsual)
	if err != nil {
		return nil, err
	}
	return &joined{
		client: "a", server: "b", daemons: daemons, proxy: "127.0.0.1:1080",
		web: "http://web.bench.svc.slice.local:" + portWeb, echo: "echo.bench.svc.slice.local:" + portEcho,
	}, nil
}

// slicewireTUN is the same pair of daemons with a kernel TUN on each site, as
// the other tunnels have one.
func slicewireTUN(slices int, guard guard) func(context.Context, *lab, toolbox) (*joined, error) {
	return func(ctx context.Context, l *lab, tools toolbox) (*joined, error) {
		program := tools.find("slicewire")
		daemons, err := startSlicewire(ctx, l, program, slices, guard)
		if err != nil {
			return nil, err
		}
		var server string
		for _, site := range []string{"a", "b"} {
			if server, err = slicewireAttach(ctx, l, program, site, 1, site); err != nil {
				return nil, err
			}
		}
		return direct("a", "b", server, daemons...), nil
	}
}

// slicewireAttach puts a namespace on a slice of a site and returns its address.
func slicewireAttach(ctx context.Context, l *lab, program, site string, slice int, space string) (string, error) {
	said, err := output(exec.CommandContext(ctx, program, "attach", "--socket", l.path(site+".sock"),
		"--slice", fmt.Sprintf("slice-%d", slice), "--netns", l.netns(space), "--name", "sw0"))
	if err != nil {
		return "", err
	}
	return attachedAddress(string(said))
}

// attachedAddress reads the IPv4 address that `slicewire attach` tells.
func attachedAddress(said string) (string, error) {
	_, after, _ := strings.Cut(said, ": ")
	addr, _, ok := strings.Cut(after, ",")
	if !ok {
		return "", fmt.Errorf("no address in what slicewire attach said: %q", said)
	}
	return addr, nil
}

// slicewireRun is the same pair of daemons with a program of an ordinary user
// on each site, started by `slicewire run`: in its own namespaces, and where
// /dev/net/tun is root's, by an AF_PACKET socket.
func slicewireRun(ctx context.Context, l *lab, tools toolbox) (*joined, error) {
	program := tools.find("slicewire")
	daemons, err := startSlicewire(ctx, l, program, 1, guardUsual)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(l.dir, 0o711); err != nil {
		return nil, err
	}
	var server string
	for _, site := range []string{"a", "b"} {
		socket := l.path(site + ".sock")
		if err := os.Chown(socket, 0, nobody); err != nil {
			return nil, err
		}
		r, err := l.start(site, "run-"+site, "setpriv", "--reuid", fmt.Sprint(nobody), "--regid", fmt.Sprint(nobody), "--clear-groups",
			program, "run", "--socket", socket, "--slice", "slice-1", "--", "sh", "-c", "ip -4 -o addr show dev sw0; echo "+runTold+"; exec sleep 3600")
		if err != nil {
			return nil, err
		}
		if server, err = runAddress(ctx, l, r); err != nil {
			return nil, err
		}
		if err := l.adopt("run-"+site, r.pid()); err != nil {
			return nil, err
		}
	}
	return direct("run-a", "run-b", server, daemons...), nil
}

// nobody is the uid and gid of an ordinary user.
const nobody = 65534

// runTold is what the program of a run says when it has told its address and
// the process that told it has ended: then its youngest descendant is the one
// that stays.
const runTold = "that is all"

// runAddress waits until the program of a run has told its address.
func runAddress(ctx context.Context, l *lab, r *daemon) (addr string, err error) {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	err = poll(ctx, 20*time.Millisecond, func() (bool, error) {
		said, err := os.ReadFile(r.logFile)
		if err != nil {
			return false, err
		}
		// 2: sw0    inet 10.101.0.9/32 scope global sw0 ...
		if f := strings.Fields(string(said)); strings.Contains(string(said), runTold) && len(f) > 3 && f[2] == "inet" {
			addr, _, _ = strings.Cut(f[3], "/")
			return true, nil
		}
		return false, l.anyEnded()
	})
	return addr, err
}

// slicewireServices are the probes' servers, which site b publishes.
var slicewireServices = []struct{ name, port string }{{"iperf", portIperf}, {"echo", portEcho}, {"web", portWeb}}

// startSlicewire makes the two sites and starts slicewire on both.
func startSlicewire(ctx context.Context, l *lab, program string, slices int, guard guard) ([]*daemon, error) {
	if err := l.sites(); err != nil {
		return nil, err
	}
	return joinSlicewire(ctx, l, program, slices, guard)
}

// joinSlicewire makes an authority, certifies a node for each of the sites that
// are there as an operator would, and starts both daemons.
func joinSlicewire(ctx context.Context, l *lab, program string, slices int, guard guard) ([]*daemon, error) {
	manifests := l.path("manifests")
	if err := os.Mkdir(manifests, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(manifests, "bench.yaml"), []byte(slicewireManifests(slices, guard)), 0o600); err != nil {
		return nil, err
	}
	authority := l.path("ca")
	if err := run(program, "ca", "init", "--dir", authority, "--mesh", "bench"); err != nil {
		return nil, err
	}
	var daemons []*daemon
	for _, site := range []string{"b", "a"} {
		state := l.path("state-" + site)
		request, err := output(exec.CommandContext(ctx, program, "cert", "request", "--state", state))
		if err != nil {
			return nil, err
		}
		csr, err := l.write(site+".csr", string(request))
		if err != nil {
			return nil, err
		}
		signed, err := output(exec.CommandContext(ctx, program, "ca", "sign", "--dir", authority, "--manifests", manifests, "--site", "site-"+site, "--node", "gw", csr))
		if err != nil {
			return nil, err
		}
		bundle, err := l.write(site+".bundle", string(signed))
		if err != nil {
			return nil, err
		}
		if err := run(program, "cert", "install", "--state", state, bundle); err != nil {
			return nil, err
		}
		config, err := l.write("node-"+site+".yaml", slicewireNode(l, site, state))
		if err != nil {
			return nil, err
		}
		d, err := l.start(site, "slicewire-"+site, program, "daemon", "--config", config)
		if err != nil {
			return nil, err
		}
		daemons = append(daemons, d)
	}
	return daemons, slicewireJoined(ctx, l, program, slices)
}

// slicewireJoined waits until every slice of site a has shaken hands with its
// peer: the slices that carry nothing are joined as well.
func slicewireJoined(ctx context.Context, l *lab, program string, slices int) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	return poll(ctx, 50*time.Millisecond, func() (bool, error) {
		table, err := output(exec.CommandContext(ctx, program, "status", "--socket", l.path("a.sock")))
		if err != nil {
			return false, l.anyEnded() // the socket is not there yet
		}
		return strings.Count(string(table), " 1/1 ") == slices, l.anyEnded()
	})
}

func slicewireManifests(slices int, guard guard) string {
	var b strings.Builder
	for i := 1; i <= slices; i++ {
		namespace := "bench" // of the services; a namespace is on one slice
		if i > 1 {
			namespace = fmt.Sprintf("idle-%d", i)
		}
		fmt.Fprintf(&b, `---
apiVersion: controller.kubeslice.io/v1alpha1
kind: SliceConfig
metadata: {name: slice-%d}
spec:
  sliceSubnet: 10.%d.0.0/16
  sliceType: Application
  sliceGatewayProvider: {sliceGatewayType: Wireguard, sliceCaType: Local}
  sliceIpamType: Local
  clusters: [site-a, site-b]
  namespaceIsolationProfile: {isolationEnabled: %v, applicationNamespaces: [{namespace: %s, clusters: ['*']}]}
`, i, 100+i, guard != guardNone, namespace)
		rates := "bandwidthCeilingKbps: 10000000, bandwidthGuaranteedKbps: 1000000"
		if guard == guardNone {
			rates = "bandwidthCeilingKbps: 0, bandwidthGuaranteedKbps: 0" // no limit, and nothing to shape
		}
		fmt.Fprintf(&b, "  qosProfileDetails: {queueType: HTB, priority: 0, tcType: BANDWIDTH_CONTROL, %s, dscpClass: Default}\n", rates)
		if guard == guardRules {
			b.WriteString(hundredRules(fmt.Sprintf("slice-%d", i)))
		}
	}
	for _, s := range slicewireServices {
		fmt.Fprintf(&b, `---
apiVersion: networking.kubeslice.io/v1beta1
kind: ServiceExport
metadata: {name: %s, namespace: bench}
spec:
  slice: slice-1
  selector: {matchLabels: {app: %s}}
  ports: [{name: tcp, containerPort: %s, protocol: TCP}]
`, s.name, s.name, s.port)
	}
	return b.String()
}

func slicewireNode(l *lab, site, state string) string {
	var b strings.Builder
	addr, other := underlayA, underlayB
	if site == "b" {
		addr, other = other, addr
	}
	fmt.Fprintf(&b, "version: 1\nmesh: bench\nsite: site-%s\nnode: gw\nlisten: %s:51820\ngossip: {listen: \"%s:7946\", join: [\"%s:7946\"]}\nmanifests: [manifests]\nstate: %s\nsocket: %s\n",
		site, addr, addr, other, state, l.path(site+".sock"))
	if site == "a" {
		b.WriteString("slices:\n  slice-1: {proxy: \"127.0.0.1:1080\"}\nforward:\n")
		for _, s := range slicewireServices {
			fmt.Fprintf(&b, "- {slice: slice-1, listen: \"127.0.0.1:%s\", to: \"%s.bench.svc.slice.local:%s\"}\n", s.port, s.name, s.port)
		}
		return b.String()
	}
	b.WriteString("publish:\n")
	for _, s := range slicewireServices {
		fmt.Fprintf(&b, "- {slice: slice-1, namespace: bench, service: %s, backend: %s-0, target: \"127.0.0.1:%s\"}\n", s.name, s.name, s.port)
	}
	return b.String()
}

// hundredRules is a policy that selects everybody and has 99 rules for ports that
// nobody uses before the one that allows all.
func hundredRules(slice string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `---
apiVersion: slicewire.io/v1alpha1
kind: SlicePolicy
metadata: {name: many, namespace: bench}
spec:
  slice: %s
  appliesTo: [{}]
  ingress:
`, slice)
	for i := range 99 {
		fmt.Fprintf(&b, "  - {from: [{ipBlock: {cidr: 10.%d.0.0/16}}], ports: [{port: %d}]}\n", 100+i, 20000+i)
	}
	b.WriteString("  - {from: [{}], ports: [{protocol: TCP, port: 1, endPort: 65535}, {protocol: UDP, port: 1, endPort: 65535}, {protocol: ICMP}]}\n")
	return b.String()
}
