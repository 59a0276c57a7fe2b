package router

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

var lanMaps = []Map{
	{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("100.91.101.0/24")},
	{netip.MustParsePrefix("172.16.0.0/13"), netip.MustParsePrefix("100.64.0.0/13")},
	{netip.MustParsePrefix("fd77::/64"), netip.MustParsePrefix("fdd3:f13e:8ff7:bb97::/64")},
	{netip.MustParsePrefix("fd78::/99"), netip.MustParsePrefix("fdd3:aaaa:bbbb:cccc:dddd:eeee:e000:0/99")},
}

func bothFamilies(f func(name string, lan, mapped, far netip.AddrPort)) {
	f("IPv4", netip.MustParseAddrPort("192.168.1.10:80"), netip.MustParseAddrPort("100.91.101.10:80"), netip.MustParseAddrPort("10.1.16.9:4000"))
	f("IPv4, not at a byte", netip.MustParseAddrPort("172.23.255.7:80"), netip.MustParseAddrPort("100.71.255.7:80"), netip.MustParseAddrPort("10.1.16.9:4000"))
	f("IPv6", netip.MustParseAddrPort("[fd77::ab]:80"), netip.MustParseAddrPort("[fdd3:f13e:8ff7:bb97::ab]:80"), netip.MustParseAddrPort("[fd00:1:0:100::9]:4000"))
	f("IPv6, in the lower half", netip.MustParseAddrPort("[fd78::1f00:ab]:80"), netip.MustParseAddrPort("[fdd3:aaaa:bbbb:cccc:dddd:eeee:ff00:ab]:80"), netip.MustParseAddrPort("[fd00:1:0:100::9]:4000"))
}

// quoteIn is an ICMP error from one address to another about a packet.
func quoteIn(src, dst netip.Addr, quote []byte) []byte {
	if src.Is4() {
		return appendError(nil, src, dst, 3, 1, 0, quote)
	}
	return appendError(nil, src, dst, 1, 3, 0, quote)
}

func TestTranslationIsWhatBuildingThePacketWithTheOtherAddressGives(t *testing.T) {
	m := newMapping(lanMaps)
	bothFamilies(func(name string, lan, mapped, far netip.AddrPort) {
		data := []byte("odd bytes")
		make := []struct {
			name string
			pkt  func(src, dst netip.AddrPort) []byte
		}{
			{"TCP", func(s, d netip.AddrPort) []byte { return overlaytest.TCP(s, d, 5, 6, overlaytest.SYN, nil, data) }},
			{"UDP", func(s, d netip.AddrPort) []byte { return overlaytest.UDP(s, d, data) }},
			{"echo", func(s, d netip.AddrPort) []byte { return overlaytest.Echo(s.Addr(), d.Addr(), false, 3, 4, data) }},
			{"SCTP", func(s, d netip.AddrPort) []byte { return overlaytest.AppendIP(nil, s.Addr(), d.Addr(), 132, data) }},
			{"error about UDP", func(s, d netip.AddrPort) []byte { return quoteIn(s.Addr(), d.Addr(), overlaytest.UDP(d, s, data)) }},
			{"error about TCP, cut off before its checksum", func(s, d netip.AddrPort) []byte {
				q := overlaytest.TCP(d, s, 1, 2, overlaytest.SYN, nil, nil)
				return quoteIn(s.Addr(), d.Addr(), q[:len(q)-12])
			}},
			{"error about an echo", func(s, d netip.AddrPort) []byte {
				return quoteIn(s.Addr(), d.Addr(), overlaytest.Echo(d.Addr(), s.Addr(), false, 3, 4, data))
			}},
		}
		for _, c := range make {
			got := withHeadroom(c.pkt(lan, far))
			m.bring(got)
			if want := c.pkt(mapped, far); !bytes.Equal(got[0][overlay.Headroom:], want) {
				t.Errorf("%s, %s, from there:\n%x, want\n%x", name, c.name, got[0][overlay.Headroom:], want)
			}
			got = withHeadroom(c.pkt(far, mapped))
			m.deliver(got)
			if want := c.pkt(far, lan); !bytes.Equal(got[0][overlay.Headroom:], want) {
				t.Errorf("%s, %s, to there:\n%x, want\n%x", name, c.name, got[0][overlay.Headroom:], want)
			}
			same := c.pkt(far, netip.AddrPortFrom(far.Addr().Next(), 5))
			got = withHeadroom(same)
			if m.bring(got); !bytes.Equal(got[0][overlay.Headroom:], same) {
				t.Errorf("%s, %s: what is not mapped changed", name, c.name)
			}
		}
	})
}

func TestTranslationOfHalfDoneAndMissingChecksums(t *testing.T) {
	m := newMapping(lanMaps)
	bothFamilies(func(name string, lan, mapped, far netip.AddrPort) {
		head, at := ipv4Header, 12
		if lan.Addr().Is6() {
			head, at = ipv6Header, 8
		}
		// A TCP packet that stands for several has the sum of its pseudo-header.
		begun := func(src, dst netip.AddrPort) []byte {
			p := overlaytest.TCP(src, dst, 1, 2, 16, nil, bytes.Repeat([]byte{1}, 3000))
			pseudo := uint32(sum(p[at:head], 0)) + protoTCP + uint32(len(p)-head)
			binary.BigEndian.PutUint16(p[head+16:], sum(nil, pseudo))
			return p
		}
		got := withHeadroom(begun(lan, far))
		overlay.PutMeta(got[0], overlay.Meta{Piece: 1000})
		m.bring(got)
		if want := begun(mapped, far); !bytes.Equal(got[0][overlay.Headroom:], want) {
			t.Errorf("%s: one that stands for several: %x, want %x", name, got[0][overlay.Headroom:][:head+20], want[:head+20])
		}
		p := overlaytest.UDP(lan, far, []byte("data"))
		p[head+6], p[head+7] = 0, 0
		got = withHeadroom(p)
		if m.bring(got); got[0][overlay.Headroom+head+6] != 0 || got[0][overlay.Headroom+head+7] != 0 {
			t.Errorf("%s: a checksum where there was none", name)
		}
	})
}

func TestTranslationOfFragments(t *testing.T) {
	m := newMapping(lanMaps)
	bothFamilies(func(name string, lan, mapped, far netip.AddrPort) {
		data := bytes.Repeat([]byte("datagram"), 100)
		got := withHeadroom(cutUp(overlaytest.UDP(far, mapped, data), 400)...)
		m.deliver(got)
		want := cutUp(overlaytest.UDP(far, lan, data), 400)
		if len(got) < 3 || len(got) != len(want) {
			t.Fatalf("%s: %d fragments", name, len(got))
		}
		for i := range got {
			if !bytes.Equal(got[i][overlay.Headroom:], want[i]) {
				t.Errorf("%s: fragment %d: %x, want %x", name, i, got[i][overlay.Headroom:][:48], want[i][:48])
			}
		}
	})
}

// cutUp is a packet in fragments of so many bytes of payload.
func cutUp(pkt []byte, size int) (out [][]byte) {
	v6 := pkt[0]>>4 == 6
	head, proto := ipv4Header, pkt[9]
	if v6 {
		head, proto = ipv6Header, pkt[6]
	}
	for at, body := 0, pkt[head:]; at < len(body); at += size {
		piece := body[at:min(at+size, len(body))]
		more := at+size < len(body)
		p := slices.Clone(pkt[:head])
		if v6 {
			word := uint16(at)
			if more {
				word |= 1
			}
			p[6] = protoFragment
			p = append(p, proto, 0)
			p = binary.BigEndian.AppendUint16(p, word)
			p = append(p, 0, 0, 0, 7)
			binary.BigEndian.PutUint16(p[4:], uint16(len(piece)+8))
		} else {
			word := uint16(at / 8)
			if more {
				word |= 0x2000
			}
			binary.BigEndian.PutUint16(p[2:], uint16(head+len(piece)))
			binary.BigEndian.PutUint16(p[6:], word)
			binary.BigEndian.PutUint16(p[10:], 0)
			binary.BigEndian.PutUint16(p[10:], ^sum(p, 0))
		}
		out = append(out, append(p, piece...))
	}
	return out
}

// equalButZeroes compares packets whose checksums may be either of the two zeroes.
func equalButZeroes(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		if a[i] != b[i] && (i+1 >= len(a) || a[i]+b[i] != 0xff || a[i+1]+b[i+1] != 0xff || a[i] != a[i+1]) {
			return false
		} else if a[i] != b[i] {
			i++
		}
	}
	return true
}

// checkTranslation is what holds of any packet, well-formed or not.
func checkTranslation(t *testing.T, m *mapping, pkt []byte) (changed bool) {
	t.Helper()
	for _, f := range []func([][]byte){m.bring, m.deliver} {
		buf := withHeadroom(pkt)
		f(buf)
		now := buf[0][overlay.Headroom:]
		changed = changed || !bytes.Equal(now, pkt)
		var was, is info
		_, ok := was.check(pkt)
		if _, ok2 := is.check(now); ok != ok2 || was != is {
			t.Fatalf("%x became %x, which is read another way", pkt, now)
		}
		if ok && !was.options && !was.fragment && overlaytest.ChecksumsOK(pkt[:was.length]) && !signOfZero(pkt, &was) && !overlaytest.ChecksumsOK(now[:is.length]) {
			t.Fatalf("%x became %x: its checksums are wrong now", pkt, now)
		}
		f(buf)
		if back := buf[0][overlay.Headroom:]; !equalButZeroes(back, pkt) {
			t.Fatalf("%x became %x and went back to %x", pkt, now, back)
		}
	}
	return changed
}

// signOfZero reports whether a checksum is one of the zeroes.
func signOfZero(pkt []byte, p *info) bool {
	at, known := map[uint8]int{protoTCP: 16, protoUDP: 6, protoICMP: 2, protoICMPv6: 2}[p.proto]
	if !known {
		return false
	}
	c := binary.BigEndian.Uint16(pkt[p.l4+at:])
	return c == 0 || c == 0xffff
}

func lanGenerator(seed uint64) *overlaytest.Generator {
	var here, there []netip.Addr
	bothFamilies(func(_ string, lan, mapped, far netip.AddrPort) {
		here, there = append(here, lan.Addr(), mapped.Addr()), append(there, far.Addr(), lan.Addr(), mapped.Addr())
	})
	return overlaytest.NewGenerator(seed, here, there)
}

func TestTranslationGoesBackAndKeepsChecksums(t *testing.T) {
	const seed = 11
	m, g := newMapping(lanMaps), lanGenerator(seed)
	changed := 0
	for range 100_000 {
		p := g.Valid()
		if changed%2 == 0 {
			p = g.Malformed()
		}
		if checkTranslation(t, m, p) {
			changed++
		}
	}
	if changed < 50_000 {
		t.Errorf("seed %d: only %d changed", seed, changed)
	}
}

func FuzzTranslate(f *testing.F) {
	g := lanGenerator(3)
	for range 30 {
		f.Add(g.Valid())
		f.Add(g.Malformed())
	}
	bothFamilies(func(_ string, lan, mapped, far netip.AddrPort) {
		f.Add(quoteIn(lan.Addr(), far.Addr(), overlaytest.TCP(far, lan, 1, 2, 2, nil, nil)))
		f.Add(cutUp(overlaytest.UDP(lan, far, make([]byte, 500)), 200)[0])
	})
	m := newMapping(lanMaps)
	f.Fuzz(func(t *testing.T, pkt []byte) {
		if len(pkt) > overlay.MaxPacket {
			return
		}
		checkTranslation(t, m, pkt)
	})
}
