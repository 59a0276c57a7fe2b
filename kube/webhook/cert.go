package webhook

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"
)

// Life of a certificate, and when the next one is made: a day is longer than any
// server is away that comes back with the same key in its memory, and short
// enough for those of servers that are gone to leave the configuration.
const (
	certLife   = 24 * time.Hour
	certRenew  = 16 * time.Hour
	certBefore = 5 * time.Minute // clocks differ
)

// maxBundle is how many certificates of servers are kept in the configuration;
// the oldest leave first.
const maxBundle = 16

// subject marks the certificates that are ours.
const subject = "slicewire-webhook"

// newCertificate makes a certificate that vouches for itself.
func newCertificate(host string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: subject}, IsCA: true, NotBefore: now.Add(-certBefore), NotAfter: now.Add(certLife),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	if ip := net.ParseIP(host); ip != nil {
		t.IPAddresses = []net.IP{ip}
	} else {
		t.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("webhook certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// Bundle is what a configuration's certificates become: those of servers that
// are still valid, the newest of them, and own.
func Bundle(live []byte, own *x509.Certificate, now time.Time) []byte {
	list := []*x509.Certificate{own}
	for rest := live; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil || c.Subject.CommonName != subject || now.After(c.NotAfter) || c.Equal(own) {
			continue
		}
		list = append(list, c)
	}
	slices.SortStableFunc(list[1:], func(a, b *x509.Certificate) int {
		if c := b.NotBefore.Compare(a.NotBefore); c != 0 {
			return c
		}
		return bytes.Compare(a.Raw, b.Raw)
	})
	list = list[:min(len(list), maxBundle)]
	slices.SortFunc(list, func(a, b *x509.Certificate) int { return bytes.Compare(a.Raw, b.Raw) }) // the same whoever writes it
	var out bytes.Buffer
	for _, c := range list {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a buffer takes all
	}
	return out.Bytes()
}
