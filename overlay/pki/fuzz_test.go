package pki

import (
	"bytes"
	"encoding/asn1"
	"testing"
)

func mustDER(t *testing.T, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// What decodes encodes to the very same bytes.
func FuzzDecodeAuthority(f *testing.F) {
	value, err := encodeAuthority(true, 7, sortGrants(subject().Grants))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(value)
	f.Add([]byte{0x30, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		gateway, index, grants, err := decodeAuthority(in)
		if err != nil {
			return
		}
		again, err := encodeAuthority(gateway, index, grants)
		if err != nil || !bytes.Equal(again, in) {
			t.Fatalf("%x decodes, but encodes to %x (%v)", in, again, err)
		}
	})
}

func FuzzParseNodeCert(f *testing.F) {
	ca, err := NewCA("lab", start, 1<<40)
	if err != nil {
		f.Fatal(err)
	}
	key, _ := NewKey()
	request, _ := NewRequest(key)
	text, err := ca.Issue(request, subject(), start, 1<<40)
	if err != nil {
		f.Fatal(err)
	}
	chain, _ := decodeChain(text)
	f.Add(chain[0])
	f.Add(ca.cert.Raw)
	v, _ := NewVerifier("lab", ca.CertPEM())
	f.Fuzz(func(t *testing.T, der []byte) {
		if _, err := v.Authority([][]byte{der}, start); err == nil && !bytes.Equal(der, chain[0]) && !bytes.Equal(der, ca.cert.Raw) {
			t.Fatalf("a certificate that was never issued is accepted: %x", der)
		}
	})
}

// What decodes encodes to the very same bytes.
func FuzzDecodeScope(f *testing.F) {
	value, err := encodeScope([]string{"worker-1", "worker-2"}, sortGrants(subject().Grants))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(value)
	f.Fuzz(func(t *testing.T, in []byte) {
		sites, grants, err := decodeScope(in)
		if err != nil {
			return
		}
		again, err := encodeScope(sites, grants)
		if err != nil || !bytes.Equal(again, in) {
			t.Fatalf("%x decodes, but encodes to %x (%v)", in, again, err)
		}
	})
}
