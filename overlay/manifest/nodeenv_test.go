package manifest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNodeFilesMayNameTheEnvironment(t *testing.T) {
	env := map[string]string{"POD": "gw-0", "IP": "192.0.2.1", "EVIL": "x\nsite: other", "QUOTE": `a"b`, "EMPTY": ""}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	for _, c := range []struct{ name, text, want string }{
		{"names and addresses are filled in", "node: ${POD}\nadvertise: ['${IP}:31820']\n# ${NOT_SET} in a comment is not looked at\n", ""},
		{"what is not set is said with its line", "node: ${NO}\n", "3: ${NO}: the environment does not have it"},
		{"a value with lines is refused", "node: ${EVIL}\n", "want a plain name"},
		{"a value with quotes is refused", "node: ${QUOTE}\n", "want a plain name"},
		{"an empty value is refused", "node: ${EMPTY}\n", "want a plain name"},
		{"a variable has an end", "node: ${POD\n", "has no end"},
	} {
		path := filepath.Join(t.TempDir(), "node.yaml")
		if err := os.WriteFile(path, []byte("version: 1\nsite: a\n"+c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		n, problems := LoadNodeIn(path, lookup)
		var all strings.Builder
		for _, p := range problems {
			all.WriteString(p.String() + "\n")
		}
		if (c.want == "") != (len(problems) == 0) || !strings.Contains(all.String(), c.want) {
			t.Errorf("%s: %q, want %q", c.name, all.String(), c.want)
		}
		if c.want == "" && (n.Node != "gw-0" || n.Advertise[0].String() != "192.0.2.1:31820") {
			t.Errorf("%s: node %q, advertise %v", c.name, n.Node, n.Advertise)
		}
	}
}
