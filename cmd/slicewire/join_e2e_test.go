package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slicewire/api"
	"slicewire/statedir"
)

// asIssuer makes a node of the mesh an issuer for all sites, as an operator
// would, and then takes the authority's key away: it is offline.
func (m *mesh) asIssuer(n *demoNode) {
	m.t.Helper()
	makeIssuer(m.t, m.dir, filepath.Join(m.dir, n.site), demoSites)
	if err := os.Rename(filepath.Join(m.dir, "ca", fileAuthorityKey), filepath.Join(m.dir, "offline.key")); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mesh) write(path, text string) { m.t.Helper(); writeFile(m.t, path, text) }

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// must runs slicewire, which has to succeed, and returns what it printed.
func (m *mesh) must(args ...string) string {
	m.t.Helper()
	out, errs, code := program(m.t, args...)
	if code != 0 {
		m.t.Fatalf("slicewire %s: exit %d: %s", strings.Join(args, " "), code, errs)
	}
	return out
}

// peers lists the nodes that n has tunnels to, on any slice.
func (m *mesh) peers(n *demoNode) []string {
	s, _ := m.status(n)
	var out []string
	for _, x := range s.Slices {
		for _, p := range x.Peers {
			out = append(out, p.Site+"/"+p.Node)
		}
	}
	return out
}

// pings reports whether n gets an answer from a node.
func (m *mesh) pings(n *demoNode, slice, target string) bool {
	answered := false
	req := api.PingRequest{Slice: slice, Target: target, Count: 1, Timeout: 100 * time.Millisecond}
	_ = newClient(n.socket).ping(m.t.Context(), req, func(p api.PingReply) { answered = p.Error == "" })
	return answered
}

func (m *mesh) token(at *demoNode, args ...string) string {
	m.t.Helper()
	return strings.TrimSpace(m.must(append([]string{"token", "create", "--socket", at.socket}, args...)...))
}

// stop ends a node's daemon and waits.
func (m *mesh) stop(n *demoNode) {
	m.t.Helper()
	n.interrupt()
	if err := n.wait(); err != nil {
		m.t.Fatal(err)
	}
	<-n.done // the watcher has read everything that the next start sets
}

func TestANodeJoinsRenewsIsRevokedAndJoinsAgain(t *testing.T) {
	m := startMesh(t)
	issuer, other, edge := m.nodes["worker-1"], m.nodes["worker-2"], m.nodes["worker-3"]
	m.asIssuer(issuer)
	for _, n := range []*demoNode{issuer, other} {
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
	}
	m.until("both are up", func() bool { return len(m.peers(issuer)) > 0 && len(m.peers(other)) > 0 })

	// worker-3 begins with nothing.
	state := filepath.Join(m.dir, "worker-3")
	if err := os.RemoveAll(state); err != nil {
		t.Fatal(err)
	}
	token := m.token(issuer, "--site", "worker-3", "--node", demoNodeName, "--gateway", "--slices", "blue")
	if _, errs, code := program(t, "join", token, "--state", state, "--site", "worker-1"); code != exitFailure || !strings.Contains(errs, "for worker-3/gw, not for worker-1/gw") {
		t.Errorf("for another site: exit %d, %s", code, errs)
	}
	if _, errs, code := program(t, "join", token[:len(token)-1], "--state", state); code != exitFailure || !strings.Contains(errs, "whole join token") {
		t.Errorf("a clipped token: exit %d, %s", code, errs)
	}
	if out := m.must("join", token, "--state", state); !strings.Contains(out, "worker-3/gw of mesh demo") || !strings.Contains(out, "on 1 slices") {
		t.Errorf("join says %q", out)
	}
	m.noSecretsOutside(state, token)
	if _, errs, code := program(t, "join", token, "--state", state); code != exitFailure || !strings.Contains(errs, "already") {
		t.Errorf("joined twice: exit %d, %s", code, errs)
	}
	if _, errs, code := program(t, "join", token, "--state", filepath.Join(m.dir, "thief")); code != exitFailure || !strings.Contains(errs, "was used") {
		t.Errorf("a replayed token: exit %d, %s", code, errs)
	}
	if err := edge.start(); err != nil {
		t.Fatal(err)
	}
	cut := func(n *demoNode) bool { return !slices.Contains(m.peers(n), "worker-3/gw") }
	m.until("the newcomer is reached from both", func() bool {
		return m.pings(issuer, "blue", "worker-3/gw") && m.pings(other, "blue", "worker-3/gw")
	})

	before, _ := m.status(edge)
	m.until("the newcomer's certificate is renewed", func() bool {
		// Ends are whole seconds: in the second of the last, nothing is gained.
		_, _, code := program(t, "cert", "renew", "--socket", edge.socket)
		return code == 0
	})
	after, _ := m.status(edge)
	if !after.CertExpiry.After(before.CertExpiry) {
		t.Fatalf("until %v, before %v", after.CertExpiry, before.CertExpiry)
	}
	m.until("the other site has the renewed certificate", func() bool {
		return slices.ContainsFunc(m.certificates(other).Certificates, func(c api.CertificateStatus) bool {
			return c.Site == "worker-3" && c.NotAfter.Equal(after.CertExpiry) && c.Issuer != ""
		})
	})
	if !m.pings(other, "blue", "worker-3/gw") {
		t.Error("the renewal cost the tunnel")
	}

	// Only an issuer revokes, and what it says counts everywhere.
	if _, errs, code := program(t, "cert", "revoke", "worker-3/gw", "--socket", other.socket); code != exitFailure || !strings.Contains(errs, "certifies nobody") {
		t.Errorf("revoked by a node that may not: exit %d, %s", code, errs)
	}
	began := time.Now()
	m.must("cert", "revoke", "worker-3/gw", "--socket", issuer.socket)
	m.until("the revoked node is cut everywhere", func() bool { return cut(issuer) && cut(other) })
	took := time.Since(began)
	t.Logf("cut everywhere after %v", took)
	if took > 10*time.Second {
		t.Error("that is too late")
	}
	if m.pings(other, "blue", "worker-3/gw") || m.pings(edge, "blue", "worker-2/gw") {
		t.Error("there is an answer through a tunnel that was cut")
	}
	// More than once, for the issuer has a limit of connections, too.
	m.until("the issuer says that it does not renew what is revoked", func() bool {
		_, errs, code := program(t, "cert", "renew", "--socket", edge.socket)
		if code == 0 {
			t.Fatal("a revoked certificate is renewed")
		}
		return strings.Contains(errs, "revoked")
	})
	m.until("the revoked node knows", func() bool {
		s, _ := m.status(edge)
		return slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.Contains(w, "revoked") })
	})
	if l := m.certificates(other); len(l.Revocations) != 1 || l.Revocations[0].What != "worker-3/gw" {
		t.Errorf("the other site lists %+v", l.Revocations)
	}

	// The operator lets it in again: the key stays, the enrolment is new.
	m.stop(edge)
	m.must("join", m.token(issuer, "--site", "worker-3", "--node", demoNodeName, "--gateway"), "--state", state, "--replace")
	if err := edge.start(); err != nil {
		t.Fatal(err)
	}
	m.until("it is reached again from both", func() bool {
		return m.pings(issuer, "blue", "worker-3/gw") && m.pings(other, "blue", "worker-3/gw")
	})
}

func (m *mesh) certificates(n *demoNode) api.CertificateList {
	l, _ := call[api.CertificateList](m.t.Context(), newClient(n.socket), http.MethodGet, "certificates", nil)
	return l
}

// noSecretsOutside checks the files of a joined node and everything that daemons
// say and log for the token and the key.
func (m *mesh) noSecretsOutside(state, token string) {
	m.t.Helper()
	key, err := os.ReadFile(filepath.Join(state, statedir.FileNodeKey))
	if err != nil {
		m.t.Fatal(err)
	}
	secret := strings.Split(string(key), "\n")[1]
	entries, err := os.ReadDir(state)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || !e.IsDir() && info.Mode().Perm() != 0o600 {
			m.t.Errorf("%s: mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
	for _, n := range m.nodes {
		said, _ := os.ReadFile(n.logFile)
		if n.process != nil {
			s, _ := m.status(n)
			list, _ := json.Marshal(m.certificates(n))
			status, _ := json.Marshal(s)
			said = append(append(said, list...), status...)
		}
		tokens, _ := os.ReadFile(filepath.Join(m.dir, n.site, statedir.FileTokens))
		for what, text := range map[string][]byte{"log or answers": said, "book of tokens": tokens} {
			if strings.Contains(string(text), secret) || strings.Contains(string(text), token) {
				m.t.Errorf("the %s of %s hold a secret", what, n.site)
			}
		}
	}
}

func TestAnOfflineAuthorityRevokesAnIssuer(t *testing.T) {
	m := startMesh(t)
	issuer, other, edge := m.nodes["worker-1"], m.nodes["worker-2"], m.nodes["worker-3"]
	m.asIssuer(issuer)
	for _, n := range []*demoNode{issuer, other} {
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
	}
	m.until("both are up", func() bool { return len(m.peers(issuer)) > 0 })
	state := filepath.Join(m.dir, "worker-3")
	if err := os.RemoveAll(state); err != nil {
		t.Fatal(err)
	}
	m.must("join", m.token(issuer, "--site", "worker-3", "--node", demoNodeName, "--gateway"), "--state", state)
	if err := edge.start(); err != nil {
		t.Fatal(err)
	}
	m.until("the newcomer is reached", func() bool { return m.pings(other, "blue", "worker-3/gw") })
	i := slices.IndexFunc(m.certificates(other).Certificates, func(c api.CertificateStatus) bool { return c.Site == "worker-3" })
	key := m.certificates(other).Certificates[i].Issuer

	// The operator fetches the authority's key, somewhere else, and carries only
	// the revocation to a node.
	offline := statedir.Dir(filepath.Join(m.dir, "offline"))
	if err := offline.Create(); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"ca/ca.crt": fileAuthorityCert, "offline.key": fileAuthorityKey} {
		data, err := os.ReadFile(filepath.Join(m.dir, from))
		if err != nil {
			t.Fatal(err)
		}
		if err := offline.Write(to, data); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(m.dir, "revocation.pem")
	m.write(file, m.must("cert", "revoke", "--ca", string(offline), "--key", key))
	m.must("cert", "revoke", "--file", file, "--socket", other.socket)
	m.until("everything that the issuer signed is cut", func() bool {
		return !slices.Contains(m.peers(other), "worker-3/gw") && !slices.Contains(m.peers(issuer), "worker-3/gw")
	})
	if !slices.Contains(m.peers(other), "worker-1/gw") {
		t.Error("what the authority signed is cut as well")
	}
	token := m.token(issuer, "--site", "worker-3", "--node", "next")
	if _, errs, code := program(t, "join", token, "--state", filepath.Join(m.dir, "next")); code != exitFailure || !strings.Contains(errs, "revoked") {
		t.Errorf("a revoked issuer lets in: exit %d, %s", code, errs)
	}
}

func TestAClockTenYearsBackCostsNoTunnel(t *testing.T) {
	m := startMesh(t, "worker-1", "worker-2")
	m.until("first byte", m.reaches)
	server := m.server()
	key := func() string {
		s, _ := m.status(m.client())
		for _, x := range s.Slices {
			for _, p := range x.Peers {
				if x.Name == "iperf-slice" && p.Site == "worker-1" {
					return p.PublicKey
				}
			}
		}
		return ""
	}
	before := key()
	if err := server.process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-server.done
	t.Setenv(asOf, (-10 * 365 * 24 * time.Hour).String())
	began := time.Now()
	if err := server.start(); err != nil {
		t.Fatal(err)
	}
	m.until("an answer after the restart", func() bool { return m.pings(m.client(), "iperf-slice", "worker-1/gw") })
	took := time.Since(began)
	t.Logf("answered %v after the daemon was started with its clock ten years back", took)
	if took > slack*10*time.Second {
		t.Error("that is too late")
	}
	// Peers refuse handshakes from before the last with the same key.
	if after := key(); after == before || after == "" {
		t.Errorf("its WireGuard key is still %s", after)
	}
	s, _ := m.status(server)
	if !slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.Contains(w, "clock is behind") }) {
		t.Errorf("nobody is told: %q", s.Warnings)
	}
}
