package router

import (
	"net/netip"
	"testing"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

var (
	here4, there4 = netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.1.16.3")
	here6, there6 = netip.MustParseAddr("fd00:1::2"), netip.MustParseAddr("fd00:1:0:100::3")
)

func ap(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// check is what a packet's check says, of an empty info.
func check(pkt []byte) (in info, drop overlay.Drop, ok bool) {
	drop, ok = in.check(pkt)
	return in, drop, ok
}

// edit returns pkt after f, with its checksums made right.
func edit(pkt []byte, f func(p []byte)) []byte {
	f(pkt)
	overlaytest.Fix(pkt)
	return pkt
}

func tcp4() []byte {
	return overlaytest.TCP(ap(here4, 1000), ap(there4, 80), 1, 2, 16, nil, []byte("hello"))
}
func udp4() []byte { return overlaytest.UDP(ap(here4, 1000), ap(there4, 53), []byte("question")) }
func tcp6() []byte {
	return overlaytest.TCP(ap(here6, 1000), ap(there6, 80), 1, 2, 16, nil, []byte("hello"))
}

// ext6 returns a UDP packet over IPv6 behind the given extension headers, each
// with its first byte, the next header, still to be filled in.
func ext6(types []byte, headers ...[]byte) []byte {
	u := overlaytest.UDP(ap(here6, 1), ap(there6, 2), make([]byte, 16))
	var chain []byte
	for i, h := range headers {
		h = append([]byte(nil), h...)
		h[0] = protoUDP
		if i+1 < len(types) {
			h[0] = types[i+1]
		}
		chain = append(chain, h...)
	}
	p := overlaytest.AppendIP(nil, here6, there6, types[0], append(chain, u[40:]...))
	return p
}

func TestCheck(t *testing.T) {
	opt := []byte{0, 0, 1, 4, 0, 0, 0, 0} // one PadN
	fragHeader := func(offset int, more bool) []byte {
		h := []byte{0, 0, byte(offset >> 8), byte(offset), 0, 0, 0, 7}
		if more {
			h[3] |= 1
		}
		return h
	}
	repeat := func(n int) []byte {
		types, hs := make([]byte, n), make([][]byte, n)
		for i := range types {
			types[i], hs[i] = protoDestOpts, opt
		}
		return ext6(types, hs...)
	}
	const pass = overlay.NumDrops
	for _, c := range []struct {
		name string
		pkt  []byte
		want overlay.Drop
	}{
		{"a TCP segment passes", tcp4(), pass},
		{"a TCP segment over IPv6 passes", tcp6(), pass},
		{"a datagram passes", udp4(), pass},
		{"an echo passes", overlaytest.Echo(here4, there4, false, 1, 1, nil), pass},
		{"an echo over IPv6 passes", overlaytest.Echo(here6, there6, false, 1, 1, nil), pass},
		{"an unknown transport passes", overlaytest.AppendIP(nil, here4, there4, 132, []byte{1}), pass},
		{"padding behind the datagram passes", append(tcp4(), 0, 0, 0), pass},
		{"nothing is malformed", nil, overlay.DropMalformed},
		{"nineteen bytes are malformed", tcp4()[:19], overlay.DropMalformed},
		{"a cut-off datagram is malformed", tcp4()[:40], overlay.DropMalformed},
		{"version 5 is malformed", edit(tcp4(), func(p []byte) { p[0] = 0x55 }), overlay.DropMalformed},
		{"a header of 16 bytes is malformed", edit(tcp4(), func(p []byte) { p[0] = 0x44 }), overlay.DropMalformed},
		{"a total length below the header is malformed", edit(tcp4(), func(p []byte) { p[2], p[3] = 0, 19 }), overlay.DropMalformed},
		{"a wrong header checksum is malformed", func() []byte { p := tcp4(); p[10] ^= 1; return p }(), overlay.DropMalformed},
		{"the reserved flag is malformed", edit(tcp4(), func(p []byte) { p[6] = 0x80 }), overlay.DropMalformed},
		{"IPv4 options are refused", edit(tcp4(), func(p []byte) { p[0] = 0x46 }), overlay.DropOptions},
		{"the packet of death is malformed", overlaytest.PacketOfDeath(ap(here4, 1), ap(there4, 2)), overlay.DropMalformed},
		{"the packet of death over IPv6 is malformed", overlaytest.PacketOfDeath(ap(here6, 1), ap(there6, 2)), overlay.DropMalformed},
		{"a TCP data offset of 16 bytes is malformed", edit(tcp4(), func(p []byte) { p[32] = 0x40 }), overlay.DropMalformed},
		{"a UDP length of 7 is malformed", edit(udp4(), func(p []byte) { p[24], p[25] = 0, 7 }), overlay.DropMalformed},
		{"a UDP length past the end is malformed", edit(udp4(), func(p []byte) { p[25]++ }), overlay.DropMalformed},
		{"an echo of seven bytes is malformed", overlaytest.AppendIP(nil, here4, there4, 1, make([]byte, 7)), overlay.DropMalformed},
		{"an ICMP redirect is refused", edit(overlaytest.Echo(here4, there4, false, 1, 1, nil), func(p []byte) { p[20] = 5 }), overlay.DropProtocol},
		{"a neighbour solicitation is refused", edit(overlaytest.Echo(here6, there6, false, 1, 1, nil), func(p []byte) { p[40] = 135 }), overlay.DropProtocol},
		{"ICMPv6 over IPv4 is refused", overlaytest.AppendIP(nil, here4, there4, 58, make([]byte, 8)), overlay.DropProtocol},
		{"a source of 127.0.0.1 is refused", tcpFrom("127.0.0.1", "10.1.16.3"), overlay.DropSource},
		{"a source of 0.0.0.0 is refused", tcpFrom("0.0.0.0", "10.1.16.3"), overlay.DropSource},
		{"a multicast source is refused", tcpFrom("224.0.0.1", "10.1.16.3"), overlay.DropSource},
		{"a broadcast source is refused", tcpFrom("255.255.255.255", "10.1.16.3"), overlay.DropSource},
		{"a source of ::1 is refused", tcpFrom("::1", "fd00:1::3"), overlay.DropSource},
		{"a link-local source is refused", tcpFrom("fe80::1", "fd00:1::3"), overlay.DropSource},
		{"an IPv4-mapped source is refused", tcpFrom("::ffff:10.1.0.2", "fd00:1::3"), overlay.DropSource},
		{"an IPv4-mapped destination has no route", tcpFrom("fd00:1::3", "::ffff:10.1.0.2"), overlay.DropNoRoute},
		{"a loopback destination has no route", tcpFrom("10.1.0.2", "127.0.0.1"), overlay.DropNoRoute},
		{"a multicast destination is dropped", tcpFrom("10.1.0.2", "224.0.0.251"), overlay.DropMulticast},
		{"a broadcast destination is dropped", tcpFrom("10.1.0.2", "255.255.255.255"), overlay.DropMulticast},
		{"an IPv6 multicast destination is dropped", tcpFrom("fd00:1::3", "ff02::1"), overlay.DropMulticast},

		{"a later fragment passes", edit(udp4(), func(p []byte) { p[6], p[7] = 0, 3 }), pass},
		{"a first fragment with its header passes", edit(udp4(), func(p []byte) { p[6] = 0x20; p[24] = 1 }), pass},
		{"a fragment of an odd length that is not the last is dropped", edit(tcp4(), func(p []byte) { p[6] = 0x20 }), overlay.DropFragment},
		{"a datagram without a UDP header is malformed", overlaytest.AppendIP(nil, here4, there4, 17, nil), overlay.DropMalformed},
		{"an empty fragment is dropped", edit(overlaytest.AppendIP(nil, here4, there4, 17, nil), func(p []byte) { p[6], p[7] = 0, 9 }), overlay.DropFragment},
		{"a fragment that would end past 65535 is dropped", edit(udp4(), func(p []byte) { p[6], p[7] = 0x1f, 0xff }), overlay.DropFragment},
		{"a TCP fragment at offset 8 is dropped", edit(tcp4(), func(p []byte) { p[6], p[7] = 0, 1 }), overlay.DropFragment},
		{"a tiny first TCP fragment is dropped", edit(overlaytest.AppendIP(nil, here4, there4, 6, make([]byte, 16)), func(p []byte) { p[6] = 0x20 }), overlay.DropFragment},

		{"IPv6 options pass", ext6([]byte{protoHopByHop, protoDestOpts}, opt, opt), pass},
		{"eight extension headers pass", repeat(8), pass},
		{"nine extension headers are refused", repeat(9), overlay.DropOptions},
		{"hop-by-hop options after another header are refused", ext6([]byte{protoDestOpts, protoHopByHop}, opt, opt), overlay.DropOptions},
		{"a routing header of type 0 is refused", ext6([]byte{protoRouting}, opt), overlay.DropOptions},
		{"an unknown routing header is refused", ext6([]byte{protoRouting}, []byte{0, 0, 99, 0, 0, 0, 0, 0}), overlay.DropOptions},
		{"an extension header of 2048 bytes in a short packet is malformed", ext6([]byte{protoDestOpts}, []byte{0, 255, 1, 4, 0, 0, 0, 0}), overlay.DropMalformed},
		{"an atomic fragment passes", ext6([]byte{protoFragment}, fragHeader(0, false)), pass},
		{"a later IPv6 fragment passes", ext6([]byte{protoFragment}, fragHeader(64, true)), pass},
		{"two fragment headers are dropped", ext6([]byte{protoFragment, protoFragment}, fragHeader(0, false), fragHeader(0, false)), overlay.DropFragment},
		{"a first IPv6 fragment without its whole chain is dropped", ext6([]byte{protoFragment, protoDestOpts}, fragHeader(0, true), []byte{0, 255, 1, 4, 0, 0, 0, 0}), overlay.DropFragment},
		{"a payload length past the end is malformed", edit(tcp6(), func(p []byte) { p[5]++ }), overlay.DropMalformed},
		{"a payload length of nothing hides no TCP header", edit(tcp6(), func(p []byte) { p[4], p[5] = 0, 0 }), overlay.DropMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, drop, ok := check(c.pkt)
			if ok {
				drop = pass
			}
			if drop != c.want {
				t.Errorf("got %v, want %v: %x", drop, c.want, c.pkt)
			}
		})
	}
}

func tcpFrom(src, dst string) []byte {
	return overlaytest.TCP(ap(netip.MustParseAddr(src), 1), ap(netip.MustParseAddr(dst), 2), 0, 0, 2, nil, nil)
}

func TestCheckSaysWhatItFound(t *testing.T) {
	p := append(ext6([]byte{protoHopByHop, protoFragment}, make([]byte, 8), []byte{0, 0, 0, 1, 0, 0, 0, 7}), 1, 2, 3)
	in, _, ok := check(p)
	want := info{length: len(p) - 3, l4: 56, frag: 48, proto: protoUDP, v6: true, fragment: true, options: true}
	if !ok || in != want {
		t.Errorf("got %+v, %v; want %+v", in, ok, want)
	}
}

func TestCheckAgreesWithTheModel(t *testing.T) {
	const seed = 7
	g := overlaytest.NewGenerator(seed, []netip.Addr{here4, here6}, []netip.Addr{there4, there6})
	passed := 0
	for i := range 300_000 {
		p := g.Malformed()
		if i%10 == 0 {
			p = g.Valid()
		}
		agree(t, p)
		if _, _, ok := check(p); ok {
			passed++
		}
	}
	if passed < 30_000 || passed > 250_000 {
		t.Errorf("%d of 300000 packets passed: the generator tests nothing (seed %d)", passed, seed)
	}
}

func agree(t *testing.T, p []byte) {
	t.Helper()
	in, drop, ok := check(p)
	m, wantDrop, want := naiveParse(p)
	if ok != want || drop != wantDrop {
		t.Fatalf("check says %v %v, the model %v %v: %x", ok, drop, want, wantDrop, p)
	}
	if ok && (in.length != len(m.data) || int(in.proto) != m.proto || in.later != (m.l4 < 0) || !in.later && in.l4 != m.l4) {
		t.Fatalf("check found %+v, the model %+v: %x", in, m, p)
	}
}

func FuzzCheck(f *testing.F) {
	g := overlaytest.NewGenerator(1, []netip.Addr{here4, here6}, []netip.Addr{there4, there6})
	f.Add(overlaytest.PacketOfDeath(ap(here4, 1), ap(there4, 2)))
	for range 50 {
		f.Add(g.Valid())
		f.Add(g.Malformed())
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) <= overlay.MaxPacket {
			agree(t, p)
		}
	})
}
