package crd

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write deploy/crds")

const folder = "../../deploy/crds"

func TestCommittedDefinitionsAreThoseOfTheKinds(t *testing.T) {
	files, err := Files()
	if err != nil {
		t.Fatal(err)
	}
	committed, err := filepath.Glob(folder + "/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range committed {
		if files[filepath.Base(path)] != nil {
			continue
		}
		if !*update {
			t.Errorf("%s is of no kind: go test ./kube/crd -update", path)
		} else if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
	for name, want := range files {
		path := filepath.Join(folder, name)
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the kinds give (%v): go test ./kube/crd -update", path, err)
		}
	}
	if len(files) < 19 {
		t.Errorf("only %d definitions", len(files))
	}
}
