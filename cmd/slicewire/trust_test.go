package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slicewire/api"
	"slicewire/overlay"
	"slicewire/overlay/pki"
	"slicewire/overlay/pki/join"
	"slicewire/statedir"
)

// trusting notes what it was asked for.
type trusting struct{ asked []string }

func (f *trusting) CreateToken(context.Context, api.TokenRequest) (api.TokenReply, error) {
	f.asked = append(f.asked, "token")
	return api.TokenReply{}, errNoIssuer
}
func (f *trusting) Renew(context.Context) (api.RenewReply, error) {
	f.asked = append(f.asked, "renew")
	return api.RenewReply{}, nil
}
func (f *trusting) RotateGossipKey(context.Context, api.GossipKeyRequest) (api.GossipKeyReply, error) {
	f.asked = append(f.asked, "gossip-key")
	return api.GossipKeyReply{}, nil
}

func (f *trusting) Announce(context.Context, api.AnnounceRequest) (api.AnnounceReply, error) {
	f.asked = append(f.asked, "authority")
	return api.AnnounceReply{}, nil
}

func (f *trusting) RevokeToken(context.Context, api.TokenRevokeRequest) error {
	f.asked = append(f.asked, "token-revoke")
	return nil
}

func (f *trusting) Revoke(context.Context, api.RevokeRequest) error {
	f.asked = append(f.asked, "revoke")
	return nil
}

func TestWhoMayChangeWhoIsTrusted(t *testing.T) {
	own, other := unix.Ucred{Uid: uint32(os.Getuid())}, unix.Ucred{Uid: uint32(os.Getuid()) + 1}
	for _, tc := range []struct {
		name, verb, body string
		cred             *unix.Ucred
		want             int
		asked            bool
	}{
		{"tokens are not for others", "token", `{}`, &other, http.StatusForbidden, false},
		{"tokens need credentials", "token", `{}`, nil, http.StatusForbidden, false},
		{"a refusal is told", "token", `{}`, &own, http.StatusUnprocessableEntity, true},
		{"renewing is not for others", "renew", `{}`, &other, http.StatusForbidden, false},
		{"renewing is for the owner", "renew", `{}`, &own, http.StatusOK, true},
		{"revoking is not for others", "revoke", `{}`, &other, http.StatusForbidden, false},
		{"revoking is for the owner", "revoke", `{}`, &own, http.StatusOK, true},
		{"changing the gossip key is not for others", "gossip-key", `{}`, &other, http.StatusForbidden, false},
		{"changing the gossip key is for the owner", "gossip-key", `{}`, &own, http.StatusOK, true},
		{"naming an authority is not for others", "authority", `{}`, &other, http.StatusForbidden, false},
		{"naming an authority is for the owner", "authority", `{}`, &own, http.StatusOK, true},
		{"taking a token back is not for others", "token-revoke", `{}`, &other, http.StatusForbidden, false},
		{"taking a token back is for the owner", "token-revoke", `{}`, &own, http.StatusOK, true},
		{"nonsense is refused", "revoke", `[`, &own, http.StatusBadRequest, false},
		{"and so is much of it", "token", `{"node":"` + strings.Repeat("x", maxRequestBody), &own, http.StatusBadRequest, false},
	} {
		ctx := t.Context()
		if tc.cred != nil {
			ctx = context.WithValue(ctx, peerKey{}, *tc.cred)
		}
		f := new(trusting)
		c := &control{trust: f, log: slog.New(slog.DiscardHandler)}
		mux := http.NewServeMux()
		c.handleTrust(mux)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/"+tc.verb, strings.NewReader(tc.body)))
		if w.Code != tc.want || (len(f.asked) == 1 && f.asked[0] == tc.verb) != tc.asked {
			t.Errorf("%s: %d, asked %v", tc.name, w.Code, f.asked)
		}
	}
}

func TestWhenACertificateIsRenewed(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	cert := func(life time.Duration) overlay.Authority {
		return overlay.Authority{NotBefore: at, NotAfter: at.Add(life)}
	}
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name   string
		life   time.Duration
		after  time.Duration
		behind bool
		want   bool
	}{
		{"a young one", 7 * day, 3 * day, false, false},
		{"at half its life", 7 * day, 7 * day / 2, false, true},
		{"an old one", 7 * day, 6 * day, false, true},
		{"one that is over", 7 * day, 8 * day, false, true},
		{"signed by hand, at half: a new one would end earlier", 90 * day, 50 * day, false, false},
		{"signed by hand, near its end", 90 * day, 90*day - join.DefaultLife, false, true},
		{"with a clock that is behind", 7 * day, time.Hour, true, true},
	} {
		if got := renewDue(cert(tt.life), at.Add(tt.after), tt.behind); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	for failures, want := range map[int]time.Duration{1: renewFirst, 2: 2 * renewFirst, 6: 32 * renewFirst, 7: renewSlowest, 1000: renewSlowest} {
		if got := renewWait(failures); got != want {
			t.Errorf("after %d failures %v, want %v", failures, got, want)
		}
	}
	issuer := func(site, addr string) overlay.Record {
		return overlay.Record{Origin: overlay.NodeID{Site: site, Node: "gw"}, Key: overlay.Key{Kind: overlay.KindIssuer}, Issuer: &overlay.IssuerBody{Endpoints: []netip.AddrPort{netip.MustParseAddrPort(addr)}}}
	}
	records := []overlay.Record{issuer("a", "192.0.2.1:1"), issuer("b", "192.0.2.2:1"), {Key: overlay.Key{Kind: overlay.KindNode}, Node: &overlay.NodeBody{}}, issuer("c", "192.0.2.3:1")}
	if got := issuersNear(overlay.NodeID{Site: "b", Node: "edge"}, records); len(got) != 3 || got[0] != "192.0.2.2:1" {
		t.Errorf("asked are %v", got)
	}
}

func TestRevokingOnTheCommandLine(t *testing.T) {
	dir := t.TempDir()
	ca := statedir.Dir(filepath.Join(dir, "ca"))
	now := time.Now()
	if err := initAuthority(ca, "demo", now); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other.pem")
	if err := os.WriteFile(other, []byte("-----BEGIN X-----\n-----END X-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key := strings.Repeat("ab", 32)
	for _, tt := range []struct {
		name string
		r    revoking
		says string // of the error; empty: none
	}{
		{"a node", revoking{args: []string{"worker-1/gw"}}, ""},
		{"a node, by the authority", revoking{args: []string{"worker-1/gw"}, authority: string(ca)}, ""},
		{"a key, by the authority", revoking{key: key, authority: string(ca)}, ""},
		{"a key, by an issuer", revoking{key: key}, "name a SITE/NODE"},
		{"half a key", revoking{key: key[:32], authority: string(ca)}, "64 hexadecimal digits"},
		{"nothing", revoking{}, "name a SITE/NODE"},
		{"both", revoking{args: []string{"worker-1/gw"}, key: key, authority: string(ca)}, "name a SITE/NODE"},
		{"no node", revoking{args: []string{"worker-1"}}, "want SITE/NODE"},
		{"a file and a node", revoking{args: []string{"worker-1/gw"}, file: other}, "name a SITE/NODE"},
		{"a file of something else", revoking{file: other}, blockRevocation},
		{"a folder without an authority", revoking{args: []string{"worker-1/gw"}, authority: dir}, "slicewire ca init"},
	} {
		req, err := tt.r.request(now)
		if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if signed := tt.r.authority != "" && err == nil; signed != (len(req.Revocation) > 0) {
			t.Errorf("%s: %d bytes are signed", tt.name, len(req.Revocation))
		}
	}
}

func TestACertificateThatCouldOutliveItsRevocationIsNotSigned(t *testing.T) {
	s := signing{life: maxCertLife + time.Second}
	if _, err := s.sign(nil, time.Now()); err == nil || !strings.Contains(err.Error(), "outlive") {
		t.Errorf("%v", err)
	}
}

// A clock that went back since the last run, but not behind the certificate,
// costs the WireGuard keys and nothing else; one that goes on costs nothing.
func TestAClockThatWentBackCostsTheWireGuardKeys(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		name   string
		wall   time.Time
		proven time.Time
		kept   bool
	}{
		{"it went on", at.Add(time.Second), at.Add(-time.Hour), true},
		{"it went back a little", at.Add(-time.Minute), at.Add(-time.Hour), false},
		{"it went back behind the certificate", at.AddDate(-10, 0, 0), at.Add(-time.Hour), false},
		{"it was never right", at.Add(time.Hour), at.Add(2 * time.Hour), false},
	} {
		d := &daemon{state: newStateDir(t), log: slog.New(slog.DiscardHandler)}
		d.wall = func() time.Time { return at }
		d.saveClock()
		d.id = &identity{clock: pki.NewClock(func() time.Time { return tt.wall })}
		d.id.clock.Raise(tt.proven)
		if _, err := d.state.MakeWireGuardKey("blue", 5, func() ([32]byte, error) { return [32]byte{1}, nil }); err != nil {
			t.Fatal(err)
		}
		if err := d.checkClock(tt.wall); err != nil {
			t.Fatal(err)
		}
		keys, err := d.state.WireGuardKeys("blue")
		if kept := len(keys) == 1; err != nil || kept != tt.kept {
			t.Errorf("%s: kept %v, %v", tt.name, kept, err)
		}
	}
}

func TestACertificateIsRenewedByItself(t *testing.T) {
	m := startMesh(t)
	issuer, edge := m.nodes["worker-1"], m.nodes["worker-3"]
	m.asIssuer(issuer)
	if err := issuer.start(); err != nil {
		t.Fatal(err)
	}
	m.until("the issuer is up", func() bool { _, up := m.status(issuer); return up })
	state := filepath.Join(m.dir, "worker-3")
	if err := os.RemoveAll(state); err != nil {
		t.Fatal(err)
	}
	m.must("join", m.token(issuer, "--site", "worker-3", "--node", demoNodeName, "--gateway"), "--state", state)
	before, err := os.ReadFile(filepath.Join(state, statedir.FileNodeCert))
	if err != nil {
		t.Fatal(err)
	}
	// By its clock, more than half of its certificate's life is over.
	t.Setenv(asOf, (100 * time.Hour).String())
	if err := edge.start(); err != nil {
		t.Fatal(err)
	}
	m.until("the certificate is another", func() bool {
		after, err := os.ReadFile(filepath.Join(state, statedir.FileNodeCert))
		return err == nil && !slices.Equal(after, before)
	})
	m.until("the issuer's node knows the records signed with it", func() bool {
		s, _ := m.status(edge)
		return slices.ContainsFunc(m.certificates(issuer).Certificates, func(c api.CertificateStatus) bool {
			return c.Site == "worker-3" && c.NotAfter.Equal(s.CertExpiry)
		})
	})
}
