package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// An authority certifies all that belongs to one cluster. It is not for
// concurrent use.
type authority struct {
	dir  string // where certificates and keys are written
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// A subject is who a certificate is for, as Kubernetes reads it.
type subject struct {
	user   string
	groups []string
	names  []string // DNS names, of servers
	addrs  []netip.Addr
}

func newAuthority(dir, name string) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	a := &authority{dir: dir}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, key, err := a.sign(template)
	if err != nil {
		return nil, err
	}
	a.key = key
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a, a.write("ca", der, key)
}

// issue writes name.crt and name.key.
func (a *authority) issue(name string, s subject) error {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: s.user, Organization: s.groups},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames:    s.names,
	}
	for _, x := range s.addrs {
		template.IPAddresses = append(template.IPAddresses, net.IP(x.AsSlice()))
	}
	der, key, err := a.sign(template)
	if err != nil {
		return fmt.Errorf("certify %s: %w", name, err)
	}
	return a.write(name, der, key)
}

func (a *authority) sign(template *x509.Certificate) ([]byte, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, nil, err
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	return der, key, err
}

func (a *authority) write(name string, der []byte, key *ecdsa.PrivateKey) error {
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(a.crt(name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(a.keyFile(name), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600),
	)
}

func (a *authority) crt(name string) string     { return filepath.Join(a.dir, name+".crt") }
func (a *authority) keyFile(name string) string { return filepath.Join(a.dir, name+".key") }

// kubeconfig returns the text of one with everything in it, so that it can be
// moved.
func (a *authority) kubeconfig(server, name string) ([]byte, error) {
	crt, err := os.ReadFile(a.crt(name))
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(a.keyFile(name))
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: default
clusters: [{name: default, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: %s, user: {client-certificate-data: %s, client-key-data: %s}}]
contexts: [{name: default, context: {cluster: default, user: %[3]s}}]
`, server, base64Of(a.pem), name, base64Of(crt), base64Of(key)), nil
}
