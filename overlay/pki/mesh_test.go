package pki

import (
	"testing"
	"time"
)

func TestTheMeshOfAnAuthorityIsItsOwn(t *testing.T) {
	ca, err := NewCA("home", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if mesh, err := MeshOf(ca.CertPEM()); mesh != "home" || err != nil {
		t.Errorf("mesh %q, %v", mesh, err)
	}
	for name, text := range map[string][]byte{
		"nothing":           nil,
		"two authorities":   append(ca.CertPEM(), ca.CertPEM()...),
		"no certificate":    []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
		"something instead": []byte("home"),
	} {
		if mesh, err := MeshOf(text); err == nil {
			t.Errorf("%s: mesh %q", name, mesh)
		}
	}
}
