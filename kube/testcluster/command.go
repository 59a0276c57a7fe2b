package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// A done is what "up" prints for every command it was told.
type done struct {
	Done  string `json:"done"`
	Error string `json:"error,omitempty"`
}

// commands does what each line of in says, until in ends.
func (r *rig) commands(in *bufio.Reader, out io.Writer) error {
	for {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		d := done{Done: strings.TrimSpace(line)}
		if err := r.do(strings.Fields(line)); err != nil {
			d.Error = err.Error()
		}
		if err := json.NewEncoder(out).Encode(d); err != nil {
			return err
		}
	}
}

// do does a command: a verb, a cluster and what of it.
func (r *rig) do(words []string) error {
	if len(words) != 3 {
		return fmt.Errorf("%q: want a verb, a cluster and what of it", words)
	}
	verb, name, what := words[0], words[1], words[2]
	i := slices.IndexFunc(r.clusters, func(c *cluster) bool { return c.name == name })
	if i < 0 {
		return fmt.Errorf("no cluster %q", name)
	}
	c := r.clusters[i]
	switch verb {
	case "stop":
		return c.stop(what)
	case "start":
		return c.startAgain(what)
	case "save":
		return c.copyData("etcd", "saved-"+what)
	case "restore":
		return c.copyData("saved-"+what, "etcd")
	default:
		return fmt.Errorf("no command %q: want stop, start, save or restore", verb)
	}
}

// stop kills a program of the control plane.
func (c *cluster) stop(program string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	cmd := c.running[program]
	if cmd == nil {
		return fmt.Errorf("%s does not run", program)
	}
	delete(c.running, program)
	return c.rig.procs.stop(cmd)
}

// startAgain starts a program that was stopped, as it was started before, and
// waits until the API server is ready if it is that.
func (c *cluster) startAgain(program string) error {
	c.mu.Lock()
	args, known := c.args[program]
	runs := c.running[program] != nil
	c.mu.Unlock()
	if !known || runs {
		return fmt.Errorf("%s was not stopped", program)
	}
	if err := c.start(program, args...); err != nil {
		return err
	}
	if program == apiServer {
		c.await("/readyz", func(int, []byte) bool { return true })
	}
	return nil
}

// copyData copies etcd's data while it does not run.
func (c *cluster) copyData(from, to string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running["etcd"] != nil {
		return errors.New("stop etcd first")
	}
	if _, err := os.Stat(c.file(from)); err != nil {
		return err
	}
	if err := os.RemoveAll(c.file(to)); err != nil {
		return err
	}
	return os.CopyFS(c.file(to), os.DirFS(c.file(from)))
}
