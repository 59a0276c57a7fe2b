package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slicewire/api"
	"slicewire/kube/kubetest"
)

// program is slicewire, as it is in the image that pods run.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "slicewire-e2e")
	if err == nil {
		program = filepath.Join(dir, "slicewire")
		err = kubetest.Build(program)
	}
	code := 1
	if err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, err)
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// patience is how long anything may take before a test gives up.
const patience = 60 * time.Second

// run runs slicewire with its standard input and returns what it printed and its
// exit code.
func run(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	if err := cmd.Run(); err != nil {
		if exit := new(exec.ExitError); !errors.As(err, &exit) {
			t.Fatalf("slicewire %s: %v", strings.Join(args, " "), err)
		}
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must runs slicewire, which has to succeed, and returns what it printed.
func must(t *testing.T, args ...string) string {
	t.Helper()
	out, said, code := run(t, "", args...)
	if code != 0 {
		t.Fatalf("slicewire %s: exit %d: %s", strings.Join(args, " "), code, said)
	}
	return out
}

// An authority is the folder of a mesh's certificate authority.
type authority string

// newAuthority makes the authority of the mesh named rig, in a folder.
func newAuthority(t *testing.T, dir string) authority {
	t.Helper()
	a := authority(filepath.Join(dir, "ca"))
	must(t, "ca", "init", "--mesh", "rig", "--dir", string(a))
	return a
}

// cert is the file with the authority's certificate.
func (a authority) cert() string { return filepath.Join(string(a), "ca.crt") }

// certify gives a node its identity, in its state folder, for what a manifest
// gives to its site; more are further flags of `ca sign`.
func (a authority) certify(t *testing.T, manifest, site, node, state string, more ...string) {
	t.Helper()
	dir := t.TempDir()
	request, bundle := filepath.Join(dir, "request"), filepath.Join(dir, "bundle")
	writeFile(t, request, must(t, "cert", "request", "--state", state))
	writeFile(t, bundle, must(t, append([]string{"ca", "sign", "--dir", string(a), "--manifests", manifest, "--site", site, "--node", node, request}, more...)...))
	must(t, "cert", "install", "--state", state, bundle)
}

// intermediate lets a node certify others of some sites.
func (a authority) intermediate(t *testing.T, manifest, state string, sites ...string) {
	t.Helper()
	dir := t.TempDir()
	request, bundle := filepath.Join(dir, "request"), filepath.Join(dir, "bundle")
	writeFile(t, request, must(t, "cert", "request", "--issuer", "--state", state))
	writeFile(t, bundle, must(t, "ca", "intermediate", "--dir", string(a), "--manifests", manifest, "--site", strings.Join(sites, ","), request))
	must(t, "cert", "install", "--state", state, bundle)
}

// A sidecar says what `slicewire inject` puts into pods.
type sidecar struct {
	authority                              authority
	manifest, site, slice, issuer, gateway string
	publish                                []string
}

// inject returns manifests with the sidecar, and what is said of it.
func (s *sidecar) inject(t *testing.T, manifests string) (out, said string) {
	t.Helper()
	args := []string{
		"inject", "--image", kubetest.SlicewireImage, "--site", s.site, "--slice", s.slice, "--authority", s.authority.cert(),
		"--issuer", s.issuer, "--gateway", s.gateway, "--manifests", s.manifest,
	}
	for _, p := range s.publish {
		args = append(args, "--publish", p)
	}
	out, said, code := run(t, manifests, args...)
	if code != 0 {
		t.Fatalf("slicewire inject: exit %d: %s", code, said)
	}
	return out, said
}

// A daemon is a node that runs beside the clusters.
type daemon struct {
	dir    string // its node file names `sock` in it as its socket
	socket string
	cmd    *exec.Cmd // nil: it does not run
	ended  chan error
}

// newDaemon makes one of a node file, which ends with the test.
func newDaemon(t *testing.T, dir, config string) *daemon {
	t.Helper()
	writeFile(t, filepath.Join(dir, "node.yaml"), config)
	d := &daemon{dir: dir, socket: filepath.Join(dir, "sock"), ended: make(chan error, 1)}
	t.Cleanup(func() {
		d.stop(t)
		if text, err := os.ReadFile(filepath.Join(dir, "log")); err == nil && t.Failed() {
			t.Logf("the daemon: %s", text[max(0, len(text)-4000):])
		}
	})
	return d
}

// start runs the daemon, which does not run.
func (d *daemon) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() // it has its own
	cmd := exec.Command(program, "daemon", "--config", filepath.Join(d.dir, "node.yaml"))
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.cmd = cmd
	go func() { d.ended <- cmd.Wait() }()
}

// stop ends the daemon, if it runs.
func (d *daemon) stop(t *testing.T) {
	t.Helper()
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(os.Interrupt) // it may have ended
	select {
	case err := <-d.ended:
		if err != nil {
			t.Errorf("the daemon: %v", err)
		}
	case <-time.After(patience):
		t.Error("the daemon does not end")
		_ = d.cmd.Process.Kill()
		<-d.ended
	}
	d.cmd = nil
}

// status asks the daemon how it is.
func (d *daemon) status(ctx context.Context) (s api.Status, err error) {
	out, err := exec.CommandContext(ctx, program, "status", "--socket", d.socket, "-o", "json").Output()
	if err != nil && len(out) == 0 {
		return s, err
	}
	return s, json.Unmarshal(out, &s)
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
