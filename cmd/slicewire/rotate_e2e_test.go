package main

import (
	"net/http"
	"net/netip"
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

// must runs slicewire, which has to succeed.
func (l *pathLab) must(args ...string) string {
	l.t.Helper()
	out, errs, code := program(l.t, args...)
	if code != 0 {
		l.t.Fatalf("slicewire %s: exit %d: %s", strings.Join(args, " "), code, errs)
	}
	return out
}

func (l *pathLab) state(n *labNode) string { return strings.TrimSuffix(n.config, ".yaml") }

// certifyIssuer makes a node an issuer for both sites below the present authority.
func (l *pathLab) certifyIssuer(n *labNode) {
	l.t.Helper()
	l.write("issuer.csr", l.must("cert", "request", "--issuer", "--state", l.state(n)))
	l.write("issuer.bundle", l.must("ca", "intermediate", "--dir", filepath.Join(l.dir, "ca"), "--manifests", filepath.Join(l.dir, "manifests"),
		"--site", "a,b", filepath.Join(l.dir, "issuer.csr")))
	l.must("cert", "install", "--state", l.state(n), filepath.Join(l.dir, "issuer.bundle"))
}

// everywhere reports whether what each node knows of certificates is as it should be.
func (l *pathLab) everywhere(ok func(api.CertificateList) bool) bool {
	for _, n := range l.order {
		c, err := call[api.CertificateList](l.t.Context(), newClient(n.socket), http.MethodGet, "certificates", nil)
		if err != nil || !ok(c) {
			return false
		}
	}
	return true
}

// ring reads the gossip keys of a node.
func (l *pathLab) ring(n *labNode) (r gossipRing) {
	_ = statedir.ReadJSON(statedir.Dir(l.state(n)), statedir.FileGossipRing, &r)
	return r
}

// Every kind of key changes while packets flow, see rekeyPace: not one is lost
// between the nodes, and what is refused afterwards is so within a minute. A
// node's own key stays the same when its certificate is renewed, and the
// certificate before ends by its time: there is nothing old to refuse.
func TestEveryKindOfKeyChangesUnderLoad(t *testing.T) {
	l := newPathLab(t, nil, labSite{name: "a", gateways: 2, nodes: 3}, labSite{name: "b", gateways: 1, nodes: 1})
	l.until("all links are up", l.settled)
	issuer, worker := l.node("a/g1"), l.node("a/g3")
	l.certifyIssuer(issuer)
	issuer.kill(t)
	if err := issuer.start(); err != nil {
		t.Fatal(err)
	}
	l.until("all links are up again", l.settled)
	still := func(what string) (out, in, dropped uint64) {
		l.until(what, func() bool {
			o, i, d := l.crossed()
			same := o == out && i == in
			out, in, dropped = o, i, d
			return same
		})
		return out, in, dropped
	}
	out0, in0, dropped0 := still("nothing is under way") // a node was killed: its counts begin anew
	addr := l.echoAddr(worker)
	first := time.Now()
	f := l.flood(worker, netip.AddrPortFrom(addr, 7000))
	l.until("packets flow", func() bool { return f.sent.Load() > 2000 && f.back.Load() > 200 })
	step := func(what string, limit time.Duration, change func(), done func() bool) {
		t.Helper()
		began, sent := time.Now(), f.sent.Load()
		change()
		l.until(what, done)
		took := time.Since(began)
		out, in, _ := l.crossed() // beside each other, so some are under way
		t.Logf("%s after %v; %d packets sent meanwhile, %.0f/s; %d under way or lost since the beginning", what, took.Round(time.Millisecond),
			f.sent.Load()-sent, float64(f.sent.Load()-sent)/took.Seconds(), int64(out-out0)-int64(in-in0))
		if took > limit {
			t.Errorf("%s after %v", what, took)
		}
	}

	step("packets have flowed for two seconds", time.Minute, func() {}, func() bool { return time.Since(first) > 2*time.Second })
	began := time.Now()
	step("WireGuard keys: the old ones are refused", time.Minute, func() { l.renew(l.order[0], began) }, func() bool { return l.keys(began) })

	before := l.ring(issuer)
	step("gossip key: the old one is refused", time.Minute, func() { l.must("gossip-key", "rotate", "--within", "10s", "--socket", issuer.socket) }, func() bool {
		return !slices.ContainsFunc(l.order, func(n *labNode) bool {
			r := l.ring(n)
			return n.gateway && (r.Version <= before.Version || len(r.Old) != 0)
		})
	})

	ca := filepath.Join(l.dir, "ca")
	stolen := filepath.Join(l.dir, "stolen")
	if err := os.CopyFS(stolen, os.DirFS(ca)); err != nil {
		t.Fatal(err)
	}
	statement := func(name, text string) {
		l.write(name, text)
		l.must("ca", "announce", "--socket", worker.socket, filepath.Join(l.dir, name))
	}
	step("authority: the next one is trusted", time.Minute, func() { statement("next.pem", l.must("ca", "rotate", "--dir", ca)) }, func() bool {
		return l.everywhere(func(c api.CertificateList) bool { return len(c.Authorities) == 2 })
	})
	step("node certificates: all are renewed, below the next authority", time.Minute, func() {
		l.certifyIssuer(issuer)
		l.must("reload", "--socket", issuer.socket)
	}, func() bool {
		return l.everywhere(func(c api.CertificateList) bool {
			return len(c.Certificates) == len(l.order) && !slices.ContainsFunc(c.Certificates, func(x api.CertificateStatus) bool {
				return x.Authority != c.Authorities[0].Key || x.Issuer == ""
			})
		})
	})
	young := func(c api.CertificateList) time.Time {
		i := slices.IndexFunc(c.Certificates, func(x api.CertificateStatus) bool { return x.Site == "a" && x.Node == "g3" })
		if i < 0 {
			return time.Time{}
		}
		return c.Certificates[i].NotAfter
	}
	own, _ := call[api.CertificateList](t.Context(), newClient(worker.socket), http.MethodGet, "certificates", nil)
	step("node certificate: renewed once more", time.Minute, func() {
		// Certificates end at whole seconds: one of the same second would end no later.
		l.until("the worker is given another one", func() bool {
			_, _, code := program(t, "cert", "renew", "--socket", worker.socket)
			return code == 0
		})
	}, func() bool {
		return l.everywhere(func(c api.CertificateList) bool { return young(c).After(young(own)) })
	})
	step("authority: the old one is refused", time.Minute, func() { statement("end.pem", l.must("ca", "retire", "--dir", ca, "--after", "0s")) }, func() bool {
		return l.everywhere(func(c api.CertificateList) bool { return c.Authorities[1].Retired })
	})
	// With the old key, everything could be signed, were it believed.
	for _, name := range []string{fileAuthorityCert, fileAuthorityKey} {
		if err := os.Chmod(filepath.Join(stolen, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l.write("forged.pem", l.must("cert", "revoke", "--ca", stolen, "b/g1"))
	step("a thief's revocation with the old key is refused", time.Minute, func() {}, func() bool {
		_, errs, code := program(t, "cert", "revoke", "--file", filepath.Join(l.dir, "forged.pem"), "--socket", worker.socket)
		return code == exitFailure && strings.Contains(errs, string(overlay.RefusedRetired))
	})

	took := time.Since(first)
	f.stop()
	rate := float64(f.sent.Load()) / took.Seconds()
	l.echo.close()
	out, in, dropped := still("what is under way arrives")
	out, in, dropped = out-out0, in-in0, dropped-dropped0
	t.Logf("%v under load: %d sent (%.0f/s), %d came back; %d packets went into tunnels, %d came out, %d were dropped by reason",
		took.Round(time.Millisecond), f.sent.Load(), rate, f.back.Load(), out, in, dropped)
	if dropped != 0 {
		for _, n := range l.order {
			s, _ := l.status(n)
			t.Logf("%v dropped %v", n.id, s.Drops)
		}
	}
	if out != in || dropped != 0 || out == 0 {
		t.Errorf("%d packets went into tunnels, %d came out; %d dropped", out, in, dropped)
	}
	if back := float64(f.back.Load()) / took.Seconds(); back < 700*float64(floodPace()) {
		t.Errorf("only %.0f packets/s came back", back)
	}
	if rate < 800*float64(floodPace()) {
		t.Errorf("only %.0f packets/s were sent each way, want about %d", rate, 1000*floodPace())
	}
}
