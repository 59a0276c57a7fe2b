package pki

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// NewKey makes a node's private key and returns it in PEM (PKCS #8). It is made
// on the node and stays there.
func NewKey() ([]byte, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	return encodeKey(key)
}

// NewRequest returns a certificate request (PKCS #10) in PEM. It holds the
// public key and proves possession of the private one; it asks for nothing.
func NewRequest(keyPEM []byte) ([]byte, error) {
	key, err := decodeKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	return newRequest(key)
}

// Request is NewRequest for the key of an identity.
func (id *Identity) Request() ([]byte, error) { return newRequest(id.key) }

func newRequest(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	return encodePEM(blockRequest, der), nil
}

// An Identity is a node's private key and the certificate chain for it.
type Identity struct {
	key   ed25519.PrivateKey
	chain [][]byte
}

// LoadIdentity joins a node's key with its chain, leaf first. Whether the chain
// is any good is for a Verifier to say.
func LoadIdentity(keyPEM, chainPEM []byte) (*Identity, error) {
	key, err := decodeKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("node identity: %w", err)
	}
	chain, err := decodeChain(chainPEM)
	if err != nil {
		return nil, fmt.Errorf("node identity: %w", err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("node identity: %w", err)
	}
	if !key.Public().(ed25519.PublicKey).Equal(leaf.PublicKey) {
		return nil, errors.New("node identity: the key is not the certificate's")
	}
	return &Identity{key: key, chain: chain}, nil
}

// Renewed returns the identity of the same key with another chain.
func (id *Identity) Renewed(chainPEM []byte) (*Identity, error) {
	key, err := encodeKey(id.key)
	if err != nil {
		return nil, err
	}
	return LoadIdentity(key, chainPEM)
}

// Chain returns the certificates in DER, leaf first. The caller does not change
// them.
func (id *Identity) Chain() [][]byte { return id.chain }

// Sign signs message for one purpose, named by domain: a signature made for one
// domain is void in every other. See Verifier.Signed.
func (id *Identity) Sign(domain string, message []byte) []byte {
	return ed25519.Sign(id.key, separated(domain, message))
}

// separated returns the bytes that are signed: the domain, a zero byte, which
// no domain contains, and the message.
func separated(domain string, message []byte) []byte {
	b := make([]byte, 0, len(domain)+1+len(message))
	b = append(b, domain...)
	b = append(b, 0)
	return append(b, message...)
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func encodeKey(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	return encodePEM(blockKey, der), nil
}

func decodeKey(text []byte) (ed25519.PrivateKey, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != blockKey || len(bytes.TrimSpace(rest)) != 0 {
		return nil, fmt.Errorf("private key: want one PEM block %q", blockKey)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("private key of type %T, want Ed25519", parsed)
	}
	return key, nil
}

// decodeChain reads one certificate or more, and nothing else.
func decodeChain(text []byte) ([][]byte, error) {
	var chain [][]byte
	for len(bytes.TrimSpace(text)) > 0 {
		block, rest := pem.Decode(text)
		if block == nil || block.Type != blockCertificate {
			return nil, fmt.Errorf("certificates: want PEM blocks %q only", blockCertificate)
		}
		chain = append(chain, block.Bytes)
		text = rest
	}
	if len(chain) == 0 {
		return nil, fmt.Errorf("certificates: no PEM block %q", blockCertificate)
	}
	return chain, nil
}
