package cluster

// Objects of a cluster are read as the JSON that they are: whatever has another
// type than expected counts as absent. None of these functions changes m.

// field returns what is at a path of keys, nil if nothing is.
func field(m map[string]any, path ...string) any {
	for i, key := range path {
		v, ok := m[key]
		if !ok {
			return nil
		}
		if i == len(path)-1 {
			return v
		}
		if m, ok = v.(map[string]any); !ok {
			return nil
		}
	}
	return m
}

func text(m map[string]any, path ...string) string {
	s, _ := field(m, path...).(string)
	return s
}

func truth(m map[string]any, path ...string) bool {
	b, _ := field(m, path...).(bool)
	return b
}

// number returns a whole number; JSON may have decoded it in two ways.
func number(m map[string]any, path ...string) int64 {
	switch n := field(m, path...).(type) {
	case int64:
		return n
	case float64:
		if n == float64(int64(n)) {
			return int64(n)
		}
	}
	return 0
}

// objectsIn returns the objects of a list.
func objectsIn(m map[string]any, path ...string) (out []map[string]any) {
	list, _ := field(m, path...).([]any)
	for _, x := range list {
		if o, ok := x.(map[string]any); ok {
			out = append(out, o)
		}
	}
	return out
}

func texts(m map[string]any, path ...string) (out []string) {
	list, _ := field(m, path...).([]any)
	for _, x := range list {
		if s, ok := x.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

func textMap(m map[string]any, path ...string) map[string]string {
	in, _ := field(m, path...).(map[string]any)
	if len(in) == 0 {
		return nil
	}
	out := make(map[string]string, len(in))
	for k, v := range in {
		if s, ok := v.(string); ok {
			out[k] = s
		}
	}
	return out
}
