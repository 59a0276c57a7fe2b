package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"slicewire/api"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
	"slicewire/overlay/pki"
	"slicewire/overlay/pki/join"
	"slicewire/overlay/pki/podtoken"
	"slicewire/statedir"
)

const (
	// numbersLook is how often an issuer looks whose numbers have become free.
	numbersLook = 5 * time.Second
	// podCertLife is how long certificates of pods live that are no gateways. A pod
	// that ended without a word keeps its number as long. They are renewed at half
	// of it: without issuers, which are gateways, pods are cut off sooner.
	podCertLife = 12 * time.Hour
	// voidFor is how long a pod's revocation holds at least: longer than any of its
	// certificates, also one that was renewed by an issuer out of reach for as long
	// as such a certificate lives.
	voidFor = 2 * podCertLife
	// maxPodRevocations is how many revocations an issuer has told before it makes
	// no more by itself: the rest of overlay.MaxRecordsPerOrigin is for operators.
	maxPodRevocations = 2000
	// maxNumbers bounds numbers that need no block: those of gateways.
	maxNumbers = 256
	// maxOrdinal is the highest number at the end of a pod's name that is taken for
	// its number within its set.
	maxOrdinal = 99
)

// openNumbersOf reads the node's book of numbers. One that is no good is no reason
// not to run: what is known of nodes says most of what it said.
func (d *daemon) openNumbersOf() *podNumbers {
	saved, err := d.state.ReadSealed(statedir.FileNumbers)
	if errors.Is(err, fs.ErrNotExist) {
		saved, err = nil, nil
	}
	save := func(b []byte) error { return d.state.WriteSealed(statedir.FileNumbers, b) }
	if err == nil {
		var p *podNumbers
		if p, err = openNumbers(saved, usualTimes, save); err == nil {
			return p
		}
	}
	d.log.Warn("which numbers pods had is lost but for those that are heard of", "files", d.state.Path(statedir.FileNumbers), "err", err)
	p, _ := openNumbers(nil, usualTimes, save)
	return p
}

// podLife is how long certificates of a node live; 0: as others do.
func podLife(id overlay.NodeID, gateway bool) time.Duration {
	if !gateway && podtoken.IsNodeName(id.Node) {
		return podCertLife
	}
	return 0
}

// podGrants works out what a pod gets. The daemon's loop calls it.
func (d *daemon) podGrants(r join.PodRequest, pod podtoken.Pod, c manifest.NodeJoinCluster) (join.Terms, error) {
	issuer := func(err error) (join.Terms, error) {
		return join.Terms{}, join.Refusal{Reason: join.RefusedIssuer, Text: err.Error()}
	}
	if !c.Gateway {
		d.voidFormer(r, pod)
	}
	index, err := d.podIndex(r.Want, c)
	if err != nil {
		return issuer(err)
	}
	grants, err := grantsFor(&d.want.mesh, r.Want.Site, api.TokenRequest{Index: index, Gateway: c.Gateway, Slices: c.Slices})
	if err != nil {
		return issuer(err)
	}
	now := d.id.clock.Now()
	enrolled := later(now, d.id.verifier.RevokedUntil(r.Want).Add(time.Second))
	if err := d.issue.numbers.hold(podNumber{
		Site: r.Want.Site, Node: r.Want.Node, Index: index, Gateway: c.Gateway, Enrolled: enrolled, End: now.Add(lifeOf(r.Want, c.Gateway)),
		Namespace: pod.Namespace, Pod: pod.Name, UID: pod.UID, Reviewed: c.Verify == manifest.VerifyReview && !c.Gateway,
	}, now); err != nil {
		return issuer(err)
	}
	return join.Terms{Node: r.Want, Gateway: c.Gateway, Index: index, Grants: grants}, nil
}

// lifeOf is how long a certificate of a node lives that is made now.
func lifeOf(id overlay.NodeID, gateway bool) time.Duration {
	if life := podLife(id, gateway); life > 0 {
		return life
	}
	return join.DefaultLife
}

// voidFormer makes void what a pod of the same name had before this one: its key
// must not speak for the addresses that this one gets.
func (d *daemon) voidFormer(r join.PodRequest, pod podtoken.Pod) {
	former := spentNumber{id: r.Want}
	if n, ok := d.issue.numbers.of(r.Want); ok && n.UID != "" && n.UID != pod.UID {
		former.enrolled, former.end = n.Enrolled, n.End
	}
	for _, c := range d.known() {
		sum, err := pki.ChainSum(c.chain)
		if a := c.authority; err == nil && a.ID == r.Want && !a.Gateway && sum != r.Key {
			former.enrolled, former.end = later(former.enrolled, a.Enrolled), later(former.end, a.NotAfter)
		}
	}
	if !former.enrolled.IsZero() {
		d.voidAll([]spentNumber{former})
	}
}

// podIndex is the number of a pod within its site: the one that it has, else the
// one at the end of its name, so that issuers that do not hear each other say
// the same, else one that is free.
func (d *daemon) podIndex(id overlay.NodeID, c manifest.NodeJoinCluster) (int, error) {
	taken, own := d.takenNumbers(id)
	if n, ok := d.issue.numbers.of(id); ok && own < 0 {
		own = n.Index
	}
	tail := id.Node[strings.LastIndexByte(id.Node, '-')+1:]
	if n, err := strconv.Atoi(tail); own < 0 && err == nil && n <= maxOrdinal && strconv.Itoa(n) == tail {
		own = n
	}
	if own >= 0 && !taken[own] {
		return own, nil
	}
	count, err := d.countNumbers(id.Site, c)
	if err != nil {
		return 0, err
	}
	self, issuers := d.id.authority().ID, d.issuersOf(id.Site)
	if n, ok := freeNumber(taken, count, self, issuers, id.Site); ok {
		return n, nil
	}
	d.tendNumbers() // some may have become free since the last look
	taken, _ = d.takenNumbers(id)
	if n, ok := freeNumber(taken, count, self, issuers, id.Site); ok {
		return n, nil
	}
	known, gone, waiting := d.issue.numbers.counts()
	return 0, fmt.Errorf("all %d numbers of site %s are taken (by pods that are there %d, that ended %d, not free yet %d): those of pods that end are free within %v",
		count, id.Site, known, gone, waiting, goneFor+2*restFor)
}

// takenNumbers returns the numbers that other nodes of a node's site have or are
// to get, and the one that the node is known by, else -1.
func (d *daemon) takenNumbers(id overlay.NodeID) (taken map[int]bool, own int) {
	taken, own = make(map[int]bool), -1
	for _, c := range d.known() {
		a := c.authority
		if a.ID == id {
			own = a.Index
		} else if a.ID.Site == id.Site && a.Issuer == nil {
			taken[a.Index] = true
		}
	}
	for _, t := range d.issue.book.List() {
		if t.Node.Site == id.Site && t.Node != id {
			taken[t.Index] = true
		}
	}
	d.issue.numbers.mark(taken, id)
	return taken, own
}

// countNumbers returns how many numbers a site has for pods of a cluster.
func (d *daemon) countNumbers(site string, c manifest.NodeJoinCluster) (int, error) {
	for n := range maxNumbers {
		if _, err := grantsFor(&d.want.mesh, site, api.TokenRequest{Index: n, Gateway: c.Gateway, Slices: c.Slices}); err != nil {
			if n == 0 {
				return 0, err
			}
			return n, nil
		}
	}
	return maxNumbers, nil
}

// issuersOf lists the issuers that share a site's numbers: those in the site, for
// there pods ask first, else all.
func (d *daemon) issuersOf(site string) (near []overlay.NodeID) {
	var all []overlay.NodeID
	for _, r := range d.gossip.Records() {
		if r.Key.Kind != overlay.KindIssuer {
			continue
		}
		all = append(all, r.Origin)
		if r.Origin.Site == site {
			near = append(near, r.Origin)
		}
	}
	if len(near) == 0 {
		return all
	}
	return near
}

// seenNodes lists the nodes whose numbers this issuer answers for.
func (d *daemon) seenNodes() []seenNode {
	withdrawn := make(map[overlay.NodeID]bool)
	for _, id := range d.gossip.Withdrawn() {
		withdrawn[id] = true
	}
	limits := &d.issue.cert.Load().limits
	at := make(map[overlay.NodeID]int)
	var out []seenNode
	for _, c := range d.known() {
		a := c.authority
		if a.Issuer != nil || !limits.Certifies(a.ID.Site) {
			continue
		}
		s := seenNode{
			id: a.ID, index: a.Index, enrolled: a.Enrolled, end: a.NotAfter,
			pod: !a.Gateway && podtoken.IsNodeName(a.ID.Node), withdrawn: withdrawn[a.ID],
		}
		i, again := at[a.ID]
		switch {
		case !again:
			at[a.ID] = len(out)
			out = append(out, s)
		case out[i].enrolled.Before(s.enrolled) || out[i].enrolled.Equal(s.enrolled) && out[i].end.Before(s.end):
			out[i] = s
		}
	}
	return out
}

// tendNumbers frees the numbers of pods that have ended. The daemon's loop calls
// it.
func (d *daemon) tendNumbers() {
	if d.issue == nil {
		return
	}
	seen, now := d.seenNodes(), d.id.clock.Now()
	var spent []spentNumber
	for _, c := range conflicts(seen) {
		if void := d.id.verifier.RevokedUntil(c.loses.id); void.Before(c.loses.enrolled) {
			d.issue.clashes.Add(1)
			d.log.Warn("two nodes have one number: the later one is put out, and has to join anew", "site", c.site, "node", c.loses.id.String(), "peer", c.keeps.id.String())
			spent = append(spent, spentNumber{c.loses.id, c.loses.enrolled, c.loses.end})
		}
	}
	self := d.id.authority().ID
	issuers := make(map[string][]overlay.NodeID)
	spent = append(spent, d.issue.numbers.look(seen, now, d.id.verifier.RevokedUntil, func(site string, index int) bool {
		if _, ok := issuers[site]; !ok {
			issuers[site] = d.issuersOf(site)
		}
		return preferred(issuers[site], site, index) == self
	})...)
	d.voidAll(spent)
	if err := d.issue.numbers.keep(); err != nil {
		d.log.Warn("numbers of pods not saved", "err", err)
	}
}

// voidAll revokes what has to be void before a number is another's. Where there is
// no room for more revocations, numbers wait until their certificates end.
func (d *daemon) voidAll(spent []spentNumber) {
	if len(spent) == 0 {
		d.issue.full.Store(false)
		return
	}
	issuer, now := d.issue.cert.Load(), d.id.clock.Now()
	told := len(d.gossip.RecordsOf(issuer.limits.ID))
	for i, s := range spent {
		if told+i >= maxPodRevocations {
			if !d.issue.full.Swap(true) {
				d.log.Warn("numbers of pods that end are free only when their certificates end: this issuer has told as many revocations as it may by itself", "revocations", told+i)
			}
			return
		}
		until := later(now.Add(voidFor), s.end.Add(revocationMargin))
		message, err := newRevocation(issuer, issuer.limits, overlay.Revocation{Node: s.id, Until: s.enrolled}, until, 0)
		if err == nil {
			err = d.gossip.Announce(message)
		}
		if err != nil {
			d.log.Warn("a pod that ended is not revoked yet", "node", s.id.String(), "err", err)
			continue
		}
		d.log.Info("number freed", "node", s.id.String())
	}
	d.issue.full.Store(false)
}
