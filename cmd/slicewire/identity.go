package main

import (
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/pki"
	"slicewire/statedir"
)

// An identity is who a node is: its key and certificate, the mesh it belongs
// to, and the key of the mesh's gossip. Its certificate may be replaced while
// others use it; it is a gossip.Signer.
type identity struct {
	verifier  *pki.Verifier
	clock     *pki.Clock
	gossipKey []byte // of a gateway
	certified atomic.Pointer[certified]
}

// certified is a node's key with its certificate and what that allows.
type certified struct {
	signer    *pki.Identity
	authority overlay.Authority
}

func (id *identity) authority() overlay.Authority { return id.certified.Load().authority }

// Chain returns the present certificates in DER, leaf first.
func (id *identity) Chain() [][]byte { return id.certified.Load().signer.Chain() }

// Sign signs with the node's key, which stays the same.
func (id *identity) Sign(domain string, message []byte) []byte {
	return id.certified.Load().signer.Sign(domain, message)
}

// identityAgain is what to do about an identity that is no good.
const identityAgain = "if a file is damaged, bring it back, or let the node in again (slicewire join --replace)"

// gossipKeyBytes is the length of a gossip key: AES-256.
const gossipKeyBytes = 32

// loadIdentity reads the identity that `slicewire join` or `slicewire cert` put
// into the state folder and checks that it is good by the given wall clock,
// which may be years behind.
func loadIdentity(d statedir.Dir, mesh string, wall func() time.Time) (*identity, error) {
	var files [3][]byte
	for i, name := range []string{statedir.FileNodeKey, statedir.FileNodeCert, statedir.FileCACert} {
		data, err := d.Read(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("the state folder %s has no %s: make an identity with `slicewire join`, or with `slicewire cert request` and `slicewire cert install`", d, name)
		}
		if err != nil {
			return nil, err
		}
		files[i] = data
	}
	signer, err := pki.LoadIdentity(files[0], files[1])
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w: %s", d.Path(statedir.FileNodeKey), d.Path(statedir.FileNodeCert), err, identityAgain)
	}
	id := &identity{clock: pki.NewClock(wall)}
	if id.verifier, err = pki.NewVerifier(mesh, files[2]); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", d.Path(statedir.FileCACert), err, identityAgain)
	}
	id.verifier.Follow(id.clock)
	authority, err := judgeNode(id.verifier, id.clock, signer.Chain())
	if errors.Is(err, overlay.RefusedRetired) {
		err = fmt.Errorf("%w: %s", err, joinAgain)
	}
	if err != nil {
		return nil, fmt.Errorf("%s, by %s: %w: %s", d.Path(statedir.FileNodeCert), d.Path(statedir.FileCACert), err, identityAgain)
	}
	if authority.Gateway {
		text, err := d.Read(statedir.FileGossipKey)
		if err != nil {
			return nil, fmt.Errorf("the gossip key of a gateway: %w: copy it from another gateway", err)
		}
		if id.gossipKey, err = decodeGossipKey(string(text)); err != nil {
			return nil, fmt.Errorf("%s: %w: copy it from another gateway", d.Path(statedir.FileGossipKey), err)
		}
	}
	id.certified.Store(&certified{signer, authority})
	return id, nil
}

// judgeNode verifies the chain of a certificate that was issued for this very
// node. It cannot be of the future: if it begins later than the clock says, the
// clock is behind, and is held to that from now on.
func judgeNode(v *pki.Verifier, c *pki.Clock, chain [][]byte) (overlay.Authority, error) {
	a, err := v.Authority(chain, c.Now())
	if (err == nil || errors.Is(err, pki.ErrNotValid)) && a.Issuer == nil {
		c.Raise(a.NotBefore)
		a, err = v.Authority(chain, c.Now())
	}
	if err == nil && a.Issuer != nil {
		err = errors.New("it is an issuer's certificate, not a node's")
	}
	return a, err
}

func decodeGossipKey(text string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return nil, fmt.Errorf("gossip key: %w", err)
	}
	if len(key) != gossipKeyBytes {
		return nil, fmt.Errorf("gossip key: %d bytes instead of %d", len(key), gossipKeyBytes)
	}
	return key, nil
}

// requestIdentity makes the node's key, unless it has one, and returns a
// certificate request for it. The key does not leave the folder.
func requestIdentity(d statedir.Dir) ([]byte, error) { return requestFor(d, statedir.FileNodeKey) }

func requestFor(d statedir.Dir, name string) ([]byte, error) {
	if err := d.Create(); err != nil {
		return nil, err
	}
	key, err := d.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		if key, err = pki.NewKey(); err == nil {
			err = d.Write(name, key)
		}
	}
	if err != nil {
		return nil, err
	}
	return pki.NewRequest(key)
}

// A bundle is what an authority hands to a node: PEM blocks with the node's
// chain, then the mesh's authorities, then, for a gateway, the gossip key. The
// last is the only secret in it, and the least: it lets in, it proves nothing.
const (
	bundleNode   = "SLICEWIRE NODE"
	bundleCA     = "SLICEWIRE CA"
	bundleGossip = "SLICEWIRE GOSSIP KEY"
	bundleIssuer = "SLICEWIRE ISSUER" // instead of the node's chain and the gossip key
)

func encodeBundle(chainPEM, caPEM, gossipKey []byte) []byte {
	blocks := []*pem.Block{pemBlock(bundleNode, chainPEM), pemBlock(bundleCA, caPEM)}
	if len(gossipKey) > 0 {
		blocks = append(blocks, pemBlock(bundleGossip, gossipKey))
	}
	return encodeBlocks(blocks...)
}

func pemBlock(kind string, data []byte) *pem.Block { return &pem.Block{Type: kind, Bytes: data} }

func encodeBlocks(blocks ...*pem.Block) (out []byte) {
	for _, b := range blocks {
		out = append(out, pem.EncodeToMemory(b)...)
	}
	return out
}

// A checkedBundle is a node's bundle that fits the key in the state folder.
type checkedBundle struct {
	authority           overlay.Authority
	roots               *pki.Roots
	hangs               [32]byte // on which of the roots
	chain, root, gossip []byte   // gossip as its file has it, nil without
}

// installBundle puts a bundle's parts into the state folder after checking that
// they fit the key there and each other.
func installBundle(d statedir.Dir, bundle []byte, wall func() time.Time) (overlay.Authority, error) {
	parts := blocksOf(bundle)
	if parts[bundleIssuer] != nil {
		return installIssuer(d, parts[bundleIssuer], parts[bundleCA], wall())
	}
	b, err := checkBundle(d, bundle, wall)
	if err != nil {
		return overlay.Authority{}, err
	}
	return b.authority, b.install(d)
}

func blocksOf(bundle []byte) map[string][]byte {
	parts := make(map[string][]byte)
	for rest := bundle; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return parts
		}
		parts[b.Type] = b.Bytes
	}
}

func checkBundle(d statedir.Dir, bundle []byte, wall func() time.Time) (*checkedBundle, error) {
	parts := blocksOf(bundle)
	for _, kind := range []string{bundleNode, bundleCA} {
		if parts[kind] == nil {
			return nil, fmt.Errorf("the bundle has no %q block: it is what `slicewire ca sign` prints", kind)
		}
	}
	key, err := d.Read(statedir.FileNodeKey)
	if err != nil {
		return nil, fmt.Errorf("the key that the bundle is for: %w", err)
	}
	signer, err := pki.LoadIdentity(key, parts[bundleNode])
	if err != nil {
		return nil, fmt.Errorf("the bundle does not fit the key in %s: %w", d, err)
	}
	roots, err := pki.ParseRoots(parts[bundleCA])
	if err != nil {
		return nil, fmt.Errorf("the bundle's authority: %w", err)
	}
	verifier, err := pki.NewVerifier(roots.Mesh(), parts[bundleCA])
	if err != nil {
		return nil, fmt.Errorf("the bundle's authority: %w", err)
	}
	clock := pki.NewClock(wall)
	verifier.Follow(clock)
	authority, err := judgeNode(verifier, clock, signer.Chain())
	if err != nil {
		return nil, fmt.Errorf("the bundle's certificate: %w", err)
	}
	hangs, err := verifier.Root(signer.Chain())
	if err != nil {
		return nil, err
	}
	out := &checkedBundle{authority: authority, roots: roots, hangs: hangs, chain: parts[bundleNode], root: parts[bundleCA]}
	if !authority.Gateway {
		return out, nil
	}
	if len(parts[bundleGossip]) != gossipKeyBytes {
		return nil, fmt.Errorf("the bundle's gossip key has %d bytes instead of %d", len(parts[bundleGossip]), gossipKeyBytes)
	}
	out.gossip = []byte(base64.StdEncoding.EncodeToString(parts[bundleGossip]) + "\n")
	return out, nil
}

func (b *checkedBundle) install(d statedir.Dir) error {
	gossip := d.Write
	if b.gossip == nil {
		gossip = func(name string, _ []byte) error { return d.Forget(name) }
	}
	return errors.Join(d.Write(statedir.FileCACert, b.root), gossip(statedir.FileGossipKey, b.gossip), d.Forget(statedir.FileGossipRing), d.Write(statedir.FileNodeCert, b.chain))
}

// readFileOrStdin reads a file, or standard input for "-".
func readFileOrStdin(path string, stdin *os.File) ([]byte, error) {
	if path == "-" {
		return readBounded(stdin)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f)
}
