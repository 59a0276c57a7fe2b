//go:build linux

package port

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tunDevice is where a TUN comes from. The namespace of the thread that opens
// it is the one the interface is in, whatever the thread does later.
const tunDevice = "/dev/net/tun"

// What a TUN may hand over unfinished: TUN_F_* of linux/if_tun.h.
const (
	tunCsum, tunTSO4, tunTSO6, tunUSO4, tunUSO6 = 1, 2, 4, 0x20, 0x40

	tunTSO = tunCsum | tunTSO4 | tunTSO6
	tunUSO = tunUSO4 | tunUSO6 // Linux 6.2
)

// iffTunExcl refuses an interface that exists.
const iffTunExcl = 0x8000

// OpenTUN makes a TUN interface in a namespace and configures it. Close removes it.
func OpenTUN(ns Namespace, cfg Config) (*Port, error) {
	return open(ns, cfg, OpenTUNFile, FromTUN)
}

// open opens a device in a namespace and serves it from here.
func open(ns Namespace, cfg Config, file func(Config) (*os.File, error), from func(*os.File, Config) (*Port, error)) (*Port, error) {
	var f *os.File
	err := ns.Do(func() (err error) {
		f, err = file(cfg)
		return err
	})
	if err != nil {
		return nil, err
	}
	return from(f, cfg)
}

// OpenTUNFile makes a TUN interface in the current namespace and configures
// it; the file can be given to another process for FromTUN. The interface goes
// when the last copy of the file is closed. The caller's goroutine must be
// locked to a thread of the namespace unless the whole process is in it.
func OpenTUNFile(cfg Config) (*os.File, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if cfg.Offload {
		f, err := openTUN(cfg, true)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, errNoOffload) {
			return nil, err
		}
		cfg.Log.Warn("kernel lacks offloads, every packet crosses alone", "port", cfg.Name, "err", err)
	}
	return openTUN(cfg, false)
}

// errNoOffload is why a TUN is opened again without offloads.
var errNoOffload = errors.New("no offloads")

func openTUN(cfg Config, vnet bool) (*os.File, error) {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", tunDevice, err)
	}
	if err := attachTUN(fd, cfg, vnet); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), tunDevice), nil
}

// attachTUN makes the interface behind fd.
func attachTUN(fd int, cfg Config, vnet bool) error {
	req, err := unix.NewIfreq(cfg.Name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", cfg.Name, err)
	}
	flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI | iffTunExcl)
	if vnet {
		flags |= unix.IFF_VNET_HDR
	}
	req.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		if vnet && errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("interface %s: vnet header: %w: %w", cfg.Name, errNoOffload, err)
		}
		return fmt.Errorf("interface %s: make TUN: %w", cfg.Name, err)
	}
	if vnet {
		if err := offloadTUN(fd, cfg); err != nil {
			return fmt.Errorf("interface %s: %w: %w", cfg.Name, errNoOffload, err)
		}
	}
	return withNetlink(func(h *netlink.Handle) error {
		l, err := h.LinkByName(cfg.Name)
		if err != nil {
			return fmt.Errorf("interface %s: %w", cfg.Name, err)
		}
		return setup(h, cfg, l)
	})
}

// offloadTUN asks for what the kernel can do, and tries what it cannot be asked:
// whether it takes joined packets. The interface is still down, so that one it
// understands is refused with EIO and goes nowhere.
func offloadTUN(fd int, cfg Config) error {
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tunTSO|tunUSO); err != nil {
		cfg.Log.Warn("kernel lacks UDP segmentation on a TUN, using TCP's only", "port", cfg.Name, "err", err)
		if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tunTSO); err != nil {
			return fmt.Errorf("TUNSETOFFLOAD: %w", err)
		}
	}
	if _, err := unix.Write(fd, probe(false)); errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("joined packet: %w", err)
	}
	return nil
}

// FromTUN serves a TUN that was opened and configured elsewhere, and owns f
// from then on. Its kind is read from f; of cfg, Name, MTU and Log matter.
func FromTUN(f *os.File, cfg Config) (*Port, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		f.Close()
		return nil, err
	}
	var fr frame
	err = control(f, func(fd int) error {
		req, err := unix.NewIfreq("")
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, req); err != nil {
			return fmt.Errorf("TUNGETIFF: %w", err)
		}
		cfg.Name = req.Name()
		flags := req.Uint16()
		if flags&unix.IFF_TUN == 0 || flags&unix.IFF_NO_PI == 0 {
			return fmt.Errorf("interface %s: flags %#x: not a TUN without packet information", cfg.Name, flags)
		}
		if fr.vnet = flags&unix.IFF_VNET_HDR != 0; !fr.vnet {
			return nil
		}
		size, err := unix.IoctlGetInt(fd, unix.TUNGETVNETHDRSZ)
		if err == nil && size != vnetLen {
			err = fmt.Errorf("%d bytes instead of %d", size, vnetLen)
		}
		if err != nil {
			return fmt.Errorf("interface %s: vnet header: %w", cfg.Name, err)
		}
		return nil
	})
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("port %s: %w", cfg.Name, err)
	}
	return newPort(f, fr, cfg)
}

// control calls fn with the descriptor of f.
func control(f *os.File, fn func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) { err = fn(int(fd)) }); e != nil {
		return e
	}
	return err
}
