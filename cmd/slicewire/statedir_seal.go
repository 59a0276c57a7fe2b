package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
)

// What a node writes for itself alone ends with a line that proves that it is
// whole and this node's: a sum under the node's key, of the file's name and of
// all before the line. So a flipped bit is not another key, a lost one no token
// that can be used again, and a file of another node is not taken for an own
// one. What others write (certificates, the gossip's first key) and what can be
// judged by itself (records) has none.
const (
	sumMark  = "# sum "
	sumBytes = 16
	sumLine  = len(sumMark) + 2*sumBytes + 1
)

func (d stateDir) sum(name string, data []byte) ([]byte, error) {
	key, err := d.read(fileNodeKey)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("slicewire state\x00" + name + "\x00"))
	mac.Write(data)
	line := hex.AppendEncode([]byte(sumMark), mac.Sum(nil)[:sumBytes])
	return append(line, '\n'), nil
}

// writeSealed writes data and its sum.
func (d stateDir) writeSealed(name string, data []byte) error {
	line, err := d.sum(name, data)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return d.write(name, append(bytes.Clone(data), line...))
}

// errNotOurs says that a file is damaged, or another node's. Its text ends with
// the file's name.
var errNotOurs = errors.New("damaged, or of another node")

// readSealed returns what writeSealed wrote; fs.ErrNotExist when there is none.
func (d stateDir) readSealed(name string) ([]byte, error) {
	all, err := d.read(name)
	if err != nil {
		return nil, err
	}
	data := all[:max(0, len(all)-sumLine)]
	line, err := d.sum(name, data)
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(line, all[len(data):]) {
		return nil, fmt.Errorf("%s is %w", d.path(name), errNotOurs)
	}
	return data, nil
}

// readJSON fills v from a file. A missing file leaves v alone; so does a damaged
// one, which is an error.
func readJSON[T any](d stateDir, name string, v *T) error {
	data, err := d.readSealed(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var fresh T
	if err := json.Unmarshal(data, &fresh); err != nil {
		return fmt.Errorf("%s: %w", d.path(name), err)
	}
	*v = fresh
	return nil
}

// writeJSON writes v sealed, as readJSON reads it.
func (d stateDir) writeJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return d.writeSealed(name, append(data, '\n'))
}
