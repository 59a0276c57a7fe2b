package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"
)

// keyBytes is the length of a key: AES-256.
const keyBytes = 32

// A keyring holds the keys of this node's membership, the one to send with
// first. It may be read at any time; the mutex is held to change it.
type keyring struct {
	mu   sync.Mutex
	ring memberlist.Keyring
}

// SetKeys says with which keys members speak to this one, before or during Run:
// it sends with the first and takes what comes with any. A key changes without a
// gap when every member takes the next before any sends with it, and takes the
// old one until none does.
func (g *Gossip) SetKeys(keys [][]byte) error {
	if len(keys) == 0 || slices.ContainsFunc(keys, func(k []byte) bool { return len(k) != keyBytes }) {
		return fmt.Errorf("gossip: want one key or more, of %d bytes each", keyBytes)
	}
	return g.keys.set(keys)
}

func (r *keyring) set(keys [][]byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	errs := []error{r.addLocked(keys), r.ring.UseKey(keys[0])}
	held := r.ring.GetKeys()
	unwanted := func(k []byte) bool {
		return !slices.ContainsFunc(keys, func(x []byte) bool { return bytes.Equal(x, k) })
	}
	if i := slices.IndexFunc(held, unwanted); i > 0 {
		// Taking one out from between others would move these under the eyes of
		// those who read: all behind it go, from the last, and come back.
		for _, k := range slices.Backward(held[i:]) {
			errs = append(errs, r.ring.RemoveKey(k))
		}
		errs = append(errs, r.addLocked(keys))
	}
	return errors.Join(errs...)
}

func (r *keyring) addLocked(keys [][]byte) error {
	var errs []error
	for _, k := range keys {
		errs = append(errs, r.ring.AddKey(bytes.Clone(k)))
	}
	return errors.Join(errs...)
}
