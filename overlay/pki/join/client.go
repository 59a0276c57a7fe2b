package join

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/pki"
)

// How a client asks.
const (
	dialTime = 4 * time.Second
	rounds   = 4 // over all addresses
	pause    = 500 * time.Millisecond
)

// errOther is not worth asking again for at the same address.
var errOther = errors.New("it is not the issuer that the token names: somebody else answers at its address")

// Admission is what a newcomer gets.
type Admission struct {
	Chain  []byte // PEM
	Root   []byte // PEM
	Gossip []byte // the gossip key, if the node is a gateway
}

// Join asks the token's issuer to certify the key in requestPEM as the node
// want. It tries every address, and again for a few seconds, unless it is
// refused (Refusal). What it returns comes from the issuer that the token names,
// but is otherwise for the caller to check, see Token.Pins.
func Join(ctx context.Context, t Token, want overlay.NodeID, requestPEM []byte) (Admission, error) {
	if want != t.Node {
		return Admission{}, Refusal{RefusedNode, fmt.Sprintf("the join token is for %v, not for %v", t.Node, want)}
	}
	conf := clientConfig(func(chain [][]byte) error {
		key, err := pki.ChainSum(chain)
		if err != nil {
			return err
		}
		if subtle.ConstantTimeCompare(key[:], t.Issuer[:]) != 1 {
			return errOther
		}
		return nil
	})
	sum := sha256.Sum256(t.bytes())
	var out answer
	err := try(ctx, t.Addresses, func(addr string) (err error) {
		out, err = ask(ctx, addr, conf, func(s tls.ConnectionState) (request, error) {
			binding, err := bindingOf(s)
			return request{
				Verb: verbJoin, Request: string(requestPEM), Token: t.Name(), Site: want.Site, Node: want.Node,
				Proof: proof(t.Secret[:], sum[:], binding, string(requestPEM)),
			}, err
		})
		return err
	})
	if err != nil {
		return Admission{}, err
	}
	return Admission{Chain: out.Chain, Root: out.Root, Gossip: out.Gossip}, nil
}

// Pins reports whether a certificate that hangs on the authority root of roots,
// both from an Admission, is what the token's maker meant: the authority that the
// token names, or one that came after it.
func (t *Token) Pins(roots *pki.Roots, root [32]byte) error {
	if roots.Mesh() != t.Mesh || !roots.Leads(t.Root, root) {
		return fmt.Errorf("the certificate hangs on authority %x of mesh %s, the token is for authority %x of mesh %s, or one after it",
			root[:8], roots.Mesh(), t.Root[:8], t.Mesh)
	}
	return nil
}

// Renew asks the issuer at addr for a younger certificate than id's, once. The
// issuer must be one for the node's site by the verifier's judgement at now.
func Renew(ctx context.Context, addr string, id *pki.Identity, v *pki.Verifier, self overlay.NodeID, now time.Time) ([]byte, error) {
	requestPEM, err := id.Request()
	if err != nil {
		return nil, err
	}
	conf := clientConfig(func(chain [][]byte) error {
		a, err := v.Authority(chain, now)
		if err == nil && !a.Certifies(self.Site) {
			err = fmt.Errorf("%v certifies no nodes of site %s", a.ID, self.Site)
		}
		return err
	})
	conf.Certificates = []tls.Certificate{id.Certificate()}
	out, err := ask(ctx, addr, conf, func(tls.ConnectionState) (request, error) {
		return request{Verb: verbRenew, Request: string(requestPEM)}, nil
	})
	if err == nil && len(out.Chain) == 0 {
		err = fmt.Errorf("%w: no certificate", errMessage)
	}
	return out.Chain, err
}

// FetchKeys asks the issuer at addr for the keys of the mesh's gossip, once, for
// a gateway. It may be an issuer for any site: the gossip is one for all.
func FetchKeys(ctx context.Context, addr string, id *pki.Identity, v *pki.Verifier, now time.Time) (Keys, error) {
	conf := clientConfig(func(chain [][]byte) error {
		a, err := v.Authority(chain, now)
		if err == nil && a.Issuer == nil {
			err = fmt.Errorf("%v is no issuer", a.ID)
		}
		return err
	})
	conf.Certificates = []tls.Certificate{id.Certificate()}
	out, err := ask(ctx, addr, conf, func(tls.ConnectionState) (request, error) { return request{Verb: verbKeys}, nil })
	if err != nil {
		return Keys{}, err
	}
	if out.Keys == nil {
		return Keys{}, fmt.Errorf("%w: no keys", errMessage)
	}
	return *out.Keys, nil
}

// clientConfig trusts who verify accepts. The names and purposes that crypto/tls
// looks at do not exist here, so its own verification is off.
func clientConfig(verify func(chain [][]byte) error) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{protocol},
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			var chain [][]byte
			for _, c := range s.PeerCertificates {
				chain = append(chain, c.Raw)
			}
			return verify(chain)
		},
	}
}

// try calls do with one address after another until it succeeds, is refused, or
// has no address left that may answer the next time.
func try(ctx context.Context, addrs []string, do func(addr string) error) error {
	var errs []error
	for round := range rounds {
		if round > 0 {
			wait := time.NewTimer(pause << (round - 1))
			select {
			case <-wait.C:
			case <-ctx.Done():
				wait.Stop()
				return errors.Join(append(errs, ctx.Err())...)
			}
		}
		errs = errs[:0]
		again := false
		for _, addr := range addrs {
			err := do(addr)
			if _, refused := errors.AsType[Refusal](err); err == nil || refused {
				return err
			}
			errs = append(errs, fmt.Errorf("issuer at %s: %w", addr, err))
			again = again || !errors.Is(err, errOther)
		}
		if !again {
			break
		}
	}
	return errors.Join(errs...)
}

// ask makes one request and returns the answer, or the Refusal in it.
func ask(ctx context.Context, addr string, conf *tls.Config, make func(tls.ConnectionState) (request, error)) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, connTime)
	defer cancel()
	d := net.Dialer{Timeout: dialTime}
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return answer{}, err
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	conn := tls.Client(raw, conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		return answer{}, err
	}
	r, err := make(conn.ConnectionState())
	if err != nil {
		return answer{}, err
	}
	if err := writeFrame(conn, r); err != nil {
		return answer{}, err
	}
	b, err := readFrame(conn, maxAnswer)
	if err != nil {
		return answer{}, fmt.Errorf("no answer (it may have too much to do): %w", err)
	}
	var out answer
	if err := decodeStrict(b, &out); err != nil {
		return answer{}, err
	}
	if out.Reason != "" {
		return answer{}, Refusal{out.Reason, out.Text}
	}
	if len(out.Chain) == 0 && out.Keys == nil {
		return answer{}, fmt.Errorf("%w: neither a certificate nor a refusal", errMessage)
	}
	return out, nil
}
