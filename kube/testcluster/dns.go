package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"os/exec"
)

// dnsManifests are the objects of a cluster's name server: the image's tag and
// the Service's address are to be filled in.
//
//go:embed dns.yaml
var dnsManifests string

// coreDNS is the image of CoreDNS.
const coreDNS = "registry.k8s.io/coredns/coredns:" + coreDNSVersion

// coreDNSVersion is what coredns/go.mod requires.
const coreDNSVersion = "v1.15.0"

// startDNS has the cluster run CoreDNS and waits until it is ready.
func (c *cluster) startDNS() error {
	kubectl := func(stdin string, args ...string) error {
		cmd := exec.Command(c.program("kubectl"), append([]string{"--kubeconfig", c.adminFile(), "-n", "kube-system"}, args...)...)
		cmd.Stdin = bytes.NewReader([]byte(stdin))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s's name server: kubectl %s: %w: %s", c.name, args[0], err, out)
		}
		return nil
	}
	if err := kubectl(fmt.Sprintf(dnsManifests, coreDNSVersion, dnsService(c.index)), "create", "-f", "-"); err != nil {
		return err
	}
	return kubectl("", "rollout", "status", "deployment/coredns", "--timeout", upTime.String())
}
