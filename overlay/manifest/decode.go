package manifest

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml/goyaml.v3"

	"slicewire/overlay"
)

// A decoder fills a struct from a YAML node by the struct's tags and remembers
// on which line it saw each field. The tags are the schema:
//
//	json:"name"       the key
//	req:"1"           the key must be there
//	default:"x"       what an absent key means; "{}" gives an absent object its fields' defaults
//	enum:"a,b"        the only values allowed
//	min:"1" max:"9"   the range of a number
//
// Fields of type any are known but not looked into. Null is the same as absent.
type decoder struct {
	strict bool // unknown and repeated keys are errors, not warnings
	budget *int // YAML nodes it may still visit; aliases count at every use
	lines  map[string]int
	report func(sev Severity, line int, field, message string)
	spent  bool // the budget ran out and that was reported
}

func newDecoder(strict bool, budget *int, report func(Severity, int, string, string)) *decoder {
	return &decoder{strict: strict, budget: budget, lines: map[string]int{}, report: report}
}

// visit follows aliases and takes the node from the budget. It returns nil when
// the document is too large or too deep to go on.
func (d *decoder) visit(n *yaml.Node, depth int) *yaml.Node {
	for hops := 0; n != nil && n.Kind == yaml.AliasNode; hops++ {
		if hops > maxDepth {
			return nil
		}
		n = n.Alias
	}
	*d.budget--
	if n == nil || *d.budget < 0 || depth > maxDepth {
		if !d.spent {
			d.spent = true
			line := 0
			if n != nil {
				line = n.Line
			}
			d.report(Error, line, "", fmt.Sprintf("more than %d values or %d levels once aliases are followed", maxNodes, maxDepth))
		}
		return nil
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// value decodes n into v, whose tags are tag.
func (d *decoder) value(n *yaml.Node, v reflect.Value, field string, tag reflect.StructTag, depth int) {
	n = d.visit(n, depth)
	if n == nil || isNull(n) {
		return
	}
	if t, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if s, ok := d.scalar(n, field, "a string"); ok {
			if err := t.UnmarshalText([]byte(s)); err != nil {
				d.report(Error, n.Line, field, fmt.Sprintf("%q: %v", s, err))
			}
		}
		return
	}
	switch v.Kind() {
	case reflect.Interface: // known, not looked into
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		d.value(n, p.Elem(), field, tag, depth)
		v.Set(p)
	case reflect.Struct:
		d.structure(n, v, field, depth)
	case reflect.Map:
		d.mapping(n, v, field, depth)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.mismatch(n, field, "a list")
			return
		}
		for i, item := range n.Content {
			at := field + "[" + strconv.Itoa(i) + "]"
			d.lines[at] = item.Line
			e := reflect.New(v.Type().Elem()).Elem()
			if d.strict && isNull(item) { // nothing is not the same as an object without fields
				d.report(Error, item.Line, at, "is empty")
			}
			d.value(item, e, at, tag, depth+1)
			if d.spent {
				return
			}
			v.Set(reflect.Append(v, e))
		}
	case reflect.String:
		if s, ok := d.scalar(n, field, "a string"); ok {
			if tag := n.ShortTag(); tag != "!!str" && tag != "!!timestamp" && !d.strict {
				d.mismatch(n, field, "a string")
				return
			}
			v.SetString(s)
			d.checkEnum(n.Line, s, field, tag)
		}
	case reflect.Bool:
		b, ok := parseBool(n)
		if !ok {
			d.mismatch(n, field, "true or false")
			return
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint16:
		d.number(n, v, field, tag)
	default:
		panic("manifest: field " + field + " has a type that the decoder does not know: " + v.Type().String())
	}
}

// scalar returns n's text; want names the type for the error.
func (d *decoder) scalar(n *yaml.Node, field, want string) (string, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!binary" {
		d.mismatch(n, field, want)
		return "", false
	}
	return n.Value, true
}

func (d *decoder) number(n *yaml.Node, v reflect.Value, field string, tag reflect.StructTag) {
	var i int64
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || n.Decode(&i) != nil {
		d.mismatch(n, field, "a whole number")
		return
	}
	low, high := bounds(v, tag)
	if i < low || i > high {
		d.report(Error, n.Line, field, fmt.Sprintf("%d is outside %d to %d", i, low, high))
		return
	}
	if v.CanUint() {
		v.SetUint(uint64(i))
	} else {
		v.SetInt(i)
	}
}

// bounds returns the range of a number field: its tags', within its type's.
func bounds(v reflect.Value, tag reflect.StructTag) (low, high int64) {
	size := v.Type().Bits()
	low, high = -1<<(size-1), 1<<(size-1)-1
	if v.CanUint() {
		low, high = 0, 1<<size-1
	}
	if s, ok := tag.Lookup("min"); ok {
		low = mustInt(s)
	}
	if s, ok := tag.Lookup("max"); ok {
		high = mustInt(s)
	}
	return low, high
}

func mustInt(s string) int64 {
	i, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic("manifest: bad number in a struct tag: " + s)
	}
	return i
}

// parseBool takes YAML 1.1's words too, as the YAML parser of kubectl does.
func parseBool(n *yaml.Node) (b, ok bool) {
	if n.Kind != yaml.ScalarNode || n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		return false, false
	}
	switch strings.ToLower(n.Value) {
	case "true", "yes", "on", "y":
		return true, true
	case "false", "no", "off", "n":
		return false, true
	}
	return false, false
}

func (d *decoder) checkEnum(line int, s, field string, tag reflect.StructTag) {
	enum, ok := tag.Lookup("enum")
	if !ok || s == "" {
		return
	}
	if values := strings.Split(enum, ","); !slices.Contains(values, s) {
		d.report(Error, line, field, fmt.Sprintf("%q is none of %s%s", s, strings.Join(values, ", "), didYouMean(s, values)))
	}
}

// didYouMean ends the message about a word that is not among the known ones.
func didYouMean(word string, known []string) string {
	if len(known) > maxListed { // not worth the time
		return ""
	}
	switch k := overlay.Nearest(word, known); k {
	case "":
		return ""
	case word: // it is known, but not to the one who asks
		return "; there is one in another namespace"
	default:
		return fmt.Sprintf("; did you mean %q?", k)
	}
}

func (d *decoder) mismatch(n *yaml.Node, field, want string) {
	got := "a list"
	switch n.Kind {
	case yaml.MappingNode:
		got = "an object"
	case yaml.ScalarNode:
		got = fmt.Sprintf("%.40q", n.Value)
		if want == "a string" {
			got += " (" + strings.TrimPrefix(n.ShortTag(), "!!") + "; quote it)"
		}
	}
	d.report(Error, n.Line, field, fmt.Sprintf("must be %s, not %s", want, got))
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, field string, depth int) {
	m := reflect.MakeMap(v.Type())
	for _, p := range d.pairs(n, field, depth) {
		at := join(field, p.key)
		d.lines[at] = p.line
		e := reflect.New(v.Type().Elem()).Elem()
		d.value(p.value, e, at, "", depth+1)
		m.SetMapIndex(reflect.ValueOf(p.key), e)
	}
	v.Set(m)
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, field string, depth int) {
	fields, names := schema(v.Type())
	seen := make(map[string]bool, len(names))
	for _, p := range d.pairs(n, field, depth) {
		at := join(field, p.key)
		i, ok := fields[p.key]
		if !ok {
			sev, what := Warning, "unknown field is ignored"
			if d.strict {
				sev, what = Error, "unknown key"
			}
			d.report(sev, p.line, at, what+didYouMean(p.key, names))
			continue
		}
		if p.value != nil {
			resolved := d.visit(p.value, depth)
			if resolved == nil {
				return
			}
			seen[p.key] = !isNull(resolved)
		}
		d.lines[at] = p.line
		d.value(p.value, v.Field(i), at, v.Type().Field(i).Tag, depth+1)
		if d.spent {
			return
		}
	}
	d.fill(v, fields, names, seen, field, n.Line)
}

// fill gives absent fields their defaults and reports the required ones.
func (d *decoder) fill(v reflect.Value, fields map[string]int, names []string, seen map[string]bool, field string, line int) {
	for _, name := range names {
		if seen[name] {
			continue
		}
		f, tag := v.Field(fields[name]), v.Type().Field(fields[name]).Tag
		def, ok := tag.Lookup("default")
		switch {
		case ok && def == "{}":
			sub, subNames := schema(f.Type())
			d.fill(f, sub, subNames, nil, join(field, name), line)
		case ok:
			d.setDefault(f, def)
		case tag.Get("req") != "":
			d.report(Error, line, join(field, name), "is required")
		}
	}
}

func (d *decoder) setDefault(f reflect.Value, def string) {
	if t, ok := f.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := t.UnmarshalText([]byte(def)); err != nil {
			panic("manifest: bad default in a struct tag: " + err.Error())
		}
		return
	}
	switch f.Kind() {
	case reflect.String:
		f.SetString(def)
	case reflect.Slice: // of strings, one of them
		f.Set(reflect.ValueOf([]string{def}))
	case reflect.Uint16:
		f.SetUint(uint64(mustInt(def)))
	case reflect.Bool:
		f.SetBool(def == "true")
	default:
		f.SetInt(mustInt(def))
	}
}

// schema returns a struct's keys with their fields, and the keys in order.
func schema(t reflect.Type) (fields map[string]int, names []string) {
	fields = make(map[string]int, t.NumField())
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("json"); name != "" {
			fields[name] = i
			names = append(names, name)
		}
	}
	return fields, names
}

type pair struct {
	key   string
	line  int
	value *yaml.Node
}

// pairs returns the entries of a mapping. Merge keys ("<<") are followed; a key
// of the mapping itself wins over a merged one. Of a repeated key the last
// counts, as for an API server.
func (d *decoder) pairs(n *yaml.Node, field string, depth int) []pair {
	n = d.visit(n, depth)
	if n == nil {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		d.mismatch(n, field, "an object")
		return nil
	}
	var own, merged []pair
	at := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		switch {
		case k.Kind == yaml.ScalarNode && k.ShortTag() == "!!merge":
			merged = append(merged, d.merge(n.Content[i+1], field, depth+1)...)
		case k.Kind != yaml.ScalarNode:
			d.report(Error, k.Line, field, "a key must be a word")
		default:
			p := pair{k.Value, k.Line, n.Content[i+1]}
			j, twice := at[k.Value]
			if !twice {
				at[k.Value] = len(own)
				own = append(own, p)
				continue
			}
			sev, what := Warning, "the last one counts"
			if d.strict {
				sev, what = Error, "give it once"
			}
			d.report(sev, k.Line, join(field, k.Value), fmt.Sprintf("the key is also on line %d: %s", own[j].line, what))
			own[j] = p
		}
	}
	for _, p := range merged {
		if _, ok := at[p.key]; !ok {
			at[p.key] = len(own)
			own = append(own, p)
		}
	}
	return own
}

func (d *decoder) merge(n *yaml.Node, field string, depth int) []pair {
	n = d.visit(n, depth)
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		return d.pairs(n, field, depth)
	}
	var all []pair
	for _, item := range n.Content {
		all = append(all, d.pairs(item, field, depth+1)...)
	}
	return all
}

func join(field, key string) string {
	if field == "" {
		return key
	}
	return field + "." + key
}
