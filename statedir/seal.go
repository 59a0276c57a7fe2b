package statedir

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

func (d Dir) sum(name string, data []byte) ([]byte, error) {
	key, err := d.Read(FileNodeKey)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("slicewire state\x00" + name + "\x00"))
	mac.Write(data)
	line := hex.AppendEncode([]byte(sumMark), mac.Sum(nil)[:sumBytes])
	return append(line, '\n'), nil
}

// WriteSealed writes data and its sum.
func (d Dir) WriteSealed(name string, data []byte) error {
	line, err := d.sum(name, data)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return d.Write(name, append(bytes.Clone(data), line...))
}

// ErrNotOurs says that a file is damaged, or another node's. Its text ends with
// the file's name.
var ErrNotOurs = errors.New("damaged, or of another node")

// ReadSealed returns what writeSealed wrote; fs.ErrNotExist when there is none.
func (d Dir) ReadSealed(name string) ([]byte, error) {
	all, err := d.Read(name)
	if err != nil {
		return nil, err
	}
	data := all[:max(0, len(all)-sumLine)]
	line, err := d.sum(name, data)
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(line, all[len(data):]) {
		return nil, fmt.Errorf("%s is %w", d.Path(name), ErrNotOurs)
	}
	return data, nil
}

// ReadJSON fills v from a file. A missing file leaves v alone; so does a damaged
// one, which is an error.
func ReadJSON[T any](d Dir, name string, v *T) error {
	data, err := d.ReadSealed(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var fresh T
	if err := json.Unmarshal(data, &fresh); err != nil {
		return fmt.Errorf("%s: %w", d.Path(name), err)
	}
	*v = fresh
	return nil
}

// WriteJSON writes v sealed, as readJSON reads it.
func (d Dir) WriteJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return d.WriteSealed(name, append(data, '\n'))
}
