package gateway

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
)

// NewPrivateKey returns a fresh WireGuard (Curve25519) private key.
func NewPrivateKey() ([32]byte, error) {
	var k [32]byte
	if _, err := rand.Read(k[:]); err != nil {
		return k, fmt.Errorf("make private key: %w", err)
	}
	k[0] &= 248
	k[31] = k[31]&127 | 64
	return k, nil
}

// PublicKey returns the public key that belongs to a private key (RFC 7748).
func PublicKey(private [32]byte) [32]byte {
	k, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		panic("gateway: X25519 refuses 32 bytes: " + err.Error()) // only a wrong length is refused
	}
	return [32]byte(k.PublicKey().Bytes())
}

// lesser orders public keys, for two nodes to agree who does something first.
func lesser(a, b [32]byte) bool { return bytes.Compare(a[:], b[:]) < 0 }
