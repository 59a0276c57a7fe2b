package manifest

import (
	"reflect"

	"fmt"
	"net/netip"
	"strings"

	"sigs.k8s.io/yaml/goyaml.v3"
)

// PolicyTestFile is what `slicewire policy test` reads: assertions about the
// policies of some manifests. It is ours and strict.
type PolicyTestFile struct {
	Manifests []string         `json:"manifests" req:"1"` // files and folders, from the file's own
	Mesh      string           `json:"mesh"`
	Slice     string           `json:"slice" req:"1"` // of tests that name none
	Tests     []PolicyTestCase `json:"tests" req:"1"`
}

// PolicyTestCase is one assertion.
type PolicyTestCase struct {
	Name     string        `json:"name"`
	Slice    string        `json:"slice"`
	From     PolicyTestEnd `json:"from" req:"1"`
	To       PolicyTestEnd `json:"to" req:"1"`
	Protocol string        `json:"protocol" default:"TCP" enum:"TCP,UDP,SCTP,ICMP,GRE"`
	Port     uint16        `json:"port"`
	Expect   string        `json:"expect" req:"1" enum:"allow,deny"`
	Rule     string        `json:"rule"` // a part of the name of a rule that decides; empty: any
	Line     int           `json:"-"`
}

// PolicyTestEnd is somebody on the slice, by what is known of him. Whom two ends
// describe alike is one.
type PolicyTestEnd struct {
	Site      string `json:"site"` // empty: the slice's first
	Node      string `json:"node"` // empty: a node of that site
	Namespace string `json:"namespace"`
	Service   string `json:"service"` // "namespace/name": an endpoint of it
	Workload  string `json:"workload"`
	Address   string `json:"address"` // empty: one that nobody else has
}

// ParsePolicyTests reads a file of assertions. It is not to be used when a
// problem is an Error.
func ParsePolicyTests(file string, data []byte) (*PolicyTestFile, []Problem) {
	r := &reader{file: file}
	fail := func(line int, field, format string, args ...any) { r.report(Error, line, "", field, format, args...) }
	out := new(PolicyTestFile)
	if len(data) > maxFileBytes {
		fail(0, "", "the file is larger than %d MiB", maxFileBytes>>20)
		return out, r.problems
	}
	docs := split(data)
	if len(docs) != 1 {
		fail(0, "", "has %d documents instead of one", len(docs))
		return out, r.problems
	}
	if separators(docs[0].text) > maxNodes {
		fail(0, "", "has more than %d values", maxNodes)
		return out, r.problems
	}
	root, line, err := parseDocument(docs[0])
	if err != nil {
		fail(line, "", "%v", err)
		return out, r.problems
	}
	if root == nil {
		fail(0, "", "is empty")
		return out, r.problems
	}
	lines := decodeStrict(r, root, out)
	for i := range out.Tests {
		t, at := &out.Tests[i], fmt.Sprintf("tests[%d]", i)
		t.Line = lineOf(lines, at, 0)
		if t.Port != 0 && t.Protocol != "TCP" && t.Protocol != "UDP" {
			fail(lineOf(lines, at+".port", 0), at+".port", "%s has no ports to choose here", t.Protocol)
		}
		for _, e := range []struct {
			field string
			end   *PolicyTestEnd
		}{{at + ".from", &t.From}, {at + ".to", &t.To}} {
			if e.end.Address != "" {
				if _, err := netip.ParseAddr(e.end.Address); err != nil {
					fail(lineOf(lines, e.field+".address", 0), e.field+".address", "%q is not an IP address", e.end.Address)
				}
			}
			if s := e.end.Service; s != "" && strings.Count(s, "/") != 1 {
				fail(lineOf(lines, e.field+".service", 0), e.field+".service", "%q is not namespace/name", s)
			}
		}
	}
	if len(out.Tests) == 0 && !HasErrors(r.problems) {
		fail(0, "tests", "there are none")
	}
	sortProblems(r.problems)
	return out, r.problems
}

// decodeStrict fills out, a pointer to a struct, from a document and returns on
// which line each field is.
func decodeStrict(r *reader, root *yaml.Node, out any) map[string]int {
	budget, count := maxNodes, [2]int{}
	d := newDecoder(true, &budget, func(sev Severity, line int, field, message string) {
		if count[sev]++; count[sev] <= maxProblems {
			r.report(sev, line, "", field, "%s", message)
		}
	})
	d.value(root, reflect.ValueOf(out).Elem(), "", "", 0)
	return d.lines
}
