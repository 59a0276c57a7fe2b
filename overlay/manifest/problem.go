package manifest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity says whether a problem keeps an object from being used.
type Severity uint8

// The severities.
const (
	Warning Severity = iota // the object is used, but not quite as written
	Error                   // the object is left out
)

// String returns "warning" or "error".
func (s Severity) String() string {
	if s == Error {
		return "error"
	}
	return "warning"
}

// Problem is one thing that is wrong with a manifest or a node file.
type Problem struct {
	Severity Severity
	File     string
	Line     int    // from 1; 0 when the problem is with the whole file
	Object   string // "SliceConfig kubeslice-demo/iperf-slice"; "" when the text holds no object
	Field    string // "spec.sliceSubnet"; "" when the problem is with the whole object
	Message  string
}

// Text returns the message after the field's name, if there is one.
func (p Problem) Text() string {
	if p.Field == "" {
		return p.Message
	}
	return p.Field + ": " + p.Message
}

// String returns "file:line: object: field: message" without the parts that
// are empty.
func (p Problem) String() string {
	var parts []string
	switch {
	case p.File != "" && p.Line > 0:
		parts = append(parts, fmt.Sprintf("%s:%d", p.File, p.Line))
	case p.File != "":
		parts = append(parts, p.File)
	}
	if p.Object != "" {
		parts = append(parts, p.Object)
	}
	return strings.Join(append(parts, p.Text()), ": ")
}

// HasErrors reports whether any problem is an Error.
func HasErrors(problems []Problem) bool {
	return slices.ContainsFunc(problems, func(p Problem) bool { return p.Severity == Error })
}

// sortProblems orders problems by place, errors first within a line.
func sortProblems(problems []Problem) {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(b.Severity, a.Severity),
			cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
}
