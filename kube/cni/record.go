package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A Record is what is known of an attachment.
type Record struct {
	Container string     `json:"container"`
	IfName    string     `json:"ifname"` // the runtime's, by which it asks
	Network   string     `json:"network"`
	Netns     string     `json:"netns"`
	Device    string     `json:"device"`
	Slice     string     `json:"slice"`
	Namespace string     `json:"namespace,omitempty"` // of the pod, on the slice
	Pod       string     `json:"pod,omitempty"`
	Address   netip.Addr `json:"address"` // the zero address until it is attached
	Address6  netip.Addr `json:"address6"`
}

// suffix ends the name of a record's file.
const suffix = ".json"

// maxRecord bounds what is read of one.
const maxRecord = 64 << 10

// A recordFile is one attachment's file, locked. Close unlocks it.
type recordFile struct {
	f    *os.File
	path string
}

func recordPath(state, network, container, ifname string) string {
	return filepath.Join(state, "attachments", network, container+"."+ifname+suffix)
}

// lockRecord opens a record's file, which it makes if create says so, and waits
// until nobody else works on it. Without one it returns fs.ErrNotExist.
func lockRecord(path string, create bool) (*recordFile, error) {
	flags := os.O_RDWR
	if create {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		flags |= os.O_CREATE
	}
	for {
		f, err := os.OpenFile(path, flags, 0o600)
		if err != nil {
			return nil, err
		}
		for err = unix.EINTR; errors.Is(err, unix.EINTR); {
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		mine, err1 := f.Stat()
		now, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(mine, now) {
			return &recordFile{f, path}, nil
		}
		f.Close() // it was removed while this waited
	}
}

// read returns what is in it; an empty file is a record of nothing.
func (r *recordFile) read() (rec Record, err error) {
	data, err := io.ReadAll(io.NewSectionReader(r.f, 0, maxRecord))
	if err != nil || len(data) == 0 {
		return rec, err
	}
	if err := json.Unmarshal(data, &rec); err != nil {
		return Record{}, fmt.Errorf("%s: %w", r.path, err)
	}
	return rec, nil
}

// write replaces what is in it. Readers lock it first, so that they see all or
// nothing of it, and a torn one after a crash is read as damaged.
func (r *recordFile) write(rec Record) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if err := r.f.Truncate(0); err != nil {
		return err
	}
	_, err = r.f.WriteAt(data, 0)
	return err
}

func (r *recordFile) remove() error {
	if err := os.Remove(r.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Close unlocks it.
func (r *recordFile) Close() error { return r.f.Close() }

// recordPaths lists the files of a network's records, or of all with network "".
func recordPaths(state, network string) ([]string, error) {
	root := filepath.Join(state, "attachments", network)
	var out []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // none yet, or gone this moment
		case err != nil:
			return err
		case d.Type().IsRegular() && strings.HasSuffix(path, suffix):
			out = append(out, path)
		}
		return nil
	})
	return out, err
}

// knownPath is where the daemon's last words are kept, for when it is away: pods
// that are on no slice must start then, too.
func knownPath(state string) string { return filepath.Join(state, "slices"+suffix) }

func readKnown(state string) ([]Slice, bool) {
	data, err := os.ReadFile(knownPath(state))
	if err != nil {
		return nil, false
	}
	var all []Slice
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, false
	}
	return all, true
}

// writeKnown writes only what differs.
func writeKnown(state string, all []Slice) error {
	data, err := json.Marshal(all)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(knownPath(state)); err == nil && string(old) == string(data) {
		return nil
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	return replaceFile(knownPath(state), data, 0o600)
}

// replaceFile puts a file in place of another at once.
func replaceFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".sw-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
