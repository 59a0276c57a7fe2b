package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"path"
	"runtime"
	"time"
)

// An image is one layer of files, on nothing. Only what the rig itself needs is
// made here: others bring archives in the OCI layout.
type image struct {
	name       string // with its tag
	entrypoint []string
	user       string // uid:gid; empty: root
	files      []imageFile
}

type imageFile struct {
	path string // in the image or archive, without a leading slash
	mode int64
	data []byte
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// writeImage writes an archive in the OCI layout.
func writeImage(w io.Writer, img image) error {
	const media = "application/vnd.oci.image."
	var files []imageFile
	add := func(kind string, data []byte) descriptor {
		sum := sha256.Sum256(data)
		digest := hex.EncodeToString(sum[:])
		files = append(files, imageFile{path: "blobs/sha256/" + digest, mode: 0o644, data: data})
		return descriptor{MediaType: media + kind, Digest: "sha256:" + digest, Size: len(data)}
	}
	var tarred bytes.Buffer
	if err := writeTar(&tarred, img.files); err != nil {
		return err
	}
	layer := add("layer.v1.tar", tarred.Bytes())
	conf, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "created": "1970-01-01T00:00:00Z",
		"config": map[string]any{"Entrypoint": img.entrypoint, "User": img.user, "WorkingDir": "/"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layer.Digest}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": media + "manifest.v1+json",
		"config": add("config.v1+json", conf), "layers": []descriptor{layer}})
	if err != nil {
		return err
	}
	m := add("manifest.v1+json", manifest)
	m.Annotations = map[string]string{"io.containerd.image.name": img.name}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []descriptor{m}})
	if err != nil {
		return err
	}
	return writeTar(w, append(files, imageFile{path: "index.json", mode: 0o644, data: index}))
}

func writeTar(w io.Writer, files []imageFile) error {
	t := tar.NewWriter(w)
	for _, f := range files {
		f.path = path.Clean(f.path)
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.path, Mode: f.mode, Size: int64(len(f.data)), ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
		if _, err := t.Write(f.data); err != nil {
			return err
		}
	}
	return t.Close()
}
