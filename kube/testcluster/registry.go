package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// A registry serves image archives to the rig's nodes, whatever registry an
// image's name says. Archives may be added to the folder at any time.
type registry struct {
	dir string

	mu    sync.Mutex
	known map[string]bool // archives by path
	named map[string]imageRef
	blobs map[string]blobAt // by digest
}

// An imageRef is where an image's manifest is.
type imageRef struct {
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
}

// A blobAt is a part of an archive.
type blobAt struct {
	archive      string
	offset, size int64
	media        string
}

func newRegistry(dir string) *registry {
	return &registry{dir: dir, known: make(map[string]bool), named: make(map[string]imageRef), blobs: make(map[string]blobAt)}
}

// serve answers until the rig ends.
func (r *registry) serve(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("serve images: %w", err)
	}
	go func() { _ = http.Serve(l, r) }() // ends with the process
	return nil
}

// ServeHTTP answers what a pull asks: /v2/NAME/manifests/TAG-or-digest and
// /v2/NAME/blobs/DIGEST, with the registry that the name says as ns.
func (r *registry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	rest, ok := strings.CutPrefix(q.URL.Path, "/v2/")
	if ok && rest == "" {
		return // yes, it is a registry
	}
	i := strings.LastIndex(rest, "/manifests/")
	if i < 0 {
		i = strings.LastIndex(rest, "/blobs/")
	}
	if i < 0 {
		http.NotFound(w, q)
		return
	}
	name := q.URL.Query().Get("ns") + "/" + rest[:i]
	ref := rest[strings.LastIndexByte(rest, '/')+1:]
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.scan(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if !strings.Contains(ref, ":") { // a digest has one, a tag has none
		ref = r.named[name+":"+ref].Digest
	}
	b, ok := r.blobs[ref]
	if !ok {
		http.NotFound(w, q)
		return
	}
	b.write(w, q, ref)
}

func (b blobAt) write(w http.ResponseWriter, q *http.Request, digest string) {
	f, err := os.Open(b.archive)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", b.media)
	w.Header().Set("Content-Length", fmt.Sprint(b.size))
	w.Header().Set("Docker-Content-Digest", digest)
	if q.Method == http.MethodHead {
		return
	}
	_, _ = io.Copy(w, io.NewSectionReader(f, b.offset, b.size)) // whoever asked has gone
}

// scan reads archives that are new. The mutex is held.
func (r *registry) scan() error {
	paths, err := filepath.Glob(filepath.Join(r.dir, "*.tar"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		if r.known[path] {
			continue
		}
		if err := r.read(path); err != nil {
			return fmt.Errorf("image archive %s: %w", path, err)
		}
		r.known[path] = true
	}
	return nil
}

func (r *registry) read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var index struct {
		Manifests []struct {
			imageRef
			Annotations map[string]string `json:"annotations"`
		} `json:"manifests"`
	}
	for t := tar.NewReader(f); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		at, err := f.Seek(0, io.SeekCurrent) // what follows a header is the data
		if err != nil {
			return err
		}
		if digest, ok := strings.CutPrefix(h.Name, "blobs/"); ok && h.Typeflag == tar.TypeReg {
			r.blobs[strings.Replace(digest, "/", ":", 1)] = blobAt{archive: path, offset: at, size: h.Size, media: "application/octet-stream"}
		}
		if h.Name == "index.json" {
			if err := json.NewDecoder(t).Decode(&index); err != nil {
				return err
			}
		}
	}
	if len(index.Manifests) == 0 {
		return errors.New("it has no index.json with manifests: want the OCI layout")
	}
	for _, m := range index.Manifests {
		r.named[m.Annotations["io.containerd.image.name"]] = m.imageRef
		b := r.blobs[m.Digest]
		b.media = m.MediaType
		r.blobs[m.Digest] = b
	}
	return nil
}
