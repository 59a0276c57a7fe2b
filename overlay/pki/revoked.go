package pki

import (
	"fmt"
	"time"

	"slicewire/overlay"
)

// revoked is what is void. A nil one voids nothing.
type revoked struct {
	nodes map[overlay.NodeID]time.Time // enrolments up to then
	keys  map[[32]byte]bool            // by KeySum
}

// Revoke states everything that is void, whole. Chains that were verified before
// are judged by it as well. Roots cannot be revoked: they are retired.
func (v *Verifier) Revoke(all []overlay.Revocation) {
	r := &revoked{nodes: make(map[overlay.NodeID]time.Time), keys: make(map[[32]byte]bool)}
	for _, x := range all {
		if x.Key != ([32]byte{}) {
			r.keys[x.Key] = true
		} else if r.nodes[x.Node].Before(x.Until) {
			r.nodes[x.Node] = x.Until
		}
	}
	v.revoked.Store(r)
}

// RevokedUntil returns up to which time enrolments of a node are void; zero: none.
func (v *Verifier) RevokedUntil(id overlay.NodeID) time.Time {
	r := v.revoked.Load()
	if r == nil {
		return time.Time{}
	}
	return r.nodes[id]
}

func (r *revoked) check(c *verified) error {
	if r == nil {
		return nil
	}
	for _, k := range c.keys {
		if r.keys[k] {
			return fmt.Errorf("certificate of %v, with key %x: %w", c.authority.ID, k[:8], overlay.RefusedRevoked)
		}
	}
	if c.authority.Issuer != nil {
		return nil
	}
	until, found := r.nodes[c.authority.ID]
	if found && !c.authority.Enrolled.After(until) {
		return fmt.Errorf("certificate of %v, enrolled %v: %w", c.authority.ID, c.authority.Enrolled, overlay.RefusedRevoked)
	}
	return nil
}
