package kubetest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"slicewire/deploy/image"
)

// Folders of every node in which its runtime looks for networks and for plugins.
const (
	NetworkFolder = "/var/lib/cni/net.d"
	PluginFolder  = "/var/lib/cni/bin"
)

// Options say what a rig is to be.
type Options struct {
	Clusters int    // 0: one
	Nodes    int    // of each cluster; 0: control planes only, which run no pods
	Dir      string // for logs and kubeconfigs, must exist; empty: one that goes with the rig

	DualStack bool // nodes, pods and services have IPv6 addresses as well; IPv4 stays the first
}

// A Rig is running clusters.
type Rig struct {
	Clusters []*Cluster
	Dir      string  // logs/ is there
	Seconds  float64 // it took to come up
	PID      int     // of its first process, whose network namespace is the fabric that joins all nodes

	bin    string // programs of Kubernetes
	images string // archives are put there
	cmd    *exec.Cmd
	ownDir bool
	end    sync.Once

	mu  sync.Mutex // one command at a time
	in  io.WriteCloser
	out *bufio.Reader
}

// A Cluster is one of a rig's.
type Cluster struct {
	Name       string   `json:"name"`
	Kubeconfig string   `json:"kubeconfig"` // file; an administrator's, for the test
	API        string   `json:"api"`        // URL of the API server for nodes and pods
	CA         string   `json:"ca"`         // its authority's certificate, PEM
	Nodes      []string `json:"nodes"`

	rig *Rig
}

// Start brings clusters up and ends them with the test, whose failure it is if
// they do not come up. If the test failed it logs what the rig's programs said
// last.
func Start(t testing.TB, o Options) *Rig {
	t.Helper()
	Need(t)
	r, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(r.lastWords())
		}
		if err := r.End(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// Need skips a test that cannot have a rig because nobody but root can. In CI it
// fails it.
func Need(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	const why = "clusters need root: namespaces, bridges and cgroups"
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// Open brings clusters up. The caller ends them.
func Open(o Options) (*Rig, error) {
	source, err := sourceFolder()
	if err != nil {
		return nil, err
	}
	r := &Rig{Dir: o.Dir}
	if r.Dir == "" {
		if r.Dir, err = os.MkdirTemp("", "kubetest"); err != nil {
			return nil, err
		}
		r.ownDir = true
	}
	if err := r.start(filepath.Join(source, "kube", "testcluster"), o); err != nil {
		return nil, errors.Join(err, r.End())
	}
	return r, nil
}

func (r *Rig) start(source string, o Options) error {
	program := filepath.Join(r.Dir, "testcluster")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = source
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build kube/testcluster: %w: %s", err, out)
	}
	cmd := exec.Command(program, "up", "--dir", r.Dir, "--clusters", fmt.Sprint(max(o.Clusters, 1)), "--nodes", fmt.Sprint(o.Nodes), "--dual-stack="+fmt.Sprint(o.DualStack))
	cmd.Dir = source // what is not built yet is built from there
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	r.cmd, r.in, r.out = cmd, in, bufio.NewReader(out)
	line, err := r.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the clusters do not come up, see what is said above and:\n%s", r.lastWords())
	}
	var said struct {
		Bin      string     `json:"bin"`
		Images   string     `json:"images"`
		Clusters []*Cluster `json:"clusters"`
		Seconds  float64    `json:"seconds"`
		PID      int        `json:"pid"`
	}
	if err := json.Unmarshal(line, &said); err != nil {
		return err
	}
	r.bin, r.images, r.Clusters, r.Seconds, r.PID = said.Bin, said.Images, said.Clusters, said.Seconds, said.PID
	for _, c := range r.Clusters {
		c.rig = r
	}
	return nil
}

// End ends all clusters and waits until nothing is left of them. Again it does
// nothing.
func (r *Rig) End() (err error) {
	r.end.Do(func() {
		if r.cmd != nil {
			r.in.Close()
			err = r.cmd.Wait()
		}
		if r.ownDir {
			err = errors.Join(err, os.RemoveAll(r.Dir))
		}
	})
	return err
}

// Program returns the path of a program that testcluster has built, such as
// kubectl, helm or kwok.
func (r *Rig) Program(name string) string { return filepath.Join(r.bin, name) }

// Add makes images known: pods on all nodes can be of them. A later image of the
// same name takes the place of an earlier one for nodes that do not have it yet.
func (r *Rig) Add(t testing.TB, images ...image.Image) {
	t.Helper()
	for _, img := range images {
		f, err := os.CreateTemp(r.images, "image-*")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(image.Write(f, img), f.Close(), os.Rename(f.Name(), f.Name()+".tar")); err != nil {
			t.Fatal(err)
		}
	}
}

// tell has the rig do something and waits for it.
func (r *Rig) tell(words ...string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := io.WriteString(r.in, strings.Join(words, " ")+"\n"); err != nil {
		return fmt.Errorf("the rig has gone: %w", err)
	}
	line, err := r.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the rig has gone: %w", err)
	}
	var d struct{ Error string }
	if err := json.Unmarshal(line, &d); err != nil {
		return err
	}
	if d.Error != "" {
		return fmt.Errorf("%s: %s", strings.Join(words, " "), d.Error)
	}
	return nil
}

// lastWords are the ends of all logs.
func (r *Rig) lastWords() string {
	logs, _ := filepath.Glob(filepath.Join(r.Dir, "logs", "*.log"))
	out, _ := exec.Command("tail", append([]string{"-n", "3", "--"}, logs...)...).CombinedOutput()
	return string(out)
}

// sourceFolder is where the main module is: above the test's folder.
func sourceFolder() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		text, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module slicewire\n") {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("the sources of slicewire are not above %s: start the test from them", dir)
		}
	}
}
