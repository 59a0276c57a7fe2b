package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// nodeLinkName is the name of a node's link to the fabric.
const nodeLinkName = "eth0"

// pauseImage is what containerd is told to hold pods open with.
const pauseImage = "registry.k8s.io/pause:3.10.1"

// A nodeConfig is what a node is to be.
type nodeConfig struct {
	Name    string
	Addr    netip.Addr
	Addr6   netip.Addr // invalid, as Pods6: IPv4 only
	Pods    netip.Prefix
	Pods6   netip.Prefix
	AllPods string // of the cluster
	DNS     netip.Addr
	Base    string // folder for its state, in the rig's tmpfs
	Logs    string // for its programs
	Bin     string
	Cgroup  string // of the node, below each hierarchy
	CA      string // certificate of the cluster
	Certs   string // folder of its certificates
}

// haveNodePrograms reports what is missing of the programs that are not built.
func haveNodePrograms() error {
	var missing []string
	for program, pkg := range map[string]string{"containerd": "containerd", "ctr": "containerd", "runc": "runc", "nft": "nftables", cniFolder + "/ptp": "containernetworking-plugins"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, fmt.Sprintf("%s (package %s)", program, pkg))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("nodes need %s", strings.Join(missing, ", "))
	}
	return nil
}

// cniFolder has the machine's plugins of the network, cniPlugins and cniNetworks
// are the node's own folders, below one that nodeMounts makes its own: programs
// that pods put there are on no other node.
const (
	cniFolder   = "/usr/lib/cni"
	cniPlugins  = "/var/lib/cni/bin"
	cniNetworks = "/var/lib/cni/net.d"
)

// node prepares all that node n of the cluster needs of it.
func (c *cluster) node(n int) (nodeConfig, error) {
	conf := nodeConfig{
		Name: nodeName(c.index, n), Addr: nodeAddr(c.index, n), Pods: nodePods(c.index, n), AllPods: c.rig.podRanges(c.index), DNS: dnsService(c.index),
		Base: c.file(fmt.Sprint("n", n)), Logs: filepath.Dir(c.rig.log("x")), Bin: c.rig.Bin,
		Cgroup: filepath.Join(c.rig.Name, nodeName(c.index, n)), CA: c.ca.crt("ca"), Certs: c.ca.dir,
	}
	if c.rig.DualStack {
		conf.Addr6, conf.Pods6 = nodeAddr6(c.index, n), nodePods6(c.index, n)
	}
	if err := c.ca.issue(conf.Name, subject{user: "system:node:" + conf.Name, groups: []string{"system:nodes"},
		names: []string{conf.Name}, addrs: []netip.Addr{conf.Addr}}); err != nil {
		return conf, err
	}
	if err := os.MkdirAll(conf.Base, 0o755); err != nil {
		return conf, err
	}
	proxy, err := os.ReadFile(c.file("proxy.kubeconfig"))
	if err != nil {
		return conf, err
	}
	return conf, errors.Join(
		c.writeKubeconfig(conf.file("kubelet.kubeconfig"), c.server(), conf.Name),
		os.WriteFile(conf.file("proxy.kubeconfig"), proxy, 0o600),
	)
}

func (n *nodeConfig) dual() bool              { return n.Addr6.IsValid() }
func (n *nodeConfig) file(name string) string { return filepath.Join(n.Base, name) }
func (n *nodeConfig) log(name string) string {
	return filepath.Join(n.Logs, n.Name+"-"+name+".log")
}

func routeVia(dst netip.Prefix, via netip.Addr) *netlink.Route {
	r := &netlink.Route{Gw: via.AsSlice()}
	if dst.IsValid() {
		r.Dst = &net.IPNet{IP: dst.Masked().Addr().AsSlice(), Mask: net.CIDRMask(dst.Bits(), dst.Addr().BitLen())}
	}
	return r
}

// runNode runs a node in its namespaces until one of its programs ends.
func runNode(conf string) error {
	var n nodeConfig
	if err := readJSON(conf, &n); err != nil {
		return err
	}
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return fmt.Errorf("%s was given up: %w", n.Name, err)
	}
	if err := n.network(); err != nil {
		return err
	}
	if err := n.cgroups(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(n.Name)); err != nil {
		return err
	}
	if err := nodeMounts(n.file("root")); err != nil {
		return err
	}
	p := newProcs()
	if err := n.containerd(p); err != nil {
		return err
	}
	if err := n.kubelet(p); err != nil {
		return err
	}
	return <-p.ended
}

func (n *nodeConfig) network() error {
	if err := addressed(nodeLinkName, netip.PrefixFrom(n.Addr, fabricRange.Bits())); err != nil {
		return err
	}
	if err := netlink.RouteAdd(routeVia(netip.Prefix{}, fabricRange.Addr())); err != nil {
		return fmt.Errorf("add the default route: %w", err)
	}
	if n.dual() {
		if err := addressed(nodeLinkName, netip.PrefixFrom(n.Addr6, fabricRange6.Bits())); err != nil {
			return err
		}
		if err := netlink.RouteAdd(routeVia(netip.Prefix{}, fabricRange6.Addr())); err != nil {
			return fmt.Errorf("add the default route of IPv6: %w", err)
		}
	}
	return errors.Join(loopbackUp(), forwarding(n.dual()))
}

func (n *nodeConfig) cgroups() error { return makeCgroups(n.Cgroup) }

func (n *nodeConfig) socket() string { return "/run/containerd/containerd.sock" }

// containerd starts it. All images come from the rig's registry.
func (n *nodeConfig) containerd(p *procs) error {
	if err := errors.Join(os.MkdirAll(cniNetworks, 0o755), os.MkdirAll(n.file("certs.d/_default"), 0o755), linkPlugins()); err != nil {
		return err
	}
	if err := errors.Join(
		os.WriteFile(n.file("containerd.toml"), fmt.Appendf(nil, containerdConfig, pauseImage, n.file("certs.d"), cniPlugins, cniNetworks), 0o644),
		os.WriteFile(n.file("certs.d/_default/hosts.toml"), fmt.Appendf(nil, hostsConfig, "http://"+registryAddr), 0o644),
		os.WriteFile(cniNetworks+"/10-ptp.conflist", n.cni(), 0o644),
	); err != nil {
		return err
	}
	if _, err := p.start(n.log("containerd"), "containerd", "--config", n.file("containerd.toml")); err != nil {
		return err
	}
	for i := 0; n.ctr("version") != nil; i++ {
		select {
		case err := <-p.ended:
			return err
		case <-time.After(poll):
		}
	}
	return nil
}

// cni configures the network of the node's pods.
func (n *nodeConfig) cni() []byte {
	ranges, routes := fmt.Sprintf(`[{"subnet": "%v"}]`, n.Pods), `{"dst": "0.0.0.0/0"}`
	if n.dual() {
		ranges += fmt.Sprintf(`, [{"subnet": "%v"}]`, n.Pods6)
		routes += `, {"dst": "::/0"}`
	}
	return fmt.Appendf(nil, cniConfig, ranges, routes)
}

// linkPlugins gives the node the machine's plugins.
func linkPlugins() error {
	list, err := os.ReadDir(cniFolder)
	err = errors.Join(err, os.MkdirAll(cniPlugins, 0o755))
	for _, e := range list {
		err = errors.Join(err, os.Symlink(filepath.Join(cniFolder, e.Name()), filepath.Join(cniPlugins, e.Name())))
	}
	return err
}

func (n *nodeConfig) ctr(args ...string) error {
	cmd := exec.Command("ctr", append([]string{"--address", n.socket()}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ctr %s: %w: %s", args[0], err, bytes.TrimSpace(out))
	}
	return nil
}

func (n *nodeConfig) kubelet(p *procs) error {
	crt, key := filepath.Join(n.Certs, n.Name+".crt"), filepath.Join(n.Certs, n.Name+".key")
	if err := errors.Join(
		os.WriteFile(n.file("resolv.conf"), fmt.Appendf(nil, "nameserver %v\n", n.DNS), 0o644),
		os.WriteFile(n.file("kubelet.yaml"), fmt.Appendf(nil, kubeletConfig, n.Cgroup, n.Addr, n.CA, crt, key, n.socket(), n.file("resolv.conf"), n.DNS), 0o600),
		os.WriteFile(n.file("proxy.yaml"), fmt.Appendf(nil, proxyConfig, n.Addr, n.file("proxy.kubeconfig"), n.Name, n.AllPods), 0o600),
	); err != nil {
		return err
	}
	ips := n.Addr.String()
	if n.dual() {
		ips += "," + n.Addr6.String()
	}
	if _, err := p.start(n.log("kubelet"), filepath.Join(n.Bin, "kubelet"), "--config="+n.file("kubelet.yaml"), "--kubeconfig="+n.file("kubelet.kubeconfig"),
		"--hostname-override="+n.Name, "--node-ip="+ips); err != nil {
		return err
	}
	_, err := p.start(n.log("kube-proxy"), filepath.Join(n.Bin, "kube-proxy"), "--config="+n.file("proxy.yaml"))
	return err
}

const containerdConfig = `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = %q
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = %q
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
`

const hostsConfig = `server = %[1]q
[host.%[1]q]
  capabilities = ["pull", "resolve"]
`

const cniConfig = `{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipMasq": false, "mtu": 1500, "ipam": {"type": "host-local", "ranges": [%s], "routes": [%s]}}
]}
`

// cgroup version 1 is what some machines have.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /%s
enforceNodeAllocatable: []
failSwapOn: false
address: %v
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %s}}
authorization: {mode: Webhook}
tlsCertFile: %s
tlsPrivateKeyFile: %s
containerRuntimeEndpoint: unix://%s
makeIPTablesUtilChains: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: "0%%", nodefs.available: "0%%", imagefs.available: "0%%"}
resolvConf: %s
clusterDomain: cluster.local
clusterDNS: ["%v"]
maxPods: 250
nodeStatusUpdateFrequency: 5s
syncFrequency: 10s
`

const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
bindAddress: %v
clientConnection: {kubeconfig: %s}
hostnameOverride: %s
conntrack: {maxPerCore: 0, min: 0}
clusterCIDR: "%s"
detectLocalMode: ClusterCIDR
`
