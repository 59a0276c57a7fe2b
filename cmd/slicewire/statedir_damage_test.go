package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"slicewire/statedir"
)

// A usedState is the folder of a node that was an issuer, published, was
// cordoned and changed its gossip key, with files of others to damage it with.
type usedState struct {
	dir       statedir.Dir
	config    string
	good      map[string][]byte // by name
	foreign   map[string]map[string][]byte
	leaf      []byte // its certificate
	wireGuard string // name of a file
}

func newUsedState(t *testing.T) *usedState {
	l := layLab(t, newCable(t), nil, labSite{name: "a", gateways: 1, nodes: 1}, labSite{name: "b", gateways: 1, nodes: 1})
	a, b := l.node("a/g1"), l.node("b/g1")
	makeIssuer(t, l.dir, b.state(), l.sites)
	l.start()
	l.until("all links are up", l.settled)
	l.in(b, "token", "create", "--site", "a", "--node", "g2", "--socket", b.socket)
	l.in(b, "gossip-key", "rotate", "--within", "5s", "--socket", b.socket)
	for _, n := range []*labNode{a, b} {
		for _, verb := range []string{"cordon", "uncordon"} {
			l.in(n, verb, "--socket", n.socket)
		}
	}
	// Both have the new key, and have saved it.
	l.until("the other has the new gossip key", func() bool {
		_, err := statedir.Dir(a.state()).ReadSealed(statedir.FileGossipRing)
		return err == nil
	})
	for _, n := range []*labNode{a, b} {
		n.interrupt()
		l.ended(n)
	}
	u := &usedState{dir: statedir.Dir(b.state()), config: b.config, good: filesOf(t, statedir.Dir(b.state()))}
	for name := range u.good {
		if strings.HasPrefix(name, statedir.DirWireGuard) {
			u.wireGuard = name
		}
	}
	// Another mesh of the same name has a node of the same name.
	other := statedir.Dir(filepath.Join(l.dir, "other-ca"))
	if err := initAuthority(other, "lab", time.Now()); err != nil {
		t.Fatal(err)
	}
	twin := &labNode{demoNode: &demoNode{config: filepath.Join(l.dir, "twin.yaml")}, id: b.id, gateway: true}
	l.certify(other, twin, 0)
	u.foreign = map[string]map[string][]byte{"another node's": filesOf(t, statedir.Dir(a.state())), "another mesh's": filesOf(t, statedir.Dir(twin.state()))}
	id, err := loadIdentity(u.dir, "lab", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	u.leaf = id.Chain()[0]
	for _, name := range []string{statedir.FileNodeKey, statedir.FileNodeCert, statedir.FileCACert, statedir.FileGossipKey, statedir.FileGossipRing, statedir.FileIssuerKey, statedir.FileIssuer, statedir.FileTokens, statedir.FileClock, statedir.FileEpoch, statedir.FileRecords, statedir.FileAddresses, statedir.FileCordon, u.wireGuard} {
		if len(u.good[name]) == 0 {
			t.Fatalf("the folder has no %s: it was not used enough", name)
		}
	}
	return u
}

// filesOf reads every file of a folder that holds something.
func filesOf(t *testing.T, d statedir.Dir) map[string][]byte {
	t.Helper()
	out := make(map[string][]byte)
	err := filepath.WalkDir(string(d), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, err2 := filepath.Rel(string(d), path)
		if len(data) > 0 {
			out[name] = data
		}
		return errors.Join(err, err2)
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// restore makes the folder what it was.
func (u *usedState) restore(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(string(u.dir)); err != nil {
		t.Fatal(err)
	}
	if err := u.dir.Create(); err != nil {
		t.Fatal(err)
	}
	for name, data := range u.good {
		if err := u.dir.Write(name, data); err != nil {
			t.Fatal(err)
		}
	}
}

// boot starts the node from the folder and ends it at once. It returns what was
// logged, and the certificate that it took for its own.
func (u *usedState) boot(t *testing.T) (logged string, leaf []byte, err error) {
	t.Helper()
	log := new(lockedBuffer)
	d, parts, closeAll, err := newDaemon(u.config, "", time.Now, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		return log.String(), nil, err
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = run(ctx, parts...)
	closeAll()
	return log.String(), d.id.Chain()[0], err
}

// lockedBuffer is a buffer that several goroutines log to.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// remedies are what an operator is told to do about a file.
var remedies = []string{"make it 0600", "remove it", "bring it back", "copy it from", "write ", "slicewire"}

func TestDamagedStateIsRefusedOrNotUsed(t *testing.T) {
	u := newUsedState(t)
	u.restore(t)
	if logged, leaf, err := u.boot(t); err != nil || !bytes.Equal(leaf, u.leaf) || strings.Contains(logged, "level=WARN") || strings.Contains(logged, "level=ERROR") {
		t.Fatalf("the sound folder: %v\n%s", err, logged)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	put := func(name string, data []byte) func() error { return func() error { return u.dir.Write(name, data) } }
	for name, good := range u.good {
		damages := map[string]func() error{
			"emptied":        put(name, nil),
			"cut in half":    put(name, good[:len(good)/2]),
			"world-readable": func() error { return os.Chmod(u.dir.Path(name), 0o644) },
		}
		for i := range 3 {
			flipped := bytes.Clone(good)
			flipped[random.IntN(len(good))] ^= 1 << random.IntN(8)
			damages["a bit flipped, "+string(rune('1'+i))] = put(name, flipped)
		}
		for whose, files := range u.foreign {
			if files[name] != nil && !bytes.Equal(files[name], good) {
				damages[whose] = put(name, files[name])
			}
		}
		for what, damage := range damages {
			t.Run(name+" "+what, func(t *testing.T) {
				u.restore(t)
				if err := damage(); err != nil {
					t.Fatal(err)
				}
				logged, leaf, err := u.boot(t)
				said := logged
				if err != nil {
					said = err.Error()
				} else if !bytes.Equal(leaf, u.leaf) {
					t.Error("it is somebody else now")
				}
				told := strings.Contains(said, u.dir.Path(name)) &&
					(err == nil || slices.ContainsFunc(remedies, func(r string) bool { return strings.Contains(said, r) }))
				if !told && (err != nil || !mayGoUnsaid(name, what)) {
					t.Errorf("nobody is told: %v\n%s", err, logged)
				}
			})
		}
	}
}

// mayGoUnsaid reports whether a file of a node may be damaged like this without
// a word: then it means the same, or as little as none.
func mayGoUnsaid(name, what string) bool {
	switch name {
	case statedir.FileClock: // nothing is known of the last run
		return what != "world-readable"
	case statedir.FileEpoch: // another number; others tell of a higher one
		return strings.HasPrefix(what, "a bit") || what == "cut in half" || strings.HasPrefix(what, "another")
	case statedir.FileRecords: // all are verified
		return !strings.HasPrefix(what, "cut") && what != "world-readable"
	case statedir.FileGossipKey: // the ring's later key is in use
		return strings.HasPrefix(what, "a bit") || strings.HasPrefix(what, "another")
	case statedir.FileNodeKey, statedir.FileNodeCert, statedir.FileCACert, statedir.FileIssuer, statedir.FileIssuerKey: // between lines of PEM, or of the same mesh
		return strings.HasPrefix(what, "a bit")
	}
	return false
}

func TestNoFlippedBitMakesAnotherNode(t *testing.T) {
	u := newUsedState(t)
	u.restore(t)
	each := func(name string, try func(bit int)) {
		good := u.good[name]
		for i := range good {
			bit := i % 8
			flipped := bytes.Clone(good)
			flipped[i] ^= 1 << bit
			if err := os.WriteFile(u.dir.Path(name), flipped, 0o600); err != nil {
				t.Fatal(err)
			}
			try(i)
		}
		if err := os.WriteFile(u.dir.Path(name), good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	refused := make(map[string]int)
	for _, name := range []string{statedir.FileNodeKey, statedir.FileNodeCert, statedir.FileCACert, statedir.FileGossipKey} {
		each(name, func(at int) {
			id, err := loadIdentity(u.dir, "lab", time.Now)
			switch {
			case err == nil && !bytes.Equal(id.Chain()[0], u.leaf):
				t.Errorf("%s, byte %d: another certificate is taken for the own one", name, at)
			case err != nil && !strings.Contains(err.Error(), u.dir.Path(name)):
				t.Errorf("%s, byte %d: %v", name, at, err)
			case err != nil:
				refused[name]++
			}
		})
	}
	for _, name := range []string{statedir.FileGossipRing, statedir.FileTokens, statedir.FileAddresses, statedir.FileCordon, u.wireGuard} {
		each(name, func(at int) {
			if _, err := u.dir.ReadSealed(name); !errors.Is(err, statedir.ErrNotOurs) {
				t.Errorf("%s, byte %d: %v", name, at, err)
			}
			refused[name]++
		})
	}
	each(statedir.FileEpoch, func(at int) {
		epoch, err := u.dir.NextEpoch(time.Now())
		if err == nil && epoch < uint64(time.Now().Add(-time.Hour).Unix()) || err != nil && !strings.Contains(err.Error(), u.dir.Path(statedir.FileEpoch)) {
			t.Errorf("epoch, byte %d: %d, %v", at, epoch, err)
		}
	})
	t.Logf("refused, of one flip in every byte: %v", refused)
	if n := refused[statedir.FileNodeKey]; n < len(u.good[statedir.FileNodeKey])/2 {
		t.Errorf("only %d flips of %s are refused", n, statedir.FileNodeKey)
	}
}

func TestASumIsOfOneFileAndOneNode(t *testing.T) {
	d, other := newStateDir(t), newStateDir(t)
	for _, x := range []statedir.Dir{d, other} {
		if _, err := requestIdentity(x); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(d.WriteSealed("one", []byte("text\n")), other.WriteSealed("one", []byte("text\n"))); err != nil {
		t.Fatal(err)
	}
	data, err := d.ReadSealed("one")
	if err != nil || string(data) != "text\n" {
		t.Fatalf("%q, %v", data, err)
	}
	raw, err := d.Read("one")
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.Read("one")
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"another name": d.Write("two", raw), "another node": d.Write("three", foreign), "no sum": d.Write("four", []byte("text\n")), "nothing": d.Write("five", nil)} {
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for _, name := range []string{"two", "three", "four", "five"} {
		if _, err := d.ReadSealed(name); !errors.Is(err, statedir.ErrNotOurs) || !strings.Contains(err.Error(), d.Path(name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
