package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strings"
	"time"
)

// An image is one layer of files, on nothing.
type image struct {
	names      []string // with tags
	entrypoint []string
	user       string // uid:gid; empty: root
	files      []imageFile
}

type imageFile struct {
	path string // in the image, without a leading slash
	mode int64
	data []byte
	link string // symbolic, instead of data
}

func runImage(args []string) error {
	f := flag.NewFlagSet("image", flag.ContinueOnError)
	out := f.String("o", "", "archive to write")
	name := f.String("name", "", "the image's name with its tag; several separated by commas")
	entry := f.String("entrypoint", "", "program and arguments, separated by commas")
	user := f.String("user", "65532:65532", "uid:gid")
	busybox := f.String("busybox", "", "a static busybox to install with links in /bin for all that it is")
	applets := f.String("applets", "", "the links' names, separated by commas")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *out == "" || *name == "" {
		return errors.New("-o and -name are needed")
	}
	img := image{names: strings.Split(*name, ","), user: *user}
	if *entry != "" {
		img.entrypoint = strings.Split(*entry, ",")
	}
	if *busybox != "" {
		f, err := readImageFile(*busybox + ":bin/busybox")
		if err != nil {
			return err
		}
		img.files = append(img.files, f)
		for _, a := range strings.Split(*applets, ",") {
			img.files = append(img.files, imageFile{path: "bin/" + a, link: "busybox"})
		}
	}
	for _, arg := range f.Args() {
		f, err := readImageFile(arg)
		if err != nil {
			return err
		}
		img.files = append(img.files, f)
	}
	w, err := os.Create(*out)
	if err != nil {
		return err
	}
	return errors.Join(writeImage(w, img), w.Close())
}

// readImageFile reads FILE:PATH, where a file of the machine goes into the image.
func readImageFile(arg string) (imageFile, error) {
	from, to, ok := strings.Cut(arg, ":")
	if !ok {
		return imageFile{}, fmt.Errorf("%q: want FILE:PATH, what goes where", arg)
	}
	info, err := os.Stat(from)
	if err != nil {
		return imageFile{}, err
	}
	data, err := os.ReadFile(from)
	return imageFile{path: strings.TrimPrefix(path.Clean(to), "/"), mode: int64(info.Mode().Perm()), data: data}, err
}

// writeImage writes an archive in docker's format, which ctr reads. The same
// image is always the same bytes.
func writeImage(w io.Writer, img image) error {
	var layer bytes.Buffer
	if err := writeLayer(&layer, img.files); err != nil {
		return err
	}
	diff := sha256Hex(layer.Bytes())
	conf, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "created": "1970-01-01T00:00:00Z",
		"config": map[string]any{"Entrypoint": img.entrypoint, "User": img.user, "WorkingDir": "/", "Env": []string{"PATH=/bin:/usr/bin:/sbin:/usr/sbin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + diff}},
	})
	if err != nil {
		return err
	}
	confName := sha256Hex(conf) + ".json"
	manifest, err := json.Marshal([]any{map[string]any{"Config": confName, "RepoTags": img.names, "Layers": []string{diff + "/layer.tar"}}})
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	for _, f := range []imageFile{{path: confName, data: conf}, {path: diff + "/layer.tar", data: layer.Bytes()}, {path: "manifest.json", data: manifest}} {
		f.mode = 0o644
		if err := addFile(t, f); err != nil {
			return err
		}
	}
	return t.Close()
}

func writeLayer(w io.Writer, files []imageFile) error {
	t := tar.NewWriter(w)
	made := map[string]bool{".": true}
	var dirs func(dir string) error
	dirs = func(dir string) error {
		if made[dir] {
			return nil
		}
		made[dir] = true
		if err := dirs(path.Dir(dir)); err != nil {
			return err
		}
		return t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: time.Unix(0, 0)})
	}
	for _, f := range files {
		if err := dirs(path.Dir(f.path)); err != nil {
			return err
		}
		if err := addFile(t, f); err != nil {
			return err
		}
	}
	return t.Close()
}

func addFile(t *tar.Writer, f imageFile) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: f.path, Mode: f.mode, Size: int64(len(f.data)), ModTime: time.Unix(0, 0)}
	if f.link != "" {
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.link, 0o777
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err := t.Write(f.data)
	return err
}

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
