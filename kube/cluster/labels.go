package cluster

import (
	"cmp"
	"encoding/json"
	"slices"
	"unique"
)

// Labels are the labels of an object, by key. There are as many as pods, so they
// are lists, which take a fourth of maps, and many have the same texts once.
type Labels []label

type label struct{ key, value string }

func labelsOf(m map[string]string) Labels {
	if len(m) == 0 {
		return nil
	}
	l := make(Labels, 0, len(m))
	for k, v := range m {
		l = append(l, label{unique.Make(k).Value(), unique.Make(v).Value()})
	}
	slices.SortFunc(l, func(a, b label) int { return cmp.Compare(a.key, b.key) })
	return l
}

// has reports whether a label has a value.
func (l Labels) has(key, value string) bool {
	return slices.Contains(l, label{key, value})
}

// MarshalJSON has labels as objects have them.
func (l Labels) MarshalJSON() ([]byte, error) {
	m := make(map[string]string, len(l))
	for _, x := range l {
		m[x.key] = x.value
	}
	return json.Marshal(m)
}

// UnmarshalJSON reads what MarshalJSON wrote, or null.
func (l *Labels) UnmarshalJSON(b []byte) error {
	var m map[string]string
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	*l = labelsOf(m)
	return nil
}
