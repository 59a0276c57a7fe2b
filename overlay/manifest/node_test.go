package manifest

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"slicewire/overlay"
)

const nodeText = `version: 1
mesh: home
site: a
node: gw-1
listen: 0.0.0.0:51821
advertise: [203.0.113.7:51821]
gossip: {listen: "0.0.0.0:7947", advertise: "203.0.113.7:7947", join: ["gw.example.com:7946"]}
manifests: [manifests]
state: state
socket: /run/x.sock
slices:
  red: {proxy: "127.0.0.1:1080", dns: "127.0.0.1:5300", mtu: 1380}
forward:
- {slice: red, listen: "127.0.0.1:8000", to: "web.shop.svc.slice.local:80"}
publish:
- slice: red
  service: web
  namespace: shop
  backend: web-0
  ports: [{name: http, target: "127.0.0.1:8080"}, {name: dns, target: "localhost:53"}]
- slice: red
  service: api
  namespace: shop
  target: "[::1]:9000"
`

func TestParseNodeReadsAWholeFile(t *testing.T) {
	n, problems := ParseNode("/etc/slicewire/node.yaml", []byte(nodeText))
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	got := fmt.Sprint(n.Mesh, n.ID(), n.Listen, n.Advertise, n.Gossip, n.Manifests, n.State, n.Socket, n.Slices, n.Forward, n.Publish)
	want := "home a/gw-1 0.0.0.0:51821 [203.0.113.7:51821] {0.0.0.0:7947 203.0.113.7:7947 true [gw.example.com:7946]}" +
		" [/etc/slicewire/manifests] /etc/slicewire/state /run/x.sock map[red:{127.0.0.1:1080 127.0.0.1:5300 1380  []  [] []}]" +
		" [{red 127.0.0.1:8000 web.shop.svc.slice.local:80}]" +
		" [{red web shop web-0  [{http 127.0.0.1:8080} {dns localhost:53}] [] } {red api shop gw-1 [::1]:9000 [] [] }]"
	got, want = strings.Join(strings.Fields(got), " "), strings.Join(strings.Fields(want), " ")
	if strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if n.Publish[0].TargetOf("dns") != "localhost:53" || n.Publish[0].TargetOf("x") != "" || n.Publish[1].TargetOf("grpc") != "[::1]:9000" {
		t.Error("wrong targets")
	}
	if n.SliceSettings("red").MTU != 1380 || n.SliceSettings("blue").MTU != overlay.DefaultMTU {
		t.Error("wrong MTU")
	}
	set, _ := Parse("world.yaml", []byte(world))
	if _, problems := Build(set, Options{Now: testNow, Node: n}); len(problems) != 0 {
		t.Errorf("does not fit the world: %v", problems)
	}
}

func TestParseNodeFillsInDefaults(t *testing.T) {
	n, problems := ParseNode("/d/node.yaml", []byte("version: 1\nsite: a\nnode: b\nslices: {red: {proxy: 'unix:p.sock'}}\n"))
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	if n.Mesh != DefaultMesh || n.Listen != netip.MustParseAddrPort("0.0.0.0:51820") || n.Gossip.Listen != netip.MustParseAddrPort("0.0.0.0:7946") || !n.Gossip.Reachable ||
		!slices.Equal(n.Manifests, []string{"/d/manifests"}) || n.State != "" || n.Socket != "" ||
		!reflect.DeepEqual(n.Slices["red"], NodeSlice{Proxy: "unix:/d/p.sock", MTU: overlay.DefaultMTU}) {
		t.Errorf("got %+v", n)
	}
}

func TestNodeFileRules(t *testing.T) {
	for _, tt := range []struct {
		name     string
		old, new string
		severity Severity
		line     int
		field    string
		message  string
	}{
		{"the version is required", "version: 1\n", "", Error, 1, "version", "is required"},
		{"the version is 1", "version: 1", "version: 2", Error, 1, "version", "2 is outside 1 to 1"},
		{"the site is required", "site: a\n", "", Error, 1, "site", "is required"},
		{"the node is required", "node: gw-1\n", "", Error, 1, "node", "is required"},
		{"an unknown key names the nearest", "listen: 0", "lisen: 0", Error, 5, "lisen", `unknown key; did you mean "listen"?`},
		{"an unknown key inside a slice names the nearest", "mtu: 1380", "mut: 1380", Error, 12, "slices.red.mut", `unknown key; did you mean "mtu"?`},
		{"an unknown key inside a publish", "  backend: web-0", "  bakend: web-0", Error, 19, "publish[0].bakend", `did you mean "backend"?`},
		{"a repeated key", "site: a\n", "site: a\nsite: b\n", Error, 4, "site", "the key is also on line 3"},
		{"the mesh is a label", "mesh: home", "mesh: Home", Error, 2, "mesh", "not a DNS label"},
		{"the site is a label", "site: a", "site: a.b", Error, 3, "site", "not a DNS label"},
		{"the node is a label", "node: gw-1", "node: gw_1", Error, 4, "node", "not a DNS label"},
		{"listen is ip:port", "listen: 0.0.0.0:51821", "listen: localhost:51821", Error, 5, "listen", "localhost:51821"},
		{"listen has a port", "listen: 0.0.0.0:51821", "listen: 0.0.0.0", Error, 5, "listen", "0.0.0.0"},
		{"an advertised address is one", "advertise: [203.0.113.7:51821]", "advertise: [0.0.0.0:51821]", Error, 6, "advertise[0]", "cannot be reached"},
		{"an advertised port is one", "advertise: [203.0.113.7:51821]", "advertise: [203.0.113.7:0]", Error, 6, "advertise[0]", "cannot be reached"},
		{"gossip advertises an address", `advertise: "203.0.113.7:7947"`, `advertise: "0.0.0.0:7947"`, Error, 7, "gossip.advertise", "cannot be reached"},
		{"who advertises gossip is reachable", `{listen: "0.0.0.0:7947", `, "{reachable: false, ", Error, 7, "gossip.advertise", "leave one out"},
		{"reachable is yes or no", `{listen: "0.0.0.0:7947", `, "{reachable: 1, ", Error, 7, "gossip.reachable", "true or false"},
		{"a seed is host:port", `["gw.example.com:7946"]`, `["gw.example.com"]`, Error, 7, "gossip.join[0]", "not host:port"},
		{"a manifest path is not empty", "manifests: [manifests]", "manifests: ['']", Error, 8, "manifests[0]", "empty"},
		{"a pod's address is one that others reach", "state: state\n", "state: state\nkubernetes: {cluster: {podIP: 127.0.0.1}}\n", Error, 10, "kubernetes.cluster.podIP", "not an address that other pods reach"},
		{"a cluster's namespace is a label", "state: state\n", "state: state\nkubernetes: {cluster: {namespace: A}}\n", Error, 10, "kubernetes.cluster.namespace", "not a DNS label"},
		{"a cluster's DNS is host:port", "state: state\n", "state: state\nkubernetes: {cluster: {dns: x}}\n", Error, 10, "kubernetes.cluster.dns", "not host:port"},
		{"lingering has an end", "state: state\n", "state: state\nkubernetes: {cluster: {linger: 2h}}\n", Error, 10, "kubernetes.cluster.linger", "no time between"},
		{"an MTU is at least 1280", "mtu: 1380", "mtu: 1279", Error, 12, "slices.red.mtu", "outside 1280 to 65455"},
		{"an MTU leaves room for outer headers", "mtu: 1380", "mtu: 65456", Error, 12, "slices.red.mtu", "outside 1280 to 65455"},
		{"a proxy is host:port", `proxy: "127.0.0.1:1080"`, `proxy: "1080"`, Error, 12, "slices.red.proxy", "not host:port"},
		{"a proxy's port is a number", `proxy: "127.0.0.1:1080"`, `proxy: "127.0.0.1:http"`, Error, 12, "slices.red.proxy", "port is not a number"},
		{"a proxy's socket has a path", `proxy: "127.0.0.1:1080"`, `proxy: "unix:"`, Error, 12, "slices.red.proxy", "needs a path"},
		{"a proxy open to others is said", `proxy: "127.0.0.1:1080"`, `proxy: "0.0.0.0:1080"`, Warning, 12, "slices.red.proxy", "not a loopback"},
		{"a DNS listener open to others is said", `dns: "127.0.0.1:5300"`, `dns: "192.0.2.1:53"`, Warning, 12, "slices.red.dns", "not a loopback"},
		{"a slice's name is a label", "  red: {proxy", "  Red: {proxy", Error, 12, "slices.Red", "not a DNS label"},
		{"a forward has a slice", "- {slice: red, listen", "- {listen", Error, 14, "forward[0].slice", "is required"},
		{"a forward listens somewhere", `listen: "127.0.0.1:8000", `, "", Error, 14, "forward[0].listen", "is required"},
		{"a forward open to others is said", `listen: "127.0.0.1:8000"`, `listen: "0.0.0.0:8000"`, Warning, 14, "forward[0].listen", "not a loopback"},
		{"a forward leads to host:port", `to: "web.shop.svc.slice.local:80"`, `to: "web.shop.svc.slice.local"`, Error, 14, "forward[0].to", "not host:port"},
		{"a published service is named", "  service: web\n", "", Error, 16, "publish[0].service", "is required"},
		{"a backend is a label", "backend: web-0", "backend: web.0", Error, 19, "publish[0].backend", "not a DNS label"},
		{"a backend is there once", "  service: api\n", "  service: web\n  backend: web-0\n", Error, 23, "publish[1].backend", "already publish[0]"},
		{"a publish has a target", "  target: \"[::1]:9000\"\n", "", Error, 21, "publish[1].target", "give target"},
		{"a publish has target or ports", "  backend: web-0\n", "  backend: web-0\n  target: 127.0.0.1:1\n", Error, 20, "publish[0].target", "not both"},
		{"a target is host:port", `target: "[::1]:9000"`, "target: 9000", Error, 24, "publish[1].target", "not host:port"},
		{"a target's port is not 0", `target: "[::1]:9000"`, `target: "[::1]:0"`, Error, 24, "publish[1].target", "from 1 to 65535"},
		{"a target's host is a name", `target: "[::1]:9000"`, `target: "a b:9000"`, Error, 24, "publish[1].target", "neither an IP address nor a DNS name"},
		{"a port's target is host:port", `target: "127.0.0.1:8080"`, `target: ":"`, Error, 20, "publish[0].ports[0].target", "neither an IP"},
		{"a port is there once", "{name: dns, target", "{name: http, target", Error, 20, "publish[0].ports[1].name", "twice"},
		{"an exported port has 16 bits", "  backend: web-0\n", "  export: [{port: 65536}]\n", Error, 19, "publish[0].export[0].port", "outside 1 to 65535"},
		{"an exported port is not zero", "  backend: web-0\n", "  export: [{port: 0}]\n", Error, 19, "publish[0].export[0].port", "outside 1 to 65535"},
		{"an exported protocol is known", "  backend: web-0\n", "  export: [{port: 1, protocol: SCTP}]\n", Error, 19, "publish[0].export[0].protocol", "none of TCP, UDP"},
		{"an exported port is there once", "  backend: web-0\n", "  export: [{port: 1}, {port: 1}]\n", Error, 19, "publish[0].export[1].port", "twice"},
		{"an exported name is there once", "  backend: web-0\n", "  export: [{name: x, port: 1}, {name: x, port: 2}]\n", Error, 19, "publish[0].export[1].name", "twice"},
		// against the mesh
		{"the site is a cluster of some slice", "site: a", "site: zz", Warning, 3, "site", "cluster of no slice"},
		{"a slice is known", "  red: {proxy", "  rad: {proxy", Error, 12, "slices.rad", `did you mean "red"?`},
		{"the site is on the slice", "site: a", "site: c", Error, 12, "slices.red", `site "c" is not one of the clusters of slice red`},
		{"a forward's slice is known", "- {slice: red, listen", "- {slice: rad, listen", Error, 14, "forward[0].slice", `did you mean "red"?`},
		{"a published slice is known", "- slice: red\n  service: web", "- slice: rad\n  service: web", Error, 16, "publish[0].slice", `did you mean "red"?`},
		{"a published namespace is bound", "  service: web\n  namespace: shop", "  service: web\n  namespace: chop", Error, 18, "publish[0].namespace", "not bound to slice red at a"},
		{"a published service is exported", "service: api", "service: apx", Error, 22, "publish[1].service", `did you mean "api"?`},
		{"a target is for one port", `  ports: [{name: http, target: "127.0.0.1:8080"}, {name: dns, target: "localhost:53"}]`, "  target: 127.0.0.1:80", Error, 20, "publish[0].target", "the service has 2 ports"},
		{"a published port is one of the service's", "{name: http, target", "{name: htp, target", Error, 20, "publish[0].ports[0].name", `did you mean "http"?`},
		{"every port has a target", `, {name: dns, target: "localhost:53"}`, "", Error, 20, "publish[0].ports", `port "dns" of the service has no target`},
		{"an export that a manifest has is ignored", "  backend: web-0\n", "  export: [{port: 1}]\n", Warning, 19, "publish[0].export", "ServiceExport shop/web exports the service"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, problems := ParseNode("world.yaml", []byte(spoil(t, nodeText, tt.old, tt.new)))
			set, _ := Parse("w", []byte(world))
			_, more := Build(set, Options{Now: testNow, Node: n})
			problems = append(problems, more...)
			for _, p := range problems {
				if p.Severity == tt.severity && p.Field == tt.field && strings.Contains(p.Message, tt.message) && p.Line == tt.line && p.File == "world.yaml" {
					return
				}
			}
			t.Errorf("want %v on line %d %s: %s; got\n%s", tt.severity, tt.line, tt.field, tt.message, problemLines(problems))
		})
	}
}

func TestANodeFileExportsWhatNoManifestDoes(t *testing.T) {
	text := "version: 1\nsite: a\nnode: n\npublish:\n- {slice: red, service: new, namespace: shop, target: '127.0.0.1:1', export: [{name: x, port: 99, protocol: UDP}]}\n" +
		"- {slice: red, service: new, namespace: shop, backend: second, target: '127.0.0.1:2', export: [{name: x, port: 99, protocol: UDP}]}\n"
	n, problems := ParseNode("n", []byte(text))
	sum, more := build(world, Options{Node: n})
	if len(problems)+len(more) != 0 {
		t.Fatal(problems, more)
	}
	got := fmt.Sprint(sum.Slices[1].Services)
	if !strings.Contains(got, "{new shop [new.shop.svc.slice.local] [{x 99 UDP}]}") {
		t.Errorf("got %s", got)
	}
}

func TestParseNodeRefusesWhatIsNoNodeFile(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "one YAML document, not 0"},
		{"null", "null\n", "empty"},
		{"two documents", "version: 1\n---\nversion: 1\n", "one YAML document, not 2"},
		{"a list", "- a\n", "must be an object, not a list"},
		{"broken", "a: [\n", "malformed YAML"},
		{"too large", strings.Repeat("#\n", maxFileBytes), "larger than"},
		{"too many values", "manifests: [" + strings.Repeat("a,", maxNodes) + "]", "more than 500000 values"},
		{"too many values through aliases", "manifests: &a [" + strings.Repeat("a,", 9_000) + "]\npublish: [{ports: &b [{name: x, target: x}" + strings.Repeat(",{name: x, target: x}", 9000) + "]}" + strings.Repeat(", {ports: *b}", 1000) + "]\n", "once aliases are followed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, problems := ParseNode("n", []byte(tt.text))
			if got := problemLines(problems); !HasErrors(problems) || !strings.Contains(got, tt.want) || len(problems) > 2*maxProblems {
				t.Errorf("want %q, got %.500s", tt.want, got)
			}
		})
	}
}

func FuzzParseNode(f *testing.F) {
	f.Add([]byte(nodeText))
	f.Add([]byte("version: 1\nsite: &a a\nnode: *a\nslices: {red: }\n"))
	f.Add([]byte("publish: [{export: [{}]}, {ports: [{}]}]\nforward: [{}]\n"))
	set, _ := Parse("w", []byte(world))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, problems := ParseNode("/d/n", data)
		if n == nil {
			if !HasErrors(problems) {
				t.Error("no node file and no error")
			}
			return
		}
		if !HasErrors(problems) && (!overlay.ValidLabel(n.Site) || !overlay.ValidLabel(n.Node) || !n.Listen.IsValid()) {
			t.Errorf("accepted %+v", n)
		}
		for _, m := range n.Manifests {
			if m != "" && !filepath.IsAbs(m) {
				t.Errorf("%q is not absolute", m)
			}
		}
		Build(set, Options{Now: testNow, Node: n})
	})
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLoadReadsFoldersAsKubernetesMountsThem(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "b.yml"), clusterDoc("b"))
	writeFile(t, filepath.Join(dir, "a.yaml"), clusterDoc("a"))
	writeFile(t, filepath.Join(dir, "sub/c.json"), clusterDoc("c"))
	writeFile(t, filepath.Join(dir, "notes.txt"), "not: [yaml")
	writeFile(t, filepath.Join(dir, ".hidden.yaml"), "not: [yaml")
	writeFile(t, filepath.Join(dir, "..2026/d.yaml"), clusterDoc("d"))
	if err := os.Symlink("..2026/d.yaml", filepath.Join(dir, "d.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(".", filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("gone", filepath.Join(dir, "e.yaml")); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "node.yaml"), "version: 1\nsite: a\nnode: b\n")
	set, problems := Load([]string{dir, filepath.Join(dir, "a.yaml"), filepath.Join(dir, "sub"), filepath.Join(dir, "none")})
	if got := ids(set); got != "Cluster a@1, Cluster b@1, Cluster d@1, Cluster c@1" {
		t.Errorf("got %s", got)
	}
	if len(set.NodeFiles) != 1 || set.NodeFiles[0] != filepath.Join(dir, "node.yaml") {
		t.Errorf("node files %v", set.NodeFiles)
	}
	var files []string
	for _, p := range problems {
		files = append(files, filepath.Base(p.File))
		if !strings.Contains(p.Message, "no such file") {
			t.Errorf("%v", p)
		}
	}
	if !slices.Equal(files, []string{"e.yaml", "none"}) {
		t.Errorf("problems with %v", files)
	}
}

func TestLoadNodeTakesPathsFromItsFolder(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "node.yaml"), "version: 1\nsite: a\nnode: b\nstate: s\n")
	t.Chdir(dir)
	n, problems := LoadNode("node.yaml")
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	if n.State != filepath.Join(dir, "s") || n.Manifests[0] != filepath.Join(dir, "manifests") {
		t.Errorf("got %+v", n)
	}
	if n, problems := LoadNode("none.yaml"); n != nil || len(problems) != 1 || problems[0].File != "none.yaml" {
		t.Errorf("got %v, %v", n, problems)
	}
}
