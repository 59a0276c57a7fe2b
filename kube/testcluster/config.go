package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// Bounds of a rig: its address plan has room for no more.
const (
	maxClusters = 9
	maxNodes    = 99
)

// A config is what a rig is to be. It is handed from process to process as a
// file.
type config struct {
	Name     string // of this rig on this machine: its cgroups and its host link
	Dir      string // kubeconfigs and logs
	Bin      string // programs
	Clusters int    // named c1, c2 ...
	Nodes    int    // each, named c1-n1, c1-n2 ...
	HostLink netip.Prefix

	DualStack bool // nodes, pods and services have IPv6 addresses as well
}

func (c *config) validate(dir string) error {
	switch {
	case os.Geteuid() != 0:
		return errors.New("namespaces, bridges and cgroups need root")
	case dir == "":
		return errors.New("--dir is needed: where kubeconfigs and logs go")
	case c.Clusters < 1 || c.Clusters > maxClusters:
		return fmt.Errorf("--clusters %d: want 1 to %d", c.Clusters, maxClusters)
	case c.Nodes < 0 || c.Nodes > maxNodes:
		return fmt.Errorf("--nodes %d: want 0 to %d", c.Nodes, maxNodes)
	}
	if _, err := os.Stat(c.Dir); err != nil {
		return err
	}
	if c.Nodes > 0 {
		return haveNodePrograms()
	}
	return nil
}

// state is where the rig mounts its tmpfs.
func (c *config) state() string { return filepath.Join(c.Dir, "state") }

// imageDir is where image archives are looked for.
func (c *config) imageDir() string { return filepath.Join(c.Dir, "images") }

func (c *config) log(name string) string { return filepath.Join(c.Dir, "logs", name+".log") }

// hostSide and rigSide are the addresses at the two ends of the host link.
func (c *config) hostSide() netip.Addr { return c.HostLink.Addr().Next() }
func (c *config) rigSide() netip.Addr  { return c.HostLink.Addr().Next().Next() }

// The address plan of cluster i, from 1.
func clusterName(i int) string      { return fmt.Sprintf("c%d", i) }
func controlAddr(i int) netip.Addr  { return netip.AddrFrom4([4]byte{10, 10, byte(i), 1}) }
func apiPort(i int) int             { return 6442 + i }
func serviceRange(i int) string     { return fmt.Sprintf("10.%d.0.0/16", 95+i) }
func firstService(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(95 + i), 0, 1}) }
func dnsService(i int) netip.Addr   { return netip.AddrFrom4([4]byte{10, byte(95 + i), 0, 10}) }
func podRange(i int) string         { return fmt.Sprintf("10.%d.0.0/16", 239+i) }
func nodeName(i, n int) string      { return fmt.Sprintf("c%d-n%d", i, n) }
func nodeAddr(i, n int) netip.Addr  { return netip.AddrFrom4([4]byte{10, 10, byte(i), byte(10 + n)}) }
func nodePods(i, n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(239 + i), byte(n - 1), 0}), 24)
}

// The IPv6 part of the plan, where there is one: Kubernetes takes lists of IPv4 and
// IPv6 in one text.
func (c *config) serviceRanges(i int) string {
	return c.both(serviceRange(i), fmt.Sprintf("fd96:%x::/112", i))
}
func (c *config) podRanges(i int) string { return c.both(podRange(i), fmt.Sprintf("fd24:%x::/32", i)) }
func nodeAddr6(i, n int) netip.Addr      { return numbered(0xfd10, 0, 0, 0, 0, 0, i, 10+n) }
func nodePods6(i, n int) netip.Prefix {
	return netip.PrefixFrom(numbered(0xfd24, i, n, 0, 0, 0, 0, 0), 64)
}

func (c *config) both(v4, v6 string) string {
	if c.DualStack {
		return v4 + "," + v6
	}
	return v4
}

func numbered(groups ...int) netip.Addr {
	var b [16]byte
	for i, g := range groups {
		binary.BigEndian.PutUint16(b[2*i:], uint16(g))
	}
	return netip.AddrFrom16(b)
}

// fabricRange holds every control plane and node.
var fabricRange = netip.MustParsePrefix("10.10.0.1/16")

// fabricRange6 holds every node of dual-stack clusters.
var fabricRange6 = netip.MustParsePrefix("fd10::1/64")

// registryAddr is where nodes pull images.
const registryAddr = "10.10.0.1:5000"

// A ready is what "up" prints once everything is up.
type ready struct {
	Bin      string         `json:"bin"` // kubectl is there
	Clusters []readyCluster `json:"clusters"`
	Images   string         `json:"images"`  // a folder: archives (X.tar, in the OCI layout) that are put there can be pulled
	Seconds  float64        `json:"seconds"` // it took
	PID      int            `json:"pid"`     // of the rig's first process, as the caller sees it
}

type readyCluster struct {
	Name       string   `json:"name"`
	Kubeconfig string   `json:"kubeconfig"` // of an administrator, for the caller's network namespace
	API        string   `json:"api"`        // the API server's URL for nodes and pods of the rig
	CA         string   `json:"ca"`         // its authority's certificate, PEM
	Nodes      []string `json:"nodes"`
}

func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}
