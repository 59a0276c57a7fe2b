package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slicewire/overlay"
	"slicewire/statedir"
)

// A gateway that nobody can dial dials the others, and is a node like any other.
func TestAGatewayThatNobodyReachesIsOnTheMesh(t *testing.T) {
	m := startMesh(t)
	hidden := m.nodes["worker-3"]
	text, err := os.ReadFile(hidden.config)
	if err != nil {
		t.Fatal(err)
	}
	listen := fmt.Sprintf("  listen: %s\n", hidden.gossip)
	if !strings.Contains(string(text), listen) {
		t.Fatalf("node file:\n%s", text)
	}
	if err := os.WriteFile(hidden.config, []byte(strings.Replace(string(text), listen, "  reachable: false\n", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, n := range m.nodes {
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
	}
	others := []string{"worker-1/" + demoNodeName, "worker-2/" + demoNodeName}
	proven := func(n *demoNode) (names []string, leaves int) {
		s, _ := m.status(n)
		for _, x := range s.Gossip.Members {
			if x.State == "proven" {
				names = append(names, x.Name)
				if x.Leaf {
					leaves++
				}
			}
		}
		return names, leaves
	}
	m.until("it has sessions with both others, and they with it", func() bool {
		s, up := m.status(hidden)
		names, _ := proven(hidden)
		a, leavesA := proven(m.nodes["worker-1"])
		b, leavesB := proven(m.nodes["worker-2"])
		return up && s.Gossip.Leaf && s.Gossip.Listen == "" && len(names) == 3 && len(a) == 3 && len(b) == 3 && leavesA == 1 && leavesB == 1
	})
	m.until("its tunnels are up", func() bool {
		return slices.Contains(m.peers(hidden), others[0]) && slices.Contains(m.peers(m.nodes["worker-1"]), "worker-3/"+demoNodeName)
	})
	// One that dies and starts again with the others down knows them at once.
	m.stop(hidden)
	m.until("it said good-bye", func() bool { _, leaves := proven(m.nodes["worker-1"]); return leaves == 0 })
	m.stop(m.nodes["worker-1"])
	m.stop(m.nodes["worker-2"])
	if err := hidden.start(); err != nil {
		t.Fatal(err)
	}
	m.until("it knows the others from its state folder", func() bool { return slices.Contains(m.peers(hidden), others[0]) })
	for _, name := range []string{"worker-1", "worker-2"} {
		if err := m.nodes[name].start(); err != nil {
			t.Fatal(err)
		}
	}
	m.until("they are back", func() bool { names, _ := proven(hidden); return len(names) == 3 })
}

func TestOnlyGatewaysHaveTheGossipKey(t *testing.T) {
	dir := t.TempDir()
	manifests := filepath.Join(dir, "manifests")
	authority := statedir.Dir(filepath.Join(dir, "ca"))
	if err := unpackManifests(manifests); err != nil {
		t.Fatal(err)
	}
	if err := initAuthority(authority, "demo", time.Now()); err != nil {
		t.Fatal(err)
	}
	state := statedir.Dir(filepath.Join(dir, "state"))
	request, err := requestIdentity(state)
	if err != nil {
		t.Fatal(err)
	}
	for i, plain := range []bool{true, false, true} {
		s := signing{authority: authority, manifests: []string{manifests}, id: overlay.NodeID{Site: "worker-1", Node: "n"}, index: 1, plain: plain, life: certLife}
		bundle, err := s.sign(request, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if has := strings.Contains(string(bundle), bundleGossip); has == plain {
			t.Errorf("bundle %d: with a gossip key: %v", i, has)
		}
		if _, err := installBundle(state, bundle, time.Now); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(state.Path(statedir.FileGossipKey)); errors.Is(err, fs.ErrNotExist) != plain {
			t.Errorf("bundle %d: gossip key: %v", i, err)
		}
		id, err := loadIdentity(state, "demo", time.Now)
		if err != nil {
			t.Fatal(err)
		}
		if len(id.gossipKey) == 0 != plain {
			t.Errorf("bundle %d: a key of %d bytes", i, len(id.gossipKey))
		}
		if !plain {
			continue
		}
		// A gateway's bundle without it is not whole.
		s.plain = false
		whole, err := s.sign(request, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		cut := whole[:strings.Index(string(whole), "-----BEGIN "+bundleGossip)]
		if _, err := installBundle(state, cut, time.Now); err == nil {
			t.Error("a gateway's bundle without a gossip key is taken")
		}
	}
}
