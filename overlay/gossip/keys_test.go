package gossip

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"slicewire/overlay"
)

func key(n byte) []byte { return bytes.Repeat([]byte{n}, keyBytes) }

func TestAKeyringHasWhatItIsSet(t *testing.T) {
	var r keyring
	for _, keys := range [][][]byte{
		{key(1)}, {key(1), key(2)}, {key(2), key(1)}, {key(2)}, {key(2), key(3), key(4), key(5)}, {key(5), key(3)}, {key(6), key(7)}, {key(7)},
	} {
		for range 2 { // again does nothing
			if err := r.set(keys); err != nil {
				t.Fatal(err)
			}
			got := r.ring.GetKeys()
			if !bytes.Equal(got[0], keys[0]) || len(got) != len(keys) {
				t.Fatalf("%d keys, the first %x; want %d, the first %x", len(got), got[0][0], len(keys), keys[0][0])
			}
			for _, k := range keys {
				if !slices.ContainsFunc(got, func(x []byte) bool { return bytes.Equal(x, k) }) {
					t.Errorf("key %x is missing", k[0])
				}
			}
		}
	}
	g := newTest(t, testConfig(t, newAuthority("ca"), 0))
	for _, bad := range [][][]byte{nil, {key(1)[:16]}, {key(1), nil}} {
		if err := g.SetKeys(bad); err == nil {
			t.Errorf("%d keys of a wrong length are taken", len(bad))
		}
	}
}

// Members stay members and hear each other at every step; who has only the old
// key is out at the end.
func TestAKeyChangesWithoutAGap(t *testing.T) {
	leakCheck(t)
	ca := newAuthority("ca")
	var nodes []*Gossip
	for n := range 3 {
		nodes = append(nodes, newTest(t, testConfig(t, ca, n)))
		set(t, nodes[n], facts(n))
		if n > 0 {
			nodes[n].SetSeeds([]string{nodes[0].Addr().String()})
		}
		start(t, nodes[n])
	}
	alive := func(g *Gossip) (n int) {
		for _, m := range g.Members() {
			if m.State == StateProven {
				n++
			}
		}
		return n
	}
	for _, g := range nodes {
		eventually(t, "all are members", func() bool { return alive(g) == 3 && len(g.Records()) == 12 })
	}
	round := 0
	heard := func() {
		t.Helper()
		round++
		for i, g := range nodes {
			said := facts(i)
			said[1].WGKey = &overlay.KeyBody{PublicKey: [32]byte{byte(round), byte(i), 9}}
			set(t, g, said)
		}
		for _, g := range nodes {
			eventually(t, fmt.Sprintf("all hear of round %d", round), func() bool {
				n := 0
				for _, r := range g.Records() {
					if r.WGKey != nil && r.WGKey.PublicKey[0] == byte(round) && r.WGKey.PublicKey[2] == 9 {
						n++
					}
				}
				return n == len(nodes)
			})
		}
	}
	heard()
	for _, keys := range [][][]byte{{testKey, key(2)}, {key(2), testKey}, {key(2)}} {
		for _, g := range nodes { // one after another
			if err := g.SetKeys(keys); err != nil {
				t.Fatal(err)
			}
			heard()
		}
		for _, g := range nodes {
			if alive(g) != 3 {
				t.Errorf("members %v", g.Members())
			}
		}
	}
	late := newTest(t, testConfig(t, ca, 3))
	set(t, late, facts(3))
	start(t, late)
	seed := []string{nodes[0].Addr().String()}
	if _, err := late.net.Load().list.Join(seed); err == nil {
		t.Error("the old key lets in")
	}
	if err := late.SetKeys([][]byte{key(2)}); err != nil {
		t.Fatal(err)
	}
	if _, err := late.net.Load().list.Join(seed); err != nil {
		t.Errorf("the new key does not: %v", err)
	}
}
