package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// layers is policy: the packages of ours and the outside trees that each folder
// may import besides the standard library. Change it in its own commit, with a
// reason. A folder that is not listed may not exist. Test files may import
// their own layer's entries and those of testOnly.
var layers = map[string][]string{
	"overlay":              {},
	"overlay/overlaytest":  {"slicewire/overlay"},
	"overlay/manifest":     {"slicewire/overlay", "sigs.k8s.io/yaml"},
	"overlay/pki":          {"slicewire/overlay"},
	"overlay/pki/podtoken": {"slicewire/overlay"},
	"overlay/pki/join":     {"slicewire/overlay", "slicewire/overlay/pki"}, // identities over a connection: pki itself does no I/O
	"overlay/gossip":       {"slicewire/overlay", "github.com/hashicorp/memberlist"},
	"router":               {"slicewire/overlay", "github.com/gaissmai/bart"},
	"router/capture":       {"slicewire/overlay"},
	"shaper":               {"slicewire/overlay", "slicewire/netstack/segment", "golang.org/x/time"}, // it cuts what stands for several packets, at a rate
	"gateway":              {"slicewire/overlay", "golang.zx2c4.com/wireguard", "golang.org/x/net", "golang.org/x/sys", "golang.org/x/crypto"},
	"netstack":             {"slicewire/overlay", "slicewire/netstack/segment", "gvisor.dev/gvisor"},
	"netstack/segment":     {"slicewire/overlay"},
	"netstack/port":        {"slicewire/overlay", "slicewire/netstack/segment", "golang.org/x/sys", "github.com/songgao/water", "github.com/vishvananda/netlink", "github.com/vishvananda/netns"},
	"netstack/activate":    {"golang.org/x/sys"},
	"netstack/pump":        {},
	"netstack/socks":       {"slicewire/overlay", "slicewire/netstack/pump"},
	"netstack/publish":     {"slicewire/overlay", "slicewire/netstack/pump", "github.com/pires/go-proxyproto"}, // targets are told of their clients
	"netstack/forward":     {"slicewire/overlay", "slicewire/netstack/pump"},
	"dnsd":                 {"slicewire/overlay", "github.com/miekg/dns"},
	"metrics":              {"github.com/prometheus/client_golang"}, // what others have counted, for Prometheus
	"kube":                 {"k8s.io", "github.com/go-logr/logr"},   // client-go is for kube and what is below it
	"kube/hub":             {"slicewire/overlay", "slicewire/overlay/manifest", "slicewire/kube", "k8s.io"},
	"kube/cluster":         {"slicewire/overlay", "slicewire/overlay/manifest", "slicewire/kube", "k8s.io"},
	"kube/cni":             {"github.com/containernetworking/cni", "golang.org/x/sys"}, // a pod's way onto a slice: it asks no API server
	"kube/webhook":         {"slicewire/kube", "slicewire/deploy/inject", "k8s.io", "sigs.k8s.io/yaml"},
	"kube/crd":             {"slicewire/overlay/manifest", "sigs.k8s.io/yaml"}, // what CRDs say is worked out without a cluster
	"kube/apitest":         {"slicewire/kube", "k8s.io"},
	"deploy":               {"sigs.k8s.io/yaml"},
	"deploy/inject":        {"go.yaml.in/yaml", "sigs.k8s.io/yaml"}, // keeps order and comments
	"deploy/image":         {},
	"deploy/mkimage":       {"slicewire/deploy/image"},
	"kube/kubetest":        {"slicewire/deploy/image"},                                 // for tests only: it starts kube/testcluster, a module of its own
	"kube/e2e":             {"slicewire/api", "slicewire/overlay", "sigs.k8s.io/yaml"}, // for tests only, from outside: the program is run, not imported
	"kube/kubetest/peer":   {"github.com/pires/go-proxyproto"},
	"api":                  {"slicewire/overlay", "slicewire/router"}, // what the control socket says, in the router's words
	"show":                 {"sigs.k8s.io/yaml"},
	"statedir":             {"golang.org/x/sys"},
	"simulate":             {"slicewire/overlay", "slicewire/overlay/manifest", "slicewire/overlay/pki", "slicewire/gateway", "slicewire/bench/lab", "slicewire/show", "sigs.k8s.io/yaml"}, // links, as the lab has them
	"cmd/slicewire":        {"*"},
	"bench/lab":            {"slicewire/overlay", "slicewire/overlay/gossip", "slicewire/overlay/pki"},
	"bench/dns":            {"slicewire/overlay", "slicewire/dnsd"},
	"bench/peers":          {}, // it measures programs from outside, ours like any other
}

// testOnly is what any test may import besides.
var testOnly = []string{"go.uber.org/goleak", "slicewire/overlay/overlaytest", "golang.org/x/net/proxy", "slicewire/kube", "slicewire/kube/kubetest", "slicewire/kube/apitest"}

// soleImporters are outside trees that exactly one folder may import, tests
// included; "kube/..." stands for a folder and those below it.
var soleImporters = map[string]string{
	"gvisor.dev/gvisor":               "netstack",
	"golang.zx2c4.com/wireguard":      "gateway",
	"github.com/hashicorp/memberlist": "overlay/gossip",
	"github.com/miekg/dns":            "dnsd",
	"github.com/gaissmai/bart":        "router",
	"github.com/songgao/water":        "netstack/port",
	"github.com/prometheus":           "metrics",
	"k8s.io":                          "kube/...",
	"github.com/containernetworking":  "kube/cni",
}

func TestImportsPointDown(t *testing.T) {
	root := moduleRoot(t)
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(path, "go.mod")); path != root && err == nil {
				return filepath.SkipDir // a module of its own
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		files++
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		checkImports(t, filepath.ToSlash(rel), path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 20 {
		t.Fatalf("only %d Go files seen below %s: the walk is broken", files, root)
	}
}

func checkImports(t *testing.T, rel, path string) {
	t.Helper()
	dir := filepath.ToSlash(filepath.Dir(rel))
	allowed, known := layers[dir]
	if !known {
		t.Errorf("%s: folder %q is not in the table of layers", rel, dir)
		return
	}
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		t.Error(err)
		return
	}
	if strings.HasSuffix(rel, "_test.go") {
		allowed = append(append(slices.Clone(allowed), testOnly...), "slicewire/"+dir)
	}
	for _, spec := range f.Imports {
		imp := strings.Trim(spec.Path.Value, `"`)
		if owner := sole(imp); owner != "" && !owns(owner, dir) {
			t.Errorf("%s imports %s, which only %s may", rel, imp, owner)
			continue
		}
		if isStandard(imp) || slices.ContainsFunc(allowed, func(a string) bool { return covers(a, imp) }) {
			continue
		}
		t.Errorf("%s imports %s: not allowed for %s", rel, imp, dir)
	}
}

func isStandard(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return first != "slicewire" && !strings.Contains(first, ".")
}

// covers reports whether the table entry permits the import: a package of ours
// only itself, an outside tree everything below it.
func covers(entry, imp string) bool {
	if entry == "*" || entry == imp {
		return true
	}
	return !strings.HasPrefix(entry, "slicewire/") && strings.HasPrefix(imp, entry+"/")
}

func sole(imp string) string {
	for tree, owner := range soleImporters {
		if covers(tree, imp) {
			return owner
		}
	}
	return ""
}

// owns reports whether dir is the folder that owner names, or one of those.
func owns(owner, dir string) bool {
	tree, all := strings.CutSuffix(owner, "/...")
	return dir == tree || all && strings.HasPrefix(dir, tree+"/")
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the working directory")
		}
		dir = up
	}
}
