package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slicewire/overlay/pki/join"
	"slicewire/statedir"
)

func TestARingSaysWhichKeysAreRight(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	old, key := bytes.Repeat([]byte{1}, gossipKeyBytes), bytes.Repeat([]byte{2}, gossipKeyBytes)
	r := gossipRing{Version: 3, Key: key, Old: old, UseAt: at.Add(20 * time.Second), DropAt: at.Add(40 * time.Second)}
	for _, tc := range []struct {
		name  string
		after time.Duration
		want  [][]byte
		long  time.Duration
	}{
		{"at first the new one is taken only", 0, [][]byte{old, key}, 20 * time.Second},
		{"then it is sent with", 20 * time.Second, [][]byte{key, old}, 20 * time.Second},
		{"then the old one is refused", 40 * time.Second, [][]byte{key}, time.Hour},
	} {
		got, long := r.at(at.Add(tc.after))
		if !slices.EqualFunc(got, tc.want, bytes.Equal) || long != tc.long {
			t.Errorf("%s: %d keys for %v", tc.name, len(got), long)
		}
		// Another node, whose clock is years off, gets the same out of what it is told.
		there := at.AddDate(-9, 0, 0)
		copied, err := ringOf(r.handOut(at.Add(tc.after)), there)
		if err != nil {
			t.Fatal(err)
		}
		if got, again := copied.at(there); !slices.EqualFunc(got, tc.want, bytes.Equal) || again != tc.long || copied.Version != 3 {
			t.Errorf("%s, elsewhere: %d keys for %v", tc.name, len(got), again)
		}
	}
	first := gossipRing{Key: key}
	if got, _ := first.at(at); len(got) != 1 {
		t.Errorf("of the first key: %d keys", len(got))
	}
	for name, k := range map[string]join.Keys{
		"a short key":            {Key: key[:16]},
		"a short old key":        {Key: key, Old: old[:1], DropIn: 1},
		"the same key twice":     {Key: key, Old: key, DropIn: 1},
		"an old one for ever":    {Key: key, Old: old, DropIn: maxKeyChange + 1},
		"times in wrong order":   {Key: key, Old: old, UseIn: 2, DropIn: 1},
		"times that have passed": {Key: key, Old: old, UseIn: -1, DropIn: 1},
	} {
		if _, err := ringOf(k, at); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// A revoked node goes on with the old key and is alone; a node that was off
// during the change finds its way back.
func TestARevokedNodeDoesNotGetTheNewGossipKey(t *testing.T) {
	m := startMesh(t)
	issuer, away, thief := m.nodes["worker-1"], m.nodes["worker-2"], m.nodes["worker-3"]
	m.asIssuer(issuer)
	for _, n := range []*demoNode{issuer, away, thief} {
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
	}
	members := func(n *demoNode) int {
		s, up := m.status(n)
		count := 0
		for _, x := range s.Gossip.Members {
			if x.State == "proven" {
				count++
			}
		}
		if !up {
			return 0
		}
		return count
	}
	m.until("all are members", func() bool {
		return members(issuer) >= 2 && members(issuer) == members(away) && members(away) == members(thief)
	})
	all := members(issuer)
	if _, errs, code := program(t, "gossip-key", "rotate", "--socket", away.socket); code != exitFailure || !strings.Contains(errs, "certifies nobody") {
		t.Errorf("on a node that is no issuer: exit %d, %s", code, errs)
	}
	key := func(n *demoNode) string {
		b, err := os.ReadFile(filepath.Join(m.dir, n.site, statedir.FileGossipKey))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	first := key(issuer)
	// Everybody gets it while nobody is revoked, and nobody leaves.
	m.must("gossip-key", "rotate", "--within", "5s", "--socket", issuer.socket)
	if _, errs, code := program(t, "gossip-key", "rotate", "--within", "5s", "--socket", issuer.socket); code != exitFailure || !strings.Contains(errs, "already") {
		t.Errorf("two changes at once: exit %d, %s", code, errs)
	}
	// changed reports whether a node has forgotten the key before.
	changed := func(n *demoNode, before string) bool {
		var r gossipRing
		err := statedir.ReadJSON(statedir.Dir(filepath.Join(m.dir, n.site)), statedir.FileGossipRing, &r)
		return err == nil && r.Version != 0 && len(r.Old) == 0 && key(n) != before
	}
	m.until("the old key is forgotten everywhere", func() bool {
		return changed(issuer, first) && changed(away, first) && changed(thief, first)
	})
	second := key(issuer)
	if second == first || key(away) != second || key(thief) != second {
		t.Error("not all nodes have the new key")
	}
	if members(issuer) != all || members(away) != all || members(thief) != all {
		t.Errorf("members %d, %d, %d of %d", members(issuer), members(away), members(thief), all)
	}

	m.stop(away)
	m.must("cert", "revoke", "--socket", issuer.socket, "worker-3/"+demoNodeName)
	m.until("the issuer has nothing to do with it", func() bool { return !slices.Contains(m.peers(issuer), "worker-3/"+demoNodeName) })
	m.must("gossip-key", "rotate", "--within", "5s", "--socket", issuer.socket)
	m.until("the issuer has forgotten the old key", func() bool { return changed(issuer, second) })
	if key(thief) != second || key(issuer) == second {
		t.Error("the revoked node has the new key")
	}
	if err := away.start(); err != nil {
		t.Fatal(err)
	}
	m.until("who was away is back", func() bool {
		return key(away) == key(issuer) && slices.Contains(m.peers(away), "worker-1/"+demoNodeName) && members(away) == members(issuer)
	})
}
