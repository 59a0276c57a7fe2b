package cluster

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"io"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// deflaters are what pack has at hand: each takes much to make.
var deflaters = sync.Pool{New: func() any {
	w, err := flate.NewWriter(nil, flate.BestSpeed)
	if err != nil {
		panic(err) // the level is one that there is
	}
	return w
}}

// pack returns an object as compressed JSON, to be kept: a third of it. It is nil
// for what is no JSON.
func pack(raw map[string]any) []byte {
	text, err := json.Marshal(raw)
	if err != nil {
		return nil // it came as JSON
	}
	var out bytes.Buffer
	w := deflaters.Get().(*flate.Writer)
	defer deflaters.Put(w)
	w.Reset(&out)
	if _, err := w.Write(text); err != nil {
		return nil // a buffer takes everything
	}
	if err := w.Close(); err != nil {
		return nil
	}
	return bytes.Clone(out.Bytes())
}

// unpack returns what was packed; nil for what was not.
func unpack(packed []byte) *unstructured.Unstructured {
	text, err := io.ReadAll(flate.NewReader(bytes.NewReader(packed)))
	if err != nil {
		return nil
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(text); err != nil {
		return nil
	}
	return u
}
