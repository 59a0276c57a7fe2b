// Package image writes container images, without a registry and without any
// program that makes them: one layer of files, on nothing.
//
// The same image is always the same bytes. Archives are in the OCI layout and
// carry docker's manifest beside it, so that docker, podman, containerd and
// skopeo read them. It never runs anything of an image.
//
// All functions may be called concurrently.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
)

// An Image is one layer of files and how a container of it starts.
type Image struct {
	Names      []string // full ones with a tag: docker.io/library/x:1; at least one
	Arch       string   // as GOARCH says it
	Entrypoint []string
	Cmd        []string // arguments where a pod gives none
	User       string   // uid:gid; empty: root
	Labels     map[string]string
	Files      []File // in this order, folders above them are made
}

// A File is a file, a folder (Mode has fs.ModeDir) or a symbolic link.
type File struct {
	Path string // in the image, without a leading slash
	Mode fs.FileMode
	Data []byte
	Link string // where a symbolic link points; no Data then
}

// Media types of the OCI's image specification.
const (
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar"
)

// A descriptor names a blob, as the OCI's image specification has it.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Write writes img as an archive.
func Write(w io.Writer, img Image) error {
	if err := img.validate(); err != nil {
		return err
	}
	a := &archive{}
	layer, err := layerOf(img.Files)
	if err != nil {
		return err
	}
	l := a.add(mediaLayer, layer)
	conf, err := json.Marshal(img.config(l.Digest))
	if err != nil {
		return err
	}
	c := a.add(mediaConfig, conf)
	manifest, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mediaManifest, "config": c, "layers": []descriptor{l}})
	if err != nil {
		return err
	}
	m := a.add(mediaManifest, manifest)
	var named []descriptor
	for _, name := range img.Names {
		d := m
		d.Annotations = map[string]string{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name[strings.LastIndexByte(name, ':')+1:]}
		named = append(named, d)
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mediaIndex, "manifests": named})
	if err != nil {
		return err
	}
	docker, err := json.Marshal([]any{map[string]any{"Config": blob(c.Digest), "RepoTags": img.Names, "Layers": []string{blob(l.Digest)}}})
	if err != nil {
		return err
	}
	a.files = append(a.files, File{Path: "index.json", Data: index}, File{Path: "manifest.json", Data: docker},
		File{Path: "oci-layout", Data: []byte(`{"imageLayoutVersion":"1.0.0"}`)})
	return writeTar(w, a.files)
}

func (img *Image) validate() error {
	if len(img.Names) == 0 {
		return errors.New("an image needs a name")
	}
	for _, name := range img.Names {
		if !strings.Contains(path.Base(name), ":") || !strings.Contains(name, "/") {
			return fmt.Errorf("image name %q: want a full one with a tag, such as docker.io/library/slicewire:1", name)
		}
	}
	for _, f := range img.Files {
		if !fs.ValidPath(f.Path) || f.Path == "." {
			return fmt.Errorf("file %q of an image: want a path without a leading slash and without dots", f.Path)
		}
	}
	return nil
}

func (img *Image) config(layer string) map[string]any {
	return map[string]any{
		"architecture": img.Arch, "os": "linux", "created": "1970-01-01T00:00:00Z",
		"config": map[string]any{
			"Entrypoint": img.Entrypoint, "Cmd": img.Cmd, "User": img.User, "WorkingDir": "/", "Labels": img.Labels,
			"Env": []string{"PATH=/bin:/usr/bin:/sbin:/usr/sbin"},
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layer}},
	}
}

// An archive is what will be written.
type archive struct{ files []File }

func (a *archive) add(media string, data []byte) descriptor {
	sum := sha256.Sum256(data)
	d := descriptor{MediaType: media, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: len(data)}
	a.files = append(a.files, File{Path: blob(d.Digest), Data: data})
	return d
}

// blob is where an archive has what has this digest.
func blob(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }

func layerOf(files []File) ([]byte, error) {
	var b bytes.Buffer
	err := writeTar(&b, files)
	return b.Bytes(), err
}

// writeTar writes files and the folders above them, each folder once.
func writeTar(w io.Writer, files []File) error {
	t := tar.NewWriter(w)
	made := map[string]bool{".": true}
	for _, f := range files {
		if f.Mode.IsDir() {
			made[f.Path] = true
		}
		if err := makeFolders(t, made, path.Dir(f.Path)); err != nil {
			return err
		}
		if err := addFile(t, f); err != nil {
			return fmt.Errorf("add %s: %w", f.Path, err)
		}
	}
	return t.Close()
}

func makeFolders(t *tar.Writer, made map[string]bool, dir string) error {
	if made[dir] {
		return nil
	}
	made[dir] = true
	if err := makeFolders(t, made, path.Dir(dir)); err != nil {
		return err
	}
	return addFile(t, File{Path: dir, Mode: fs.ModeDir | 0o755})
}

// sticky is how tar writes fs.ModeSticky.
const sticky = 0o1000

func addFile(t *tar.Writer, f File) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: f.Path, Mode: int64(f.Mode.Perm()), Size: int64(len(f.Data)), ModTime: time.Unix(0, 0)}
	switch {
	case f.Link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
	case f.Mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, f.Path+"/"
		if f.Mode&fs.ModeSticky != 0 {
			h.Mode |= sticky
		}
	case h.Mode == 0:
		h.Mode = 0o644
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err := t.Write(f.Data)
	return err
}
