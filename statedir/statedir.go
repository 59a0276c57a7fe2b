// Package statedir is the folder in which a node keeps what must outlive its
// process, sealed against what others may have written into it.
package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A Dir is the folder in which a node keeps what must outlive it: its
// identity, its boot counter, its WireGuard keys, the addresses it has given
// out and the last records it knew. The folder is 0700, every file 0600.
//
// Every write is complete or has not happened: temporary file, fsync, rename,
// fsync of the folder. One process uses one at a time (see lock).
type Dir string

// Names of the files. Folders are made as needed.
const (
	FileNodeKey    = "node.key"
	FileNodeCert   = "node.crt"
	FileCACert     = "ca.crt"
	FileGossipKey  = "gossip.key"
	FileGossipRing = "gossip.json"
	FileIssuerKey  = "issuer.key"
	FileIssuer     = "issuer.crt"
	FileTokens     = "tokens.json"
	FileNumbers    = "numbers.json"
	FileClock      = "clock"
	FileEpoch      = "epoch"
	FileRecords    = "records"
	FileAddresses  = "addresses.json"
	FileCordon     = "cordon.json"
	FileHub        = "hub.json"
	FileCluster    = "cluster.json"
	fileLock       = "lock"
	DirWireGuard   = "wireguard"
)

// maxStateFile bounds what is read back: nothing written here comes near it.
const maxStateFile = 64 << 20

// Path returns where a file is.
func (d Dir) Path(name string) string { return filepath.Join(string(d), name) }

// Create makes the folder, if it is not there.
func (d Dir) Create() error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("create the state folder: %w", err)
	}
	return nil
}

// Read returns a file's bytes; fs.ErrNotExist when there is none. A file that
// others may read or write is refused: what it holds is no secret any more.
func (d Dir) Read(name string) ([]byte, error) {
	path := d.Path(name)
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case info.Size() > maxStateFile:
		return nil, fmt.Errorf("%s has %d bytes, more than any state file may have (%d)", path, info.Size(), maxStateFile)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s is open to other users (mode %04o): make it 0600, and new if it holds a key", path, info.Mode().Perm())
	}
	return os.ReadFile(path)
}

// Write replaces a file, or makes it, with the folder that it is in.
func (d Dir) Write(name string, data []byte) error {
	path := d.Path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := writeAtomic(path, data); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// tempPattern matches the temporary files of a file's writes.
func tempPattern(name string) string { return "." + name + ".*" }

func writeAtomic(path string, data []byte) error {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, tempPattern(filepath.Base(path)))
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone already after the rename
	if _, err := tmp.Write(data); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err := tmp.Sync(); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// Forget removes a file, if it is there.
func (d Dir) Forget(name string) error {
	if err := os.Remove(d.Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget %s: %w", name, err)
	}
	return nil
}

// Sweep removes what writes that were cut short have left behind. The folder is
// locked: nobody writes meanwhile.
func (d Dir) Sweep() error {
	var errs []error
	for _, dir := range []string{".", DirWireGuard} {
		entries, err := os.ReadDir(d.Path(dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, e := range entries {
			if left, _ := filepath.Match(tempPattern("*"), e.Name()); left && e.Type().IsRegular() {
				errs = append(errs, os.Remove(filepath.Join(d.Path(dir), e.Name())))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("tidy the state folder: %w", err)
	}
	return nil
}

// SyncDir makes sure that a folder's names are on disk.
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// NextEpoch counts a boot: it returns a number higher than any returned before
// from this folder, after it is safely on disk. It begins at the clock's
// seconds, so that a node whose folder was lost is heard again at once.
func (d Dir) NextEpoch(now time.Time) (uint64, error) {
	last, err := d.Epoch()
	if err != nil {
		return 0, err
	}
	next := max(last+1, uint64(max(now.Unix(), 0)))
	return next, d.SetEpoch(next)
}

// Epoch returns the boot counter, 0 before the first boot.
func (d Dir) Epoch() (uint64, error) {
	data, err := d.Read(FileEpoch)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the boot counter: %w", err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the boot counter is damaged: write %d into %s, or any number above the last boot's, and start again (%w)",
			time.Now().Unix(), d.Path(FileEpoch), err)
	}
	return n, nil
}

// SetEpoch has the next boot count from n on.
func (d Dir) SetEpoch(n uint64) error { return d.Write(FileEpoch, fmt.Appendf(nil, "%d\n", n)) }

// WireGuardKeys returns the node's private keys on a slice, by generation.
func (d Dir) WireGuardKeys(slice string) (map[uint64][32]byte, error) {
	keys := make(map[uint64][32]byte)
	files, err := os.ReadDir(d.Path(DirWireGuard))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for WireGuard keys: %w", err)
	}
	for _, f := range files {
		generation, ok := generationOf(f.Name(), slice)
		if !ok {
			continue
		}
		name := filepath.Join(DirWireGuard, f.Name())
		data, err := d.ReadSealed(name)
		if err == nil && len(data) != 32 {
			err = fmt.Errorf("%s has %d bytes instead of 32", d.Path(name), len(data))
		}
		if err != nil {
			return nil, fmt.Errorf("read a WireGuard key: %w: remove it to have a new one made", err)
		}
		keys[generation] = [32]byte(data)
	}
	return keys, nil
}

// wireGuardFile names the file of a key: slice.key for generation 0, else
// slice.generation.key. Names of slices have no dots.
func wireGuardFile(slice string, generation uint64) string {
	if generation != 0 {
		slice = fmt.Sprintf("%s.%d", slice, generation)
	}
	return filepath.Join(DirWireGuard, slice+".key")
}

// generationOf reads wireGuardFile's names.
func generationOf(file, slice string) (uint64, bool) {
	rest, ok := strings.CutPrefix(file, slice+".")
	if !ok {
		return 0, false
	}
	if rest == "key" {
		return 0, true
	}
	number, ok := strings.CutSuffix(rest, ".key")
	if !ok {
		return 0, false
	}
	generation, err := strconv.ParseUint(number, 10, 64)
	return generation, err == nil && generation != 0
}

// MakeWireGuardKey makes the node's private key of a generation and keeps it.
func (d Dir) MakeWireGuardKey(slice string, generation uint64, generate func() ([32]byte, error)) ([32]byte, error) {
	key, err := generate()
	if err != nil {
		return key, fmt.Errorf("make a WireGuard key: %w", err)
	}
	return key, d.WriteSealed(wireGuardFile(slice, generation), key[:])
}

// DropWireGuardKey forgets a key.
func (d Dir) DropWireGuardKey(slice string, generation uint64) error {
	if err := os.Remove(d.Path(wireGuardFile(slice, generation))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget a WireGuard key: %w", err)
	}
	return nil
}

// ForgetWireGuardKeys has new keys made at their next use.
func (d Dir) ForgetWireGuardKeys() error {
	if err := os.RemoveAll(d.Path(DirWireGuard)); err != nil {
		return fmt.Errorf("forget the WireGuard keys: %w", err)
	}
	return nil
}
