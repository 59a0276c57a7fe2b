package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slicewire/api"
	"slicewire/overlay/pki/podtoken"
)

// A sidecar that is told to end is gone for all others at once, and one that starts
// again meanwhile has the addresses that it had.
func TestASidecarThatEndsIsGoneAtOnce(t *testing.T) {
	m := startMesh(t)
	issuer, other := m.nodes["worker-1"], m.nodes["worker-2"]
	m.asIssuer(issuer)
	keys := filepath.Join(m.dir, "jwks.json")
	sign := podSigner(t, keys)
	file := m.text(issuer.config)
	m.write(issuer.config, file+fmt.Sprintf("join:\n  kubernetes: [{site: worker-1, keys: %s, issuer: \"https://cluster\", namespace: apps, serviceAccount: \"*\", slices: [blue]}]\n", keys))
	for _, n := range []*demoNode{issuer, other} {
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
	}
	m.until("both are up", func() bool { return len(m.peers(issuer)) > 0 && len(m.peers(other)) > 0 })

	t.Setenv("POD_NAMESPACE", "apps")
	t.Setenv("POD_NAME", "web-0")
	name := "worker-1/" + podtoken.NodeName("apps", "web-0")
	sidecar := &demoNode{site: "sidecar", config: filepath.Join(m.dir, "sidecar.yaml"), socket: filepath.Join(m.dir, "sidecar.sock"), logFile: filepath.Join(m.dir, "sidecar.log")}
	m.nodes[sidecar.site] = sidecar
	m.write(sidecar.config, fmt.Sprintf("version: 1\nmesh: demo\nsite: worker-1\nnode: ${SLICEWIRE_POD_NODE}\nephemeral: true\nlisten: 127.0.0.1:0\ngossip: {reachable: false, join: [%q]}\nmetrics: off\nstate: %s\nsocket: %s\nmanifests: [manifests]\n",
		issuer.gossip, filepath.Join(m.dir, "sidecar"), sidecar.socket))
	token := filepath.Join(m.dir, "token")
	m.write(token, sign("apps", "default", "web-0", time.Now()))
	m.must("join", "--kubernetes", "--config", sidecar.config, "--authority", filepath.Join(m.dir, "ca", fileAuthorityCert), "--issuer", issuer.tunnel, "--token-file", token, "--wait", "30s")
	address := func() string {
		s, _ := m.status(sidecar)
		for _, x := range s.Slices {
			return x.Address.String()
		}
		return ""
	}
	there := func() bool {
		return slices.Contains(m.peers(issuer), name) && slices.ContainsFunc(m.certificates(other).Certificates, func(c api.CertificateStatus) bool { return c.Site+"/"+c.Node == name })
	}
	begin := func() {
		if err := sidecar.start(); err != nil {
			t.Fatal(err)
		}
		m.until("the sidecar is known", there)
	}
	begin()
	for _, c := range m.certificates(other).Certificates {
		if left := time.Until(c.NotAfter); c.Node == podtoken.NodeName("apps", "web-0") && (left > podCertLife || left < podCertLife-time.Hour) {
			t.Errorf("its certificate is good for %v", left)
		}
	}
	had := address()
	m.stop(sidecar)
	began := time.Now()
	m.until("it is gone", func() bool { return !slices.Contains(m.peers(issuer), name) })
	if took := time.Since(began); took > slack*2*time.Second {
		t.Errorf("gone only after %v", took)
	}
	begin()
	if now := address(); now != had || had == "" {
		t.Errorf("its address is %s, and was %s", now, had)
	}
	if log, err := os.ReadFile(issuer.logFile); err != nil || strings.Contains(string(log), "number freed") {
		t.Errorf("its number was given up: %v", err)
	}
}
