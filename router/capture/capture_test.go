package capture

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestFilters(t *testing.T) {
	udp := overlaytest.UDP(at("10.1.0.2:53"), at("10.2.0.9:5353"), []byte("x"))
	tcp6 := overlaytest.TCP(at("[fd00::1]:80"), at("[fd00:1::2]:40000"), 1, 1, overlaytest.SYN, nil, nil)
	echo := overlaytest.Echo(netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.2.0.9"), false, 1, 1, nil)
	later := overlaytest.UDP(at("10.1.0.2:53"), at("10.2.0.9:5353"), make([]byte, 32))
	later[7] = 1
	for _, c := range []struct {
		text string
		pkt  []byte
		want bool
	}{
		{"", udp, true}, {"udp", udp, true}, {"tcp", udp, false}, {"ip", udp, true}, {"ip6", udp, false}, {"ip6", tcp6, true},
		{"host 10.1.0.2", udp, true}, {"src host 10.1.0.2", udp, true}, {"dst host 10.1.0.2", udp, false},
		{"net 10.2.0.0/16", udp, true}, {"src net 10.2.0.0/16", udp, false}, {"net fd00::/16", tcp6, true}, {"host fd00:1::2", tcp6, true},
		{"port 53", udp, true}, {"dst port 53", udp, false}, {"src port 80", tcp6, true}, {"portrange 5000-6000", udp, true}, {"portrange 54-5352", udp, false},
		{"port 53", later, false}, {"fragment", later, true}, {"fragment", udp, false}, {"udp", later, true},
		{"icmp", echo, true}, {"icmp6", echo, false}, {"proto 1", echo, true}, {"proto tcp", tcp6, true}, {"port 0", echo, false},
		{"udp and port 53", udp, true}, {"udp port 53", udp, true}, {"tcp or udp", udp, true}, {"not udp", udp, false}, {"!udp", echo, true},
		{"not (udp or icmp)", udp, false}, {"not udp or icmp", echo, true}, {"tcp and udp or icmp", echo, true}, {"icmp or tcp and udp", echo, true},
		{"tcp && udp || icmp", udp, false}, {"(host 10.1.0.2)and!(port 53)", udp, false}, {"not not udp", udp, true},
		{"out", udp, true}, {"in", udp, false}, {"reason ttl", udp, false},
		{"udp", []byte{1, 2}, false}, {"not udp", []byte{1, 2}, true}, {"ip", nil, false},
	} {
		f, err := ParseFilter(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		v := look(overlay.Sight{Out: true}, c.pkt)
		if f.match(&v) != c.want {
			t.Errorf("%s: matches %v", c.text, !c.want)
		}
	}
	f, _ := ParseFilter("reason no-route")
	v := look(overlay.Sight{Point: overlay.PointDrop, Drop: overlay.DropNoRoute}, udp)
	if !f.match(&v) {
		t.Error("a reason does not match")
	}
	for _, bad := range []string{
		"host", "host x", "net 10.0.0.0/33", "host 10.0.0.0/8", "port", "port 65536", "port 1-2", "portrange 5", "portrange 6-5", "(udp", "udp)", "not",
		"udp and", "or udp", "frobnicate", "src", "src udp", "reason nope", "proto 256", "proto", "udp or or tcp",
		strings.Repeat("(", 40) + "udp" + strings.Repeat(")", 40), strings.Repeat("not ", 100) + "udp", strings.Repeat("x", 2000),
	} {
		if _, err := ParseFilter(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add("not (udp or tcp port 53) and src net fd00::/8", []byte{0x60, 1, 2})
	f.Add("reason ttl or fragment", overlaytest.UDP(at("10.1.0.2:53"), at("10.2.0.9:5353"), nil))
	f.Fuzz(func(_ *testing.T, text string, pkt []byte) {
		x, err := ParseFilter(text)
		if err != nil {
			return
		}
		v := look(overlay.Sight{}, pkt)
		x.match(&v)
	})
}

func noFlush() error { return nil }

func TestASessionIsBoundedAndSaysWhatItLost(t *testing.T) {
	defer goleak.VerifyNone(t)
	s, err := New(Config{Slice: "red", Points: []overlay.Point{overlay.PointPort, overlay.PointDrop}, Filter: "udp", Count: queuePackets})
	if err != nil {
		t.Fatal(err)
	}
	pkt := overlaytest.UDP(at("10.1.0.2:53"), at("10.2.0.9:5353"), make([]byte, 3000))
	x := overlay.Sight{Slice: "red", Port: "a"}
	for range queuePackets + 100 { // nobody writes
		s.See(x, pkt)
	}
	s.See(overlay.Sight{Slice: "blue", Port: "a"}, pkt)
	s.See(overlay.Sight{Slice: "red", Point: overlay.PointTunnel}, pkt)
	s.See(x, overlaytest.Echo(netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.2.0.9"), false, 1, 1, nil))
	if matched, lost := s.Captured(); matched != queuePackets+100 || lost != 100 {
		t.Errorf("%d matched, %d lost", matched, lost)
	}
	var b bytes.Buffer
	if err := s.Run(t.Context(), &b, noFlush); err != nil {
		t.Fatal(err)
	}
	if n := b.Len(); n < queuePackets*DefaultSnap || n > queuePackets*(DefaultSnap+100) {
		t.Errorf("%d bytes", n)
	}
	if n := testing.AllocsPerRun(100, func() { s.See(x, pkt) }); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
	fails := errors.New("disk full")
	s, _ = New(Config{})
	if err := s.Run(t.Context(), failing{fails}, noFlush); !errors.Is(err, fails) {
		t.Errorf("%v", err)
	}
	s, _ = New(Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx, &b, noFlush); err != nil {
		t.Error(err)
	}
	for _, c := range []Config{{Snap: 1}, {Snap: 70000}, {Filter: "x"}, {Points: []overlay.Point{9}}} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestTsharkReadsACapture(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	s, err := New(Config{Points: []overlay.Point{overlay.PointPort, overlay.PointTunnel, overlay.PointUnderlay, overlay.PointDrop}, Count: 6})
	if err != nil {
		t.Fatal(err)
	}
	udp := overlaytest.UDP(at("10.1.0.2:53"), at("10.2.0.9:5353"), []byte("odd"))
	tcp6 := overlaytest.TCP(at("[fd00::1]:80"), at("[fd00:1::2]:40000"), 1, 1, overlaytest.SYN, nil, nil)
	s.See(overlay.Sight{Slice: "red", Port: "workload a"}, udp)
	s.See(overlay.Sight{Slice: "red", Point: overlay.PointTunnel, Out: true}, tcp6)
	s.See(overlay.Sight{Slice: "red", Port: "workload a", Point: overlay.PointDrop, Drop: overlay.DropNoRoute}, udp)
	out := overlay.Sight{Slice: "red", Port: "underlay", Point: overlay.PointUnderlay, Out: true, Peer: at("192.0.2.7:51820"), Local: at("[::]:51821")}
	s.See(out, append([]byte{4, 0, 0, 0}, make([]byte, 60)...))
	out.Peer, out.Out = at("[2001:db8::7]:51820"), false
	s.See(out, append([]byte{4, 0, 0, 0}, make([]byte, 60)...))
	s.See(overlay.Sight{Slice: "red", Port: "workload a", Piece: 1000}, overlaytest.TCP(at("10.1.0.2:80"), at("10.2.0.9:40000"), 1, 1, 0, nil, make([]byte, 9000)))
	var b bytes.Buffer
	if err := s.Run(t.Context(), &b, noFlush); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "x.pcapng")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	text, err := exec.CommandContext(ctx, "tshark", "-r", file, "-T", "fields", "-E", "separator=|", "-e", "frame.interface_name", "-e", "frame.comment",
		"-e", "frame.packet_flags_direction", "-e", "_ws.col.Protocol", "-e", "ip.src", "-e", "ipv6.src", "-e", "udp.dstport", "-e", "frame.len").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	var lines []string
	for l := range strings.Lines(string(text)) {
		if strings.Contains(l, "|") { // others are tshark's warnings
			lines = append(lines, strings.TrimSpace(l))
		}
	}
	want := []string{
		"red workload a||0x00000001|DNS|10.1.0.2||5353|31",
		"red tunnel||0x00000002|TCP||fd00::1||60",
		"red drop workload a|dropped: no-route||DNS|10.1.0.2||5353|31",
		"red underlay||0x00000002|WireGuard|0.0.0.0||51820|92",
		"red underlay||0x00000001|WireGuard||2001:db8::7|51821|112",
		"red workload a|stands for several (packets with 1000 bytes of data each)|0x00000001|TCP|10.1.0.2|||9040",
	}
	if len(lines) != len(want) {
		t.Fatalf("tshark says\n%s", text)
	}
	for i := range want {
		if lines[i] != want[i] {
			t.Errorf("packet %d: %s, want %s", i+1, lines[i], want[i])
		}
	}
}
