package podtoken

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

// Bounds of a key set. RSA keys below 2048 bits are too weak; above 8192 a
// signature takes too long to check.
const (
	maxKeySet  = 256 << 10
	maxKeys    = 64
	minRSABits = 2048
	maxRSABits = 8192
)

// A publicKey is one that a cluster signs with.
type publicKey struct {
	algorithm string // of RFC 7518
	rsa       *rsa.PublicKey
	ecdsa     *ecdsa.PublicKey
}

// jwk is a JSON Web Key (RFC 7517).
type jwk struct {
	Type      string `json:"kty"`
	Use       string `json:"use"`
	ID        string `json:"kid"`
	Algorithm string `json:"alg"`
	N         string `json:"n"`
	E         string `json:"e"`
	Curve     string `json:"crv"`
	X         string `json:"x"`
	Y         string `json:"y"`
}

// parseKeys reads a key set. Keys of kinds that Kubernetes does not sign with are
// left out.
func parseKeys(text []byte) (map[string]publicKey, error) {
	var set struct {
		Keys []jwk `json:"keys"`
	}
	if len(text) > maxKeySet {
		return nil, fmt.Errorf("key set: more than %d bytes", maxKeySet)
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("key set: %w: want what `kubectl get --raw /openid/v1/jwks` prints", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("key set: more than %d keys", maxKeys)
	}
	keys := make(map[string]publicKey)
	for _, k := range set.Keys {
		if k.ID == "" || k.Use != "" && k.Use != "sig" {
			continue
		}
		if _, twice := keys[k.ID]; twice {
			return nil, fmt.Errorf("key set: the id %q is there twice", k.ID)
		}
		key, err := k.key()
		if err != nil {
			return nil, fmt.Errorf("key set: key %q: %w", k.ID, err)
		}
		if key.algorithm != "" {
			keys[k.ID] = key
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("key set: it has no key for RS256, ES256, ES384 or ES512 with an id: want what `kubectl get --raw /openid/v1/jwks` prints")
	}
	return keys, nil
}

func (k *jwk) key() (publicKey, error) {
	switch {
	case k.Type == "RSA" && (k.Algorithm == "" || k.Algorithm == "RS256"):
		return k.rsaKey()
	case k.Type == "EC":
		return k.ecKey()
	}
	return publicKey{}, nil
}

func (k *jwk) rsaKey() (publicKey, error) {
	n, e := number(k.N), number(k.E)
	if n == nil || e == nil || n.BitLen() < minRSABits || n.BitLen() > maxRSABits || n.Bit(0) == 0 {
		return publicKey{}, fmt.Errorf("no RSA key of %d to %d bits", minRSABits, maxRSABits)
	}
	if !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 || e.Bit(0) == 0 {
		return publicKey{}, errors.New("an RSA key with an exponent that is none")
	}
	return publicKey{algorithm: "RS256", rsa: &rsa.PublicKey{N: n, E: int(e.Int64())}}, nil
}

// curves are those that Kubernetes signs with, each with one algorithm.
var curves = map[string]struct {
	algorithm string
	curve     elliptic.Curve
}{
	"P-256": {"ES256", elliptic.P256()},
	"P-384": {"ES384", elliptic.P384()},
	"P-521": {"ES512", elliptic.P521()},
}

func (k *jwk) ecKey() (publicKey, error) {
	c, ok := curves[k.Curve]
	if !ok || k.Algorithm != "" && k.Algorithm != c.algorithm {
		return publicKey{}, nil
	}
	size := (c.curve.Params().BitSize + 7) / 8
	x, errX := base64.RawURLEncoding.Strict().DecodeString(k.X)
	y, errY := base64.RawURLEncoding.Strict().DecodeString(k.Y)
	if errX != nil || errY != nil || len(x) != size || len(y) != size {
		return publicKey{}, fmt.Errorf("the point is not two numbers of %d bytes", size)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(c.curve, append(append([]byte{4}, x...), y...))
	return publicKey{algorithm: c.algorithm, ecdsa: key}, err
}

func number(text string) *big.Int {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) == 0 || len(b) > maxRSABits/8+1 {
		return nil
	}
	return new(big.Int).SetBytes(b)
}

// verifies reports whether the signature is of the message and by this key.
func (k *publicKey) verifies(message, signature []byte) bool {
	switch k.algorithm {
	case "RS256":
		sum := sha256.Sum256(message)
		return rsa.VerifyPKCS1v15(k.rsa, crypto.SHA256, sum[:], signature) == nil
	case "ES256":
		sum := sha256.Sum256(message)
		return k.verifiesPair(sum[:], signature)
	case "ES384":
		sum := sha512.Sum384(message)
		return k.verifiesPair(sum[:], signature)
	case "ES512":
		sum := sha512.Sum512(message)
		return k.verifiesPair(sum[:], signature)
	}
	return false
}

// verifiesPair checks a signature of two numbers side by side (RFC 7518, section
// 3.4).
func (k *publicKey) verifiesPair(sum, signature []byte) bool {
	size := (k.ecdsa.Curve.Params().BitSize + 7) / 8
	if len(signature) != 2*size {
		return false
	}
	r, s := new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
	return ecdsa.Verify(k.ecdsa, sum, r, s)
}
