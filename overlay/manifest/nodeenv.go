package manifest

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// variable is how a node file names what the environment says: one file serves
// several pods.
var variable = regexp.MustCompile(`\$\{[^}\n]*\}?`)

// bareValue is what a variable may hold: it cannot mean anything in YAML but
// itself.
var bareValue = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._:/-]{0,253}[A-Za-z0-9])?$`)

// LoadNodeIn is LoadNode for a file that may have ${NAME} in it, which stands for
// what lookup says. One that is not set, or that holds more than a name, address
// or path, is an error.
func LoadNodeIn(path string, lookup func(name string) (string, bool)) (*NodeFile, []Problem) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, []Problem{{Severity: Error, File: path, Message: err.Error()}}
	}
	data, err := readFile(abs)
	if err != nil {
		return nil, []Problem{{Severity: Error, File: path, Message: err.Error()}}
	}
	data, problems := fillIn(path, data, lookup)
	if len(problems) > 0 {
		return nil, problems
	}
	n, problems := ParseNode(abs, data)
	for i := range problems {
		problems[i].File = path // as the user named it
	}
	if n != nil {
		n.file = path
	}
	return n, problems
}

// fillIn replaces variables, but for those in comments of whole lines.
func fillIn(path string, data []byte, lookup func(string) (string, bool)) ([]byte, []Problem) {
	if lookup == nil || len(data) > maxFileBytes {
		return data, nil
	}
	var problems []Problem
	var out strings.Builder
	line := 0
	for text := range strings.Lines(string(data)) {
		line++
		if strings.HasPrefix(strings.TrimSpace(text), "#") {
			out.WriteString(text)
			continue
		}
		out.WriteString(variable.ReplaceAllStringFunc(text, func(v string) string {
			name := strings.TrimSuffix(strings.TrimPrefix(v, "${"), "}")
			value, set := lookup(name)
			switch {
			case !strings.HasSuffix(v, "}"):
				problems = append(problems, Problem{Severity: Error, File: path, Line: line, Message: v + ": the variable has no end"})
			case !set:
				problems = append(problems, Problem{Severity: Error, File: path, Line: line, Message: fmt.Sprintf("%s: the environment does not have it", v)})
			case !bareValue.MatchString(value):
				problems = append(problems, Problem{Severity: Error, File: path, Line: line, Message: fmt.Sprintf("%s is %.80q: want a plain name, address or path", v, value)})
			}
			return value
		}))
	}
	return []byte(out.String()), problems
}
