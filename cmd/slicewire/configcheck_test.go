package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const exampleDir = "../../overlay/manifest/testdata/kubeslice-examples"

// configCheck runs `slicewire config check` and returns its exit code.
func configCheck(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	code = execute(t.Context(), append([]string{"config", "check"}, args...), &out, &errOut)
	return code, out.String(), errOut.String()
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantIperf is what KubeSlice's own example comes to.
const wantIperf = `{
  "slices": [
    {
      "name": "iperf-slice",
      "subnet": "10.190.0.0/16",
      "subnet6": "fdc4:d646:5fe::/48",
      "mode": "single-network",
      "sites": [
        {
          "name": "worker-1",
          "index": 0,
          "prefix": "10.190.0.0/20",
          "prefix6": "fdc4:d646:5fe::/56"
        },
        {
          "name": "worker-2",
          "index": 1,
          "prefix": "10.190.16.0/20",
          "prefix6": "fdc4:d646:5fe:100::/56"
        }
      ],
      "qos": {
        "ceilingKbps": 3000000,
        "guaranteedKbps": 200000,
        "priority": 0,
        "dscp": "Default"
      },
      "namespaces": [
        "iperf"
      ],
      "services": [],
      "isolated": true
    }
  ],
  "clusters": [
    {
      "name": "worker-1",
      "nodeIPs": [],
      "slices": [
        "iperf-slice"
      ]
    },
    {
      "name": "worker-2",
      "nodeIPs": [],
      "slices": [
        "iperf-slice"
      ]
    }
  ],
  "warnings": [
    {
      "file": "../../overlay/manifest/testdata/kubeslice-examples/01-sliceconfig-iperf-isolated.yaml",
      "line": 10,
      "object": "SliceConfig kubeslice-demo/iperf-slice",
      "message": "spec.sliceGatewayProvider.sliceGatewayType: OpenVPN is served by WireGuard (slices: iperf-slice)"
    }
  ],
  "errors": []
}
`

func TestConfigCheckOfKubeSlicesExample(t *testing.T) {
	file := filepath.Join(exampleDir, "01-sliceconfig-iperf-isolated.yaml")
	code, stdout, stderr := configCheck(t, "-o", "json", file)
	if code != exitDegraded || stdout != wantIperf || stderr != "" {
		t.Errorf("code %d, stderr %q, stdout:\n%s", code, stderr, stdout)
	}

	code, asYAML, _ := configCheck(t, "-o", "yaml", file)
	converted, err := yaml.YAMLToJSON([]byte(asYAML))
	if code != exitDegraded || err != nil || !sameJSON(t, string(converted), wantIperf) {
		t.Errorf("yaml says something else: code %d, %v\n%s", code, err, asYAML)
	}

	code, stdout, stderr = configCheck(t, file)
	for _, want := range []string{"10.190.0.0/20", "10.190.16.0/20", "3000000 kbit/s"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the table has no %q:\n%s", want, stdout)
		}
	}
	wantErr := file + ":10: SliceConfig kubeslice-demo/iperf-slice: spec.sliceGatewayProvider.sliceGatewayType: OpenVPN is served by WireGuard (slices: iperf-slice)\n"
	if code != exitDegraded || stderr != wantErr {
		t.Errorf("code %d, stderr %q, want %q", code, stderr, wantErr)
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal([]byte(a), &x), json.Unmarshal([]byte(b), &y)); err != nil {
		t.Error(err)
	}
	p, _ := json.Marshal(x)
	q, _ := json.Marshal(y)
	return bytes.Equal(p, q)
}

func TestConfigCheckOfAllExamplesTogether(t *testing.T) {
	_, stdout, _ := configCheck(t, "-o", "json", exampleDir)
	for _, want := range []string{`"iperf-server.iperf.svc.slice.local"`, `"port": 5201`, `"cluster-5"`, `"11.11.14.189"`, `"errors": []`} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %s in:\n%s", want, stdout)
		}
	}
}

const quietSlice = `
apiVersion: controller.kubeslice.io/v1alpha1
kind: SliceConfig
metadata: {name: red}
spec:
  sliceSubnet: 10.1.0.0/16
  sliceGatewayProvider: {sliceGatewayType: Wireguard, sliceCaType: Local}
  clusters: [a, b]
  standardQosProfileName: default
  namespaceIsolationProfile:
    applicationNamespaces: [{namespace: shop, clusters: ['*']}]
`

func TestConfigCheckExitCodes(t *testing.T) {
	dir := t.TempDir()
	quiet := write(t, dir, "quiet/red.yaml", quietSlice)
	broken := write(t, dir, "broken.yaml", "a: [\n")
	write(t, dir, "node/manifests/red.yaml", quietSlice)
	node := write(t, dir, "node/node.yaml", "version: 1\nsite: a\nnode: gw\npublish:\n- {slice: red, service: web, namespace: shop, target: '127.0.0.1:80', export: [{port: 80}]}\n")
	strict := write(t, dir, "strict/node.yaml", "version: 1\nsite: a\nnode: gw\nlisen: 0.0.0.0:1\n")
	for _, tt := range []struct {
		name string
		args []string
		code int
		text string // on stdout or stderr
	}{
		{"nothing to say", []string{quiet}, 0, "10.1.16.0/20"},
		{"a folder", []string{filepath.Dir(quiet)}, 0, "10.1.16.0/20"},
		{"a file and its folder are read once", []string{quiet, filepath.Dir(quiet)}, 0, "10.1.16.0/20"},
		{"broken YAML", []string{broken}, exitFailure, broken},
		{"a broken file does not hide the others", []string{broken, quiet}, exitFailure, "10.1.16.0/20"},
		{"no such file", []string{filepath.Join(dir, "none")}, exitFailure, "no such file"},
		{"a node file brings its manifests", []string{node}, 0, "web.shop.svc.slice.local"},
		{"an unknown key of a node file names the nearest", []string{strict}, exitFailure, strict + ":4: node a/gw: lisen: unknown key; did you mean \"listen\"?"},
		{"two node files", []string{node, strict}, exitFailure, "second node file"},
		{"no path", nil, exitUsage, ""},
		{"an unknown output", []string{"-o", "xml", quiet}, exitUsage, ""},
		{"an unknown flag", []string{"--colour", quiet}, exitUsage, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := configCheck(t, tt.args...)
			if code != tt.code || !strings.Contains(stdout+stderr, tt.text) {
				t.Errorf("code %d, want %d with %q; stdout:\n%s\nstderr:\n%s", code, tt.code, tt.text, stdout, stderr)
			}
		})
	}
}

func TestConfigCheckOfNothingPrintsEmptyLists(t *testing.T) {
	code, stdout, _ := configCheck(t, "-o", "json", t.TempDir())
	if want := `{"slices":[],"clusters":[],"warnings":[],"errors":[]}`; code != 0 || !sameJSON(t, stdout, want) {
		t.Errorf("code %d: %s", code, stdout)
	}
}
