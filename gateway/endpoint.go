package gateway

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// endpointsMax bounds the cache of endpoints. Only sources of messages that
// belong to a slice are cached.
const endpointsMax = 4096

// An endpoint is an address that outer packets come from or go to, immutable
// but for what its path cannot do. WireGuard keeps the one that the last
// authentic packet came from, which is how a peer may change its address.
type endpoint struct {
	addr  netip.AddrPort // never IPv4-mapped
	bytes []byte         // addr for cookies, which are bound to it
	name  [unix.SizeofSockaddrInet6]byte
	nname uint32 // length of name; 0 when the socket's family cannot reach addr

	noGSO atomic.Bool // the kernel refused UDP_SEGMENT to this address
}

var _ conn.Endpoint = (*endpoint)(nil)

func newEndpoint(addr netip.AddrPort, inet6 bool) *endpoint {
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	e := &endpoint{addr: addr}
	e.bytes, _ = addr.MarshalBinary() // has no error
	e.nname = putSockaddr(&e.name, addr, inet6)
	return e
}

func (e *endpoint) ClearSrc()           {}
func (e *endpoint) SrcToString() string { return "" }
func (e *endpoint) SrcIP() netip.Addr   { return netip.Addr{} }
func (e *endpoint) DstToString() string { return e.addr.String() }
func (e *endpoint) DstToBytes() []byte  { return e.bytes }
func (e *endpoint) DstIP() netip.Addr   { return e.addr.Addr() }

// putSockaddr writes addr as the socket address that a socket of the given
// family wants, and returns its length, or 0 if the family cannot reach it.
func putSockaddr(b *[unix.SizeofSockaddrInet6]byte, addr netip.AddrPort, inet6 bool) uint32 {
	ip := addr.Addr()
	switch {
	case !inet6 && ip.Is4():
		binary.NativeEndian.PutUint16(b[0:], unix.AF_INET)
		binary.BigEndian.PutUint16(b[2:], addr.Port())
		a := ip.As4()
		copy(b[4:], a[:])
		return unix.SizeofSockaddrInet4
	case inet6 && ip.IsValid():
		binary.NativeEndian.PutUint16(b[0:], unix.AF_INET6)
		binary.BigEndian.PutUint16(b[2:], addr.Port())
		a := ip.As16()
		copy(b[8:], a[:])
		binary.NativeEndian.PutUint32(b[24:], scopeID(ip.Zone()))
		return unix.SizeofSockaddrInet6
	}
	return 0
}

func scopeID(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	return 0
}

// parseSockaddr reads a socket address from the kernel. The address is never
// IPv4-mapped; it is invalid if the family is not known.
func parseSockaddr(b *[unix.SizeofSockaddrInet6]byte) netip.AddrPort {
	port := binary.BigEndian.Uint16(b[2:])
	switch binary.NativeEndian.Uint16(b[0:]) {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port)
	case unix.AF_INET6:
		ip := netip.AddrFrom16([16]byte(b[8:24])).Unmap()
		if scope := binary.NativeEndian.Uint32(b[24:]); scope != 0 && ip.Is6() {
			ip = ip.WithZone(strconv.FormatUint(uint64(scope), 10))
		}
		return netip.AddrPortFrom(ip, port)
	}
	return netip.AddrPort{}
}

// endpoints makes one endpoint for each address, so that receiving allocates
// nothing and what was learnt of a path is kept.
type endpoints struct {
	inet6 bool

	mu sync.Mutex
	m  map[netip.AddrPort]*endpoint
}

func (s *endpoints) get(addr netip.AddrPort) *endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.m[addr]; e != nil {
		return e
	}
	if s.m == nil || len(s.m) >= endpointsMax {
		s.m = make(map[netip.AddrPort]*endpoint) // peers keep theirs; the others are made again
	}
	e := newEndpoint(addr, s.inet6)
	s.m[addr] = e
	return e
}
