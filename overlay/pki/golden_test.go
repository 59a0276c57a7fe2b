package pki

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"os"
	"reflect"
	"testing"
	"time"

	"slicewire/overlay"
)

func golden(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What an earlier version issued and signed stays good. The key is gone.
func TestGoldenCertificate(t *testing.T) {
	v, err := NewVerifier("golden.example", golden(t, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	chain, err := decodeChain(golden(t, "node.pem"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := v.Authority(chain, time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	p := netip.MustParsePrefix
	want := overlay.Authority{
		Mesh: "golden.example", ID: overlay.NodeID{Site: "worker-1", Node: "gw-a"}, Gateway: true, Index: 3,
		NotBefore: time.Date(2026, 1, 2, 2, 54, 5, 0, time.UTC), NotAfter: time.Date(2075, 12, 21, 3, 4, 5, 0, time.UTC),
		Enrolled: time.Date(2026, 1, 2, 2, 54, 5, 0, time.UTC), // it names no time of enrolment
		Grants: []overlay.Grant{
			{Slice: "earth", Prefixes: []netip.Prefix{p("10.1.16.0/20")}},
			{Slice: "water", Prefixes: []netip.Prefix{p("10.9.0.0/20"), p("fd00:1::/56")}},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	sig, err := hex.DecodeString(string(bytes.TrimSpace(golden(t, "signature.hex"))))
	if err != nil {
		t.Fatal(err)
	}
	if !v.Signed(chain, "golden", []byte("hello"), sig) || v.Signed(chain, "golden", []byte("hellO"), sig) {
		t.Error("the signature is judged otherwise than before")
	}
	// Any other bit pattern is another certificate, or none.
	for i := range 8 * len(chain[0]) {
		der := bytes.Clone(chain[0])
		der[i/8] ^= 1 << (i % 8)
		if _, err := v.Authority([][]byte{der}, want.NotBefore); err == nil {
			t.Fatalf("with bit %d flipped it is accepted", i)
		}
	}
}
