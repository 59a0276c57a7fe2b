package join

import (
	"errors"
	"strings"
	"testing"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/pki"
)

func (x *testIssuer) askPod(bearer string, request []byte) AskPod {
	return AskPod{Addresses: []string{x.addr}, Verifier: x.verifier, Want: edge, Bearer: bearer, Request: request, Now: x.clock()}
}

func TestAPodIsLetInAsItsTokenIsJudged(t *testing.T) {
	x := newTestIssuer(t)
	key, request := newRequest(t)
	sum, err := pki.RequestSum(request)
	if err != nil {
		t.Fatal(err)
	}
	var asked PodRequest
	x.pods = func(r PodRequest) (Terms, error) {
		if asked = r; r.Bearer != "good" {
			return Terms{}, Refusal{RefusedToken, "no good"}
		}
		return Terms{Node: edge, Gateway: true, Index: 1, Grants: grants("10.1.1.0/24")}, nil
	}
	got, err := JoinPod(t.Context(), x.askPod("good", request))
	if err != nil {
		t.Fatal(err)
	}
	if asked.Want != edge || asked.Key != sum || string(got.Gossip) != "gossip key" || string(got.Root) != string(x.ca.CertPEM()) {
		t.Errorf("asked %+v, got the gossip key %q", asked, got.Gossip)
	}
	id, err := pki.LoadIdentity(key, got.Chain)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := x.verifier.Authority(id.Chain(), begin); err != nil || a.ID != edge || !a.Gateway || a.Index != 1 {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := JoinPod(t.Context(), x.askPod("bad", request)); reason(err) != RefusedToken {
		t.Errorf("a token that is no good: %v", err)
	}
	x.mu.Lock()
	x.keys[sum] = overlay.NodeID{Site: "site-a", Node: "other"}
	x.mu.Unlock()
	if _, err := JoinPod(t.Context(), x.askPod("good", request)); reason(err) != RefusedKey {
		t.Errorf("another node's key: %v", err)
	}
}

// A pod's token must not reach anybody but an issuer of its mesh for its site.
func TestAPodShowsItsTokenToItsIssuersOnly(t *testing.T) {
	x := newTestIssuer(t)
	x.pods = func(PodRequest) (Terms, error) {
		t.Error("the token was shown")
		return Terms{}, errors.New("shown")
	}
	_, request := newRequest(t)
	other, err := pki.NewCA("lab", begin, 1000*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ask := x.askPod("good", request)
	if ask.Verifier, err = pki.NewVerifier("lab", other.CertPEM()); err != nil {
		t.Fatal(err)
	}
	if _, err := JoinPod(t.Context(), ask); err == nil {
		t.Error("joined by an issuer of another authority")
	}
	ask = x.askPod("good", request)
	ask.Want.Site = "site-b"
	if _, err := JoinPod(t.Context(), ask); err == nil || !strings.Contains(err.Error(), "certifies no nodes of site site-b") {
		t.Errorf("an issuer for other sites: %v", err)
	}
}

func TestBearersAreForPodsOnly(t *testing.T) {
	for text, good := range map[string]bool{
		`{"verb":"pod","request":"r","site":"s","node":"n","bearer":"b"}`:                                        true,
		`{"verb":"pod","request":"r","site":"s","node":"n"}`:                                                     false,
		`{"verb":"pod","request":"r","site":"s","node":"n","bearer":"b","token":"t"}`:                            false,
		`{"verb":"renew","request":"r","bearer":"b"}`:                                                            false,
		`{"verb":"pod","request":"r","site":"s","node":"n","bearer":"` + strings.Repeat("b", maxBearer+1) + `"}`: false,
	} {
		if _, err := decodeRequest([]byte(text)); (err == nil) != good {
			t.Errorf("%.80s: %v", text, err)
		}
	}
}

// Certificates of pods live shorter, also those that are renewed, and one that is
// let in again in the second of its revocation is enrolled after it.
func TestCertificatesLiveAsTheirNodesDo(t *testing.T) {
	x := newTestIssuer(t)
	x.lives = func(id overlay.NodeID, gateway bool) time.Duration {
		if id == edge && !gateway {
			return time.Hour
		}
		return 0
	}
	x.pods = func(PodRequest) (Terms, error) {
		return Terms{Node: edge, Index: 1, Grants: grants("10.1.1.0/24")}, nil
	}
	key, request := newRequest(t)
	certified := func(chain []byte) overlay.Authority {
		t.Helper()
		id, err := pki.LoadIdentity(key, chain)
		if err != nil {
			t.Fatal(err)
		}
		a, err := x.verifier.Authority(id.Chain(), x.clock())
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	got, err := JoinPod(t.Context(), x.askPod("good", request))
	if err != nil {
		t.Fatal(err)
	}
	first := certified(got.Chain)
	if !first.NotAfter.Equal(begin.Add(time.Hour)) {
		t.Errorf("until %v", first.NotAfter)
	}
	id, err := pki.LoadIdentity(key, got.Chain)
	if err != nil {
		t.Fatal(err)
	}
	x.advance(time.Minute)
	renewed, err := Renew(t.Context(), x.addr, id, x.verifier, edge, x.clock())
	if err != nil {
		t.Fatal(err)
	}
	if a := certified(renewed); !a.NotAfter.Equal(begin.Add(time.Minute + time.Hour)) {
		t.Errorf("renewed until %v", a.NotAfter)
	}
	x.verifier.Revoke([]overlay.Revocation{{Node: edge, Until: x.clock()}})
	x.advance(300 * time.Millisecond)
	if got, err = JoinPod(t.Context(), x.askPod("good", request)); err != nil {
		t.Fatal(err)
	}
	certified(got.Chain)
}
