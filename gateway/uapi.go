package gateway

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// changes returns WireGuard's configuration text that turns one set of peers
// into another, and the peers that are new or have other endpoints: those
// should be greeted.
//
// What is there is never replaced, only what differs is said, in an order that
// leaves no hole: a prefix is first inserted at its new owner, which takes it
// from the old one in the same moment; only then the rest is removed.
func changes(from, to []Peer, usable func(netip.AddrPort) bool) (text string, greet [][32]byte) {
	was := byKey(from)
	owned := make(map[netip.Prefix]bool)
	var b strings.Builder
	for i := range to {
		p := &to[i]
		for _, x := range p.Prefixes {
			owned[x] = true
		}
		old := was[p.PublicKey]
		var lines strings.Builder
		if old == nil {
			old = &Peer{}
		} else {
			lines.WriteString("update_only=true\n")
		}
		head := lines.Len()
		if !slices.Equal(old.Endpoints, p.Endpoints) {
			if at, ok := first(p.Endpoints, usable); ok {
				fmt.Fprintf(&lines, "endpoint=%s\n", at)
				greet = append(greet, p.PublicKey)
			}
		}
		if s := keepaliveSeconds(p.Keepalive); s != keepaliveSeconds(old.Keepalive) {
			fmt.Fprintf(&lines, "persistent_keepalive_interval=%d\n", s)
		}
		for _, x := range p.Prefixes {
			if !slices.Contains(old.Prefixes, x) {
				fmt.Fprintf(&lines, "allowed_ip=%s\n", x)
			}
		}
		if was[p.PublicKey] == nil || lines.Len() > head {
			fmt.Fprintf(&b, "public_key=%s\n%s", hex.EncodeToString(p.PublicKey[:]), lines.String())
		}
	}
	is := byKey(to)
	for i := range from {
		p := &from[i]
		if is[p.PublicKey] == nil {
			fmt.Fprintf(&b, "public_key=%s\nremove=true\n", hex.EncodeToString(p.PublicKey[:]))
			continue
		}
		var lines strings.Builder
		for _, x := range p.Prefixes {
			if !owned[x] {
				fmt.Fprintf(&lines, "allowed_ip=-%s\n", x)
			}
		}
		if lines.Len() > 0 {
			fmt.Fprintf(&b, "public_key=%s\nupdate_only=true\n%s", hex.EncodeToString(p.PublicKey[:]), lines.String())
		}
	}
	return b.String(), greet
}

func byKey(peers []Peer) map[[32]byte]*Peer {
	m := make(map[[32]byte]*Peer, len(peers))
	for i := range peers {
		m[peers[i].PublicKey] = &peers[i]
	}
	return m
}

// filter returns the addresses that are usable, in order.
func filter(addrs []netip.AddrPort, usable func(netip.AddrPort) bool) []netip.AddrPort {
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.AddrPort) bool { return !usable(a) })
}

func first(addrs []netip.AddrPort, usable func(netip.AddrPort) bool) (netip.AddrPort, bool) {
	i := slices.IndexFunc(addrs, usable)
	if i < 0 {
		return netip.AddrPort{}, false
	}
	return addrs[i], true
}

// keepaliveSeconds rounds up: WireGuard counts whole seconds, and 0 is never.
func keepaliveSeconds(d time.Duration) int {
	return int(min(max(0, (d+time.Second-1)/time.Second), 65535))
}

// peerState is what WireGuard says of a peer.
type peerState struct {
	endpoint  netip.AddrPort
	handshake time.Time // zero: never
	rx, tx    uint64
	prefixes  []netip.Prefix
}

// parseState reads the answer to a get operation. It is the device's own and
// complete; lines that are of no interest, the private key among them, are
// passed over.
func parseState(text string) map[[32]byte]*peerState {
	all := make(map[[32]byte]*peerState)
	var p *peerState
	var sec, nsec int64
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		key, value, _ := strings.Cut(sc.Text(), "=")
		if key == "public_key" {
			p = nil
			if k, err := hex.DecodeString(value); err == nil && len(k) == 32 {
				p = new(peerState)
				all[[32]byte(k)] = p
			}
			continue
		}
		if p == nil {
			continue
		}
		switch key {
		case "endpoint":
			p.endpoint, _ = netip.ParseAddrPort(value) // stays invalid
		case "last_handshake_time_sec":
			sec, _ = strconv.ParseInt(value, 10, 64)
		case "last_handshake_time_nsec":
			nsec, _ = strconv.ParseInt(value, 10, 64)
			if sec != 0 || nsec != 0 {
				p.handshake = time.Unix(sec, nsec)
			}
		case "rx_bytes":
			p.rx, _ = strconv.ParseUint(value, 10, 64)
		case "tx_bytes":
			p.tx, _ = strconv.ParseUint(value, 10, 64)
		case "allowed_ip":
			if x, err := netip.ParsePrefix(value); err == nil {
				p.prefixes = append(p.prefixes, x)
			}
		}
	}
	return all
}
