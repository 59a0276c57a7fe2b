package main

import (
	"slices"
	"testing"

	"slicewire/gateway"
	"slicewire/overlay"
)

func TestWhichKeysANodeStartsWith(t *testing.T) {
	for _, tc := range []struct {
		name string
		have []uint64
		want []uint64
	}{
		{"none", nil, nil},
		{"one", []uint64{5}, []uint64{5}},
		{"two, as in the middle of a change", []uint64{5, 7}, []uint64{5, 7}},
		{"the last two of more", []uint64{3, 5, 7}, []uint64{5, 7}},
		{"none of a time to come", []uint64{5, 101}, []uint64{5}},
	} {
		if got := usableGenerations(tc.have, 100); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestPeersKeysAreKeptWhileTheNodeHasTheSameGeneration(t *testing.T) {
	a, b := overlay.NodeID{Site: "a", Node: "gw"}, overlay.NodeID{Site: "b", Node: "gw"}
	k := &sliceKeys{turn: overlay.Rekeying{Sends: 5, Other: 5}, private: map[uint64][32]byte{5: {1}}}
	k.learn([]overlay.Peer{{ID: a, PublicKey: [32]byte{10}, Generation: 5}, {ID: b, PublicKey: [32]byte{20}, Generation: 5}})
	next := []overlay.Peer{
		{ID: a, PublicKey: [32]byte{10}, Generation: 5, Next: overlay.SliceKey{Generation: 7, PublicKey: [32]byte{11}}},
		{ID: b, PublicKey: [32]byte{20}, Generation: 5},
	}
	k.learn(next)
	if len(k.peers[7]) != 0 {
		t.Errorf("of a generation that the node has no key of: %v", k.peers[7])
	}
	k.turn.Other, k.private[7] = 7, [32]byte{2}
	if body := k.told(); body.Generation != 5 || body.Next.Generation != 7 || body.PublicKey != gateway.PublicKey([32]byte{1}) || body.Next.PublicKey != gateway.PublicKey([32]byte{2}) {
		t.Errorf("told is %+v", body)
	}
	k.learn(next)
	if k.peers[7][a] != [32]byte{11} || len(k.peers[7]) != 1 || len(k.peers[5]) != 2 {
		t.Errorf("in the middle: %v", k.peers)
	}
	// a sends with the next key and does not tell the other any more; b is gone.
	k.learn([]overlay.Peer{{ID: a, PublicKey: [32]byte{11}, Generation: 7}})
	if k.peers[5][a] != [32]byte{10} || k.peers[7][a] != [32]byte{11} || len(k.peers[5]) != 1 {
		t.Errorf("after a moved on and b left: %v", k.peers)
	}
	k.turn.Sends, k.turn.Other = 7, 5
	if body := k.told(); body.Generation != 7 || body.Next != (overlay.SliceKey{}) {
		t.Errorf("told is %+v", body)
	}
	delete(k.private, 5)
	k.turn.Other = 7
	k.learn([]overlay.Peer{{ID: a, PublicKey: [32]byte{11}, Generation: 7}})
	if _, kept := k.peers[5]; kept || k.peers[7][a] != [32]byte{11} {
		t.Errorf("at the end: %v", k.peers)
	}
}
