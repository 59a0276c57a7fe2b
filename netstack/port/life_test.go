package port

import (
	"bufio"
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"slicewire/overlay"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
)

// leaver is in the environment of a child that opens a port and is then killed.
const leaver = "SLICEWIRE_TEST_LEAVER"

// TestLeaver is the body of that child, and nothing else.
func TestLeaver(t *testing.T) {
	if os.Getenv(leaver) == "" {
		return
	}
	for name, open := range map[string]opener{"swpacket": OpenPacket, "swtun": orPacket(OpenTUN)} {
		if _, err := open("/proc/self/fd/3", Config{Name: name, Offload: true, Owner: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	os.Stdout.WriteString("ready\n")
	select {}
}

func TestWhatAKilledProcessLeftIsRemoved(t *testing.T) {
	ns := newNamespace(t)
	file, err := os.Open(string(ns))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestLeaver$")
	cmd.Env = append(os.Environ(), leaver+"=1")
	cmd.ExtraFiles = []*os.File{file}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	got := interfaces(t, ns)
	cmd.Process.Kill()
	cmd.Wait()
	if line != "ready\n" || !slices.Contains(got, "swpacket") || !slices.Contains(got, "swtun") {
		t.Fatalf("%q, with interfaces %v", line, got)
	}
	// An interface of somebody else, and one of another owner of ours.
	other, err := OpenPacket(ns, Config{Name: "other", Owner: "another"})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	err = ns.Do(func() error {
		return withNetlink(func(h *netlink.Handle) error {
			return h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "sw-foreign", TxQLen: -1}, PeerName: "sw-alien"})
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	removed, err := Cleanup(ns, "test")
	if err != nil || len(removed) == 0 {
		t.Fatalf("removed %v, %v", removed, err)
	}
	got = interfaces(t, ns)
	slices.Sort(got)
	if want := []string{"other", "other" + farSuffix, "sw-alien", "sw-foreign"}; !slices.Equal(got, want) {
		t.Errorf("left are %v, want %v", got, want)
	}
	if removed, err := Cleanup(ns, "test"); err != nil || removed != nil {
		t.Errorf("again: removed %v, %v", removed, err)
	}
}

// kinds are all ways to open a port that this user has.
func kinds() map[string]opener {
	return map[string]opener{
		"tun": orPacket(OpenTUN), "packet socket": OpenPacket,
		"portable": orPacket(OpenPortable), "tap": orPacket(OpenTAP),
	}
}

func TestCloseUndoesEverything(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ns := newNamespace(t)
	before := descriptors(t)
	for name, open := range kinds() {
		t.Run(name, func(t *testing.T) {
			for range 3 {
				p, err := open(ns, siteConfig(1, Config{Offload: true}))
				if err != nil {
					t.Fatal(err)
				}
				if got := interfaces(t, ns); !slices.Contains(got, DefaultName) {
					t.Fatalf("interfaces %v", got)
				}
				if _, err := open(ns, Config{}); err == nil {
					t.Fatal("the same name twice")
				}
				done := make(chan error)
				go func() {
					carry(p, p)
					bufs := [][]byte{make([]byte, 2000)}
					_, err := p.Read(bufs, make([]int, 1))
					done <- err
				}()
				if err := errors.Join(p.Close(), p.Close()); err != nil {
					t.Fatal(err)
				}
				if err := <-done; !errors.Is(err, net.ErrClosed) {
					t.Errorf("read after close: %v", err)
				}
				if err := p.Write([][]byte{make([]byte, overlay.Headroom+20)}); !errors.Is(err, net.ErrClosed) {
					t.Errorf("write after close: %v", err)
				}
				if got := interfaces(t, ns); len(got) != 0 {
					t.Fatalf("left: %v", got)
				}
			}
		})
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestWhatCannotBeOpenedLeavesNothing(t *testing.T) {
	ns := newNamespace(t)
	before := descriptors(t)
	for name, open := range kinds() {
		if _, err := open(ns, Config{Addrs: prefixes("10.0.0.1/24", "10.0.0.1/24")}); err == nil {
			t.Errorf("%s: an address twice", name)
		}
		if _, err := open(ns, Config{Addrs: prefixes("10.0.0.1/24", "10.0.0.1/24")}); err == nil || strings.Contains(err.Error(), "exist") && !strings.Contains(err.Error(), "address") {
			t.Errorf("%s: again: %v", name, err)
		}
		if _, err := open("/nowhere/at/all", Config{}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a namespace that is not: %v", name, err)
		}
	}
	if got := interfaces(t, ns); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestWithoutIPv6(t *testing.T) {
	ns := newNamespace(t)
	err := ns.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, open := range kinds() {
		var log bytes.Buffer
		p, err := open(ns, siteConfig(1, Config{Log: slog.New(slog.NewTextHandler(&log, nil))}))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if n := strings.Count(log.String(), "no IPv6"); n != 1 {
			t.Errorf("%s: log: %s", name, log.String())
		}
	}
}

// A file of another kind is refused, and closed.
func TestFilesOfAnotherKind(t *testing.T) {
	for name, from := range map[string]func(*os.File, Config) (*Port, error){"tun": FromTUN, "packet": FromPacket} {
		f, err := os.Create(filepath.Join(t.TempDir(), "file"))
		if err != nil {
			t.Fatal(err)
		}
		if p, err := from(f, Config{}); err == nil {
			p.Close()
			t.Errorf("%s: a file of the disk was taken", name)
		}
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: still open: %v", name, err)
		}
	}
}

func descriptors(t testing.TB) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}
