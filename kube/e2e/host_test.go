package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"slicewire/kube/kubetest"
)

// nobody is the user whose host it is, who may do nothing that others may not.
const nobody = 65534

// A host is a machine for an ordinary user: a network namespace, a home, and
// programs there.
type host struct {
	netns, home string
}

// newHost makes one in a network namespace, with slicewire and kubetest's peer.
func newHost(t *testing.T, netns string) *host {
	t.Helper()
	home, err := os.MkdirTemp("", "host") // the test's own folders are below one that is root's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	h := &host{netns, home}
	binary, err := os.ReadFile(program)
	err = errors.Join(err, os.Mkdir(filepath.Join(home, "bin"), 0o755), os.WriteFile(filepath.Join(home, "bin", "slicewire"), binary, 0o755),
		kubetest.BuildPeer(filepath.Join(home, "bin", "peer")), os.Chmod(home, 0o755), os.Mkdir(filepath.Join(home, "tmp"), 0o700))
	for _, path := range []string{home, filepath.Join(home, "tmp")} {
		err = errors.Join(err, os.Chown(path, nobody, nobody))
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// give gives the user a file at home.
func (h *host) give(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(h.home, name)
	writeFile(t, path, text)
	if err := os.Chown(path, nobody, nobody); err != nil {
		t.Fatal(err)
	}
}

// command makes a command of the user, at home, without any privilege. Its process
// is the program's.
func (h *host) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + h.netns, "--", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs",
		"--inh-caps=-all", "--bounding-set=-all", "env", "-i", "HOME=" + h.home, "TMPDIR=" + filepath.Join(h.home, "tmp"), "PATH=" + filepath.Join(h.home, "bin") + ":" + os.Getenv("PATH")}, args...)...)
	cmd.Dir = h.home
	return cmd
}

// shell runs a block of shell as the user, and returns what it prints, or fails the
// test.
func (h *host) shell(t *testing.T, block string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := h.command(ctx, "bash", "-e", "-o", "pipefail", "-c", block).CombinedOutput()
	if err != nil {
		t.Fatalf("the block\n%s\nfails: %v:\n%s", block, err, out)
	}
	return string(out)
}

// start starts a program of the user and returns what kills it, which the end of
// the test does too. What it says is in the file NAME.log at home, and told if the
// test fails.
func (h *host) start(t *testing.T, args ...string) (kill func()) {
	t.Helper()
	path := filepath.Join(h.home, filepath.Base(args[0])+".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() // it has its own
	cmd := h.command(context.Background(), args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill = func() {
		if killed {
			return
		}
		killed = true
		_ = cmd.Process.Kill()
		if err := cmd.Wait(); cmd.ProcessState.Exited() {
			t.Errorf("%s has ended by itself: %v", strings.Join(args, " "), err)
		}
	}
	t.Cleanup(func() {
		kill()
		if text, err := os.ReadFile(path); err == nil && t.Failed() {
			t.Logf("%s: %s", args[0], text[max(0, len(text)-4000):])
		}
	})
	return kill
}
