//go:build linux

package port

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// marker begins the alias of every interface of ours; the owner follows.
const marker = "slicewire port of "

// addrGenNone keeps the kernel from giving an interface a link-local address:
// a slice has no use for it, nor for the router solicitations that follow.
const addrGenNone = 1

// withNetlink calls f with a netlink socket of the current namespace.
func withNetlink(f func(h *netlink.Handle) error) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	return f(h)
}

// setup marks an interface that exists and brings it up as cfg says.
func setup(h *netlink.Handle, cfg Config, l netlink.Link) error {
	if err := h.LinkSetAlias(l, marker+cfg.Owner); err != nil {
		return fmt.Errorf("interface %s: alias: %w", cfg.Name, err)
	}
	if err := h.LinkSetMTU(l, cfg.MTU); err != nil {
		return fmt.Errorf("interface %s: MTU %d: %w", cfg.Name, cfg.MTU, err)
	}
	// Refused where IPv6 is off: then there is no link-local address either.
	_ = h.LinkSetIP6AddrGenMode(l, addrGenNone)
	if err := h.LinkSetUp(l); err != nil {
		return fmt.Errorf("interface %s: up: %w", cfg.Name, err)
	}
	no6, err := addresses(h, cfg, l)
	if err != nil {
		return err
	}
	for _, dst := range cfg.Routes {
		if no6 && dst.Addr().Is6() {
			continue
		}
		rt := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(dst.Masked()), Scope: netlink.SCOPE_LINK}
		if src, ok := sourceFor(cfg.Addrs, dst); ok {
			rt.Src = net.IP(src.AsSlice())
		}
		if dst.Addr().Is6() {
			rt.Scope = netlink.SCOPE_UNIVERSE
		}
		if err := h.RouteReplace(rt); err != nil {
			return fmt.Errorf("interface %s: route %v: %w", cfg.Name, dst, err)
		}
	}
	return nil
}

// addresses gives the interface its addresses. Where IPv6 is switched off those
// of IPv4 must do.
func addresses(h *netlink.Handle, cfg Config, l netlink.Link) (no6 bool, err error) {
	for _, a := range cfg.Addrs {
		addr := &netlink.Addr{IPNet: ipNet(a)}
		if a.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD // the slice assigns addresses; nobody would answer
		}
		err := h.AddrAdd(l, addr)
		switch {
		case err == nil:
		case a.Addr().Is6() && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP)):
			if !no6 {
				cfg.Log.Warn("no IPv6 in this network namespace, going on without", "port", cfg.Name, "err", err)
			}
			no6 = true
		default:
			return no6, fmt.Errorf("interface %s: address %v: %w", cfg.Name, a, err)
		}
	}
	if no6 {
		return no6, nil
	}
	for _, a := range cfg.Addrs {
		if a.Addr().Is4() {
			continue
		}
		if err := waitLocal(h, a.Addr()); err != nil {
			return no6, fmt.Errorf("interface %s: address %v: %w", cfg.Name, a, err)
		}
	}
	return no6, nil
}

// waitLocal waits until packets for an IPv6 address are taken: the kernel adds
// the route for it after it has answered that the address is there.
func waitLocal(h *netlink.Handle, a netip.Addr) error {
	return await(func() (bool, error) {
		routes, err := h.RouteGet(a.AsSlice())
		if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
			return false, nil
		}
		return err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL, err
	})
}

// kernelWait is how long the kernel may take for what it does after it has
// answered: a millisecond, unless it is busy taking networks apart.
const kernelWait = 10 * time.Second

// await asks until the answer is yes.
func await(ask func() (bool, error)) error {
	for end := time.Now().Add(kernelWait); ; time.Sleep(time.Millisecond) {
		yes, err := ask()
		switch {
		case yes || err != nil:
			return err
		case time.Now().After(end):
			return fmt.Errorf("not ready after %v: %w", kernelWait, os.ErrDeadlineExceeded)
		}
	}
}

// sourceFor returns the first address of the route's family: what a program
// that does not choose speaks from.
func sourceFor(addrs []netip.Prefix, dst netip.Prefix) (netip.Addr, bool) {
	for _, a := range addrs {
		if a.Addr().Is4() == dst.Addr().Is4() {
			return a.Addr(), true
		}
	}
	return netip.Addr{}, false
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Cleanup removes what killed processes of this owner left in a namespace, and
// returns the names of the interfaces. Ports of the owner that are in use go,
// too: call it before the first is opened.
func Cleanup(ns Namespace, owner string) (removed []string, err error) {
	err = ns.Do(func() error {
		return withNetlink(func(h *netlink.Handle) error {
			links, err := h.LinkList()
			if err != nil {
				return fmt.Errorf("list interfaces: %w", err)
			}
			for _, l := range links {
				if l.Attrs().Alias != marker+owner {
					continue
				}
				err := h.LinkDel(l)
				switch {
				case err == nil:
					removed = append(removed, l.Attrs().Name)
				case !errors.Is(err, unix.ENODEV): // its other end went before
					return fmt.Errorf("remove interface %s: %w", l.Attrs().Name, err)
				}
			}
			return nil
		})
	})
	return removed, err
}

// LoopbackUp makes 127.0.0.1 work in a new namespace, the current one.
func LoopbackUp() error {
	return withNetlink(func(h *netlink.Handle) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("interface lo: %w", err)
		}
		if err := h.LinkSetUp(lo); err != nil {
			return fmt.Errorf("interface lo: up: %w", err)
		}
		return nil
	})
}

// ResolvConf returns the text of a resolv.conf. Where it goes is up to who has
// the mount namespace. A resolver is asked at most three servers by libc; a
// slice's comes first.
func ResolvConf(servers []netip.Addr, search []string) string {
	var b strings.Builder
	b.WriteString("# written by slicewire\n")
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %v\n", s)
	}
	if len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	return b.String()
}
