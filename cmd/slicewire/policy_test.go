package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"slicewire/api"
	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
	"slicewire/router"
)

// writeFiles writes files into a new folder and returns it.
func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const shopPolicy = `---
apiVersion: slicewire.io/v1alpha1
kind: SlicePolicy
metadata: {name: web, namespace: shop}
spec:
  slice: red
  appliesTo: [{namespaces: [shop]}]
  ingress:
  - from: [{namespaces: [bank]}]
    ports: [{port: 80}]
`

const shopTests = `manifests: [world.yaml]
slice: red
tests:
- name: the bank reaches the shop
  from: {namespace: bank, site: a}
  to: {namespace: shop, site: b}
  port: 80
  expect: allow
  rule: SlicePolicy shop/web ingress[0]
- name: not on another port
  from: {namespace: bank, site: a}
  to: {namespace: shop, site: b}
  port: 81
  expect: deny
  rule: SlicePolicy shop/web
- name: the shop does not reach itself
  from: {namespace: shop, site: a}
  to: {namespace: shop, site: b, workload: w}
  port: 80
  expect: deny
- name: the bank of another site is none of the slice
  from: {namespace: bank, site: b}
  to: {namespace: bank, site: a}
  port: 443
  expect: deny
  rule: namespaceIsolationProfile
- name: strangers reach nobody
  from: {address: 10.1.9.9, site: a}
  to: {namespace: bank, site: a}
  protocol: ICMP
  expect: deny
- name: a node reaches the bank
  from: {address: 'fd00::1', namespace: kubeslice-system}
  to: {namespace: bank, site: a}
  protocol: UDP
  expect: allow
`

func TestPolicyTest(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"world.yaml": fmt.Sprintf(fakeSlice, true) + shopPolicy, "good.yaml": shopTests,
		"wrong.yaml": strings.Replace(shopTests, "expect: allow", "expect: deny", 1),
		"rule.yaml":  strings.Replace(shopTests, "web ingress[0]", "web ingress[1]", 1),
		"bad.yaml":   strings.Replace(shopTests, "expect: allow", "expect: yes", 1),
		"other.yaml": strings.Replace(shopTests, "slice: red", "slice: green", 1),
	})
	for _, tt := range []struct {
		file, want string
		code       int
	}{
		{"good.yaml", "all 6 hold", exitOK},
		{"wrong.yaml", "expected deny by SlicePolicy shop/web ingress[0]", exitFailure},
		{"rule.yaml", "expected allow by SlicePolicy shop/web ingress[1]", exitFailure},
		{"bad.yaml", "bad.yaml:8: tests[0].expect", exitFailure},
		{"other.yaml", "no slice \"green\"", exitFailure},
		{"none.yaml", "no such file", exitFailure},
	} {
		var out, errs bytes.Buffer
		code := execute(t.Context(), []string{"policy", "test", filepath.Join(dir, tt.file)}, &out, &errs)
		if code != tt.code || !strings.Contains(out.String()+errs.String(), tt.want) {
			t.Errorf("%s: exit %d\n%s%s", tt.file, code, out.String(), errs.String())
		}
		if n := strings.Count(out.String(), "FAIL"); tt.code == exitFailure && out.Len() > 0 && n != 1 {
			t.Errorf("%s: %d lines say FAIL:\n%s", tt.file, n, out.String())
		}
	}
}

func TestPolicyDiff(t *testing.T) {
	w := newFakeWorld(t, 1)
	dir := writeFiles(t, map[string]string{"open.yaml": fmt.Sprintf(fakeSlice, false), "shop.yaml": fmt.Sprintf(fakeSlice, false) + shopPolicy, "bad.yaml": "kind: x"})
	at := func(pick func(overlay.Known) bool) netip.Addr {
		return w.known[slices.IndexFunc(w.known, pick)].Addrs[0]
	}
	bank := at(func(k overlay.Known) bool { return k.Namespace == "bank" })
	shop := at(func(k overlay.Known) bool { return k.Namespace == "shop" && k.Node.Site == "b" })
	flow := func(src, dst netip.Addr, port uint16) router.FlowInfo {
		return router.FlowInfo{Flow: router.Flow{Src: src, Dst: dst, Proto: 6, SrcPort: 5, DstPort: port}, DstHere: true}
	}
	facts := []api.PolicyFacts{{Slice: "red", Nodes: w.nodes, Known: w.known, Flows: []router.FlowInfo{flow(bank, shop, 80), flow(bank, shop, 22), flow(shop, bank, 443)}}}
	for _, tt := range []struct {
		file, want string
		code       int
	}{
		{"open.yaml", "3 flows: 0 would end, 0 would be allowed by other rules, 3 would not notice", exitOK},
		{"shop.yaml", "3 flows: 1 would end, 1 would be allowed by other rules, 1 would not notice", exitDegraded},
		{"shop.yaml", fmt.Sprintf("tcp %v:5 > %v:22", bank, shop), exitDegraded},
		{"shop.yaml", "ENDS: ingress denied by SlicePolicy shop/web ingress", exitDegraded},
		{"bad.yaml", "bad.yaml:1", exitFailure},
	} {
		var out bytes.Buffer
		err := diffPolicies(&out, &out, facts, []string{filepath.Join(dir, tt.file)})
		code := exitOK
		if err != nil {
			var exit *exitError
			if !errors.As(err, &exit) {
				t.Fatalf("%s: %v has no exit code", tt.file, err)
			}
			code = exit.code
		}
		if code != tt.code || !strings.Contains(out.String(), tt.want) {
			t.Errorf("%s: exit %d, no %q in\n%s", tt.file, code, tt.want, out.String())
		}
	}
}

// Without a policy no flow is remembered: that none would end says nothing then.
func TestPolicyDiffSaysWhatItCannotKnow(t *testing.T) {
	w := newFakeWorld(t, 1)
	dir := writeFiles(t, map[string]string{"shop.yaml": fmt.Sprintf(fakeSlice, false) + shopPolicy})
	for open, want := range map[bool]string{true: "slice red has no policy now and remembers no flow: what a new one would end is not known\n", false: ""} {
		var out, errs bytes.Buffer
		facts := []api.PolicyFacts{{Slice: "red", Nodes: w.nodes, Known: w.known, Open: open}}
		if err := diffPolicies(&out, &errs, facts, []string{filepath.Join(dir, "shop.yaml")}); err != nil {
			t.Error(err)
		}
		if errs.String() != want || !strings.HasPrefix(out.String(), "0 flows: 0 would end") {
			t.Errorf("open %v: %q and %q, want %q", open, out.String(), errs.String(), want)
		}
	}
}

func TestWhatPolicyCommandsNeedIsAsked(t *testing.T) {
	var out, errs bytes.Buffer
	if code := execute(t.Context(), []string{"policy", "diff"}, &out, &errs); code != exitUsage || !strings.Contains(errs.String(), `"manifests"`) {
		t.Errorf("policy diff without manifests: exit %d: %s", code, errs.String())
	}
	d := new(daemon)
	d.view.Store(&daemonView{slices: []sliceView{{node: &sliceNode{name: "red"}}, {node: &sliceNode{name: "blue"}}}})
	if _, err := d.sliceFor(""); !errors.Is(err, errWhichSlice) || !strings.Contains(err.Error(), "blue, red") {
		t.Errorf("no slice is named, of two: %v", err)
	}
	if _, err := d.sliceFor("nope"); !errors.Is(err, errNoSlice) || !strings.Contains(err.Error(), "blue, red") {
		t.Errorf("a slice that is not there: %v", err)
	}
}

func TestATracedPacketIsWellFormed(t *testing.T) {
	for _, dst := range []string{"10.1.0.3", "fd00:1::3"} {
		src := netip.MustParseAddr(strings.Replace(dst, "3", "2", 1))
		for _, proto := range []uint8{1, 6, 17, 47, 58} {
			p := tracePacket(src, netip.MustParseAddr(dst), proto, 7, 8)
			if (proto != 1 || src.Is4()) && (proto != 58 || src.Is6()) && !overlaytest.ChecksumsOK(p) {
				t.Errorf("%v protocol %d: %x", dst, proto, p)
			}
		}
	}
}

// The examples of the documentation are taken as they are.
func TestTheExamplesOfPolicyDocs(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(moduleRoot(t), "docs", "policy.md"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for i, part := range strings.Split(string(page), "```") {
		if text, ok := strings.CutPrefix(part, "yaml\n"); ok && i%2 == 1 {
			blocks = append(blocks, text)
		}
	}
	if len(blocks) != 2 {
		t.Fatalf("%d examples", len(blocks))
	}
	dir := t.TempDir()
	if err := unpackManifests(filepath.Join(dir, "manifests")); err != nil {
		t.Fatal(err)
	}
	tests := filepath.Join(dir, "tests.yaml")
	for name, text := range map[string]string{filepath.Join(dir, "manifests", "policy.yaml"): blocks[0], tests: blocks[1]} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out, errs bytes.Buffer
	if code := execute(t.Context(), []string{"policy", "test", tests}, &out, &errs); code != exitOK || !strings.Contains(out.String(), "all 2 hold") {
		t.Errorf("exit %d\n%s%s", code, out.String(), errs.String())
	}
	out.Reset()
	if code := execute(t.Context(), []string{"config", "check", filepath.Join(dir, "manifests")}, &out, &errs); code != exitDegraded {
		t.Errorf("exit %d\n%s", code, errs.String())
	}
	shown := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{"shop/web blue 1 0", "namespaceIsolationProfile iperf-slice 1 1"} {
		if !strings.Contains(shown, want) {
			t.Errorf("config check says no %q:\n%s", want, out.String())
		}
	}
}
