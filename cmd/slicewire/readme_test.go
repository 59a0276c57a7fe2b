package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// block returns the README's first fenced block that starts with the language
// and contains the text.
func block(t *testing.T, language, text string) string {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(moduleRoot(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```").FindAllStringSubmatch(string(readme), -1) {
		if m[1] == language && strings.Contains(m[2], text) {
			return m[2]
		}
	}
	t.Fatalf("the README has no %q block with %q", language, text)
	return ""
}

func TestTheReadmesCommandsMakeANode(t *testing.T) {
	node, commands := block(t, "yaml", "version: 1"), block(t, "", "slicewire ca init")
	dir := t.TempDir()
	t.Chdir(dir)
	if err := unpackManifests("manifests"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("node.yaml", []byte(node), 0o600); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for line := range strings.Lines(commands) {
		line, _, _ = strings.Cut(line, " #")
		words := strings.Fields(strings.ReplaceAll(line, "/var/lib/slicewire", filepath.Join(dir, "state")))
		if words[1] == "daemon" {
			break // it and what follows needs the addresses of real machines
		}
		var into string
		for i, w := range words {
			if w == ">" {
				into, words = words[i+1], words[:i]
				break
			}
		}
		out, errs, code := program(t, words[1:]...)
		if code != 0 {
			t.Fatalf("%s: exit %d, %s", strings.Join(words, " "), code, errs)
		}
		if into != "" {
			if err := os.WriteFile(into, []byte(out), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		ran++
	}
	if ran != 4 {
		t.Errorf("%d commands ran before the daemon, want 4", ran)
	}
	// The node file is whole and fits the manifests: warnings at most.
	if out, errs, code := program(t, "config", "check", "node.yaml"); code != exitDegraded || !strings.Contains(out, "web.iperf.svc.slice.local") {
		t.Errorf("config check of the node file: exit %d\n%s%s", code, out, errs)
	}
}
