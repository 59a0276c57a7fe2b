package kube

import (
	"encoding/json"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return &unstructured.Unstructured{Object: m}
}

func TestOnlyDifferencesAreWritten(t *testing.T) {
	const live = `{"apiVersion":"v1","kind":"Service",
		"metadata":{"name":"a","namespace":"n","uid":"1","labels":{"x":"y","theirs":"z"},"managedFields":[
			{"manager":"kubectl","operation":"Update"},
			{"manager":"slicewire","operation":"Apply","fieldsV1":{
				"f:metadata":{"f:labels":{"f:x":{}}},
				"f:spec":{"f:type":{},"f:args":{},"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{},"f:name":{}}}}}}]},
		"spec":{"type":"ClusterIP","clusterIP":"10.0.0.1","args":["a","b"],"ports":[
			{"port":443,"protocol":"TCP","name":"theirs"},{"port":80,"protocol":"TCP","name":"http","targetPort":80}]}}`
	for _, c := range []struct {
		name, want string
		differs    bool
	}{
		{"the same, without what the server fills in", `{"metadata":{"name":"a","labels":{"x":"y"}},"spec":{"type":"ClusterIP","args":["a","b"],"ports":[{"port":80,"name":"http"}]}}`, false},
		{"a value is another", `{"metadata":{"name":"a","labels":{"x":"y"}},"spec":{"type":"NodePort","args":["a","b"],"ports":[{"port":80,"name":"http"}]}}`, true},
		{"a field is new", `{"metadata":{"name":"a","labels":{"x":"y"}},"spec":{"type":"ClusterIP","externalName":"q","args":["a","b"],"ports":[{"port":80,"name":"http"}]}}`, true},
		{"an own field is no longer wanted", `{"metadata":{"name":"a","labels":{"x":"y"}},"spec":{"args":["a","b"],"ports":[{"port":80,"name":"http"}]}}`, true},
		{"an own label is no longer wanted", `{"metadata":{"name":"a"},"spec":{"type":"ClusterIP","args":["a","b"],"ports":[{"port":80,"name":"http"}]}}`, true},
		{"a plain list is shorter", `{"metadata":{"name":"a","labels":{"x":"y"}},"spec":{"type":"ClusterIP","args":["a"],"ports":[{"port":80,"name":"http"}]}}`, true},
		{"a plain list has another order", `{"metadata":{"name":"a","labels":{"x":"y"}},"spec":{"type":"ClusterIP","args":["b","a"],"ports":[{"port":80,"name":"http"}]}}`, true},
		{"an own entry is no longer wanted", `{"metadata":{"name":"a","labels":{"x":"y"}},"spec":{"type":"ClusterIP","args":["a","b"],"ports":[]}}`, true},
		{"an entry is new", `{"metadata":{"name":"a","labels":{"x":"y"}},"spec":{"type":"ClusterIP","args":["a","b"],"ports":[{"port":80,"name":"http"},{"port":81}]}}`, true},
	} {
		if got := Differs(object(t, c.want), object(t, live), ""); got != c.differs {
			t.Errorf("%s: differs %v", c.name, got)
		}
	}
	want := object(t, `{"metadata":{"name":"a"},"spec":{}}`)
	if !Differs(want, nil, "") || !Differs(want, object(t, live), "status") {
		t.Error("what was never applied is applied")
	}
}
