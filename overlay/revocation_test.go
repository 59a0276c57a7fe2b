package overlay

import (
	"errors"
	"net/netip"
	"testing"
	"time"
)

func TestWhoMayRevokeWhat(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	id := NodeID{Node: "issuer-1"}
	limited := Authority{ID: id, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), Issuer: &Issuer{Sites: []string{"site-a", "site-b"}}}
	root := limited
	root.Issuer = &Issuer{Root: true}
	node := limited
	node.Issuer = nil
	victim := Revocation{Node: NodeID{"site-a", "gw"}, Until: now}
	key := Revocation{Key: [32]byte{7}}
	same := func(*Record) {}
	for _, tt := range []struct {
		name   string
		by     Authority
		what   Revocation
		change func(*Record)
		want   error
	}{
		{"a node of its site", limited, victim, same, nil},
		{"a node of another site", limited, Revocation{Node: NodeID{"site-c", "gw"}, Until: now}, same, RefusedIssuer},
		{"a node by the root", root, Revocation{Node: NodeID{"site-c", "gw"}, Until: now}, same, nil},
		{"a key by the root", root, key, same, nil},
		{"a key by a limited issuer", limited, key, same, RefusedIssuer},
		{"by a node", node, victim, same, RefusedIssuer},
		{"another kind by an issuer", limited, victim, func(r *Record) {
			r.Key, r.Revocation, r.Node = Key{Kind: KindNode}, nil, &NodeBody{}
		}, RefusedKind},
		{"taken back", root, victim, func(r *Record) { r.Deleted, r.Revocation = true, nil }, RefusedBody},
		{"without a body", root, victim, func(r *Record) { r.Revocation = nil }, RefusedBody},
		{"on a slice", root, victim, func(r *Record) { r.Key.Slice = "water" }, RefusedName},
		{"a name that is none", root, victim, func(r *Record) { r.Key.Name = "Site/gw" }, RefusedName},
		{"of no time", root, victim, func(r *Record) { r.Revocation.Until = time.Time{} }, RefusedName},
		{"a key up to a time", root, key, func(r *Record) { r.Revocation.Until = now }, RefusedName},
		{"a key in capitals", root, Revocation{Key: [32]byte{0xab}}, func(r *Record) { r.Key.Name = "AB" + r.Key.Name[2:] }, RefusedName},
		{"no key", root, key, func(r *Record) { r.Key.Name = r.Key.Name[:10] }, RefusedName},
		{"in another's name", root, victim, func(r *Record) { r.Origin.Node = "issuer-2" }, RefusedOrigin},
		{"longer than the issuer lives", root, victim, func(r *Record) { r.NotAfter = now.Add(2 * time.Hour) }, RefusedLifetime},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := tt.what.Record()
			r.Origin, r.NotAfter = id, now.Add(time.Hour)
			tt.change(&r)
			if err := tt.by.Permits(r, now); !errors.Is(err, tt.want) {
				t.Fatalf("%v, want %v", err, tt.want)
			}
			if got, ok := RevocationOf(r); tt.want == nil && (!ok || got != tt.what) {
				t.Fatalf("read back as %+v, %v", got, ok)
			}
		})
	}
	if !victim.Record().Version.Less(Revocation{Node: victim.Node, Until: now.Add(time.Second)}.Record().Version) {
		t.Error("a later revocation does not replace an earlier one")
	}
}

func TestANodeTellsWhereItCertifies(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a := Authority{ID: NodeID{"site-a", "gw"}, NotBefore: now, NotAfter: now.Add(time.Hour)}
	r := Record{Origin: a.ID, Key: Key{Kind: KindIssuer}, NotAfter: a.NotAfter, Issuer: &IssuerBody{Endpoints: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:51820")}}}
	if err := a.Permits(r, now); err != nil {
		t.Error(err)
	}
	r.Issuer.Endpoints[0] = netip.MustParseAddrPort("0.0.0.0:51820")
	if err := a.Permits(r, now); !errors.Is(err, RefusedEndpoint) {
		t.Errorf("nowhere: %v", err)
	}
	r.Key.Slice = "water"
	if err := a.Permits(r, now); !errors.Is(err, RefusedKind) {
		t.Errorf("on a slice: %v", err)
	}
}

func TestDropForgetsWhoIsNotBelieved(t *testing.T) {
	var l Ledger
	end := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	rec := func(node string, kind Kind, epoch uint64) Record {
		return Record{Origin: NodeID{"site-a", node}, Key: Key{Kind: kind}, Version: Version{Epoch: epoch}, NotAfter: end}
	}
	for _, r := range []Record{rec("bad", KindNode, 1<<63), rec("bad", KindKey, 1<<63), rec("good", KindNode, 3)} {
		l.Offer(r, []byte(r.Origin.Node))
	}
	if n := l.Drop(func(h Held) bool { return h.Record.Origin.Node == "bad" }); n != 2 {
		t.Errorf("%d dropped, want 2", n)
	}
	if v := l.Offer(rec("bad", KindNode, 5), []byte("again")); v != New {
		t.Errorf("the name's next holder is judged %v: the last one's versions silence it", v)
	}
	if n := l.Drop(func(h Held) bool { return h.Record.Key.Kind == KindKey }); n != 0 || len(l.Of(NodeID{"site-a", "good"})) != 1 {
		t.Errorf("%d dropped, or too many", n)
	}
}
