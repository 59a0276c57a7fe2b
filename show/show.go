// Package show is what verbs print with: tables for eyes, documents for programs,
// and text from outside made safe for a terminal.
package show

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"sigs.k8s.io/yaml"
)

// Document writes v as JSON or YAML.
func Document(w io.Writer, output string, v any) error {
	if output == "yaml" {
		b, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// A Table prints aligned columns and remembers the first error. A heading with
// no rows below it is not printed.
type Table struct {
	w       io.Writer
	rows    [][]string
	Err     error
	printed bool // a table before: a blank line keeps them apart
}

// NewTable returns a table that is printed to w.
func NewTable(w io.Writer) *Table { return &Table{w: w} }

// Row adds a row; the first one is the heading.
func (t *Table) Row(cells ...any) {
	r := make([]string, len(cells))
	for i, c := range cells {
		r[i] = fmt.Sprint(c)
	}
	t.rows = append(t.rows, r)
}

// Flush prints what was added; what is added next is a table of its own.
func (t *Table) Flush() {
	if len(t.rows) > 1 {
		if t.printed {
			fmt.Fprintln(t.w)
		}
		t.printed = true
		tw := tabwriter.NewWriter(t.w, 0, 0, 2, ' ', 0)
		for _, r := range t.rows {
			fmt.Fprintln(tw, strings.Join(r, "\t"))
		}
		if err := tw.Flush(); err != nil && t.Err == nil {
			t.Err = err
		}
	}
	t.rows = t.rows[:0]
}

// Clean makes text from outside safe for a terminal: control characters and
// everything else that is not printable is shown escaped.
func Clean(s string) string {
	q := fmt.Sprintf("%+q", s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// Dash is clean text, or a dash where there is none.
func Dash(s string) string {
	if s == "" {
		return "-"
	}
	return Clean(s)
}

// List prints items with commas between them, a dash where there are none.
func List[T any](items []T) string {
	out := make([]string, len(items))
	for i, x := range items {
		out[i] = fmt.Sprint(x)
	}
	return Dash(strings.Join(out, ","))
}

// Size prints bytes in binary units.
func Size(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	div, exp := uint64(unit), 0
	for v := n / unit; v >= unit; v /= unit {
		div, exp = div*unit, exp+1
	}
	return fmt.Sprintf("%.1f %ciB", float64(n)/float64(div), "KMGTPE"[exp])
}

// Short prints a duration in its two largest units.
func Short(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}
