package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
)

func example() Image {
	img := Slicewire([]byte("program"), "amd64", "1", "docker.io/library/slicewire:1", "registry.example/x:2")
	img.Files = append(img.Files, File{Path: "a/b/c", Data: []byte("deep")}, File{Path: "a/b/d", Link: "c"})
	return img
}

// read returns what an archive's files hold.
func read(t *testing.T, data []byte) (files map[string][]byte, headers map[string]*tar.Header) {
	t.Helper()
	files, headers = make(map[string][]byte), make(map[string]*tar.Header)
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, headers
		}
		if err != nil {
			t.Fatal(err)
		}
		if headers[h.Name] != nil {
			t.Errorf("%s is there twice", h.Name)
		}
		headers[h.Name] = h
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnArchiveIsWhatItsDigestsSay(t *testing.T) {
	var b, again bytes.Buffer
	if err := errors.Join(Write(&b, example()), Write(&again, example())); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Error("the same image is other bytes the second time")
	}
	files, _ := read(t, b.Bytes())
	for name, data := range files {
		if digest, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && digest != "" {
			if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != digest {
				t.Errorf("%s is of another digest", name)
			}
		}
	}
	var index struct{ Manifests []descriptor }
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Manifests) != 2 {
		t.Fatalf("the index has %d names, want 2", len(index.Manifests))
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	if err := json.Unmarshal(files[blob(index.Manifests[1].Digest)], &manifest); err != nil {
		t.Fatal(err)
	}
	var conf struct {
		Config struct {
			User       string
			Entrypoint []string
		}
		Rootfs struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(files[blob(manifest.Config.Digest)], &conf); err != nil {
		t.Fatal(err)
	}
	if conf.Config.User != "65532:65532" || conf.Rootfs.DiffIDs[0] != manifest.Layers[0].Digest {
		t.Errorf("the config is %+v", conf)
	}
	checkLayer(t, files[blob(manifest.Layers[0].Digest)])
	var docker []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(files["manifest.json"], &docker); err != nil {
		t.Fatal(err)
	}
	if files[docker[0].Config] == nil || files[docker[0].Layers[0]] == nil || len(docker[0].RepoTags) != 2 {
		t.Errorf("docker's manifest is %+v", docker)
	}
}

func checkLayer(t *testing.T, layer []byte) {
	t.Helper()
	files, headers := read(t, layer)
	if string(files["slicewire"]) != "program" || headers["slicewire"].Mode != 0o755 {
		t.Errorf("the program is %q, mode %o", files["slicewire"], headers["slicewire"].Mode)
	}
	if h := headers["tmp/"]; h == nil || h.Mode != 0o1777 {
		t.Errorf("the folder for temporary files is %+v", h)
	}
	if headers["a/"] == nil || headers["a/b/"] == nil || headers["a/b/d"].Linkname != "c" {
		t.Errorf("folders or links are missing of %v", headers)
	}
}

func TestImagesThatNobodyCouldUseAreRefused(t *testing.T) {
	for name, img := range map[string]Image{
		"no name":            {},
		"a name with no tag": {Names: []string{"docker.io/library/x"}},
		"a short name":       {Names: []string{"x:1"}},
		"a path upward":      {Names: []string{"a/x:1"}, Files: []File{{Path: "../etc/passwd"}}},
		"an absolute path":   {Names: []string{"a/x:1"}, Files: []File{{Path: "/etc", Mode: fs.ModeDir}}},
	} {
		if err := Write(io.Discard, img); err == nil {
			t.Errorf("%s is written", name)
		}
	}
}
