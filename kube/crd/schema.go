package crd

import (
	"encoding"
	"reflect"
	"strconv"
	"strings"
	"time"
)

var (
	timeType = reflect.TypeFor[time.Time]()
	textType = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// schemaOf returns the schema of a kind: that of its struct, less what every
// object has.
func schemaOf(t reflect.Type) node {
	s := schema(t, "")
	props := s["properties"].(node)
	props["metadata"] = node{"type": "object"}
	for _, name := range []string{"apiVersion", "kind"} {
		props[name] = node{"type": "string"}
	}
	if req, ok := s["required"].([]string); ok {
		var kept []string
		for _, r := range req {
			if r != "metadata" {
				kept = append(kept, r)
			}
		}
		delete(s, "required")
		if len(kept) > 0 {
			s["required"] = kept
		}
	}
	return s
}

// schema follows the decoder of overlay/manifest: the same tags mean the same.
func schema(t reflect.Type, tag reflect.StructTag) node {
	if t == timeType {
		return node{"type": "string", "format": "date-time"}
	}
	if reflect.PointerTo(t).Implements(textType) {
		return node{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		s := schema(t.Elem(), tag)
		if t.Elem().Kind() == reflect.Slice { // nothing and an empty list are not the same
			s["nullable"] = true
		}
		return s
	case reflect.Interface:
		return node{"x-kubernetes-preserve-unknown-fields": true}
	case reflect.Struct:
		return object(t)
	case reflect.Map:
		return node{"type": "object", "additionalProperties": schema(t.Elem(), "")}
	case reflect.Slice:
		return node{"type": "array", "items": schema(t.Elem(), tag)}
	case reflect.String:
		s := node{"type": "string"}
		if e, ok := tag.Lookup("enum"); ok {
			s["enum"] = strings.Split(e, ",")
		}
		if d, ok := tag.Lookup("default"); ok {
			s["default"] = d
		}
		return s
	case reflect.Bool:
		s := node{"type": "boolean"}
		if d, ok := tag.Lookup("default"); ok {
			s["default"] = d == "true"
		}
		return s
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint16:
		return number(t, tag)
	}
	panic("crd: the schema of " + t.String() + " is not known")
}

func object(t reflect.Type) node {
	props := node{}
	var required []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		props[name] = schema(f.Type, f.Tag)
		if f.Tag.Get("req") != "" {
			required = append(required, name)
		}
	}
	s := node{"type": "object"}
	if len(props) > 0 {
		s["properties"] = props
	}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

func number(t reflect.Type, tag reflect.StructTag) node {
	s := node{"type": "integer"}
	switch t.Kind() {
	case reflect.Int32:
		s["format"] = "int32"
	case reflect.Int64, reflect.Int:
		s["format"] = "int64"
	case reflect.Uint16:
		s["minimum"], s["maximum"] = int64(0), int64(1<<16-1)
	}
	for tagName, field := range map[string]string{"min": "minimum", "max": "maximum", "default": "default"} {
		if v, ok := tag.Lookup(tagName); ok {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				panic("crd: bad number in a struct tag: " + v)
			}
			s[field] = n
		}
	}
	return s
}
