package main

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"slicewire/api"
	"slicewire/overlay"
	"slicewire/overlay/gossip"
	"slicewire/overlay/pki/join"
	"slicewire/statedir"
)

// The key of the gossip is changed by an issuer: it makes the next one, says in
// its record that there is one, and hands it out to nodes that show a good
// certificate. All take it at once, send with it a while later, and forget the
// old one a while after that. Who was away, or does not understand the others
// any more, asks by itself.
const (
	// defaultKeyChange is how long a change takes. After two fifths of it the new
	// key is sent with, after four fifths the old one is refused.
	defaultKeyChange = time.Minute
	minKeyChange     = 5 * time.Second
	maxKeyChange     = time.Hour
	// keysAgain is the pause after an attempt to get keys that failed; then twice
	// as long each time, keysSlowest at most.
	keysAgain   = 2 * time.Second
	keysSlowest = 5 * time.Minute
	// keysAlone is how often a node without any other member asks whether it is
	// because of the key.
	keysAlone = 15 * time.Second
	keysTime  = 10 * time.Second // for one attempt
)

// A gossipRing is the keys of the gossip as a node has them. Times are its own
// clock's.
type gossipRing struct {
	Version uint64    `json:"version"` // seconds since 1970 when Key was made; 0: the mesh's first
	Key     []byte    `json:"key"`
	Old     []byte    `json:"old,omitempty"`
	UseAt   time.Time `json:"useAt"`
	DropAt  time.Time `json:"dropAt"`
}

// at returns the keys to take, that to send with first, and how long they are
// right.
func (r *gossipRing) at(now time.Time) (keys [][]byte, long time.Duration) {
	switch {
	case len(r.Old) == 0 || !now.Before(r.DropAt):
		return [][]byte{r.Key}, time.Hour
	case now.Before(r.UseAt):
		return [][]byte{r.Old, r.Key}, r.UseAt.Sub(now)
	default:
		return [][]byte{r.Key, r.Old}, r.DropAt.Sub(now)
	}
}

// handOut is what others are told of the ring.
func (r *gossipRing) handOut(now time.Time) join.Keys {
	k := join.Keys{Version: r.Version, Key: r.Key}
	if keys, _ := r.at(now); len(keys) > 1 {
		k.Old, k.UseIn, k.DropIn = r.Old, max(0, r.UseAt.Sub(now)), r.DropAt.Sub(now)
	}
	return k
}

// ringOf reads what an issuer has handed out.
func ringOf(k join.Keys, now time.Time) (gossipRing, error) {
	if len(k.Key) != gossipKeyBytes || len(k.Old) != 0 && len(k.Old) != gossipKeyBytes || bytes.Equal(k.Key, k.Old) ||
		k.UseIn < 0 || k.DropIn < k.UseIn || k.DropIn > maxKeyChange {
		return gossipRing{}, errors.New("the issuer's gossip keys make no sense")
	}
	return gossipRing{Version: k.Version, Key: k.Key, Old: k.Old, UseAt: now.Add(k.UseIn), DropAt: now.Add(k.DropIn)}, nil
}

// gossipKeys is the ring in use.
type gossipKeys struct {
	mu   sync.Mutex
	ring gossipRing

	told chan struct{} // level-triggered: an issuer has a later version than known
	want uint64        // that version; guarded by mu
}

func (k *gossipKeys) get() gossipRing {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ring
}

// lags reports whether an issuer has a later version.
func (k *gossipKeys) lags() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.want > k.ring.Version
}

// openGossipKeys reads the ring, or makes one of the mesh's first key. Who is no
// gateway, and has none, has an empty ring.
func openGossipKeys(d statedir.Dir, first []byte) (*gossipKeys, error) {
	k := &gossipKeys{ring: gossipRing{Key: first}, told: make(chan struct{}, 1)}
	if len(first) == 0 {
		return k, nil
	}
	err := statedir.ReadJSON(d, statedir.FileGossipRing, &k.ring)
	if err == nil && len(k.ring.Key) != gossipKeyBytes {
		err = fmt.Errorf("%s: a key of %d bytes instead of %d", d.Path(statedir.FileGossipRing), len(k.ring.Key), gossipKeyBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("the gossip's keys: %w: remove it to begin with the mesh's first key and be told the present one by an issuer", err)
	}
	return k, nil
}

// noticeKeys looks whether an issuer tells of a later version of the keys.
func (d *daemon) noticeKeys(records []overlay.Record) {
	latest := uint64(0)
	for _, r := range records {
		if r.Key.Kind == overlay.KindIssuer && !r.Deleted {
			latest = max(latest, r.Issuer.Keys)
		}
	}
	d.keys.mu.Lock()
	d.keys.want = latest
	lags := latest > d.keys.ring.Version
	d.keys.mu.Unlock()
	if lags {
		select {
		case d.keys.told <- struct{}{}:
		default:
		}
	}
}

// keepGossipKeys uses the keys as their times say, and gets new ones when there
// are any, until ctx ends. Who is no gateway has none.
func (d *daemon) keepGossipKeys(ctx context.Context) error {
	if !d.id.authority().Gateway {
		<-ctx.Done()
		return nil
	}
	alone := time.NewTicker(keysAlone)
	defer alone.Stop()
	failures, again := 0, time.Time{}
	for {
		wait, err := d.useGossipKeys()
		if err != nil {
			d.log.Error("gossip keys are not as they should be", "err", err)
		}
		if d.keys.lags() {
			wait = min(wait, max(0, time.Until(again)))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-d.keys.told:
		case <-timer.C:
		case <-alone.C:
			if d.lonely() {
				err := d.fetchKeys(ctx)
				d.log.Debug("alone: asked for gossip keys", "err", err)
			}
		}
		timer.Stop()
		if !d.keys.lags() {
			failures, again = 0, time.Time{}
			continue
		}
		if time.Now().Before(again) {
			continue
		}
		if err := d.fetchKeys(ctx); err != nil && ctx.Err() == nil {
			if failures++; failures == 1 {
				d.log.Warn("new gossip keys not got yet", "err", err)
			}
			pause := min(keysAgain<<min(failures-1, 10), keysSlowest)
			again = time.Now().Add(pause/2 + rand.N(pause)) // not all nodes of a mesh at once
		}
	}
}

// lonely reports whether this node sees no other member although it knows of
// other nodes.
func (d *daemon) lonely() bool {
	for _, m := range d.gossip.Members() {
		if m.Name != d.id.authority().ID.String() && m.State != gossip.StateGone {
			return false
		}
	}
	return len(issuersNear(d.id.authority().ID, d.gossip.Records())) > 0
}

// useGossipKeys puts the keys into force that are right now and returns for how
// long they are.
func (d *daemon) useGossipKeys() (time.Duration, error) {
	ring := d.keys.get()
	keys, long := ring.at(time.Now())
	err := d.gossip.SetKeys(keys)
	if len(keys) == 1 && len(ring.Old) > 0 {
		ring.Old = nil
		d.log.Info("old gossip key forgotten", "version", ring.Version)
		err = errors.Join(err, d.storeRing(ring))
	}
	return long, err
}

// storeRing keeps a ring, on disk first, and takes it for the present one. One
// that another has replaced meanwhile is left.
func (d *daemon) storeRing(ring gossipRing) error {
	d.keys.mu.Lock()
	defer d.keys.mu.Unlock()
	if ring.Version < d.keys.ring.Version {
		return nil
	}
	text := []byte(base64.StdEncoding.EncodeToString(ring.Key) + "\n")
	if err := errors.Join(d.state.WriteJSON(statedir.FileGossipRing, ring), d.state.Write(statedir.FileGossipKey, text)); err != nil {
		return err
	}
	d.keys.ring = ring
	return nil
}

// fetchKeys asks issuers until one has a later version than this node.
func (d *daemon) fetchKeys(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, keysTime)
	defer cancel()
	addrs := issuersNear(d.id.authority().ID, d.gossip.Records())
	if len(addrs) == 0 {
		return errNoIssuers
	}
	var errs []error
	for _, addr := range addrs {
		k, err := join.FetchKeys(ctx, addr, d.id.certified.Load().signer, d.id.verifier, d.id.clock.Now())
		switch {
		case err != nil:
		case k.Version <= d.keys.get().Version:
			err = errors.New("it has no later ones")
		default:
			var ring gossipRing
			if ring, err = ringOf(k, time.Now()); err == nil {
				return d.changeRing(ctx, ring)
			}
		}
		errs = append(errs, fmt.Errorf("issuer at %s: %w", addr, withHint(err)))
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// changeRing begins to use another ring; an issuer tells the others.
func (d *daemon) changeRing(ctx context.Context, ring gossipRing) error {
	if err := d.storeRing(ring); err != nil {
		return err
	}
	d.log.Info("gossip key changes", "version", ring.Version, "used_in", time.Until(ring.UseAt).Round(time.Second))
	if _, err := d.useGossipKeys(); err != nil {
		return err
	}
	if d.issue == nil {
		return nil
	}
	return d.within(ctx, d.reconcile)
}

// RotateGossipKey makes a new key for the whole mesh's gossip.
func (d *daemon) RotateGossipKey(ctx context.Context, req api.GossipKeyRequest) (api.GossipKeyReply, error) {
	var none api.GossipKeyReply
	if d.issue == nil {
		return none, errNoIssuer
	}
	if req.Within < minKeyChange || req.Within > maxKeyChange {
		return none, fmt.Errorf("a change of the key within %v: want %v to %v", req.Within, minKeyChange, maxKeyChange)
	}
	now, old := time.Now(), d.keys.get()
	if keys, _ := old.at(now); len(keys) > 1 {
		return none, errors.New("the gossip key is being changed already")
	}
	key, err := newGossipKey()
	if err != nil {
		return none, err
	}
	ring := gossipRing{
		Version: max(old.Version+1, uint64(max(0, d.id.clock.Now().Unix()))), Key: key, Old: old.Key,
		UseAt: now.Add(req.Within * 2 / 5), DropAt: now.Add(req.Within * 4 / 5),
	}
	if err := d.changeRing(ctx, ring); err != nil {
		return none, err
	}
	select {
	case d.keys.told <- struct{}{}: // the times are others now
	default:
	}
	return api.GossipKeyReply{APIVersion: api.Version, Kind: "GossipKey", Version: ring.Version, UseAt: ring.UseAt, DropAt: ring.DropAt}, nil
}

func newGossipKey() ([]byte, error) {
	key := make([]byte, gossipKeyBytes)
	_, err := crand.Read(key)
	return key, err
}
