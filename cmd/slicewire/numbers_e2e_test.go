package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/pki"
	"slicewire/overlay/pki/join"
	"slicewire/overlay/pki/podtoken"
	"slicewire/statedir"
)

// Pods that were let in and are not heard of yet keep their numbers when the issuer
// starts again.
func TestAnIssuerThatStartsAgainRemembersItsNumbers(t *testing.T) {
	x := newJoinLab(t)
	had := make(map[int]bool)
	for i := range 3 {
		p, err := x.join(fmt.Sprint("web-", i))
		if err != nil {
			t.Fatal(err)
		}
		had[p.has.Index] = true
	}
	x.stop()
	x.start()
	p, err := x.join("web-3")
	if err != nil || had[p.has.Index] || len(had) != 3 {
		t.Errorf("%+v, %v; before: %v", p, err, had)
	}
	if err := x.d.state.Write(statedir.FileNumbers, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	x.stop()
	x.start() // with a warning
	if _, err := x.join("web-4"); err != nil {
		t.Error(err)
	}
}

// A pod that is made anew under its name keeps its number, and the key of the one
// before is void.
func TestASuccessorVoidsTheKeyBefore(t *testing.T) {
	x := newJoinLab(t)
	old, err := x.join("web-0")
	if err != nil {
		t.Fatal(err)
	}
	if err := x.live(old, func() error { return x.heard(old) }); err != nil {
		t.Fatal(err)
	}
	x.d.issue.pods = podKeys{} // what it notes is by UID, and the successor's is another
	next, err := x.join("web-0")
	if err != nil || next.has.Index != old.has.Index {
		t.Fatalf("%+v, %v; before %d", next, err, old.has.Index)
	}
	if err := x.live(next, func() error { return x.heard(next) }); err != nil {
		t.Error(err)
	}
	if _, err := join.Renew(t.Context(), x.addr, old.signer, x.verifier, old.id, x.wall()); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("the key before is good: %v", err)
	}
	if _, err := x.d.id.verifier.Authority(next.signer.Chain(), x.wall()); err != nil {
		t.Errorf("the successor's key: %v", err)
	}
}

// Two issuers that did not hear each other gave one number twice: who was let in
// later is put out, everywhere, and the other one stays.
func TestANumberThatWasGivenTwiceIsTakenFromTheLaterPod(t *testing.T) {
	x := newJoinLab(t)
	older, err := x.join("web-0")
	if err != nil {
		t.Fatal(err)
	}
	later := x.certified("web-1", older)
	err = x.live(older, func() error {
		if err := x.heard(older); err != nil {
			return err
		}
		var out error
		err := x.live(later, func() error {
			out = x.until("the later one is put out", func() bool {
				return x.d.issue.clashes.Load() == 1 && !x.d.id.verifier.RevokedUntil(later.id).IsZero() && len(x.d.gossip.RecordsOf(later.id)) == 0
			})
			return nil
		})
		if errors.Is(err, overlay.RefusedRevoked) {
			err = nil // it has heard so itself, and cannot even take back what it told
		}
		return errors.Join(out, err)
	})
	if err != nil {
		t.Error(err)
	}
	if v := x.d.id.verifier.RevokedUntil(older.id); !v.IsZero() {
		t.Errorf("the older one is put out, until %v", v)
	}
	again, err := x.join("web-1")
	if err != nil || again.has.Index == older.has.Index {
		t.Errorf("who lost it joins anew: %+v, %v", again, err)
	}
}

// certified is a pod to which another issuer gave the number of one that was let
// in before it.
func (x *joinLab) certified(name string, before *joinedPod) *joinedPod {
	x.t.Helper()
	p := &joinedPod{id: overlay.NodeID{Site: before.id.Site, Node: podtoken.NodeName("apps", name)}}
	key, err := pki.NewKey()
	if err != nil {
		x.t.Fatal(err)
	}
	request, err := pki.NewRequest(key)
	if err != nil {
		x.t.Fatal(err)
	}
	subject := pki.Subject{ID: p.id, Index: before.has.Index, Grants: before.has.Grants, Enrolled: before.has.Enrolled.Add(time.Second)}
	chain, err := x.d.issue.cert.Load().Issue(request, subject, x.wall(), podCertLife)
	if err != nil {
		x.t.Fatal(err)
	}
	if p.signer, err = pki.LoadIdentity(key, chain); err != nil {
		x.t.Fatal(err)
	}
	if p.has, err = x.verifier.Authority(p.signer.Chain(), x.wall()); err != nil {
		x.t.Fatal(err)
	}
	return p
}
