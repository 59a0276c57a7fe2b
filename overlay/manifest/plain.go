package manifest

import (
	"reflect"
	"strings"
	"time"
)

// plain returns a struct of this package as the JSON that a server has of it:
// what is not set is left out, but for what has to be there.
func plain(v any) map[string]any {
	m, _ := plainValue(reflect.ValueOf(v)).(map[string]any)
	return m
}

var plainTime = reflect.TypeFor[time.Time]()

func plainValue(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		return plainValue(v.Elem())
	case reflect.Struct:
		if v.Type() == plainTime {
			return v.Interface().(time.Time).UTC().Format(time.RFC3339)
		}
		out := map[string]any{}
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			x := v.Field(i)
			if x.Kind() == reflect.Struct && x.Type() != plainTime {
				if m, ok := plainValue(x).(map[string]any); ok && len(m) > 0 {
					out[name] = m
				}
				continue
			}
			if !empty(x) || f.Tag.Get("req") != "" {
				out[name] = plainValue(x)
			}
		}
		return out
	case reflect.Slice:
		out := make([]any, v.Len())
		for i := range out {
			out[i] = plainValue(v.Index(i))
		}
		return out
	case reflect.Map:
		out := map[string]any{}
		for it := v.MapRange(); it.Next(); {
			out[it.Key().String()] = plainValue(it.Value())
		}
		return out
	case reflect.Bool:
		return v.Bool()
	case reflect.String:
		return v.String()
	case reflect.Int, reflect.Int32, reflect.Int64:
		return v.Int()
	case reflect.Uint16:
		return int64(v.Uint())
	}
	panic("manifest: no plain form of " + v.Type().String())
}

func empty(v reflect.Value) bool {
	if v.Kind() == reflect.Slice || v.Kind() == reflect.Map {
		return v.Len() == 0
	}
	return v.IsZero()
}
