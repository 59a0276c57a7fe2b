package join

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/pki"
)

// maxBearer is how long a pod's token may be.
const maxBearer = 8 << 10

// A PodRequest is a pod that wants to be a node.
type PodRequest struct {
	Want   overlay.NodeID
	Bearer string   // the pod's token, not judged yet
	Key    [32]byte // pki.KeySum of the key to certify
}

// AskPod says how a pod asks for an identity. All fields are needed.
type AskPod struct {
	Addresses []string // host:port of issuers, in the order to try
	Verifier  *pki.Verifier
	Want      overlay.NodeID
	Bearer    string    // the pod's token
	Request   []byte    // PKCS #10, in PEM
	Now       time.Time // by which an issuer's certificate is judged
}

// JoinPod asks an issuer for the pod's site to certify the key in the request. It
// shows the pod's token to nobody but such an issuer of the verifier's mesh. It
// tries every address, and again for a few seconds, unless it is refused
// (Refusal). What it returns comes from an issuer of the mesh but is otherwise for
// the caller to check.
func JoinPod(ctx context.Context, a AskPod) (Admission, error) {
	if len(a.Addresses) == 0 || a.Verifier == nil || a.Bearer == "" || len(a.Request) == 0 {
		return Admission{}, errors.New("join as a pod: issuers' addresses, authority, token and request are needed")
	}
	for _, addr := range a.Addresses {
		if err := checkAddress(addr); err != nil {
			return Admission{}, err
		}
	}
	conf := clientConfig(func(chain [][]byte) error {
		authority, err := a.Verifier.Authority(chain, a.Now)
		if err == nil && !authority.Certifies(a.Want.Site) {
			err = fmt.Errorf("%v certifies no nodes of site %s", authority.ID, a.Want.Site)
		}
		return err
	})
	var out answer
	err := try(ctx, a.Addresses, func(addr string) (err error) {
		out, err = ask(ctx, addr, conf, func(tls.ConnectionState) (request, error) {
			return request{Verb: verbPod, Request: string(a.Request), Site: a.Want.Site, Node: a.Want.Node, Bearer: a.Bearer}, nil
		})
		return err
	})
	if err != nil {
		return Admission{}, err
	}
	return Admission{Chain: out.Chain, Root: out.Root, Gossip: out.Gossip}, nil
}

// pod lets a pod in that the configuration has judged.
func (s *Server) pod(ctx context.Context, r request, from netip.AddrPort) (answer, error) {
	if s.cfg.Pods == nil {
		return answer{}, Refusal{RefusedIssuer, "this issuer lets no pods in: its node file has no join.kubernetes"}
	}
	key, err := pki.RequestSum([]byte(r.Request))
	if err != nil {
		return answer{}, Refusal{RefusedRequest, "certificate request: " + err.Error()}
	}
	now := s.cfg.Now()
	terms, err := s.cfg.Pods(ctx, PodRequest{Want: overlay.NodeID{Site: r.Site, Node: r.Node}, Bearer: r.Bearer, Key: key})
	if err != nil {
		return answer{}, err
	}
	chain, err := s.admit(r, terms, key, now)
	if err != nil {
		return answer{}, err
	}
	s.cfg.Log.Info("pod let in", "node", terms.Node.String(), "peer", from.String())
	return s.admission(chain, terms.Gateway), nil
}
