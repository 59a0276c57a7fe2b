package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/gossip"
	"slicewire/overlay/pki"
	"slicewire/overlay/pki/join"
	"slicewire/overlay/pki/podtoken"
	"slicewire/statedir"
)

var joinPods = flag.Int("join-pods", 200, "how many pods join by token and end, at 20 a second")

// haste is how much faster the wall clock of the test's mesh goes than the
// machine's: pods that join come from one address, of which an issuer takes two a
// second.
const haste = 60

// hastyTimes are the issuer's, by that clock: 20 s, 0.5 s and 0.5 s of the machine's.
var hastyTimes = numberTimes{hold: 20 * time.Minute, gone: 30 * time.Second, rest: 30 * time.Second}

// A joinLab is a gateway in the test's process that lets in pods of its cluster,
// and pods that are no more than their gossip.
type joinLab struct {
	t        *testing.T
	d        *daemon
	began    time.Time
	pace     int // how much faster its wall clock goes
	dir      string
	verifier *pki.Verifier
	sign     func(namespace, account, pod string, now time.Time) string
	addr     string // of the join port
	config   string
	stop     func()

	mu    sync.Mutex // guards what follows
	holds map[int]string
	reuse int
	later int
}

func (x *joinLab) wall() time.Time { return x.began.Add(time.Duration(x.pace) * time.Since(x.began)) }

// certifyNode gives a node its identity, in its state folder.
func certifyNode(s signing, state statedir.Dir) error {
	request, err := requestIdentity(state)
	if err != nil {
		return err
	}
	bundle, err := s.sign(request, time.Now())
	if err != nil {
		return err
	}
	_, err = installBundle(state, bundle, time.Now)
	return err
}

func newJoinLab(t *testing.T) *joinLab {
	t.Helper()
	return newJoinLabAt(t, haste)
}

func newJoinLabAt(t *testing.T, pace int) *joinLab {
	t.Helper()
	t.Setenv(asProgram, "1") // what it starts is slicewire
	dir := t.TempDir()
	x := &joinLab{t: t, began: time.Now(), pace: pace, dir: dir, holds: make(map[int]string)}
	text, err := os.ReadFile(filepath.Join(exampleDir, "01-sliceconfig-iperf-isolated.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	example := strings.Replace(string(text), "spec:", "spec:\n  maxClusters: 2", 1)
	folder := filepath.Join(dir, "manifests", "slice.yaml")
	if err := statedir.Dir(filepath.Dir(folder)).Create(); err != nil {
		t.Fatal(err)
	}
	writeFile(t, folder, example)
	authority := statedir.Dir(filepath.Join(dir, "ca"))
	if err := initAuthority(authority, "rig", time.Now()); err != nil {
		t.Fatal(err)
	}
	x.sign = podSigner(t, filepath.Join(dir, "jwks.json"))
	x.config = x.issuer("gw", 0, "")
	root, err := authority.Read(statedir.FileCACert)
	if err != nil {
		t.Fatal(err)
	}
	if x.verifier, err = pki.NewVerifier("rig", root); err != nil {
		t.Fatal(err)
	}
	x.start()
	return x
}

// issuer prepares a gateway of the site that lets pods in, and returns its node
// file. Its number is index; join is whom it speaks to.
func (x *joinLab) issuer(node string, index int, join string) (config string) {
	x.t.Helper()
	state, manifests := statedir.Dir(filepath.Join(x.dir, "state-"+node)), filepath.Join(x.dir, "manifests", "slice.yaml")
	if err := certifyNode(signing{authority: statedir.Dir(filepath.Join(x.dir, "ca")), manifests: []string{manifests},
		id: overlay.NodeID{Site: "worker-1", Node: node}, index: index, life: certLife}, state); err != nil {
		x.t.Fatal(err)
	}
	makeIssuer(x.t, x.dir, string(state), []string{"worker-1"})
	config = filepath.Join(x.dir, node+".yaml")
	writeFile(x.t, config, fmt.Sprintf("version: 1\nmesh: rig\nsite: worker-1\nnode: %s\nlisten: 127.0.0.1:0\ngossip: {listen: \"127.0.0.1:0\", join: [%s]}\nmetrics: off\nstate: %s\nsocket: %s\nmanifests: [manifests]\n"+
		"join:\n  listen: 127.0.0.1:0\n  kubernetes: [{site: worker-1, keys: %s, issuer: \"https://cluster\", namespace: apps, serviceAccount: \"*\"}]\n",
		node, join, state, filepath.Join(x.dir, node+".sock"), filepath.Join(x.dir, "jwks.json")))
	return config
}

// start runs the issuer until stop, or the test, ends it.
func (x *joinLab) start() {
	x.t.Helper()
	d, parts, closeAll, err := newDaemon(x.config, "", x.wall, slog.New(slog.NewTextHandler(x.t.Output(), &slog.HandlerOptions{Level: slog.LevelError})))
	if err != nil {
		x.t.Fatal(err)
	}
	d.issue.numbers.times = hastyTimes
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx, parts...); closeAll() }()
	x.d, x.addr = d, d.issue.addr.String()
	x.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			x.t.Errorf("the issuer: %v", err)
		}
	})
	x.t.Cleanup(x.stop)
	<-d.gossip.Ready()
}

// until waits for what should take moments.
func (x *joinLab) until(what string, ok func() bool) error {
	return x.every(5*time.Millisecond, what, ok)
}

func (x *joinLab) every(pause time.Duration, what string, ok func() bool) error {
	deadline := time.Now().Add(patience)
	for tick := time.Tick(pause); !ok(); <-tick {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v in vain: %s", patience, what)
		}
	}
	return nil
}

// A joinedPod is a pod that was let in.
type joinedPod struct {
	id     overlay.NodeID
	signer *pki.Identity
	has    overlay.Authority
}

// join lets a pod in. It asks again until it is, as pods do, at the issuer or at
// those that are given, in their order.
func (x *joinLab) join(name string, issuers ...string) (*joinedPod, error) {
	if len(issuers) == 0 {
		issuers = []string{x.addr}
	}
	p := &joinedPod{id: overlay.NodeID{Site: "worker-1", Node: podtoken.NodeName("apps", name)}}
	key, err := pki.NewKey()
	if err != nil {
		return nil, err
	}
	request, err := pki.NewRequest(key)
	if err != nil {
		return nil, err
	}
	var got join.Admission
	ask := func() error {
		now := x.wall()
		got, err = join.JoinPod(x.t.Context(), join.AskPod{Addresses: issuers, Verifier: x.verifier, Want: p.id, Bearer: x.sign("apps", "default", name, now), Request: request, Now: now})
		return err
	}
	if late := x.every(podAskFirst, "a number for "+name, func() bool {
		if ask() != nil {
			x.mu.Lock()
			x.later++
			x.mu.Unlock()
		}
		return err == nil
	}); late != nil {
		return nil, errors.Join(late, err)
	}
	if p.signer, err = pki.LoadIdentity(key, got.Chain); err != nil {
		return nil, err
	}
	p.has, err = x.verifier.Authority(p.signer.Chain(), x.wall())
	return p, err
}

// live is a pod's life: it tells what sidecars tell, stays until ends says so, and
// then takes it back.
func (x *joinLab) live(p *joinedPod, ends func() error) error {
	roots := x.verifier.Roots().Text()
	v, err := pki.NewVerifier("rig", roots) // its own, as every node has
	if err != nil {
		return err
	}
	g, err := gossip.New(gossip.Config{Self: p.id, Mesh: "rig", Leaf: true, Signer: p.signer, Verifier: v, Epoch: uint64(time.Now().UnixNano()), Now: x.wall})
	if err != nil {
		return err
	}
	g.SetSeeds([]string{x.d.gossip.Addr().String()})
	var key [32]byte
	copy(key[:], p.id.Node)
	grant := p.has.Grants[0]
	if err := g.Set([]overlay.Record{
		{Key: overlay.Key{Kind: overlay.KindKey, Slice: grant.Slice}, WGKey: &overlay.KeyBody{PublicKey: key, Generation: 1}},
		{Key: overlay.Key{Kind: overlay.KindPrefix, Slice: grant.Slice}, Prefix: &overlay.PrefixBody{Prefixes: grant.Prefixes}},
	}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	err = ends()
	err = errors.Join(err, g.Withdraw())
	cancel()
	return errors.Join(err, <-done)
}

// heard waits until the issuer has everything that the pod tells.
func (x *joinLab) heard(p *joinedPod) error {
	return x.until(p.id.String()+" is heard of", func() bool { return len(x.d.gossip.RecordsOf(p.id)) == 2 })
}

// claim notes that a pod has a number, which no other may have then.
func (x *joinLab) claim(p *joinedPod, given map[int]bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if other, taken := x.holds[p.has.Index]; taken {
		x.t.Errorf("number %d is that of %s and of %v", p.has.Index, other, p.id)
	}
	x.holds[p.has.Index] = p.id.String()
	if given[p.has.Index] {
		x.reuse++
	}
	given[p.has.Index] = true
}

func (x *joinLab) release(p *joinedPod) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.holds, p.has.Index)
}

// addresses lists the prefixes that pods of the site announce.
func (x *joinLab) addresses() (out []netip.Prefix) {
	for _, r := range x.d.gossip.Records() {
		if r.Key.Kind == overlay.KindPrefix && podtoken.IsNodeName(r.Origin.Node) {
			out = append(out, r.Prefix.Prefixes...)
		}
	}
	return out
}

// TestPodsJoinAndEnd lets pods in by their tokens and has them end, at 20 a second,
// more of them than the site has numbers for.
func TestPodsJoinAndEnd(t *testing.T) {
	x := newJoinLab(t)
	const perSecond = 20
	given := make(map[int]bool)
	begin := time.Now()
	tick := time.NewTicker(time.Second / perSecond)
	defer tick.Stop()
	var wg sync.WaitGroup
	var failed atomic.Int32
	var first *joinedPod
	for i := range *joinPods {
		<-tick.C
		wg.Go(func() {
			p, err := x.join(fmt.Sprint("web-", i))
			if err == nil {
				x.claim(p, given)
				err = x.live(p, func() error {
					err := x.heard(p)
					x.release(p)
					return err
				})
			}
			if err != nil {
				failed.Add(1)
				t.Errorf("pod %d: %v", i, err)
				return
			}
			if i == 0 {
				x.mu.Lock()
				first = p
				x.mu.Unlock()
			}
		})
	}
	wg.Wait()
	took := time.Since(begin).Round(time.Millisecond)
	if err := x.until("all numbers are free", func() bool {
		known, gone, waiting := x.d.issue.numbers.counts()
		return known+gone+waiting == 0
	}); err != nil {
		t.Error(err)
	}
	t.Logf("%d pods in %v, %d failed; %d numbers given, %d of them again; told %d times to ask again; %d revocations", *joinPods, took, failed.Load(), len(given), x.reuse, x.later, len(x.d.gossip.RecordsOf(x.d.issue.cert.Load().limits.ID)))
	if left := x.addresses(); len(left) > 0 || len(x.holds) > 0 {
		t.Errorf("left: %v, %v", left, x.holds)
	}
	if *joinPods > 128 && x.reuse == 0 {
		t.Error("no number was given again")
	}
	if first != nil {
		x.replay(first)
	}
	saved, err := x.d.state.ReadSealed(statedir.FileNumbers)
	if err != nil || strings.Contains(string(saved), "web-") {
		t.Errorf("the book has %s, %v", saved, err)
	}
}

// replay has an ended pod's key speak again, whose number is another's now.
func (x *joinLab) replay(old *joinedPod) {
	x.t.Helper()
	if _, err := join.Renew(x.t.Context(), x.addr, old.signer, x.verifier, old.id, x.wall()); err == nil || !strings.Contains(err.Error(), "revoked") {
		x.t.Errorf("its certificate is renewed: %v", err)
	}
	var next *joinedPod
	for i := 0; next == nil || next.has.Index != old.has.Index; i++ {
		p, err := x.join(fmt.Sprint("next-", i))
		if err != nil || i > 200 {
			x.t.Fatalf("nobody gets number %d again: %v", old.has.Index, err)
		}
		next = p
	}
	refused := x.revoked()
	if err := x.live(next, func() error {
		if err := x.heard(next); err != nil {
			return err
		}
		return x.live(old, func() error {
			return x.until("the old key is refused", func() bool { return x.revoked() > refused })
		})
	}); err != nil {
		x.t.Error(err)
	}
	if r := x.d.gossip.RecordsOf(old.id); len(r) > 0 {
		x.t.Errorf("the ended pod's key is believed: %v", r)
	}
}

// revoked returns how much the issuer has refused because it is revoked.
func (x *joinLab) revoked() uint64 { return x.d.gossip.Refused()[string(overlay.RefusedRevoked)] }
