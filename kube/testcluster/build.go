package main

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

//go:embed go.mod
var goMod []byte

//go:embed go.sum
var goSum []byte

// programs are built from the modules that go.mod pins.
var programs = map[string]string{
	"etcd":                    "go.etcd.io/etcd/server/v3",
	"kube-apiserver":          "k8s.io/kubernetes/cmd/kube-apiserver",
	"kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
	"kube-scheduler":          "k8s.io/kubernetes/cmd/kube-scheduler",
	"kubelet":                 "k8s.io/kubernetes/cmd/kubelet",
	"kube-proxy":              "k8s.io/kubernetes/cmd/kube-proxy",
	"kubectl":                 "k8s.io/kubernetes/cmd/kubectl",
	"pause":                   "slicewire/kube/testcluster/pause",
}

// alone are programs that are modules of their own, in folders below this one's:
// what they require is not what Kubernetes does. Their sums are in the names of
// what is built of them.
var alone = map[string]struct{ pkg, version string }{
	"coredns": {".", coreDNSVersion},
	"helm":    {"helm.sh/helm/v4/cmd/helm", "v4.3.1"},
	"kwok":    {"sigs.k8s.io/kwok/cmd/kwok", "v0.8.0"},
	"multus":  {"gopkg.in/k8snetworkplumbingwg/multus-cni.v4/cmd/multus", "v4.2.3"},
}

const linkerFlags = "-s -w"

func defaultCache() string {
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, "slicewire-testcluster")
	}
	return filepath.Join(os.TempDir(), "slicewire-testcluster")
}

// build returns the folder with all programs, and builds those that are not
// there yet. The folder's name is a hash of all that they are made of, so what is
// in it is right. Several may build at once: one does, the others wait.
func build(ctx context.Context, cache string) (string, error) {
	version, err := kubernetesVersion(string(goMod))
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, part := range [][]byte{goMod, goSum, []byte(runtime.Version()), []byte(runtime.GOARCH), []byte(linkerFlags)} {
		h.Write(part)
		h.Write([]byte{0})
	}
	dir := filepath.Join(cache, version+"-"+hex.EncodeToString(h.Sum(nil)[:8]))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(filepath.Join(dir, ".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	source, err := moduleFolder(ctx)
	if err != nil {
		return "", err
	}
	for name, pkg := range programs {
		out := filepath.Join(dir, name)
		if _, err := os.Stat(out); err == nil {
			continue
		}
		if err := buildOne(ctx, source, out, pkg, version); err != nil {
			return "", err
		}
	}
	for name, p := range alone {
		if err := buildAlone(ctx, filepath.Join(source, name), dir, p.pkg, p.version); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// buildAlone builds the program of a module of its own, which has the name of its
// folder, unless the one that is there is made of the same.
func buildAlone(ctx context.Context, source, dir, pkg, version string) error {
	h := sha256.New()
	name := filepath.Base(source)
	for _, part := range []string{"go.mod", "go.sum", "main.go"} {
		text, err := os.ReadFile(filepath.Join(source, part))
		if err != nil && (part != "main.go" || !errors.Is(err, os.ErrNotExist)) { // a tool has none
			return err
		}
		h.Write(text)
	}
	made := filepath.Join(dir, name+"-"+hex.EncodeToString(h.Sum(nil)[:8]))
	if _, err := os.Stat(made); err != nil {
		if err := buildOne(ctx, source, made, pkg, version); err != nil {
			return err
		}
	}
	link := filepath.Join(dir, "."+name)
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(filepath.Base(made), link); err != nil {
		return err
	}
	return os.Rename(link, filepath.Join(dir, name))
}

// moduleFolder is where this module's sources are: only its own go.mod says which
// versions are built.
func moduleFolder(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "slicewire/kube/testcluster").Output()
	if err != nil {
		return "", errors.New("start testcluster in its own folder (go -C kube/testcluster run . ...): programs have to be built from its go.mod")
	}
	return strings.TrimSpace(string(out)), nil
}

func buildOne(ctx context.Context, source, out, pkg, version string) error {
	fmt.Fprintln(os.Stderr, "building", pkg, version)
	major, minor, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	flags := linkerFlags
	for _, p := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		flags += fmt.Sprintf(" -X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s", p, version, major, minor)
	}
	tmp := out + ".new"
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", flags, "-o", tmp, pkg)
	cmd.Dir, cmd.Stderr = source, os.Stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w", pkg, err)
	}
	return os.Rename(tmp, out)
}

// kubernetesVersion reads it from the text of a go.mod.
func kubernetesVersion(mod string) (string, error) {
	for line := range strings.Lines(mod) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "k8s.io/kubernetes" {
			return f[1], nil
		}
	}
	return "", errors.New("go.mod does not require k8s.io/kubernetes")
}

// lockFile waits until no other process holds the lock.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
