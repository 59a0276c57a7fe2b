//go:build linux

package port

import (
	"fmt"
	"net"
	"os"

	"github.com/songgao/water"
	"github.com/vishvananda/netlink"
)

// OpenPortable makes a TUN interface without offloads in a namespace, as every
// system that has TUN at all can.
func OpenPortable(ns Namespace, cfg Config) (*Port, error) {
	return openWater(ns, cfg, water.TUN)
}

// OpenTAP makes a TAP interface in a namespace: Ethernet for who bridges or
// hands it to a guest, IP for the slice. Frames that do not carry IP are
// dropped; the interface has no ARP, see the package doc.
func OpenTAP(ns Namespace, cfg Config) (*Port, error) {
	return openWater(ns, cfg, water.TAP)
}

func openWater(ns Namespace, cfg Config, kind water.DeviceType) (*Port, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	fr := frame{eth: kind == water.TAP}
	var f *os.File
	err = ns.Do(func() (err error) {
		f, err = waterFile(cfg, kind, &fr)
		return err
	})
	if err != nil {
		return nil, err
	}
	return newPort(f, fr, cfg)
}

// waterFile makes and configures the interface in the current namespace.
func waterFile(cfg Config, kind water.DeviceType, fr *frame) (*os.File, error) {
	if _, err := net.InterfaceByName(cfg.Name); err == nil {
		return nil, fmt.Errorf("interface %s: %w", cfg.Name, os.ErrExist) // water would join it
	}
	dev, err := water.New(water.Config{DeviceType: kind, PlatformSpecificParams: water.PlatformSpecificParams{Name: cfg.Name}})
	if err != nil {
		return nil, fmt.Errorf("interface %s: make it: %w", cfg.Name, err)
	}
	err = withNetlink(func(h *netlink.Handle) error {
		l, err := h.LinkByName(cfg.Name)
		if err != nil {
			return fmt.Errorf("interface %s: %w", cfg.Name, err)
		}
		if fr.eth {
			if err := h.LinkSetARPOff(l); err != nil {
				return fmt.Errorf("interface %s: no ARP: %w", cfg.Name, err)
			}
			copy(fr.dst[:], l.Attrs().HardwareAddr)
			fr.src = farOf(fr.dst)
		}
		return setup(h, cfg, l)
	})
	if err != nil {
		dev.Close()
		return nil, err
	}
	f, ok := dev.ReadWriteCloser.(*os.File)
	if !ok {
		dev.Close()
		return nil, fmt.Errorf("interface %s: water's device is a %T", cfg.Name, dev.ReadWriteCloser)
	}
	return f, nil
}
