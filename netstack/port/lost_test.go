//go:build linux

package port

import (
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

func TestCapturesSeeWhatAPortDrops(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	far := os.NewFile(uintptr(pair[1]), "far")
	defer far.Close()
	p, err := newPort(os.NewFile(uintptr(pair[0]), "near"), frame{}, Config{Name: "near", MTU: 1420, Log: slog.Default()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	w, taps := overlaytest.Watch()
	p.Drops().Watch(taps, "red", "near")

	pkt := overlaytest.UDP(netip.MustParseAddrPort("10.1.0.2:1"), netip.MustParseAddrPort("10.2.0.2:2"), make([]byte, 1300))
	buf := append(make([]byte, overlay.Headroom), pkt...)
	for range 1000 { // nobody reads
		if err := p.Write([][]byte{buf, buf}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := far.Write(make([]byte, 1421)); err != nil { // longer than the MTU
		t.Fatal(err)
	}
	if _, err := far.Write(pkt); err != nil {
		t.Fatal(err)
	}
	in := make([]byte, overlay.Headroom+overlay.MaxPacket)
	sizes := make([]int, 1)
	if n, err := p.Read([][]byte{in}, sizes); err != nil || n != 1 {
		t.Fatalf("%d packets, %v", n, err)
	}
	got := w.Lost()
	if got["queue-full"] == 0 || !maps.Equal(got, p.Drops().Snapshot()) {
		t.Errorf("shown %v, counted %v", got, p.Drops().Snapshot())
	}
	if _, pkts := w.Seen(); string(pkts[0]) != string(pkt) {
		t.Errorf("shown is %x", pkts[0])
	}
}
