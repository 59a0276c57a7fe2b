package statedir

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newDir(t *testing.T) Dir {
	t.Helper()
	d := Dir(filepath.Join(t.TempDir(), "state"))
	if err := d.Create(); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestStateIsPrivateAndWholeOrAbsent(t *testing.T) {
	d := newDir(t)
	if err := d.Write("wireguard/blue.key", []byte("secret")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{".": 0o700, "wireguard": 0o700, "wireguard/blue.key": 0o600} {
		info, err := os.Stat(d.Path(path))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %04o, want %04o", path, got, want)
		}
	}
	entries, err := os.ReadDir(d.Path("wireguard"))
	if err != nil || len(entries) != 1 {
		t.Errorf("after one write: %v, %v", entries, err)
	}
	if _, err := d.Read("nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestStateThatIsNotPrivateOrNoFileIsRefused(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(path string) error
		want  string
	}{
		{"world-readable", func(p string) error { return errors.Join(os.WriteFile(p, nil, 0o600), os.Chmod(p, 0o644)) }, "open to other users"},
		{"group-writable", func(p string) error { return errors.Join(os.WriteFile(p, nil, 0o600), os.Chmod(p, 0o620)) }, "open to other users"},
		{"a folder", func(p string) error { return os.Mkdir(p, 0o700) }, "not a regular file"},
		{"a symbolic link", func(p string) error { return os.Symlink("/etc/passwd", p) }, "not a regular file"},
		{"huge", func(p string) error { return errors.Join(os.WriteFile(p, nil, 0o600), os.Truncate(p, maxStateFile+1)) }, "more than any state file"},
	} {
		d := newDir(t)
		if err := tc.spoil(d.Path("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Read("x"); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want it to say %q", tc.name, err, tc.want)
		}
	}
}

func TestBootsAreCounted(t *testing.T) {
	d := newDir(t)
	clock := time.Unix(1000, 0)
	for i, tc := range []struct {
		name string
		now  time.Time
		want uint64
	}{
		{"the first boot begins at the clock", clock, 1000},
		{"a boot within the same second counts", clock, 1001},
		{"a clock set back does not matter", clock.Add(-time.Hour), 1002},
		{"a clock before 1970 neither", time.Unix(-5, 0), 1003},
		{"a later boot follows the clock", clock.Add(time.Hour), 4600},
	} {
		if got, err := d.NextEpoch(tc.now); got != tc.want || err != nil {
			t.Errorf("%d, %s: epoch %d, %v; want %d", i, tc.name, got, err, tc.want)
		}
	}
	if err := d.Write(FileEpoch, []byte("not a number\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.NextEpoch(clock); err == nil || !strings.Contains(err.Error(), FileEpoch) {
		t.Errorf("a damaged counter: %v", err)
	}
}

func TestWireGuardKeysAreKeptByGeneration(t *testing.T) {
	d := newDir(t)
	if keys, err := d.WireGuardKeys("blue"); err != nil || len(keys) != 0 {
		t.Errorf("in an empty folder: %v, %v", keys, err)
	}
	for slice, generations := range map[string][]uint64{"blue": {0, 1764000000}, "red": {7}, "blue-7": {0, 8}} {
		for _, g := range generations {
			if _, err := d.MakeWireGuardKey(slice, g, func() ([32]byte, error) { return [32]byte{slice[0], byte(g)}, nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := d.Write("wireguard/blue.x.key", []byte("no key of ours")); err != nil {
		t.Fatal(err)
	}
	want := map[uint64][32]byte{0: {'b', 0}, 1764000000: {'b', byte(uint64(1764000000) & 0xff)}}
	if keys, err := d.WireGuardKeys("blue"); err != nil || !maps.Equal(keys, want) {
		t.Errorf("keys %v, %v, want %v", keys, err, want)
	}
	for range 2 { // again does nothing
		if err := d.DropWireGuardKey("blue", 0); err != nil {
			t.Fatal(err)
		}
	}
	delete(want, 0)
	if keys, err := d.WireGuardKeys("blue"); err != nil || !maps.Equal(keys, want) {
		t.Errorf("after one was dropped: %v, %v, want %v", keys, err, want)
	}
	if err := d.WriteSealed("wireguard/red.7.key", []byte("short")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.WireGuardKeys("red"); err == nil || !strings.Contains(err.Error(), "instead of 32") {
		t.Errorf("a damaged key: %v", err)
	}
}

func TestTheFolderHasOneUser(t *testing.T) {
	d := newDir(t)
	release, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Lock(); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("a second lock: %v", err)
	}
	release()
	again, err := d.Lock()
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	again()
}
