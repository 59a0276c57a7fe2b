package port

import (
	"errors"
	"net"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// way is what the kernel does with a packet in a namespace: the interface it
// leaves by, or why it does not.
func way(t *testing.T, ns Namespace, to string) (name string, err error) {
	t.Helper()
	fault := ns.Do(func() error {
		return withNetlink(func(h *netlink.Handle) error {
			var routes []netlink.Route
			if routes, err = h.RouteGet(net.ParseIP(to)); err != nil {
				return nil
			}
			l, fault := h.LinkByIndex(routes[0].LinkIndex)
			if fault == nil {
				name = l.Attrs().Name
			}
			return fault
		})
	})
	if fault != nil {
		t.Fatal(fault)
	}
	return name, err
}

// What is for a slice leaves a namespace by the device or not at all, whatever
// other ways out there are, until nobody wants that any more.
func TestAGuardOutlivesItsDevice(t *testing.T) {
	ns := newNamespace(t)
	must := func(f func(h *netlink.Handle) error) {
		t.Helper()
		if err := ns.Do(func() error { return withNetlink(f) }); err != nil {
			t.Fatal(err)
		}
	}
	must(func(h *netlink.Handle) error {
		uplink := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "uplink", TxQLen: -1}, PeerName: "far"}
		if err := h.LinkAdd(uplink); err != nil {
			return err
		}
		l, err := h.LinkByName("uplink")
		if err != nil {
			return err
		}
		if err := h.LinkSetUp(l); err != nil {
			return err
		}
		for _, a := range []string{"192.0.2.1/24", "2001:db8::1/64"} {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			addr.Flags = unix.IFA_F_NODAD
			if addr.IP.To4() != nil {
				addr.Flags = 0
			}
			if err := h.AddrAdd(l, addr); err != nil {
				return err
			}
		}
		for _, gw := range []string{"192.0.2.2", "2001:db8::2"} {
			if err := h.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(gw)}); err != nil {
				return err
			}
		}
		return nil
	})
	ways := func(want string) {
		t.Helper()
		for _, to := range []string{"10.9.7.7", "fd09:7::7"} {
			got, err := way(t, ns, to)
			if want == "" && !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.ENETUNREACH) || want != "" && (err != nil || got != want) {
				t.Errorf("%s goes by %q, %v; want %q", to, got, err, want)
			}
		}
	}
	ways("uplink")
	cfg := siteConfig(1, Config{Name: "swg"})
	guard := func() (fresh bool) {
		t.Helper()
		if err := ns.Do(func() (err error) { fresh, err = Guard(cfg.Routes); return err }); err != nil {
			t.Fatal(err)
		}
		return fresh
	}
	unguard := func() {
		t.Helper()
		if err := ns.Do(Unguard); err != nil {
			t.Fatal(err)
		}
	}
	if !guard() || guard() {
		t.Error("the first guards are fresh, and only they")
	}
	p, err := orPacket(OpenTUN)(ns, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ways("swg")
	unguard() // not what is in use
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	ways("")
	if got := interfaces(t, ns); !slices.Contains(got, "uplink") || slices.Contains(got, "swg") {
		t.Fatalf("interfaces %v", got)
	}
	unguard()
	ways("uplink")
	unguard() // again
}
