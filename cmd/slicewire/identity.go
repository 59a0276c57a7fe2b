package main

import (
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/pki"
)

// An identity is who a node is: its key and certificate, the mesh it belongs
// to, and the key of the mesh's gossip.
type identity struct {
	authority overlay.Authority
	signer    *pki.Identity
	verifier  *pki.Verifier
	gossipKey []byte
}

// gossipKeyBytes is the length of a gossip key: AES-256.
const gossipKeyBytes = 32

// loadIdentity reads the identity that `slicewire cert` put into the state
// folder and checks that it is good at now.
func loadIdentity(d stateDir, mesh string, now time.Time) (*identity, error) {
	var files [4][]byte
	for i, name := range []string{fileNodeKey, fileNodeCert, fileCACert, fileGossipKey} {
		data, err := d.read(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("the state folder %s has no %s: make an identity with `slicewire cert request` and `slicewire cert install`", d, name)
		}
		if err != nil {
			return nil, err
		}
		files[i] = data
	}
	signer, err := pki.LoadIdentity(files[0], files[1])
	if err != nil {
		return nil, fmt.Errorf("identity in %s: %w", d, err)
	}
	verifier, err := pki.NewVerifier(mesh, files[2])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.path(fileCACert), err)
	}
	authority, err := verifier.Authority(signer.Chain(), now)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.path(fileNodeCert), err)
	}
	key, err := decodeGossipKey(string(files[3]))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.path(fileGossipKey), err)
	}
	return &identity{authority: authority, signer: signer, verifier: verifier, gossipKey: key}, nil
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
func requestIdentity(d stateDir) ([]byte, error) {
	if err := d.create(); err != nil {
		return nil, err
	}
	key, err := d.read(fileNodeKey)
	if errors.Is(err, fs.ErrNotExist) {
		if key, err = pki.NewKey(); err == nil {
			err = d.write(fileNodeKey, key)
		}
	}
	if err != nil {
		return nil, err
	}
	return pki.NewRequest(key)
}

// A bundle is what an authority hands to a node: PEM blocks with the node's
// chain, then the mesh's certificate, then the gossip key. The last is the only
// secret in it, and the least: it lets in, it proves nothing.
const (
	bundleNode   = "SLICEWIRE NODE"
	bundleCA     = "SLICEWIRE CA"
	bundleGossip = "SLICEWIRE GOSSIP KEY"
)

func encodeBundle(chainPEM, caPEM, gossipKey []byte) []byte {
	var out []byte
	for _, b := range []struct {
		kind string
		data []byte
	}{{bundleNode, chainPEM}, {bundleCA, caPEM}, {bundleGossip, gossipKey}} {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: b.kind, Bytes: b.data})...)
	}
	return out
}

// installBundle puts a bundle's parts into the state folder after checking that
// they fit the key there and each other.
func installBundle(d stateDir, bundle []byte, now time.Time) (overlay.Authority, error) {
	var none overlay.Authority
	parts := make(map[string][]byte)
	for rest := bundle; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		parts[b.Type] = b.Bytes
	}
	for _, kind := range []string{bundleNode, bundleCA, bundleGossip} {
		if parts[kind] == nil {
			return none, fmt.Errorf("the bundle has no %q block: it is what `slicewire ca sign` prints", kind)
		}
	}
	key, err := d.read(fileNodeKey)
	if err != nil {
		return none, fmt.Errorf("the key that the bundle is for: %w", err)
	}
	signer, err := pki.LoadIdentity(key, parts[bundleNode])
	if err != nil {
		return none, fmt.Errorf("the bundle does not fit the key in %s: %w", d, err)
	}
	mesh, err := pki.MeshOf(parts[bundleCA])
	if err != nil {
		return none, fmt.Errorf("the bundle's authority: %w", err)
	}
	verifier, err := pki.NewVerifier(mesh, parts[bundleCA])
	if err != nil {
		return none, fmt.Errorf("the bundle's authority: %w", err)
	}
	authority, err := verifier.Authority(signer.Chain(), now)
	if err != nil {
		return none, fmt.Errorf("the bundle's certificate: %w", err)
	}
	if len(parts[bundleGossip]) != gossipKeyBytes {
		return none, fmt.Errorf("the bundle's gossip key has %d bytes instead of %d", len(parts[bundleGossip]), gossipKeyBytes)
	}
	gossip := base64.StdEncoding.EncodeToString(parts[bundleGossip]) + "\n"
	return authority, errors.Join(
		d.write(fileCACert, parts[bundleCA]), d.write(fileGossipKey, []byte(gossip)), d.write(fileNodeCert, parts[bundleNode]))
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
