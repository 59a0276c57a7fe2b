package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"time"

	"slicewire/api"
	"slicewire/overlay"
	"slicewire/overlay/gossip"
	"slicewire/overlay/pki/join"
	"slicewire/show"
	"slicewire/statedir"
)

// When a certificate is renewed. The wall clock may be set at any time, so it is
// asked again and again instead of waiting for one moment.
const (
	renewLook    = time.Minute
	renewFirst   = time.Minute // after a failure; then twice as long each time
	renewSlowest = time.Hour
	maxIssuers   = 64 // asked in one attempt

	clockSaveEvery = 5 * time.Minute // spares flash memory
)

// A renewRequest has the certificate renewed now; the answer goes to done.
type renewRequest struct{ done chan<- error }

// renewDue reports whether a certificate should be renewed at now: at half its
// life, but not as long as a new one would end earlier, and at once while the
// clock is known to be behind, for a new one says what time it is.
func renewDue(a overlay.Authority, now time.Time, behind bool) bool {
	return behind || a.NotAfter.Sub(now) <= min(a.NotAfter.Sub(a.NotBefore)/2, join.DefaultLife)
}

// renewWait is how long to wait after so many failures in a row, at least one.
func renewWait(failures int) time.Duration {
	return min(renewFirst<<min(failures-1, 10), renewSlowest)
}

// renewals renews this node's certificate in time until ctx ends, and watches
// the clock.
func (d *daemon) renewals(ctx context.Context) error {
	look := time.NewTicker(renewLook)
	defer look.Stop()
	first := time.NewTimer(renewSoon)
	defer first.Stop()
	d.saveClock()
	saved := time.Now()
	failures, next, renewed := 0, time.Time{}, false
	attempt := func() error {
		err := d.renew(ctx)
		if err != nil || d.mayMove() {
			failures++
			wait := renewWait(failures)
			next = time.Now().Add(wait/2 + rand.N(wait)) // not all nodes of a mesh at once
		} else {
			failures, next, renewed = 0, time.Time{}, true
		}
		d.renewedOrNot(ctx, err)
		return err
	}
	for {
		select {
		case <-ctx.Done():
			d.saveClock()
			return nil
		case <-d.moves:
			if next.IsZero() { // not all nodes of a mesh at once
				wait := rand.N(time.Duration(1+len(d.gossip.Members())) * moveSpread)
				next = time.Now().Add(wait)
				first.Reset(wait)
			}
			continue
		case req := <-d.renews:
			req.done <- attempt()
			continue
		case <-look.C:
			if time.Since(saved) >= clockSaveEvery {
				saved = time.Now()
				d.saveClock()
			}
		case <-first.C:
		}
		if behind := d.id.clock.Behind() && !renewed; (renewDue(d.id.authority(), d.id.clock.Now(), behind) || d.mayMove()) && !time.Now().Before(next) {
			_ = attempt() // renewedOrNot has said it
		}
	}
}

// renewSoon is when a daemon that has just started looks first: once it may
// have met others.
const renewSoon = 2 * time.Second

// renewedOrNot says how an attempt went, once, and in the status for as long as
// it is so.
func (d *daemon) renewedOrNot(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		d.unable.Store(nil)
		d.log.Info("certificate renewed", "until", d.id.authority().NotAfter.UTC().Format(time.RFC3339))
		return
	}
	text := err.Error()
	if old := d.unable.Swap(&text); old == nil {
		d.log.Warn("certificate not renewed yet", "err", err)
	}
}

var errNoIssuers = errors.New("no gateway is known that certifies nodes")

// renew asks one issuer after another for a younger certificate, below the
// newest authority if there is one who has it.
func (d *daemon) renew(ctx context.Context) error {
	self := d.id.authority().ID
	addrs := issuersNear(self, d.gossip.Records())
	if len(addrs) == 0 {
		return errNoIssuers
	}
	var errs []error
	var spare []byte
	for _, addr := range addrs {
		chain, err := join.Renew(ctx, addr, d.id.certified.Load().signer, d.id.verifier, self, d.id.clock.Now())
		if err == nil && !d.onNewest(chain) {
			spare, err = chain, errors.New("it certifies below an authority that this node does not take for the newest")
		}
		if err == nil {
			err = d.adopt(ctx, chain)
		}
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("issuer at %s: %w", addr, withHint(err)))
		if ctx.Err() != nil {
			break
		}
	}
	if spare != nil {
		if err := d.adopt(ctx, spare); err == nil {
			return nil
		}
	}
	return errors.Join(errs...)
}

// issuersNear lists where issuers are asked, those of the node's own site first,
// otherwise by chance.
func issuersNear(self overlay.NodeID, records []overlay.Record) []string {
	var near, far []string
	for _, r := range records {
		if r.Key.Kind != overlay.KindIssuer || r.Deleted {
			continue
		}
		for _, e := range r.Issuer.Endpoints {
			if r.Origin.Site == self.Site {
				near = append(near, e.String())
			} else {
				far = append(far, e.String())
			}
		}
	}
	for _, l := range [][]string{near, far} {
		rand.Shuffle(len(l), func(i, j int) { l[i], l[j] = l[j], l[i] })
	}
	all := append(near, far...)
	return all[:min(len(all), maxIssuers)]
}

// adopt puts a renewed certificate into use.
func (d *daemon) adopt(ctx context.Context, chain []byte) error {
	if err := d.take(chain); err != nil {
		return err
	}
	// Records are signed anew with it. If the loop has ended, so has the node.
	if err := d.within(ctx, d.reconcile); err != nil && ctx.Err() == nil {
		d.log.Error("not all of the configuration is in force", "err", err)
	}
	return nil
}

// take has a renewed certificate, on disk first. It must be what this node has
// already, but for its end and its authority, and not lead back from a newer
// authority. It says what time it is only if the clock is known to be behind: an
// issuer whose own clock is ahead must not set others.
func (d *daemon) take(chain []byte) error {
	old := d.id.certified.Load()
	signer, err := old.signer.Renewed(chain)
	if err != nil {
		return err
	}
	a, err := d.id.verifier.Authority(signer.Chain(), d.id.clock.Now())
	if d.id.clock.Behind() {
		a, err = judgeNode(d.id.verifier, d.id.clock, signer.Chain())
	}
	if err != nil {
		return err
	}
	same := a
	same.NotBefore, same.NotAfter = old.authority.NotBefore, old.authority.NotAfter
	was, err := d.id.verifier.Root(old.signer.Chain())
	if err != nil {
		return err
	}
	is, err := d.id.verifier.Root(signer.Chain())
	if err != nil {
		return err
	}
	switch {
	case !d.id.verifier.Roots().Leads(was, is):
		return fmt.Errorf("the new certificate hangs on authority %x, which came before that of the present one", is[:8])
	case !reflect.DeepEqual(same, old.authority):
		return fmt.Errorf("a certificate of other contents than this node's: %v", a.ID)
	case was == is && !a.NotAfter.After(old.authority.NotAfter):
		return fmt.Errorf("the new certificate would end at %s, no later than the present one", a.NotAfter.UTC().Format(time.RFC3339))
	}
	if err := d.state.Write(statedir.FileNodeCert, chain); err != nil {
		return err
	}
	d.id.certified.Store(&certified{signer, a})
	return nil
}

// Renew has the certificate renewed now.
func (d *daemon) Renew(ctx context.Context) (api.RenewReply, error) {
	done := make(chan error, 1)
	select {
	case d.renews <- renewRequest{done}:
	case <-d.looped:
		return api.RenewReply{}, errEnding
	case <-ctx.Done():
		return api.RenewReply{}, ctx.Err()
	}
	select {
	case err := <-done:
		return api.RenewReply{NotAfter: d.id.authority().NotAfter}, err
	case <-ctx.Done():
		return api.RenewReply{}, ctx.Err()
	}
}

// checkClock notices a clock that went back while the node was off. Peers
// remember the time of the last handshake with each of this node's WireGuard
// keys and refuse any from before, so it goes on with new keys.
func (d *daemon) checkClock(wall time.Time) error {
	var last time.Time
	data, err := d.state.Read(statedir.FileClock)
	if err == nil {
		if seconds, perr := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64); perr == nil {
			last = time.Unix(seconds, 0)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("whether the clock has gone back cannot be known", "err", err)
	}
	if !d.id.clock.Behind() && !wall.Before(last) {
		return nil
	}
	d.log.Warn("the clock has gone back: certificates are judged by the newest time that is proven, and WireGuard keys are made anew",
		"clock", wall.UTC().Format(time.RFC3339), "proven", d.id.clock.Now().UTC().Format(time.RFC3339))
	if err := d.state.ForgetWireGuardKeys(); err != nil {
		return err
	}
	return d.state.Write(statedir.FileClock, fmt.Appendf(nil, "%d\n", wall.Unix()))
}

// saveClock notes the wall clock for checkClock.
func (d *daemon) saveClock() {
	if err := d.state.Write(statedir.FileClock, fmt.Appendf(nil, "%d\n", d.wall().Unix())); err != nil {
		d.log.Debug("clock not saved", "err", err)
	}
}

// issuerWarning is how long before its end an issuer's own certificate is
// spoken of: only the mesh's authority can renew it, and that is a person.
const issuerWarning = 30 * 24 * time.Hour

// trustWarnings says what an operator should know of this node's certificate.
func (d *daemon) trustWarnings() (out []string) {
	a, now := d.id.authority(), d.id.clock.Now()
	if _, err := d.id.verifier.Authority(d.id.Chain(), now); errors.Is(err, overlay.RefusedRevoked) {
		out = append(out, "this node's certificate is revoked: other nodes have nothing to do with it")
	} else if errors.Is(err, overlay.RefusedRetired) {
		out = append(out, "this node's certificate hangs on an authority that is retired, other nodes have nothing to do with it: "+joinAgain)
	} else if why := d.unable.Load(); why != nil && renewDue(a, now, false) {
		out = append(out, fmt.Sprintf("the certificate ends in %s and was not renewed: %s", show.Short(a.NotAfter.Sub(now)), *why))
	}
	if d.id.clock.Behind() {
		out = append(out, "the clock is behind what is proven: set it")
	}
	if n := d.gossip.Refused()[gossip.RefusedClone]; n > 0 {
		out = append(out, "another process holds a node's key: a state folder was copied (see the log)")
	}
	if d.issue != nil {
		if left := d.issue.cert.Load().limits.NotAfter.Sub(now); left < issuerWarning {
			out = append(out, fmt.Sprintf("the issuer's certificate of this node ends in %s: have it made anew (slicewire ca intermediate)", show.Short(left)))
		}
		if d.issue.full.Load() {
			out = append(out, fmt.Sprintf("more than %d pods ended in %s: numbers of others are free only when their certificates end", maxPodRevocations, show.Short(voidFor)))
		}
	}
	return append(out, d.rootWarnings(now)...)
}
