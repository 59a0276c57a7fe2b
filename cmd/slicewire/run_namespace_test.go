package main

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"slicewire/api"
	"slicewire/netstack/port"
)

// insideTest is set for the tests that run again in namespaces of their own.
const insideTest = "SLICEWIRE_TEST_INSIDE"

// inNamespaces reports whether the test is in namespaces of its own, where it
// has every right; else it runs the test there and reports its failure here.
func inNamespaces(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideTest) == t.Name() {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), insideTest+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in its own namespaces: %v\n%s", err, out)
	}
	return false
}

func TestTheMountsOfARunAreItsOwn(t *testing.T) {
	before, err := os.ReadFile(resolvPath)
	if err != nil {
		t.Fatal(err)
	}
	if !inNamespaces(t) {
		if after, err := os.ReadFile(resolvPath); err != nil || string(after) != string(before) {
			t.Errorf("outside, %s is now %q, %v", resolvPath, after, err)
		}
		return
	}
	const text = "nameserver 192.0.2.1\n"
	if err := ownMounts(text); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(resolvPath); err != nil || string(got) != text {
		t.Errorf("inside, it is %q, %v", got, err)
	}
	if _, err := os.Stat("/etc/passwd"); err != nil {
		t.Errorf("the rest of the folder is gone: %v", err)
	}
	if err := port.LoopbackUp(); err != nil {
		t.Fatal(err)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	if err := unix.Bind(s, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Errorf("bind to the namespace's loopback: %v", err)
	}
}

func TestResolvConfLeadsToTheSliceAlone(t *testing.T) {
	got := resolvConf(api.WorkloadOffer{
		DNS: []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00::1")}, Search: []string{"svc.slice.local"},
	})
	const want = "# written by slicewire\nnameserver 10.1.0.1\nnameserver fd00::1\nsearch svc.slice.local\noptions ndots:2 timeout:2\n"
	if got != want {
		t.Errorf("got %q", got)
	}
}

func TestARefusalOfNamespacesSaysWhatToDo(t *testing.T) {
	for _, tc := range []struct {
		name    string
		cause   error
		sysctls map[string]string
		proxy   string
		says    []string
	}{
		{"switched off", unix.ENOSPC, map[string]string{"/proc/sys/user/max_user_namespaces": "0\n"}, "127.0.0.1:1080", []string{"sysctl -w user.max_user_namespaces=10000", "127.0.0.1:1080"}},
		{"Debian's switch", unix.EPERM, map[string]string{"/proc/sys/kernel/unprivileged_userns_clone": "0\n", "/proc/sys/user/max_user_namespaces": "100"}, "", []string{"sysctl -w kernel.unprivileged_userns_clone=1", "proxy:"}},
		{"Ubuntu's switch", unix.EACCES, map[string]string{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"}, "", []string{"sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"}},
		{"a container", unix.EPERM, nil, "", []string{"policy"}},
	} {
		read := func(path string) ([]byte, error) {
			if v, ok := tc.sysctls[path]; ok {
				return []byte(v), nil
			}
			return nil, fs.ErrNotExist
		}
		err := explainNamespaces(tc.cause, tc.proxy, read)
		var coded *exitError
		if !errors.As(err, &coded) || coded.code != exitNotAllowed || !errors.Is(err, tc.cause) {
			t.Errorf("%s: %v", tc.name, err)
		}
		for _, want := range tc.says {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v; want %q in it", tc.name, err, want)
			}
		}
	}
	if err := explainNamespaces(unix.ENOMEM, "", os.ReadFile); strings.Contains(err.Error(), "sysctl") {
		t.Errorf("out of memory: %v", err)
	}
}

func TestAKernelWithoutNamespacesIsExplained(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	// The bound is that of this user namespace; it ends with the test.
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	cmd, conn, err := startInside([]string{"true"})
	if err == nil {
		conn.Close()
		_ = cmd.Wait()
		t.Fatal("it started")
	}
	if err := explainNamespaces(err, "", os.ReadFile); !strings.Contains(err.Error(), "sysctl -w user.max_user_namespaces") {
		t.Error(err)
	}
}
