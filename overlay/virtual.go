package overlay

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
)

// VirtualRange is where the IPv4 addresses of services of type Virtual lie, on
// every slice: RFC 2544's, which is routed nowhere. They are the same on all
// nodes of a slice and never leave a node: each one balances for itself.
var VirtualRange = netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, 0, 0}), 15)

// VirtualRange6 returns where a slice's IPv6 virtual addresses lie: the last /64
// of its /48, which only the 256th node of a 256th site could have.
func VirtualRange6(s *Slice) netip.Prefix {
	if !s.Subnet6.IsValid() {
		return netip.Prefix{}
	}
	b := s.Subnet6.Addr().As16()
	b[6], b[7] = 0xff, 0xff
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

// virtualTries bounds the search for a free address. With half of the range in
// use, one service in 4 billion gets none.
const virtualTries = 32

// assignVirtual gives services of type Virtual their addresses: a hash of
// their name, or the next hash where that is taken by one that comes before.
func assignVirtual(s *Slice, services []ServiceView) {
	taken := make(map[netip.Addr]bool)
	range6 := VirtualRange6(s)
	for i := range services {
		v := &services[i]
		if v.Type != Virtual {
			continue
		}
		for try := range virtualTries {
			h := sha256.Sum256([]byte(s.Name + "\x00" + v.Namespace + "/" + v.Name + "\x00" + string(rune(try))))
			base := VirtualRange.Addr().As4()
			low := binary.BigEndian.Uint32(h[:]) &^ (^uint32(0) << (32 - VirtualRange.Bits()))
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(base[:])|low)
			if addr := netip.AddrFrom4(a); a[3] != 0 && a[3] != 255 && !taken[addr] {
				taken[addr] = true
				v.Virtual = addr
				break
			}
		}
		if range6.IsValid() {
			h := sha256.Sum256([]byte(v.Namespace + "/" + v.Name))
			b := range6.Addr().As16()
			copy(b[8:], h[:8])
			v.Virtual6 = netip.AddrFrom16(b)
		}
	}
}
