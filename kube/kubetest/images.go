package kubetest

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	"slicewire/deploy/image"
)

// Names of images.
const (
	SlicewireImage = "docker.io/library/slicewire:test"
	ToolsImage     = "docker.io/library/tools:1"
	CurlImage      = "docker.io/library/curl:1"
)

// applets are what busybox is in images.
const applets = "sh cat ls echo env sleep mkdir id ip nc wget httpd nslookup ping grep head tail wc date ps kill true false hostname seq tr cut sort dd test awk sed rm"

// Build builds ./cmd/slicewire as its image has it, to a file.
func Build(to string) error { return buildTo("./cmd/slicewire", to) }

// BuildPeer builds kubetest's peer, as images of tools have it, to a file.
func BuildPeer(to string) error { return buildTo("./kube/kubetest/peer", to) }

// Slicewire builds ./cmd/slicewire and returns its image.
func Slicewire(t testing.TB) image.Image {
	t.Helper()
	return image.Slicewire(build(t, "./cmd/slicewire"), runtime.GOARCH, "test", SlicewireImage)
}

// Tools is an image of busybox, with its usual programs and kubetest's peer
// (package kube/kubetest/peer), for pods that serve and ask. Its user is 65532.
// Pods may also name it nicolaka/netshoot, as KubeSlice's examples do, or busybox.
func Tools(t testing.TB) image.Image {
	t.Helper()
	busybox, err := os.ReadFile(program(t, "busybox", "busybox-static"))
	if err != nil {
		t.Fatal(err)
	}
	img := image.Image{
		Names: []string{ToolsImage, "docker.io/nicolaka/netshoot:latest", "docker.io/library/busybox:latest"},
		Arch:  runtime.GOARCH, User: image.User, Cmd: []string{"/bin/sh"},
		Files: []image.File{
			{Path: "bin/busybox", Mode: 0o755, Data: busybox},
			{Path: "bin/peer", Mode: 0o755, Data: build(t, "./kube/kubetest/peer")},
			{Path: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		},
	}
	for a := range strings.FieldsSeq(applets) {
		img.Files = append(img.Files, image.File{Path: "bin/" + a, Link: "busybox"})
	}
	return img
}

// Iperf is iperf3 under the name that KubeSlice's examples have for iperf.
func Iperf(t testing.TB) image.Image {
	t.Helper()
	img := image.Image{
		Names: []string{"docker.io/mlabbe/iperf:latest", "docker.io/mlabbe/iperf3:latest"}, Arch: runtime.GOARCH, User: image.User,
		Entrypoint: []string{"/bin/iperf3"},
		Files:      []image.File{{Path: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777}},
	}
	img.Files = append(img.Files, linked(t, "iperf3")...)
	return img
}

// Curl is curl, and sleep for pods that are told later what to ask.
func Curl(t testing.TB) image.Image {
	t.Helper()
	busybox, err := os.ReadFile(program(t, "busybox", "busybox-static"))
	if err != nil {
		t.Fatal(err)
	}
	return image.Image{
		Names: []string{CurlImage}, Arch: runtime.GOARCH, User: image.User, Cmd: []string{"/bin/sleep", "3600"},
		Files: append(linked(t, "curl"), image.File{Path: "bin/busybox", Mode: 0o755, Data: busybox}, image.File{Path: "bin/sleep", Link: "busybox"}),
	}
}

// linked is a program of the machine, of the package of that name, and what it is
// linked to.
func linked(t testing.TB, name string) (files []image.File) {
	t.Helper()
	self := program(t, name, name)
	for _, path := range append([]string{self}, libraries(t, self)...) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		to := strings.TrimPrefix(path, "/")
		if path == self {
			to = "bin/" + name
		}
		files = append(files, image.File{Path: to, Mode: 0o755, Data: data})
	}
	return files
}

// program finds one, or fails the test with the package it is in.
func program(t testing.TB, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing: install package %s (tools/prerequisites does)", name, pkg)
	}
	return path
}

var libraryPath = regexp.MustCompile(`(/\S+) \(0x`)

// libraries lists what a program is linked to, the loader too.
func libraries(t testing.TB, path string) (out []string) {
	t.Helper()
	said, err := exec.Command("ldd", path).CombinedOutput()
	if err != nil {
		t.Fatalf("ldd %s: %v: %s", path, err, said)
	}
	for _, m := range libraryPath.FindAllStringSubmatch(string(said), -1) {
		out = append(out, m[1])
	}
	return out
}

// built are the programs that this process has built, by their packages.
var built sync.Map // of func() ([]byte, error)

// build builds a program of the main module, static, once.
func build(t testing.TB, pkg string) []byte {
	t.Helper()
	f, _ := built.LoadOrStore(pkg, sync.OnceValues(func() ([]byte, error) { return buildNow(pkg) }))
	data, err := f.(func() ([]byte, error))()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func buildNow(pkg string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "kubetest-build")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	to := filepath.Join(dir, "program")
	if err := buildTo(pkg, to); err != nil {
		return nil, err
	}
	return os.ReadFile(to)
}

func buildTo(pkg, to string) error {
	source, err := sourceFolder()
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", to, pkg)
	cmd.Dir, cmd.Env = source, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", pkg, err, out)
	}
	return nil
}
