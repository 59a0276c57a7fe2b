package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slicewire/api"
	"slicewire/overlay"
	"slicewire/statedir"
)

// online gives the authority's folder its key back, as who fetches it from a safe.
func (m *mesh) online() string {
	m.t.Helper()
	ca := filepath.Join(m.dir, "ca")
	if err := os.Rename(filepath.Join(m.dir, "offline.key"), filepath.Join(ca, fileAuthorityKey)); err != nil {
		m.t.Fatal(err)
	}
	return ca
}

// issuerAnew certifies an issuer again, below the present authority.
func (m *mesh) issuerAnew(n *demoNode) {
	m.t.Helper()
	state, bundle := filepath.Join(m.dir, n.site), filepath.Join(m.dir, "issuer.bundle")
	m.write(bundle, m.must("ca", "intermediate", "--dir", filepath.Join(m.dir, "ca"), "--manifests", filepath.Join(m.dir, "manifests"),
		"--site", strings.Join(demoSites, ","), filepath.Join(m.dir, "issuer.csr")))
	m.must("cert", "install", "--state", state, bundle)
	m.must("reload", "--socket", n.socket)
}

// authorities lists what a node trusts, the newest first.
func (m *mesh) authorities(n *demoNode) []api.AuthorityStatus { return m.certificates(n).Authorities }

// moved reports whether n knows certificates of these sites' nodes, all of them
// below one authority.
func (m *mesh) moved(n *demoNode, key string, sites ...string) bool {
	found := make(map[string]bool)
	for _, c := range m.certificates(n).Certificates {
		if slices.Contains(sites, c.Site) && c.Authority != key {
			return false
		}
		found[c.Site] = true
	}
	return !slices.ContainsFunc(sites, func(s string) bool { return !found[s] })
}

// text reads a file.
func (m *mesh) text(path string) string {
	m.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b)
}

// copyOf copies an authority's folder.
func (m *mesh) copyOf(ca, name string) statedir.Dir {
	m.t.Helper()
	d := statedir.Dir(filepath.Join(m.dir, name))
	if err := d.Create(); err != nil {
		m.t.Fatal(err)
	}
	for _, f := range []string{fileAuthorityCert, fileAuthorityKey, statedir.FileGossipKey} {
		m.write(d.Path(f), m.text(filepath.Join(ca, f)))
	}
	return d
}

// The whole change as docs/keys.md tells it, with a node that was off meanwhile,
// one that was off until the end, a revocation from before, and a thief of the
// old key.
func TestTheAuthorityOfAMeshChanges(t *testing.T) {
	m := startMesh(t)
	issuer, other, away := m.nodes["worker-1"], m.nodes["worker-2"], m.nodes["worker-3"]
	m.asIssuer(issuer)
	for _, n := range []*demoNode{issuer, other, away} {
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
	}
	m.until("all are up", func() bool {
		return m.pings(issuer, "blue", "worker-3/gw") && m.pings(issuer, "blue", "worker-2/gw")
	})
	old := m.authorities(issuer)[0].Key
	early := m.token(issuer, "--site", "worker-2", "--node", "late") // before the change
	m.stop(away)

	// Someone copies the old key, and another mesh's authority speaks.
	ca := m.online()
	thief, stolen := m.copyOf(ca, "thief"), m.copyOf(ca, "stolen")
	if _, errs, code := program(t, "ca", "retire", "--dir", ca); code != exitFailure || !strings.Contains(errs, "no authority before") {
		t.Errorf("retired before there is a next one: exit %d, %s", code, errs)
	}
	statement := filepath.Join(m.dir, "authority.pem")
	m.write(statement, m.must("ca", "rotate", "--dir", ca))
	if _, errs, code := program(t, "ca", "rotate", "--dir", ca); code != exitFailure || !strings.Contains(errs, "not retired yet") {
		t.Errorf("changed twice: exit %d, %s", code, errs)
	}
	if again := m.must("ca", "show", "--statement", "--dir", ca); again != m.text(statement) {
		t.Error("the statement is printed otherwise the second time")
	}
	foreign := filepath.Join(m.dir, "foreign")
	m.must("ca", "init", "--dir", foreign, "--mesh", "demo")
	m.write(statement+".foreign", m.must("ca", "rotate", "--dir", foreign))
	if _, errs, code := program(t, "ca", "announce", statement+".foreign", "--socket", other.socket); code != exitFailure || !strings.Contains(errs, "no authority that this node trusts") {
		t.Errorf("of another mesh: exit %d, %s", code, errs)
	}

	m.must("ca", "announce", statement, "--socket", other.socket) // any node
	m.until("both nodes trust both", func() bool { return len(m.authorities(issuer)) == 2 && len(m.authorities(other)) == 2 })
	next := m.authorities(issuer)[0].Key
	if next == old || m.authorities(issuer)[1].Key != old {
		t.Fatalf("authorities %+v", m.authorities(issuer))
	}
	m.must("ca", "announce", statement, "--socket", issuer.socket) // again is no error
	// The thief names another successor: he is too late, and seen.
	m.write(statement+".thief", m.must("ca", "rotate", "--dir", string(thief)))
	if _, errs, code := program(t, "ca", "announce", statement+".thief", "--socket", other.socket); code != exitFailure || !strings.Contains(errs, "another successor") {
		t.Errorf("a second successor: exit %d, %s", code, errs)
	}
	m.until("the node warns of it", func() bool {
		s, _ := m.status(other)
		return slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.Contains(w, "wrong hands") })
	})

	// A node is revoked below the old authority, and stays so below the new one.
	m.must("cert", "revoke", "worker-2/gone", "--socket", issuer.socket)
	m.issuerAnew(issuer)
	m.until("both nodes have certificates below the next authority", func() bool {
		return m.moved(issuer, next, "worker-1", "worker-2") && m.moved(other, next, "worker-1", "worker-2")
	})
	if !m.pings(issuer, "blue", "worker-2/gw") {
		t.Error("the change cost the tunnel")
	}
	// A token from before the change lets in, below the next authority.
	late := filepath.Join(m.dir, "late")
	m.must("join", early, "--state", late)
	id, err := loadIdentity(statedir.Dir(late), "demo", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if key := id.verifier.Roots().Newest(); overlay.IssuerName(key) != "issuer-"+next[:16] || !id.verifier.Roots().Leads(key, key) {
		t.Errorf("who joins trusts %x", key)
	}
	// Who was off meanwhile comes back with its old certificate, and moves.
	if err := away.start(); err != nil {
		t.Fatal(err)
	}
	m.until("who was off is back, below the next authority", func() bool {
		return m.pings(other, "blue", "worker-3/gw") && m.moved(away, next, demoSites...) && m.moved(other, next, demoSites...)
	})
	// Now it has only what the old authority gives it: as if it had been off for the
	// whole change, or were the thief's.
	m.stop(away)
	state := statedir.Dir(filepath.Join(m.dir, "worker-3"))
	request, err := requestIdentity(state)
	if err != nil {
		t.Fatal(err)
	}
	s := signing{authority: stolen, manifests: []string{filepath.Join(m.dir, "manifests")}, id: overlay.NodeID{Site: "worker-3", Node: demoNodeName}, life: certLife}
	bundle, err := s.sign(request, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := installBundle(state, bundle, time.Now); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(state.Path(statedir.FileRecords)); err != nil {
		t.Fatal(err)
	}

	m.write(statement+".end", m.must("ca", "retire", "--dir", ca, "--after", "0s"))
	began := time.Now()
	m.must("ca", "announce", statement+".end", "--socket", issuer.socket)
	retired := func(n *demoNode) bool { a := m.authorities(n); return len(a) == 2 && a[1].Retired && !a[0].Retired }
	m.until("the old authority is retired on both", func() bool { return retired(issuer) && retired(other) })
	t.Logf("retired everywhere after %v", time.Since(began).Round(time.Millisecond))
	if _, errs, code := program(t, "ca", "announce", statement+".thief", "--socket", other.socket); code != exitFailure || !strings.Contains(errs, "another successor") {
		t.Errorf("the thief's successor, announced again: exit %d, %s", code, errs)
	}
	m.must("ca", "announce", statement, "--socket", other.socket) // the first statement, replayed
	if !retired(other) {
		t.Error("a replayed statement has brought the old authority back")
	}
	if !m.pings(issuer, "blue", "worker-2/gw") {
		t.Error("the end of the old authority cost the tunnel")
	}
	if l := m.certificates(other); len(l.Revocations) != 1 || l.Revocations[0].What != "worker-2/gone" {
		t.Errorf("the revocation from before is lost: %+v", l.Revocations)
	}
	// Who has only the old authority's certificate is nobody, and is told.
	if err := away.start(); err != nil {
		t.Fatal(err)
	}
	m.until("who was off until the end is told what to do", func() bool {
		s, _ := m.status(away)
		text, _ := os.ReadFile(away.logFile)
		return slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.Contains(w, "join again") }) || strings.Contains(string(text), "join again")
	})
	// What it said below the next authority is still held; what it says now is not.
	if !m.moved(issuer, next, demoSites...) || !m.moved(other, next, demoSites...) {
		t.Error("a certificate of the old authority is believed after its end")
	}
	away.interrupt()
	_ = away.wait() // it may have ended by itself
	<-away.done
	m.must("join", m.token(issuer, "--site", "worker-3", "--node", demoNodeName, "--gateway"), "--state", string(state), "--replace")
	if err := away.start(); err != nil {
		t.Fatal(err)
	}
	m.until("it has joined again", func() bool { return m.pings(other, "blue", "worker-3/gw") })
	// The folder goes on: the next change starts where this one ended.
	m.write(statement+".third", m.must("ca", "rotate", "--dir", ca))
	m.must("ca", "announce", statement+".third", "--socket", away.socket)
	m.until("all know the third authority", func() bool {
		return len(m.authorities(issuer)) == 3 && len(m.authorities(other)) == 3 && len(m.authorities(away)) == 3
	})
}
