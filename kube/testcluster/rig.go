package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// upTime is how long a rig may take to come up.
const upTime = 3 * time.Minute

// fabricName is the bridge that joins nodes and control planes.
const fabricName = "fabric"

// A rig is the process that runs clusters.
type rig struct {
	config
	procs    *procs
	clusters []*cluster
	nodes    sync.Mutex // held while a node is joined
}

// runRig runs a rig in its namespaces until standard input ends. What is asked of
// it while it comes up waits. A starter that goes away meanwhile takes it along.
func runRig(conf string) error {
	r := &rig{procs: newProcs()}
	if err := readJSON(conf, &r.config); err != nil {
		return err
	}
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil {
		return nil // given up before it began
	}
	up := make(chan error, 1)
	go func() { up <- r.up() }()
	timeout := time.After(upTime)
	ended := make(chan error, 1)
	for {
		select {
		case err := <-up:
			if err != nil {
				return err
			}
			up, timeout = nil, nil
			if err := json.NewEncoder(os.Stdout).Encode(r.ready()); err != nil {
				return err
			}
			go func() { ended <- r.commands(in, os.Stdout) }() // ends with standard input
		case <-timeout:
			return fmt.Errorf("the clusters are not up after %v, see %s", upTime, filepath.Dir(r.log("x")))
		case err := <-r.procs.ended:
			return err
		case err := <-ended:
			return err
		}
	}
}

// up starts all clusters side by side.
func (r *rig) up() error {
	if err := unix.Mount("tmpfs", r.state(), "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", r.state(), err)
	}
	if err := r.fabric(); err != nil {
		return err
	}
	if err := r.images(); err != nil {
		return err
	}
	errs := make(chan error, r.Clusters)
	for i := 1; i <= r.Clusters; i++ {
		c := &cluster{rig: r, index: i, name: clusterName(i), running: make(map[string]*exec.Cmd), args: make(map[string][]string)}
		r.clusters = append(r.clusters, c)
		go func() { errs <- c.up() }()
	}
	var err error
	for range r.clusters {
		err = errors.Join(err, <-errs)
	}
	return err
}

// fabric makes the rig's network.
func (r *rig) fabric() error {
	if err := addressed(hostLinkName, netip.PrefixFrom(r.rigSide(), r.HostLink.Bits())); err != nil {
		return err
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name = fabricName
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add a bridge: %w", err)
	}
	if err := addressed(fabricName, fabricRange); err != nil {
		return err
	}
	for i := 1; i <= r.Clusters; i++ {
		if err := addressed(fabricName, netip.PrefixFrom(controlAddr(i), 32)); err != nil {
			return err
		}
	}
	if r.DualStack {
		if err := addressed(fabricName, fabricRange6); err != nil {
			return err
		}
	}
	return errors.Join(loopbackUp(), forwarding(r.DualStack))
}

// images serves what is in the folder of images, and the rig's own.
func (r *rig) images() error {
	for name, program := range map[string]string{pauseImage: filepath.Join(r.Bin, "pause"), coreDNS: filepath.Join(r.Bin, "coredns")} {
		data, err := os.ReadFile(program)
		if err != nil {
			return err
		}
		base := filepath.Base(program)
		f, err := os.Create(filepath.Join(r.imageDir(), base+".tar"))
		if err != nil {
			return err
		}
		err = writeImage(f, image{name: name, entrypoint: []string{"/" + base}, user: "65535:65535",
			files: []imageFile{{path: base, mode: 0o755, data: data}}})
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return newRegistry(r.imageDir()).serve(registryAddr)
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

func forwarding(dual bool) error {
	err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
	if dual {
		err = errors.Join(err, os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0))
	}
	return err
}

// joinNode starts the process of a node in namespaces of its own, joins it to the
// fabric and lets it begin.
func (r *rig) joinNode(n nodeConfig) error {
	conf := filepath.Join(n.Base, "node.json")
	if err := os.MkdirAll(n.Base, 0o755); err != nil {
		return err
	}
	if err := writeJSON(conf, n); err != nil {
		return err
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	cmd := exec.Command(self, verbNode, conf)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := r.procs.startCmd(r.log(n.Name), cmd); err != nil {
		return err
	}
	r.nodes.Lock()
	defer r.nodes.Unlock()
	if err := r.plug(n, cmd.Process.Pid); err != nil {
		return fmt.Errorf("join %s to the fabric: %w", n.Name, err)
	}
	_, err = io.WriteString(in, "go\n") // in stays open as long as the rig
	return err
}

func (r *rig) plug(n nodeConfig, pid int) error {
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: nodeLinkName, PeerNamespace: netlink.NsPid(pid)}
	veth.Name = n.Name
	bridge, err := netlink.LinkByName(fabricName)
	if err != nil {
		return err
	}
	veth.MasterIndex = bridge.Attrs().Index
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(veth); err != nil {
		return err
	}
	if err := netlink.RouteAdd(routeVia(n.Pods, n.Addr)); err != nil || !n.dual() {
		return err
	}
	return netlink.RouteAdd(routeVia(n.Pods6, n.Addr6))
}

func (r *rig) ready() (out ready) {
	out.Bin, out.Images = r.Bin, r.imageDir()
	for _, c := range r.clusters {
		x := readyCluster{Name: c.name, Kubeconfig: c.adminFile(), API: c.server(), CA: string(c.ca.pem)}
		for n := 1; n <= r.Nodes; n++ {
			x.Nodes = append(x.Nodes, nodeName(c.index, n))
		}
		out.Clusters = append(out.Clusters, x)
	}
	return out
}
