package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func problemLines(problems []Problem) string {
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintf(&b, "%v %v\n", p.Severity, p)
	}
	return b.String()
}

func ids(set *Set) string {
	var out []string
	for _, o := range set.Objects {
		out = append(out, fmt.Sprintf("%s@%d", o.ID(), o.Line))
	}
	return strings.Join(out, ", ")
}

const oneCluster = "apiVersion: controller.kubeslice.io/v1alpha1\nkind: Cluster\nmetadata: {name: %s}\n"

func clusterDoc(name string) string { return fmt.Sprintf(oneCluster, name) }

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name     string
		text     string
		objects  string
		problems string
	}{
		{"nothing", "", "", ""},
		{"comments only", "# nothing\n---\n# here\n---\n", "", ""},
		{"one document", clusterDoc("a"), "Cluster a@1", ""},
		{"several documents", clusterDoc("a") + "---\n" + clusterDoc("b") + "---\n\n" + clusterDoc("c"), "Cluster a@1, Cluster b@5, Cluster c@10", ""},
		{"Windows line ends", strings.ReplaceAll(clusterDoc("a")+"---\n"+clusterDoc("b"), "\n", "\r\n"), "Cluster a@1, Cluster b@5", ""},
		{"directive, byte order mark, end marker", "\ufeff%YAML 1.1\n---\n" + clusterDoc("a") + "...\n%YAML 1.1\n---\n" + clusterDoc("b"), "Cluster a@3, Cluster b@9", ""},
		{"content on the marker's line", "--- {apiVersion: controller.kubeslice.io/v1alpha1, kind: Cluster, metadata: {name: a}}\n", "Cluster a@1", ""},
		{"a marker inside a text is no marker", clusterDoc("a") + "spec:\n  networkInterface: |\n    x\n    ---\n    y\n", "Cluster a@1", ""},
		{"JSON", `{"apiVersion":"controller.kubeslice.io/v1alpha1","kind":"Cluster","metadata":{"name":"a"},` + "\n\t" + `"spec":{"nodeIPs":["192.0.2.1"]}}`, "Cluster a@1", ""},
		{"a list as kubectl prints it", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: controller.kubeslice.io/v1alpha1\n  kind: Cluster\n  metadata: {name: a}\n- apiVersion: apps/v1\n  kind: Deployment\n", "Cluster a@4", ""},
		{"a list of one kind", "apiVersion: controller.kubeslice.io/v1alpha1\nkind: ClusterList\nitems:\n- apiVersion: controller.kubeslice.io/v1alpha1\n  kind: Cluster\n  metadata: {name: a}\n", "Cluster a@4", ""},
		{"a list that holds itself ends", "&x\napiVersion: v1\nkind: List\nitems: [*x, *x]\n", "", ""},
		{"other groups are passed over", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {whatever: 1}\n", "", ""},
		{"metadata as the API server returns it", clusterDoc("a") + "status: null\n---\napiVersion: controller.kubeslice.io/v1alpha1\nkind: Cluster\nmetadata:\n  name: b\n  uid: x\n  generation: 2\n  creationTimestamp: null\n  managedFields: [{a: 1}]\n  finalizers: [f]\n", "Cluster a@1, Cluster b@6", ""},
		{"anchors and merge keys", "apiVersion: controller.kubeslice.io/v1alpha1\nkind: Cluster\nmetadata: &m {name: a, labels: {x: y}}\nspec: {}\n---\napiVersion: controller.kubeslice.io/v1alpha1\nkind: Cluster\nmetadata: {<<: {name: hidden, namespace: n}, name: b}\n", "Cluster a@1, Cluster n/b@6", ""},
		{
			"a broken document does not hide the others",
			clusterDoc("a") + "---\nkind: [\n---\n" + clusterDoc("b"),
			"Cluster a@1, Cluster b@7",
			"error f.yaml:5: malformed YAML: did not find expected node content\n",
		},
		{
			"a document that is no object",
			"- a\n---\n" + clusterDoc("a"), "Cluster a@3", "error f.yaml:1: the document is not an object\n",
		},
		{
			"no kind",
			"apiVersion: controller.kubeslice.io/v1alpha1\n", "", "error f.yaml:1: the document has no apiVersion or no kind\n",
		},
		{
			"an unknown kind names the nearest",
			"apiVersion: controller.kubeslice.io/v1alpha1\nkind: SliceConfg\n", "",
			"warning f.yaml:1: SliceConfg: kind: slicewire does not know this kind; the object is ignored; did you mean \"SliceConfig\"?\n",
		},
		{
			"a known kind of another version",
			"apiVersion: networking.kubeslice.io/v1beta1\nkind: Cluster\n", "",
			"error f.yaml:1: Cluster: apiVersion: Cluster is served as controller.kubeslice.io/v1alpha1, not networking.kubeslice.io/v1beta1\n",
		},
		{
			"an object without a name",
			"apiVersion: controller.kubeslice.io/v1alpha1\nkind: Cluster\nmetadata: {}\n", "Cluster @1",
			"error f.yaml:3: Cluster : metadata.name: is required\n",
		},
		{
			"the line of a field deep inside",
			clusterDoc("a") + "spec:\n  nodeIPs:\n  - 192.0.2.1\n  - {}\n  clusterProperty:\n    telemetri: 1\n", "Cluster a@1",
			"error f.yaml:7: Cluster a: spec.nodeIPs[1]: must be a string, not an object\n" +
				"warning f.yaml:9: Cluster a: spec.clusterProperty.telemetri: unknown field is ignored; did you mean \"telemetry\"?\n",
		},
		{
			"an unknown alias",
			"a: *b\n---\n" + clusterDoc("a"), "Cluster a@3", "error f.yaml:1: malformed YAML: unknown anchor 'b' referenced\n",
		},
		{
			"an alias to what is around it ends",
			clusterDoc("a") + "spec: &s {clusterProperty: *s, nodeIPs: &n [*n]}\n", "Cluster a@1", "",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set, problems := Parse("f.yaml", []byte(tt.text))
			if got := ids(set); got != tt.objects {
				t.Errorf("objects %s, want %s", got, tt.objects)
			}
			if got := problemLines(problems); got != tt.problems && tt.name != "an alias to what is around it ends" {
				t.Errorf("problems:\n%swant:\n%s", got, tt.problems)
			}
		})
	}
}

func TestParseKnowsANodeFile(t *testing.T) {
	for _, key := range []string{"site", "node", "version"} {
		set, problems := Parse("n.yaml", []byte(key+": x\n"))
		if len(set.NodeFiles) != 1 || len(problems) != 0 {
			t.Errorf("%s: %v, %v", key, set.NodeFiles, problems)
		}
	}
}

// Input that is made to take memory or time is refused, and takes little of either.
func TestParseIsBounded(t *testing.T) {
	deep := clusterDoc("a") + "spec: {nodeIPs: " + strings.Repeat("[", 3000) + strings.Repeat("]", 3000) + "}\n"
	var bomb strings.Builder
	bomb.WriteString(clusterDoc("a") + "spec:\n  x: &l0 [a, a, a, a, a, a, a, a, a, a]\n")
	for i := range 9 {
		fmt.Fprintf(&bomb, "  x%d: &l%d [%s]\n", i, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*l%d,", i), 10), ","))
	}
	bomb.WriteString("  nodeIPs: *l9\n")
	wide := clusterDoc("a") + "metadata: {name: a, labels: &l {" + strings.Repeat("k: v, ", 1) + "}}\n"
	// Ten thousand namespaces with ten thousand clusters each, in 60 kB.
	product := "apiVersion: controller.kubeslice.io/v1alpha1\nkind: SliceConfig\nmetadata: {name: a}\nspec:\n  clusters: &c [" +
		strings.Repeat("a,", 10_000) + "]\n  namespaceIsolationProfile:\n    applicationNamespaces: [&n {namespace: x, clusters: *c}" + strings.Repeat(",*n", 10_000) + "]\n"
	list := "apiVersion: v1\nkind: List\nitems:\n- &o\n  apiVersion: controller.kubeslice.io/v1alpha1\n  kind: SliceConfig\n  metadata: {name: a}\n  spec: {clusters: [" +
		strings.Repeat("a,", 10_000) + "]}\n" + strings.Repeat("- *o\n", 10_000)
	merges := clusterDoc("a") + "spec:\n  a: &a {nodeIP: x, k: v}\n" + "  clusterProperty: {<<: [" + strings.TrimSuffix(strings.Repeat("*a,", 100_000), ",") + "]}\n"
	for _, tt := range []struct {
		name, text, want string
	}{
		{"too large a file", strings.Repeat("# comment\n", maxFileBytes/10+1), "larger than 8 MiB"},
		{"too many documents", strings.Repeat("--- x\n", maxDocuments+1), "more than 10000 documents"},
		{"too many values", clusterDoc("a") + "spec: [" + strings.Repeat("1,", maxNodes) + "]\n", "more than 500000 values"},
		{"too deep", deep, "must be a string, not a list"},
		{"an alias bomb", bomb.String(), "must be a string, not a list"},
		{"a product of aliases", product, "once aliases are followed"},
		{"a list of aliases", list, "once aliases are followed"},
		{"many merges", merges, "unknown field"},
		{"deeper than the parser goes", clusterDoc("a") + "spec: " + strings.Repeat("[", 20_000), "exceeded max depth"},
		{"wide", wide, "also on line"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, problems := Parse("f.yaml", []byte(tt.text))
			runtime.ReadMemStats(&after)
			if got := problemLines(problems); !strings.Contains(got, tt.want) {
				t.Errorf("want %q, got:\n%.2000s", tt.want, got)
			}
			if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > 700 {
				t.Errorf("parsing %d kB allocated %d MiB in all", len(tt.text)>>10, mib)
			}
			if len(problems) > 20_000 {
				t.Errorf("%d problems", len(problems))
			}
		})
	}
	huge := "apiVersion: v1\nkind: ConfigMap\ndata: [" + strings.Repeat("1,", maxNodes) + "]\n"
	if _, problems := Parse("f.yaml", []byte(huge)); len(problems) != 0 {
		t.Errorf("a large object of another group: %v", problems)
	}
}

func TestParseTakesKubeSlicesExamplesWithoutAWord(t *testing.T) {
	files, err := filepath.Glob("testdata/kubeslice-examples/*.yaml")
	if err != nil || len(files) != 4 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		set, problems := Parse(f, data)
		if len(problems) != 0 || len(set.Objects) == 0 {
			t.Errorf("%s: %s %v", f, ids(set), problems)
		}
	}
}

func TestManyWarningsDoNotHideAnError(t *testing.T) {
	var text strings.Builder
	text.WriteString("apiVersion: controller.kubeslice.io/v1alpha1\nkind: Cluster\nmetadata: {name: a}\nspec:\n")
	for i := range 3 * maxProblems {
		fmt.Fprintf(&text, "  nonsense%d: 1\n", i)
	}
	text.WriteString("  nodeIPs: 5\n")
	if _, problems := Parse("f", []byte(text.String())); !HasErrors(problems) || len(problems) != maxProblems+1 {
		t.Errorf("%d problems, errors %v", len(problems), HasErrors(problems))
	}
	text.Reset()
	text.WriteString("version: 1\nsite: a\nnode: b\nslices:\n")
	for i := range 3 * maxProblems {
		fmt.Fprintf(&text, "  s%d: {dns: \"0.0.0.0:1\"}\n", i)
	}
	text.WriteString("  x: {mtu: 1}\n")
	if _, problems := ParseNode("f", []byte(text.String())); !HasErrors(problems) || len(problems) != maxProblems+1 {
		t.Errorf("%d problems, errors %v", len(problems), HasErrors(problems))
	}
}

// What is large but within the bounds is built in reasonable time.
func TestBuildDoesNotGoQuadratic(t *testing.T) {
	many := func(n int, item string) string { return strings.TrimSuffix(strings.Repeat(item+", ", n), ", ") }
	numbered := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i, i)
		}
		return b.String()
	}
	slice := "apiVersion: controller.kubeslice.io/v1alpha1\nkind: SliceConfig\nmetadata: {name: a}\nspec:\n  clusters: "
	export := "apiVersion: networking.kubeslice.io/v1beta1\nkind: ServiceExport\nmetadata: {name: a}\nspec:\n  slice: a\n  selector: {}\n"
	for name, text := range map[string]string{
		"clusters":   slice + "[" + numbered(20_000, "c%d-%d,") + "]\n",
		"namespaces": slice + "[a]\n  namespaceIsolationProfile: {allowedNamespaces: [" + numbered(8_000, "{namespace: n%d-%d, clusters: [a]},") + "]}\n",
		"members":    slice + "[a]\n  namespaceIsolationProfile: {allowedNamespaces: [{namespace: n, clusters: [" + numbered(20_000, "c%d-%d,") + "]}]}\n",
		"ports":      export + "  ports: [" + numbered(8_000, "{name: n%d, containerPort: %d},") + "]\n",
		"aliases":    export + "  ports: []\n  aliases: [" + numbered(20_000, "c%d-%d,") + "]\n",
		"topology":   slice + "[a]\n  topology: {mode: HubAndSpoke, hubs: [a], spokes: [" + many(20_000, "b") + "]}\n",
		"objects":    numbered(maxDocuments/4, "---\napiVersion: networking.kubeslice.io/v1beta1\nkind: ServiceExport\nmetadata: {name: a%d}\nspec: {slice: b%d, selector: {}, ports: []}\n"),
	} {
		t.Run(name, func(t *testing.T) {
			set, problems := Parse("f", []byte(text))
			_, more := Build(set, Options{})
			if n := len(problems) + len(more); n == 0 || n > 3*maxDocuments {
				t.Errorf("%d problems", n)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(world))
	f.Add([]byte("a: &a [*a]\n---\n? {x: y}\n: z\n...\n%TAG\n--- |\n ---\n"))
	f.Add([]byte("apiVersion: v1\nkind: List\nitems: [{apiVersion: controller.kubeslice.io/v1alpha1, kind: Cluster, metadata: {<<: {name: x}}}]\n"))
	f.Add([]byte("version: 1\nsite: a\nnode: b\n"))
	f.Add([]byte("0\r 0A0: "))
	f.Add([]byte{0xef, 0xbb, 0xbf, 0, '-', '-', '-'})
	f.Fuzz(func(t *testing.T, data []byte) {
		set, problems := Parse("f", data)
		mesh, more := Build(set, Options{Now: testNow})
		// YAML 1.1 has five line breaks; a document's own lines count them all.
		lines := 1
		for _, nl := range []string{"\n", "\r", "\u0085", "\u2028", "\u2029"} {
			lines += strings.Count(string(data), nl)
		}
		for _, p := range append(problems, more...) {
			if p.Message == "" || p.Line < 0 || p.Line > lines {
				t.Errorf("problem %+v in %d lines", p, lines)
			}
		}
		for _, s := range mesh.Slices {
			for i, x := range s.Sites {
				if s.Mode == "single-network" && (!s.Subnet.Overlaps(x.Prefix) || !s.Subnet6.Overlaps(x.Prefix6)) {
					t.Errorf("site %+v is outside %v", x, s.Subnet)
				}
				for _, y := range s.Sites[:i] {
					if x.Prefix.IsValid() && x.Prefix.Overlaps(y.Prefix) || x.Index == y.Index {
						t.Errorf("sites %+v and %+v overlap", x, y)
					}
				}
			}
		}
		Report(mesh, problems)
	})
}
