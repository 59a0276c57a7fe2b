package deploy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"sigs.k8s.io/yaml"
)

func keysOf(m map[string]any) iter.Seq[string] { return maps.Keys(m) }

// render renders the chart's templates in the order of their names.
func render(r Release, values map[string]any) ([]string, error) {
	t := template.New("chart").Option("missingkey=zero")
	t.Funcs(functions(t))
	paths, err := templates(r.Hooks)
	if err != nil {
		return nil, err
	}
	for _, p := range paths {
		text, err := files.ReadFile(p)
		if err != nil {
			return nil, err
		}
		if _, err := t.New(p).Parse(string(text)); err != nil {
			return nil, err
		}
	}
	chart, err := chartInfo()
	if err != nil {
		return nil, err
	}
	data := map[string]any{
		"Values": values, "Chart": chart, "Files": chartFiles{},
		"Release": map[string]any{"Name": r.Name, "Namespace": r.Namespace, "Service": "slicewire"},
	}
	var docs []string
	for _, p := range paths {
		if path.Ext(p) != ".yaml" {
			continue
		}
		var b strings.Builder
		if err := t.ExecuteTemplate(&b, p, data); err != nil {
			return nil, plainly(err)
		}
		docs = append(docs, split(b.String())...)
	}
	return docs, nil
}

// plainly takes the position in a template off what was said of a value.
func plainly(err error) error {
	if e, ok := errors.AsType[valueError](err); ok {
		return e
	}
	return err
}

// valueError says what is wrong with a value.
type valueError string

func (e valueError) Error() string { return string(e) }

func templates(hooks bool) ([]string, error) {
	var out []string
	err := fs.WalkDir(files, chartFolder+"/templates", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "hooks" && !hooks:
			return fs.SkipDir
		case !d.IsDir() && (path.Ext(p) == ".yaml" || path.Ext(p) == ".tpl"):
			out = append(out, p)
		}
		return nil
	})
	return out, err
}

// chartInfo is Chart.yaml with its keys as templates have them.
func chartInfo() (map[string]any, error) {
	text, err := files.ReadFile(chartFolder + "/Chart.yaml")
	if err != nil {
		return nil, err
	}
	var info struct{ Name, Version, AppVersion string }
	if err := yaml.Unmarshal(text, &info); err != nil {
		return nil, err
	}
	return map[string]any{"Name": info.Name, "Version": info.Version, "AppVersion": info.AppVersion}, nil
}

// separator is a line between two documents.
var separator = regexp.MustCompile(`(?m)^---[ \t]*$`)

// split returns the documents that have more in them than comments.
func split(text string) (docs []string) {
	for _, doc := range separator.Split(text, -1) {
		doc = strings.Trim(doc, "\n")
		empty := true
		for line := range strings.Lines(doc) {
			if l := strings.TrimSpace(line); l != "" && !strings.HasPrefix(l, "#") {
				empty = false
			}
		}
		if !empty {
			docs = append(docs, doc+"\n")
		}
	}
	return docs
}

// chartFiles are the chart's files that are no templates. Definitions are a
// folder of their own here.
type chartFiles struct{}

const definitions = "definitions/"

// Get returns a file's text.
func (chartFiles) Get(name string) (string, error) {
	at := chartFolder + "/" + name
	if base, ok := strings.CutPrefix(name, definitions); ok {
		at = "crds/" + base
	}
	text, err := files.ReadFile(at)
	return string(text), err
}

// Glob returns the files whose names match.
func (chartFiles) Glob(pattern string) (map[string][]byte, error) {
	all, err := Definitions()
	out := make(map[string][]byte)
	for name, text := range all {
		if ok, err := path.Match(pattern, definitions+name); err != nil || !ok {
			continue
		}
		out[definitions+name] = []byte(text)
	}
	return out, err
}

// functions are those of Helm that the chart uses.
func functions(t *template.Template) template.FuncMap {
	return template.FuncMap{
		"include": func(name string, data any) (string, error) {
			var b strings.Builder
			err := t.ExecuteTemplate(&b, name, data)
			return b.String(), err
		},
		"required": func(message string, v any) (any, error) {
			if s, isText := v.(string); v == nil || isText && s == "" {
				return nil, valueError(message)
			}
			return v, nil
		},
		"fail":      func(message string) (string, error) { return "", valueError(message) },
		"quote":     func(v any) string { return strconv.Quote(fmt.Sprint(v)) },
		"default":   defaulted,
		"toJson":    func(v any) (string, error) { b, err := json.Marshal(v); return string(b), err },
		"nindent":   func(n int, s string) string { return "\n" + indent(n, s) },
		"replace":   func(old, with, s string) string { return strings.ReplaceAll(s, old, with) },
		"contains":  func(part, s string) bool { return strings.Contains(s, part) },
		"until":     func(n int64) []int64 { return slices.Collect(upTo(n)) },
		"int":       toInt,
		"add":       func(a, b int64) int64 { return a + b },
		"div":       func(a, b int64) int64 { return a / b },
		"mod":       func(a, b int64) int64 { return a % b },
		"sha256sum": func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) },
		"trunc":     func(n int, s string) string { return s[:min(n, len(s))] },
		"keys":      func(m map[string]any) []string { return slices.Collect(maps.Keys(m)) },
		"sortAlpha": func(l []string) []string { slices.Sort(l); return l },
		"dict":      dict,
	}
}

func defaulted(d any, v any) any {
	if s, isText := v.(string); v == nil || isText && s == "" {
		return d
	}
	return v
}

func indent(n int, s string) string {
	pad := strings.Repeat(" ", n)
	return pad + strings.ReplaceAll(s, "\n", "\n"+pad)
}

func upTo(n int64) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

// toInt takes what YAML makes of a whole number.
func toInt(v any) (int64, error) {
	switch n := v.(type) {
	case float64:
		return int64(n), nil
	case int64:
		return n, nil
	case int:
		return int64(n), nil
	}
	return 0, valueError(fmt.Sprintf("%v: want a whole number", v))
}

func dict(pairs ...any) (map[string]any, error) {
	out := make(map[string]any)
	for i := 0; i+1 < len(pairs); i += 2 {
		k, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("dict: key %v", pairs[i])
		}
		out[k] = pairs[i+1]
	}
	return out, nil
}
