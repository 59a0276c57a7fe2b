package cluster

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"sync"
	"testing"
)

// What is packed comes back as it was, whichever object was the first of its kind,
// and one like the first takes little.
func TestWhatIsPackedComesBack(t *testing.T) {
	like := func(i int) map[string]any {
		return map[string]any{"kind": "Service", "metadata": map[string]any{"name": fmt.Sprintf("web%d", i), "managedFields": []any{
			map[string]any{"manager": "slicewire", "fieldsV1": map[string]any{"f:spec": map[string]any{"f:sessionAffinity": map[string]any{}, "f:type": map[string]any{}}}}}}}
	}
	for name, first := range map[string]map[string]any{
		"alike": like(1), "another": {"kind": "Other"}, "a mebibyte": {"kind": "Large", "x": strings.Repeat("<\n\"", 1<<18)},
	} {
		dictionaries[KindService].Store(nil)
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for _, raw := range []map[string]any{first, like(i)} {
					if u := pack(KindService, raw).unpack(); u == nil || !reflect.DeepEqual(u.Object, raw) {
						t.Errorf("%s: an object came back as another", name)
					}
				}
			})
		}
		all.Wait()
		if n := len(pack(KindService, like(9)).data); name == "alike" && n > 40 {
			t.Errorf("%d bytes for an object that differs from the dictionary in one letter", n)
		}
	}
	if pack(KindService, map[string]any{"kind": func() {}}).unpack() != nil || (packed{}).unpack() != nil {
		t.Error("something came back of nothing")
	}
}

// Labels are kept in a file as objects have them.
func TestLabelsAreKeptAsTheyAre(t *testing.T) {
	want := map[string]string{"b": "2", "a": "1", "empty": ""}
	l := labelsOf(want)
	if !l.has("a", "1") || !l.has("empty", "") || l.has("a", "2") || l.has("none", "") {
		t.Errorf("%v", l)
	}
	b, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal(b, &got); err != nil || !maps.Equal(got, want) {
		t.Errorf("kept as %s, error %v", b, err)
	}
	var back Labels
	if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back, l) {
		t.Errorf("back as %v, error %v", back, err)
	}
}
