package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// A cluster is one control plane and its nodes.
type cluster struct {
	rig   *rig
	index int // from 1
	name  string
	ca    *authority
	http  *http.Client // as an administrator

	mu      sync.Mutex // guards what follows
	running map[string]*exec.Cmd
	args    map[string][]string // of all that were ever started
}

// apiServer is the program that all others talk to.
const apiServer = "kube-apiserver"

// poll is how often is asked for what has no event.
const poll = 50 * time.Millisecond

func (c *cluster) base() string         { return filepath.Join(c.rig.state(), c.name) }
func (c *cluster) adminFile() string    { return filepath.Join(c.rig.Dir, c.name+".kubeconfig") }
func (c *cluster) file(n string) string { return filepath.Join(c.base(), n) }
func (c *cluster) program(n string) string {
	return filepath.Join(c.rig.Bin, n)
}

// server is the API server's URL as nodes and pods reach it.
func (c *cluster) server() string {
	return fmt.Sprintf("https://%v:%d", controlAddr(c.index), apiPort(c.index))
}

// up starts the cluster and waits until its nodes are ready. It returns early if
// any part cannot be started; that one ends later is the rig's to hear.
func (c *cluster) up() error {
	if err := c.certify(); err != nil {
		return err
	}
	if err := c.startAPI(); err != nil {
		return err
	}
	c.await("/readyz", func(int, []byte) bool { return true })
	joined := make(chan error, c.rig.Nodes)
	for n := 1; n <= c.rig.Nodes; n++ {
		conf, err := c.node(n)
		if err != nil {
			return err
		}
		go func() { joined <- c.rig.joinNode(conf) }()
	}
	if err := c.startControllers(); err != nil {
		return err
	}
	var err error
	for range c.rig.Nodes {
		err = errors.Join(err, <-joined)
	}
	if err != nil {
		return err
	}
	c.await("/api/v1/nodes", c.nodesReady)
	c.await("/api/v1/namespaces/default/serviceaccounts/default", func(int, []byte) bool { return true })
	if c.rig.Nodes == 0 {
		return nil
	}
	return c.startDNS()
}

func (c *cluster) certify() error {
	ca, err := newAuthority(c.file("pki"), c.name)
	if err != nil {
		return err
	}
	c.ca = ca
	all := map[string]subject{
		"apiserver": {user: "kube-apiserver",
			names: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
			addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1"), controlAddr(c.index), c.rig.rigSide(), firstService(c.index)}},
		"admin":          {user: "admin", groups: []string{"system:masters"}},
		"kubelet-client": {user: "kube-apiserver-kubelet-client", groups: []string{"system:masters"}},
		"controllers":    {user: "system:kube-controller-manager"},
		"scheduler":      {user: "system:kube-scheduler"},
		"proxy":          {user: "system:kube-proxy"},
		"front-proxy":    {user: "front-proxy"},
		"tokens":         {user: "tokens"}, // its key signs those of service accounts
	}
	for name, s := range all {
		if err := ca.issue(name, s); err != nil {
			return err
		}
	}
	for _, name := range []string{"controllers", "scheduler", "proxy"} {
		if err := c.writeKubeconfig(c.file(name+".kubeconfig"), c.server(), name); err != nil {
			return err
		}
	}
	if err := c.writeKubeconfig(c.adminFile(), fmt.Sprintf("https://%v:%d", c.rig.rigSide(), apiPort(c.index)), "admin"); err != nil {
		return err
	}
	cert, err := tls.LoadX509KeyPair(ca.crt("admin"), ca.keyFile("admin"))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.pem)
	c.http = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}}}
	return nil
}

func (c *cluster) writeKubeconfig(path, server, name string) error {
	text, err := c.ca.kubeconfig(server, name)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

func (c *cluster) start(program string, args ...string) error {
	cmd, err := c.rig.procs.start(c.rig.log(c.name+"-"+program), c.program(program), args...)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running[program], c.args[program] = cmd, args
	return nil
}

func (c *cluster) startAPI() error {
	etcd, peer := fmt.Sprintf("http://127.0.0.1:%d", 2300+10*c.index), fmt.Sprintf("http://127.0.0.1:%d", 2301+10*c.index)
	if err := c.start("etcd", "--name=e", "--data-dir="+c.file("etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+etcd, "--advertise-client-urls="+etcd, "--listen-peer-urls="+peer,
		"--initial-advertise-peer-urls="+peer, "--initial-cluster=e="+peer); err != nil {
		return err
	}
	front := c.ca.crt("front-proxy")
	return c.start(apiServer, "--etcd-servers="+etcd, "--bind-address=0.0.0.0",
		"--advertise-address="+controlAddr(c.index).String(), fmt.Sprintf("--secure-port=%d", apiPort(c.index)),
		"--cert-dir="+c.file("pki"), "--client-ca-file="+c.ca.crt("ca"),
		"--tls-cert-file="+c.ca.crt("apiserver"), "--tls-private-key-file="+c.ca.keyFile("apiserver"),
		"--kubelet-client-certificate="+c.ca.crt("kubelet-client"), "--kubelet-client-key="+c.ca.keyFile("kubelet-client"),
		"--kubelet-preferred-address-types=InternalIP,Hostname",
		"--requestheader-client-ca-file="+c.ca.crt("ca"), "--requestheader-allowed-names=front-proxy",
		"--proxy-client-cert-file="+front, "--proxy-client-key-file="+c.ca.keyFile("front-proxy"),
		"--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group", "--requestheader-username-headers=X-Remote-User",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file="+c.ca.crt("tokens"), "--service-account-signing-key-file="+c.ca.keyFile("tokens"),
		"--enable-aggregator-routing", // webhooks are called at their pods: no ClusterIP leads anywhere from here
		"--authorization-mode=Node,RBAC", "--service-cluster-ip-range="+c.rig.serviceRanges(c.index), "--allow-privileged=true")
}

// controllerRate is how many requests a second controllers may make: their own
// limits are made for clusters that last.
const controllerRate = "1000"

func (c *cluster) startControllers() error {
	flags := func(name string, port int) []string {
		conf := c.file(name + ".kubeconfig")
		return []string{"--kubeconfig=" + conf, "--authentication-kubeconfig=" + conf, "--authorization-kubeconfig=" + conf,
			"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port), "--leader-elect=false",
			"--kube-api-qps=" + controllerRate, "--kube-api-burst=" + controllerRate}
	}
	if err := c.start("kube-controller-manager", append(flags("controllers", 10200+c.index),
		"--use-service-account-credentials", "--service-account-private-key-file="+c.ca.keyFile("tokens"), "--root-ca-file="+c.ca.crt("ca"),
		"--cluster-signing-cert-file="+c.ca.crt("ca"), "--cluster-signing-key-file="+c.ca.keyFile("ca"),
		"--node-monitor-grace-period=5m", // fake nodes and busy machines are late
		"--allocate-node-cidrs=false", "--service-cluster-ip-range="+c.rig.serviceRanges(c.index), "--cluster-name="+c.name)...); err != nil {
		return err
	}
	return c.start("kube-scheduler", flags("scheduler", 10300+c.index)...)
}

// await asks until done likes the answer to a successful GET. The rig bounds how
// long that may take.
func (c *cluster) await(path string, done func(code int, body []byte) bool) {
	for ; ; time.Sleep(poll) {
		resp, err := c.http.Get(c.server() + path)
		if err != nil {
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode == http.StatusOK && done(resp.StatusCode, body) {
			return
		}
	}
}

func (c *cluster) nodesReady(_ int, body []byte) bool {
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct {
				Conditions []struct{ Type, Status string }
			}
		}
	}
	if json.Unmarshal(body, &list) != nil || len(list.Items) < c.rig.Nodes {
		return false
	}
	for _, n := range list.Items {
		ok := false
		for _, x := range n.Status.Conditions {
			ok = ok || x.Type == "Ready" && x.Status == "True"
		}
		if !ok || !strings.HasPrefix(n.Metadata.Name, c.name+"-") {
			return false
		}
	}
	return true
}
