package manifest

import (
	"bytes"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml/goyaml.v3"
)

// The bounds of input. They are far above what manifests need and keep what a
// file can take to some hundred times its size.
const (
	maxFileBytes = 8 << 20 // of one file
	maxDocuments = 10_000  // in one file
	maxNodes     = 500_000 // values in one document, aliases counted at every use
	maxDepth     = 64      // levels in one document; KubeSlice's objects have at most 8
	maxProblems  = 100     // of each severity, reported of one document
	maxListed    = 4096    // namespaces, ports or aliases of one object
)

// Object is one KubeSlice object as read, with its place in the text.
type Object struct {
	Kind      string
	Namespace string
	Name      string
	File      string
	Line      int  // where its document starts
	Broken    bool // it has errors of its own; what it says is incomplete
	Remote    bool // it is a server's, where others come and go, and no file's
	Body      any  // *SliceConfig, *Cluster, ...: the kinds of this package

	lines    map[string]int
	reported [2]int // problems that Build has reported of it, by Severity
}

// ID returns the object's kind and name: "SliceConfig kubeslice-demo/iperf-slice".
func (o *Object) ID() string {
	if o.Namespace == "" {
		return o.Kind + " " + o.Name
	}
	return o.Kind + " " + o.Namespace + "/" + o.Name
}

// lineOf returns the line of the field or of the nearest field around it that
// the text has.
func (o *Object) lineOf(field string) int { return lineOf(o.lines, field, o.Line) }

func lineOf(lines map[string]int, field string, otherwise int) int {
	for field != "" {
		if line, ok := lines[field]; ok {
			return line
		}
		i := strings.LastIndexAny(field, ".[")
		field = field[:max(i, 0)]
	}
	return otherwise
}

// Set is what some files hold.
type Set struct {
	Objects   []*Object // in the order of the text
	NodeFiles []string  // files that hold a node file, which LoadNode reads
}

// Join returns a set with the objects of all; the sets are not changed.
func Join(sets ...*Set) *Set {
	out := &Set{}
	for _, s := range sets {
		out.add(s)
	}
	return out
}

func (s *Set) add(t *Set) {
	s.Objects = append(s.Objects, t.Objects...)
	s.NodeFiles = append(s.NodeFiles, t.NodeFiles...)
}

// Parse reads the KubeSlice objects of one file, YAML of any number of
// documents or JSON. Objects of other API groups are passed over. A document
// that cannot be read is a problem and does not hide the others.
func Parse(file string, data []byte) (*Set, []Problem) {
	r := &reader{file: file}
	fail := func(line int, format string, args ...any) { r.report(Error, line, "", "", format, args...) }
	if len(data) > maxFileBytes {
		fail(0, "the file is larger than %d MiB", maxFileBytes>>20)
		return &r.set, r.problems
	}
	docs := split(data)
	if len(docs) > maxDocuments {
		fail(docs[maxDocuments].line, "more than %d documents", maxDocuments)
		docs = docs[:maxDocuments]
	}
	for _, doc := range docs {
		if separators(doc.text) > maxNodes {
			// A large ConfigMap of somebody else's is none of our business.
			if bytes.Contains(doc.text, []byte(groupSuffix)) || bytes.Contains(doc.text, []byte(ownGroup)) {
				fail(doc.line, "the document has more than %d values", maxNodes)
			}
			continue
		}
		root, line, err := parseDocument(doc)
		if err != nil {
			fail(line, "%v", err)
			continue
		}
		if root != nil {
			r.budget = maxNodes
			r.document(root)
		}
	}
	return &r.set, r.problems
}

type document struct {
	text []byte
	line int // of the text's first line in the file
}

// split cuts a stream at its document markers, which YAML allows nowhere else
// at the start of a line. So a document that cannot be parsed ends where it
// ends. Documents without content are left out.
func split(data []byte) []document {
	var docs []document
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	start, startLine, line := 0, 1, 1
	content := false
	cut := func(end int) {
		if content {
			docs = append(docs, document{data[start:end], startLine})
		}
		content = false
	}
	for pos := 0; pos < len(data); line++ {
		end := len(data)
		if i := bytes.IndexByte(data[pos:], '\n'); i >= 0 {
			end = pos + i + 1
		}
		text := data[pos:end]
		switch {
		case isMarker(text, "---"):
			cut(pos)
			start, startLine = pos, line
			content = hasContent(text[3:])
		case isMarker(text, "..."):
			cut(pos)
			start, startLine = end, line+1
		default:
			content = content || text[0] != '%' && hasContent(text)
		}
		pos = end
	}
	cut(len(data))
	return docs
}

func isMarker(line []byte, marker string) bool {
	rest, ok := bytes.CutPrefix(line, []byte(marker))
	return ok && (len(rest) == 0 || strings.IndexByte(" \t\r\n", rest[0]) >= 0)
}

func hasContent(line []byte) bool {
	line = bytes.TrimSpace(line)
	return len(line) > 0 && line[0] != '#'
}

// separators returns an upper bound, but for a few, of the values in the text.
func separators(text []byte) int {
	n := 0
	for _, c := range text {
		switch c {
		case '\n', ',', ':', '-', '[', '{', '?':
			n++
		}
	}
	return n
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// parseDocument returns the document's root value, nil if it is empty, or the
// error and the line it is on.
func parseDocument(doc document) (root *yaml.Node, line int, err error) {
	defer func() {
		// The parser is not ours and the bytes are from outside: a panic of its
		// own is one more way to say that the document is malformed.
		if r := recover(); r != nil {
			root, line, err = nil, doc.line, fmt.Errorf("malformed YAML: %v", r)
		}
	}()
	var n yaml.Node
	if err := yaml.Unmarshal(doc.text, &n); err != nil {
		line := doc.line
		text := err.Error()
		if m := yamlLine.FindStringSubmatch(text); m != nil {
			text = text[len(m[0]):]
			if i, err := strconv.Atoi(m[1]); err == nil && i > 0 {
				line += i - 1
			}
		}
		return nil, line, fmt.Errorf("malformed YAML: %s", text)
	}
	if n.Kind != yaml.DocumentNode || len(n.Content) == 0 || isNull(n.Content[0]) {
		return nil, 0, nil
	}
	shiftLines(&n, doc.line-1)
	return n.Content[0], 0, nil
}

// shiftLines adds to the line of every node. Aliased nodes are reached through
// their anchor alone, once.
func shiftLines(n *yaml.Node, by int) {
	n.Line += by
	for _, c := range n.Content {
		shiftLines(c, by)
	}
}

// A reader gathers what the documents of a file hold.
type reader struct {
	file     string
	budget   int // values it may still visit in the document at hand
	set      Set
	problems []Problem
}

func (r *reader) report(sev Severity, line int, object, field, format string, args ...any) {
	r.problems = append(r.problems, Problem{sev, r.file, line, object, field, fmt.Sprintf(format, args...)})
}

// document reads the object of a document, or the objects of a List, which
// share its budget.
func (r *reader) document(root *yaml.Node) {
	if root.Kind != yaml.MappingNode {
		r.report(Error, root.Line, "", "", "the document is not an object")
		return
	}
	keys := map[string]*yaml.Node{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		keys[root.Content[i].Value] = root.Content[i+1]
	}
	text := func(key string) string {
		if n := keys[key]; n != nil && n.Kind == yaml.ScalarNode {
			return n.Value
		}
		return ""
	}
	apiVersion, kind := text("apiVersion"), text("kind")
	if apiVersion == "" && kind == "" && (keys["site"] != nil || keys["node"] != nil || keys["version"] != nil) {
		r.set.NodeFiles = append(r.set.NodeFiles, r.file)
		return
	}
	if apiVersion == "" || kind == "" {
		r.report(Error, root.Line, "", "", "the document has no apiVersion or no kind")
		return
	}
	group, _, _ := strings.Cut(apiVersion, "/")
	ours := strings.HasSuffix(group, groupSuffix) || group == ownGroup
	if strings.HasSuffix(kind, "List") && (ours || apiVersion == "v1") {
		r.list(keys["items"], kind)
		return
	}
	if !ours {
		return
	}
	k, ok := kinds[kind]
	switch {
	case !ok && group == ownGroup:
		r.report(Error, root.Line, kind, "kind", "slicewire has no such kind%s", didYouMean(kind, kindNames()))
	case !ok:
		r.report(Warning, root.Line, kind, "kind", "slicewire does not know this kind; the object is ignored%s", didYouMean(kind, kindNames()))
	case k.apiVersion != apiVersion:
		r.report(Error, root.Line, kind, "apiVersion", "%s is served as %s, not %s", kind, k.apiVersion, apiVersion)
	default:
		r.object(root, kind, k)
	}
}

func (r *reader) list(items *yaml.Node, kind string) {
	if items == nil || items.Kind != yaml.SequenceNode {
		return
	}
	for _, item := range items.Content {
		if item.Kind == yaml.AliasNode {
			item = item.Alias
		}
		if r.budget--; r.budget < 0 {
			r.report(Error, item.Line, kind, "items", "more than %d values once aliases are followed", maxNodes)
			return
		}
		if item.Kind == yaml.MappingNode && !isList(item) {
			r.document(item)
		}
	}
}

// isList keeps lists from nesting: a list in a list is never written, and an
// alias to the list around it would not end.
func isList(n *yaml.Node) bool {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == "kind" {
			return strings.HasSuffix(n.Content[i+1].Value, "List")
		}
	}
	return false
}

func (r *reader) object(root *yaml.Node, kind string, k kindInfo) {
	o := &Object{Kind: kind, File: r.file, Line: root.Line, Body: k.body()}
	var problems []Problem
	var count [2]int
	d := newDecoder(k.strict, &r.budget, func(sev Severity, line int, field, message string) {
		o.Broken = o.Broken || sev == Error
		if count[sev]++; count[sev] <= maxProblems {
			problems = append(problems, Problem{Severity: sev, File: r.file, Line: line, Field: field, Message: message})
		}
	})
	body := reflect.ValueOf(o.Body).Elem()
	d.value(root, body, "", "", 0)
	o.lines = d.lines
	meta := body.FieldByName("Metadata").Interface().(Metadata)
	o.Name, o.Namespace = meta.Name, meta.Namespace
	for i := range problems {
		problems[i].Object = o.ID()
	}
	r.set.Objects = append(r.set.Objects, o)
	r.problems = append(r.problems, problems...)
}

func kindNames() []string {
	names := make([]string, 0, len(kinds))
	for k := range kinds {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}
