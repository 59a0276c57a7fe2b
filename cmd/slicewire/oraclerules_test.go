package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// exceptions are those that docs/routing.md lists.
func exceptions(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(moduleRoot(t), "docs", "routing.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(text), "| exception |")
	out := make(map[string]bool)
	for line := range strings.Lines(list) {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			out[strings.TrimSpace(cells[1])] = true
		}
	}
	return out
}

func inBrief(v verdict) string {
	return fmt.Sprintf("far %d bytes %x error %x", len(v.far), v.far[:min(len(v.far), 80)], v.err)
}

func reasonOr(reason string) string {
	if reason == "" {
		return "passes"
	}
	return reason
}

// excuseGVisor says why two verdicts may differ, or nothing.
func excuseGVisor(p []byte, reason string, ours, their verdict) string {
	v4 := p[0]>>4 == 4
	hops := p[7]
	if v4 {
		hops = p[8]
	}
	answers := reason == "ttl" || reason == "no-route" || reason == "too-big"
	switch {
	case answers && ours == (verdict{}) && laterFragment(p) && their.far == "":
		return "ours says nothing about later fragments"
	case answers && ours == (verdict{}) && protocolOf(p) == 51:
		return "ours says nothing about what AH may hide"
	case reason == "no-route" && ours == (verdict{}) && their.far == "" && special(p):
		return "ours says nothing about addresses that no network has"
	case reason == "" && ours.err == their.err && onlyASum(ours.far, their.far):
		return "gVisor repairs a wrong transport checksum"
	case !v4 && p[6] == 0 && ours.err != their.err || !v4 && p[6] == 0 && reason == "":
		return "gVisor reads hop-by-hop options, ours passes them on (RFC 8200 4.3)"
	case reason == "" && len(ours.far) < len(their.far) && len(their.far) <= len(p) && (their.far[:len(ours.far)] == ours.far || onlyASum(their.far[:len(ours.far)], ours.far)):
		return "gVisor forwards what follows a packet"
	case answers && their == (verdict{}) && v4 && p[9] == 1 && p[6]&0x20 != 0:
		return "gVisor says nothing about the first fragment of an echo"
	case reason == "" && len(their.far) < len(ours.far) && len(their.far) >= 28 && their.far[:20] == ours.far[:20]:
		return "gVisor cuts off what is behind the UDP length, and leaves the IP length"
	case answers && ours.far == their.far && len(ours.err) < len(their.err) && their.err[:len(ours.err)] == ours.err:
		return "gVisor quotes what follows a packet"
	case reason == "" && their == (verdict{}) && !v4 && netip.AddrFrom16([16]byte(p[24:40])) == netip.MustParseAddr("fd00:2::1"),
		reason == "" && their == (verdict{}) && v4 && netip.AddrFrom4([4]byte(p[16:20])) == netip.MustParseAddr("10.2.0.1"):
		return "it is for gVisor itself"
	case reason == "no-route" && back(p):
		return "gVisor sends back by the leg it came from; ours has no way there"
	case reason == "no-route" && hops <= 1 && their.far == "":
		return "ours looks for a route first, gVisor at the TTL"
	case slices.Contains(stricter, reason) && ours == (verdict{}):
		return "ours is stricter: " + reason
	case v4 && p[8] == 1 && reason == "ttl" && ours.far == "":
		return "gVisor takes an IPv4 TTL of one for enough"
	case !v4 && reason == "too-big" && len(their.err) > 8 && ours.err[:2] == their.err[:2] && ours.err[8:] == their.err[8:] && their.err[4:8] == "\x00\x00\x00\x00":
		return "gVisor says no MTU in an ICMPv6 Packet Too Big"
	}
	return ""
}

// laterFragment reports whether p is one that is not the first.
func laterFragment(p []byte) bool {
	if p[0]>>4 == 4 {
		return binary.BigEndian.Uint16(p[6:])&0x1fff != 0
	}
	next, rest := p[6], p[40:]
	for len(rest) >= 8 {
		switch next {
		case 44:
			return binary.BigEndian.Uint16(rest[2:])&0xfff8 != 0
		case 0, 60:
			n := min((int(rest[1])+1)*8, len(rest))
			next, rest = rest[0], rest[n:]
		default:
			return false
		}
	}
	return false
}

// special reports whether p is for an address of a kind that is never routed.
func special(p []byte) bool {
	a := netip.AddrFrom4([4]byte(p[16:20]))
	if p[0]>>4 == 6 {
		if a = netip.AddrFrom16([16]byte(p[24:40])); netip.MustParsePrefix("::/96").Contains(a) {
			return true
		}
	}
	return a.Is4In6() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.Is4() && (a.As4()[0] >= 240 || a.As4()[0] == 0)
}

// onlyASum reports whether two packets differ in one word behind their IP header
// and nowhere else: the transport checksum, wherever extension headers put it.
func onlyASum(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	first, last := -1, -1
	for i := range len(a) {
		if a[i] != b[i] {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	return first >= 20 && last-first < 2
}

// back reports whether p is for where it came from.
func back(p []byte) bool {
	if p[0]>>4 == 4 {
		return p[16] == 10 && p[17] == 1
	}
	return netip.MustParsePrefix("fd00:1::/32").Contains(netip.AddrFrom16([16]byte(p[24:40])))
}

// protocolOf is the transport protocol behind the extension headers that we know.
func protocolOf(p []byte) uint8 {
	if p[0]>>4 == 4 {
		return p[9]
	}
	next, rest := p[6], p[40:]
	for len(rest) >= 8 && (next == 0 || next == 44 || next == 60) {
		n := 8
		if next != 44 {
			n = min(int(rest[1])*8+8, len(rest))
		}
		next, rest = rest[0], rest[n:]
	}
	return next
}
