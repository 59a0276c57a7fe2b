package cluster

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"io"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// packed is an object as compressed JSON (RFC 1951), to be kept: a tenth of it.
type packed struct {
	dictionary *dictionary
	data       []byte // nil: nothing is kept
}

// A dictionary is an object of a kind. The others are almost the same, so they are
// packed as what differs from it.
type dictionary struct {
	text    []byte
	writers sync.Pool // of *flate.Writer: each takes much to make
}

// dictionaries are the first objects of each kind that were packed.
var dictionaries [numKinds]atomic.Pointer[dictionary]

// readers are what unpack has at hand.
var readers = sync.Pool{New: func() any { return flate.NewReader(nil) }}

const (
	// maxDictionary bounds what is kept of a dictionary, in bytes: it is read anew
	// for every object.
	maxDictionary = 4 << 10
	// packLevel is the least that makes use of a dictionary.
	packLevel = 2
)

// dictionaryOf returns a kind's dictionary, which text becomes if there is none.
func dictionaryOf(kind Kind, text []byte) *dictionary {
	if d := dictionaries[kind].Load(); d != nil {
		return d
	}
	d := &dictionary{text: bytes.Clone(text[:min(len(text), maxDictionary)])}
	d.writers.New = func() any {
		w, err := flate.NewWriterDict(nil, packLevel, d.text)
		if err != nil {
			panic(err) // the level is one that there is
		}
		return w
	}
	if dictionaries[kind].CompareAndSwap(nil, d) {
		return d
	}
	return dictionaries[kind].Load()
}

// pack packs an object; what is no JSON is not kept.
func pack(kind Kind, raw map[string]any) packed {
	text, err := json.Marshal(raw)
	if err != nil {
		return packed{} // it came as JSON
	}
	d := dictionaryOf(kind, text)
	var out bytes.Buffer
	w := d.writers.Get().(*flate.Writer)
	defer d.writers.Put(w)
	w.Reset(&out)
	if _, err := w.Write(text); err != nil {
		return packed{} // a buffer takes everything
	}
	if err := w.Close(); err != nil {
		return packed{}
	}
	return packed{d, bytes.Clone(out.Bytes())}
}

// unpack returns what was packed; nil for what was not.
func (p packed) unpack() *unstructured.Unstructured {
	if p.data == nil {
		return nil
	}
	r := readers.Get().(io.ReadCloser)
	defer readers.Put(r)
	if err := r.(flate.Resetter).Reset(bytes.NewReader(p.data), p.dictionary.text); err != nil {
		return nil
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(text); err != nil {
		return nil
	}
	return u
}
