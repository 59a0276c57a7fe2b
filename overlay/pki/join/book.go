package join

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/pki"
)

// A Refusal says why somebody is not let in, or not yet. It is an error to
// branch on (errors.AsType): asking again does not help.
type Refusal struct {
	Reason string // one of the constants below
	Text   string // for people
}

// Error returns the refusal for people.
func (r Refusal) Error() string { return r.Text }

// The reasons of a Refusal.
const (
	RefusedToken   = "token"   // not known here, or not as it was given out
	RefusedExpired = "expired" // the token's time is over
	RefusedUsed    = "used"    // the token is spent
	RefusedNode    = "node"    // the token is for another node
	RefusedKey     = "key"     // the key is another node's already
	RefusedRequest = "request" // no good request
	RefusedCert    = "cert"    // the certificate shown is not good for a renewal
	RefusedIssuer  = "issuer"  // the issuer may not, or cannot now, certify that
)

// Bounds of a book.
const (
	maxEntries = 1000
	keepSpent  = 24 * time.Hour // after a token's end: who asks is told why it is void
)

// Terms are what a token lets in.
type Terms struct {
	Node    overlay.NodeID  `json:"node"`
	Gateway bool            `json:"gateway"`
	Index   int             `json:"index"`
	Grants  []overlay.Grant `json:"grants"`
}

// An entry is the issuer's note of one token.
type entry struct {
	Terms
	ID      string    `json:"id"`
	Secret  []byte    `json:"secret"`
	Sum     []byte    `json:"sum"` // SHA-256 of the token's bytes
	Expires time.Time `json:"expires"`

	// Once it is spent: when, for which key, and the certificate, which is handed
	// out again to the same key, because an answer may get lost.
	Used  time.Time `json:"used,omitzero"`
	Key   string    `json:"key,omitempty"`
	Chain []byte    `json:"chain,omitempty"`
}

// A Listed is what may be shown of a token: not its secret.
type Listed struct {
	Terms
	ID      string
	Expires time.Time
	Used    time.Time // zero: not yet
}

// A Book holds an issuer's tokens. Every change is saved before it counts.
type Book struct {
	save func([]byte) error

	mu      sync.Mutex // guards entries; held while saving, so that one token is spent once
	entries map[string]*entry
}

// OpenBook reads what save was given last, nil for a new book.
func OpenBook(data []byte, save func([]byte) error) (*Book, error) {
	b := &Book{save: save, entries: make(map[string]*entry)}
	if data == nil {
		return b, nil
	}
	var all []*entry
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("book of join tokens: %w", err)
	}
	for _, e := range all {
		if e == nil || len(e.Secret) != len(Token{}.Secret) || len(e.Sum) != sha256.Size {
			return nil, errors.New("book of join tokens: an entry is damaged")
		}
		b.entries[e.ID] = e
	}
	return b, nil
}

// Add notes a token and its terms. The token may be given out once Add returned.
func (b *Book) Add(t Token, terms Terms, now time.Time) error {
	if t.Node != terms.Node {
		return fmt.Errorf("join token for %v with terms for %v", t.Node, terms.Node)
	}
	if !now.Before(t.Expires) {
		return fmt.Errorf("join token that is over already, at %v", t.Expires)
	}
	sum := sha256.Sum256(t.bytes())
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pruneLocked(now)
	if len(b.entries) >= maxEntries {
		return fmt.Errorf("%d join tokens are out already: wait for some to expire", len(b.entries))
	}
	b.entries[t.Name()] = &entry{Terms: terms, ID: t.Name(), Secret: t.Secret[:], Sum: sum[:], Expires: t.Expires}
	if err := b.saveLocked(); err != nil {
		delete(b.entries, t.Name())
		return err
	}
	return nil
}

// Remove forgets a token that was not used: it lets nobody in any more.
func (b *Book) Remove(id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[id]
	switch {
	case e == nil:
		return fmt.Errorf("join token %q: there is none of that name here", id)
	case !e.Used.IsZero():
		return fmt.Errorf("join token %s was used at %s: revoke the node %v instead", id, e.Used.UTC().Format(time.RFC3339), e.Node)
	}
	delete(b.entries, id)
	if err := b.saveLocked(); err != nil {
		b.entries[id] = e
		return err
	}
	return nil
}

// List returns the tokens, sorted by their end.
func (b *Book) List() []Listed {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Listed, 0, len(b.entries))
	for _, e := range b.entries {
		out = append(out, Listed{e.Terms, e.ID, e.Expires, e.Used})
	}
	slices.SortFunc(out, func(x, y Listed) int {
		if c := x.Expires.Compare(y.Expires); c != 0 {
			return c
		}
		return strings.Compare(x.ID, y.ID)
	})
	return out
}

// spend lets in who asks with the right proof: it has the certificate made,
// saves that the token is spent, and only then returns it. Of any number of
// requests with one token at once, one is let in.
func (b *Book) spend(r request, binding []byte, now time.Time, issue func(Terms) ([]byte, error)) ([]byte, error) {
	key, err := pki.RequestSum([]byte(r.Request))
	if err != nil {
		return nil, Refusal{RefusedRequest, "certificate request: " + err.Error()}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[r.Token]
	if err := decide(e, r, hex.EncodeToString(key[:]), binding, now); err != nil {
		return nil, err
	}
	if !e.Used.IsZero() {
		return e.Chain, nil
	}
	chain, err := issue(e.Terms)
	if err != nil {
		return nil, err
	}
	e.Used, e.Key, e.Chain = now, hex.EncodeToString(key[:]), chain
	if err := b.saveLocked(); err != nil {
		e.Used, e.Key, e.Chain = time.Time{}, "", nil
		return nil, err
	}
	return chain, nil
}

// decide judges a newcomer's request against the note of its token, which is nil
// if there is none. Who does not prove to know the token learns nothing about it.
func decide(e *entry, r request, key string, binding []byte, now time.Time) error {
	if e == nil || !hmac.Equal(r.Proof, proof(e.Secret, e.Sum, binding, r.Request)) {
		return Refusal{RefusedToken, "the join token is not known to this issuer, or it was changed since it was given out"}
	}
	switch asked := (overlay.NodeID{Site: r.Site, Node: r.Node}); {
	case asked != e.Node:
		return Refusal{RefusedNode, fmt.Sprintf("the join token is for %v, not for %v", e.Node, asked)}
	case !e.Used.IsZero() && e.Key != key:
		return Refusal{RefusedUsed, fmt.Sprintf("the join token was used at %s: each lets in one node once", e.Used.UTC().Format(time.RFC3339))}
	case !now.Before(e.Expires):
		return Refusal{RefusedExpired, fmt.Sprintf("the join token expired at %s", e.Expires.UTC().Format(time.RFC3339))}
	}
	return nil
}

// pruneLocked forgets tokens that are over for some time.
func (b *Book) pruneLocked(now time.Time) {
	for id, e := range b.entries {
		if now.Sub(e.Expires) > keepSpent {
			delete(b.entries, id)
		}
	}
}

func (b *Book) saveLocked() error {
	all := make([]*entry, 0, len(b.entries))
	for _, e := range b.entries {
		all = append(all, e)
	}
	slices.SortFunc(all, func(x, y *entry) int { return strings.Compare(x.ID, y.ID) })
	data, err := json.MarshalIndent(all, "", "  ")
	if err == nil {
		err = b.save(append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("save the book of join tokens: %w", err)
	}
	return nil
}
