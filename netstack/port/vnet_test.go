package port

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"slicewire/netstack/segment"
	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

// testReader is a reader without a device.
func testReader(vnet, eth bool) *reader {
	p := &Port{mtu: 1400, frame: frame{vnet: vnet, eth: eth}}
	p.reader.init(p)
	return &p.reader
}

func tcpPacket(data int) []byte {
	return overlaytest.TCP(netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2"), 1, 2, segment.ACK, nil, make([]byte, data))
}

func TestHeadersFromTheDeviceAreNotBelieved(t *testing.T) {
	udp := overlaytest.UDP(netip.MustParseAddrPort("[fd00::1]:1"), netip.MustParseAddrPort("[fd00::2]:2"), make([]byte, 5000))
	wrongLength := tcpPacket(5000)
	wrongLength[3]++
	longOptions := tcpPacket(5000)
	longOptions[32] = 0xf0
	longOptions = longOptions[:40]
	longOptions[2], longOptions[3] = 0, 40
	for _, c := range []struct {
		name string
		v    vnet
		pkt  []byte
		want overlay.Drop // NumDrops: accepted
	}{
		{"a checksum within the packet is completed", vnet{flags: vnetNeedsCsum, csumStart: 20, csumOffset: 16}, tcpPacket(10), overlay.NumDrops},
		{"a checksum behind it is not", vnet{flags: vnetNeedsCsum, csumStart: 49, csumOffset: 0}, tcpPacket(10), overlay.DropMalformed},
		{"nor with the largest numbers", vnet{flags: vnetNeedsCsum, csumStart: 0xffff, csumOffset: 0xffff}, tcpPacket(10), overlay.DropMalformed},
		{"segments are cut", vnet{gso: gsoTCPv4, gsoSize: 1000}, tcpPacket(5000), overlay.NumDrops},
		{"with marks of congestion, too", vnet{gso: gsoTCPv4 | gsoECN, gsoSize: 1000}, tcpPacket(5000), overlay.NumDrops},
		{"header lengths do not matter", vnet{gso: gsoTCPv4, gsoSize: 1000, headLen: 0xffff, csumStart: 0xffff, csumOffset: 0xffff}, tcpPacket(5000), overlay.NumDrops},
		{"datagrams are cut", vnet{gso: gsoUDP, gsoSize: 1000}, udp, overlay.NumDrops},
		{"segments of no size", vnet{gso: gsoTCPv4}, tcpPacket(5000), overlay.DropMalformed},
		{"pieces beyond the MTU", vnet{gso: gsoTCPv4, gsoSize: 1361}, tcpPacket(5000), overlay.DropTooBig},
		{"the other IP version", vnet{gso: gsoTCPv6, gsoSize: 1000}, tcpPacket(5000), overlay.DropMalformed},
		{"the other protocol", vnet{gso: gsoUDP, gsoSize: 1000}, tcpPacket(5000), overlay.DropMalformed},
		{"fragments of UDP", vnet{gso: 3, gsoSize: 1000}, udp, overlay.DropMalformed},
		{"a kind that does not exist", vnet{gso: 77, gsoSize: 1000}, tcpPacket(5000), overlay.DropMalformed},
		{"a length of the IP header that is not the packet's", vnet{gso: gsoTCPv4, gsoSize: 1000}, wrongLength, overlay.DropMalformed},
		{"TCP options that end behind the packet", vnet{gso: gsoTCPv4, gsoSize: 1000}, longOptions, overlay.DropMalformed},
		{"a whole packet beyond the MTU", vnet{}, tcpPacket(1361), overlay.DropTooBig},
		{"a packet of one byte", vnet{gso: gsoTCPv4, gsoSize: 1}, []byte{0x45}, overlay.DropMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := testReader(true, false)
			head := make([]byte, vnetLen)
			c.v.put(head)
			if got := parseVnet(head); got != c.v {
				t.Fatalf("parsed %+v", got)
			}
			meta, drop := r.sort(head, c.pkt)
			if drop != c.want {
				t.Fatalf("%v, want %v", drop, c.want)
			}
			if drop == overlay.NumDrops && meta.Piece != c.v.gsoSize {
				t.Errorf("pieces of %d bytes, want %d", meta.Piece, c.v.gsoSize)
			}
		})
	}
}

func FuzzDevice(f *testing.F) {
	for _, v := range []vnet{{}, {flags: 1, csumStart: 20, csumOffset: 16}, {gso: gsoTCPv4, gsoSize: 500}, {gso: gsoUDP, gsoSize: 9}} {
		head := make([]byte, vnetLen)
		v.put(head)
		f.Add(append(head, tcpPacket(3000)...), false)
		frame := append(bytes.Clone(head), make([]byte, ethLen)...)
		frame[vnetLen+12] = 8
		f.Add(append(frame, tcpPacket(3000)...), true)
	}
	r, re := testReader(true, false), testReader(true, true)
	var cut segment.Cutter
	buf := make([]byte, 1400)
	f.Fuzz(func(t *testing.T, b []byte, eth bool) {
		r := r
		if eth {
			r = re
		}
		k := r.p.frame.len()
		if len(b) <= k || len(b) > k+overlay.MaxPacket {
			return
		}
		pkt := b[k:]
		meta, drop := r.sort(b[:k], pkt)
		if drop != overlay.NumDrops || meta.Piece == 0 {
			if drop == overlay.NumDrops && len(pkt) > r.p.mtu {
				t.Fatalf("%d bytes pass", len(pkt))
			}
			return
		}
		if !cut.Start(pkt, segment.IsTCP(pkt), int(meta.Piece)) {
			t.Fatal("what was accepted cannot be cut")
		}
		for n := 0; cut.Busy(); n++ {
			if k := cut.Next(buf); k == 0 || n > overlay.MaxPacket {
				t.Fatal("a piece does not fit the MTU")
			}
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		want string // in the error; empty: none
	}{
		{"nothing said", Config{}, ""},
		{"a name that leaves no room for its other end", Config{Name: "fourteen-chars"}, "longer"},
		{"an MTU below what IPv4 demands", Config{MTU: 575}, "MTU"},
		{"an MTU beyond IP", Config{MTU: 65536}, "MTU"},
		{"no address", Config{Addrs: make([]netip.Prefix, 1)}, "address"},
		{"a mapped route", Config{Routes: prefixes("::ffff:10.0.0.0/104")}, "route"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.cfg.withDefaults()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestNamespaceIsAPathAProcessOrAName(t *testing.T) {
	for in, want := range map[Namespace]string{
		"": "", "/proc/1/ns/net": "/proc/1/ns/net", "12": "/proc/12/ns/net", "web": "/run/netns/web", "4web": "/run/netns/4web",
	} {
		if got := in.path(); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestResolvConf(t *testing.T) {
	got := ResolvConf([]netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00::1")}, []string{"slice.local", "clusterset.local"})
	want := "# written by slicewire\nnameserver 10.1.0.1\nnameserver fd00::1\nsearch slice.local clusterset.local\n"
	if got != want {
		t.Errorf("got %q", got)
	}
}
