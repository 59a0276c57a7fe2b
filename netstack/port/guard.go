//go:build linux

package port

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A guard is an unreachable route behind that of a device. A TUN goes when its
// last holder does, and its routes with it: without a guard, packets for the slice
// would then leave by the namespace's default route, in plaintext.
const (
	// guardProtocol marks routes as guards; rt_protos has nobody with it.
	guardProtocol = 115
	// guardMetric is worse than that of any route that people make.
	guardMetric = 1<<32 - 2
)

// Guard has packets for these prefixes leave the current namespace by a device
// that has a route for them, or not at all; fresh is whether any of them had no
// guard before. Guards stay until Unguard or the namespace's end. The caller's
// goroutine must be locked to a thread of the namespace unless the whole process
// is in it.
func Guard(prefixes []netip.Prefix) (fresh bool, err error) {
	err = withNetlink(func(h *netlink.Handle) error {
		for _, p := range prefixes {
			err := h.RouteAdd(&netlink.Route{Dst: ipNet(p.Masked()), Type: unix.RTN_UNREACHABLE, Protocol: guardProtocol, Priority: guardMetric})
			if p.Addr().Is6() && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT)) {
				continue // no IPv6 here
			}
			if err != nil && !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("unreachable route %v: %w", p, err)
			}
			fresh = fresh || err == nil
		}
		return nil
	})
	return fresh, err
}

// Unguard removes the current namespace's guards of prefixes that no device has a
// route for any more.
func Unguard() error {
	return withNetlink(func(h *netlink.Handle) error {
		all, err := h.RouteList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		used := make(map[string]bool)
		for i := range all {
			if r := &all[i]; r.Dst != nil && r.Type == unix.RTN_UNICAST {
				used[r.Dst.String()] = true
			}
		}
		var faults []error
		for i := range all {
			r := &all[i]
			if r.Protocol != guardProtocol || r.Type != unix.RTN_UNREACHABLE || r.Dst == nil || used[r.Dst.String()] {
				continue
			}
			if err := h.RouteDel(r); err != nil && !errors.Is(err, unix.ESRCH) {
				faults = append(faults, fmt.Errorf("remove unreachable route %v: %w", r.Dst, err))
			}
		}
		return errors.Join(faults...)
	})
}
