package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// An image of a static program is the same bytes each time, and one that needs
// libraries is refused.
func TestImagesAreOfStaticProgramsAndReproducible(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "program")
	cmd := exec.Command("go", "build", "-o", program, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var archives [2][]byte
	for i := range archives {
		path := filepath.Join(dir, "image.tar")
		if err := run([]string{"-program", program, "-version", "v1+x", "-o", path}); err != nil {
			t.Fatal(err)
		}
		var err error
		if archives[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0], archives[1]) || !bytes.Contains(archives[0], []byte("docker.io/library/slicewire:v1-x")) {
		t.Error("the archives differ, or have another name")
	}
	if err := run([]string{"-program", "/bin/sh", "-version", "v1", "-o", filepath.Join(dir, "x")}); err == nil || !strings.Contains(err.Error(), "CGO_ENABLED=0") {
		t.Errorf("a program with shared libraries: %v", err)
	}
	if err := run([]string{"-program", source, "-version", "v1", "-o", filepath.Join(dir, "x")}); err == nil {
		t.Error("a text is made an image of")
	}
}
