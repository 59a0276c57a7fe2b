//go:build linux

package port

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// farSuffix ends the name of the far end of a veth pair, which is ours.
const farSuffix = "-b"

// packetBuffer is how many bytes, as the kernel counts them, may wait for Read:
// some thirty packets of 64 KiB. The default holds two.
const packetBuffer = 4 << 20

// OpenPacket makes a veth pair in a namespace, configures one end for the
// workload and serves the other. Close removes both.
func OpenPacket(ns Namespace, cfg Config) (*Port, error) {
	p, err := open(ns, cfg, OpenPacketFile, FromPacket)
	if err != nil {
		return nil, err
	}
	var h *netlink.Handle // kept: the way back into the namespace
	var near netlink.Link
	err = ns.Do(func() (err error) {
		if h, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return fmt.Errorf("netlink: %w", err)
		}
		near, err = h.LinkByName(cfg.name())
		return err
	})
	p.undo = func() error {
		if h == nil {
			return nil
		}
		defer h.Close()
		if near == nil {
			return nil
		}
		if err := h.LinkDel(near); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove interface %s: %w", p.name, err)
		}
		return nil
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (c Config) name() string {
	if c.Name == "" {
		return DefaultName
	}
	return c.Name
}

// OpenPacketFile makes a veth pair in the current namespace, configures one
// end, and returns a packet socket on the other, which can be given to another
// process for FromPacket. The pair stays until the namespace or Cleanup ends
// it. The caller's goroutine must be locked to a thread of the namespace unless
// the whole process is in it.
func OpenPacketFile(cfg Config) (f *os.File, err error) {
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	err = withNetlink(func(h *netlink.Handle) error {
		f, err = openPacket(h, cfg)
		return err
	})
	return f, err
}

func openPacket(h *netlink.Handle, cfg Config) (_ *os.File, err error) {
	var mac [6]byte
	rand.Read(mac[:])
	mac[0] = mac[0]&^1 | 2 // of one host, locally administered
	farMAC := farOf(mac)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = cfg.Name, cfg.MTU, mac[:]
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: cfg.Name + farSuffix, PeerMTU: uint32(cfg.MTU), PeerHardwareAddr: farMAC[:]}
	if err := h.LinkAdd(pair); err != nil {
		return nil, fmt.Errorf("interface %s: make veth pair: %w", cfg.Name, err)
	}
	fd := -1
	defer func() {
		if err == nil {
			return
		}
		if fd >= 0 {
			unix.Close(fd)
		}
		err = errors.Join(err, h.LinkDel(pair))
	}()
	near, err := h.LinkByName(pair.Name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", pair.Name, err)
	}
	far, err := h.LinkByName(pair.PeerName)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", pair.PeerName, err)
	}
	farCfg := cfg
	farCfg.Name, farCfg.Addrs, farCfg.Routes = pair.PeerName, nil, nil
	for _, l := range []netlink.Link{near, far} {
		if err := h.LinkSetARPOff(l); err != nil {
			return nil, fmt.Errorf("interface %s: no ARP: %w", l.Attrs().Name, err)
		}
		if !cfg.Offload {
			if err := plain(l.Attrs().Name); err != nil {
				return nil, err
			}
		}
	}
	if err := setup(h, farCfg, far); err != nil {
		return nil, err
	}
	if err := setup(h, cfg, near); err != nil {
		return nil, err
	}
	if err := waitCarrier(h, far); err != nil {
		return nil, err
	}
	if fd, err = packetSocket(far.Attrs().Index, cfg); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "packet socket on "+pair.PeerName), nil
}

// waitCarrier waits until the kernel has noticed that the pair is up: until
// then what is sent on the end that was up first is lost.
func waitCarrier(h *netlink.Handle, l netlink.Link) error {
	err := await(func() (bool, error) {
		now, err := h.LinkByIndex(l.Attrs().Index)
		return err == nil && now.Attrs().OperState == netlink.OperUp, err
	})
	if err != nil {
		return fmt.Errorf("interface %s: carrier: %w", l.Attrs().Name, err)
	}
	return nil
}

// The ethtool commands that make an interface finish its packets itself.
const (
	ethtoolTxCsum = 0x17
	ethtoolTSO    = 0x1f
	ethtoolGSO    = 0x24
)

// plain turns the offloads of an interface off: what it sends is of the MTU and
// has its checksums.
func plain(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("interface %s: ethtool: %w", name, err)
	}
	defer unix.Close(fd)
	for _, cmd := range []uint32{ethtoolTSO, ethtoolGSO, ethtoolTxCsum} {
		value := struct{ cmd, data uint32 }{cmd, 0}
		var req struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}
		copy(req.name[:unix.IFNAMSIZ-1], name)
		req.data = unsafe.Pointer(&value)
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); e != 0 {
			return fmt.Errorf("interface %s: ethtool command %#x: %w", name, cmd, e)
		}
	}
	return nil
}

// packetSocket opens a packet socket and binds it. It hears nothing before.
func packetSocket(ifindex int, cfg Config) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("port %s: packet socket: %w", cfg.Name, err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return fd, fmt.Errorf("port %s: PACKET_IGNORE_OUTGOING: %w", cfg.Name, err)
	}
	for _, opt := range []int{unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
		// Where it is refused the default must do; it is slower, not wrong.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, packetBuffer); err != nil {
			cfg.Log.Warn("socket buffers stay small", "port", cfg.Name, "err", err)
			break
		}
	}
	if cfg.Offload {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
			return fd, fmt.Errorf("port %s: PACKET_VNET_HDR: %w", cfg.Name, err)
		}
	}
	sa := &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL), Ifindex: ifindex}
	if err := unix.Bind(fd, sa); err != nil {
		return fd, fmt.Errorf("port %s: bind packet socket: %w", cfg.Name, err)
	}
	return fd, nil
}

// bigEndian returns v as the kernel wants an Ethernet protocol.
func bigEndian(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// FromPacket serves a packet socket that OpenPacketFile made here or elsewhere,
// and owns f from then on. Its kind is read from f; of cfg, Name, MTU and Log
// matter.
func FromPacket(f *os.File, cfg Config) (*Port, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		f.Close()
		return nil, err
	}
	fr := frame{eth: true}
	refused := error(nil)
	err = control(f, func(fd int) error {
		sa, err := unix.Getsockname(fd)
		if err != nil {
			return fmt.Errorf("getsockname: %w", err)
		}
		ll, ok := sa.(*unix.SockaddrLinklayer)
		if !ok || ll.Ifindex == 0 || ll.Halen != 6 {
			return errors.New("not a packet socket bound to an Ethernet interface")
		}
		copy(fr.src[:], ll.Addr[:6])
		fr.dst = farOf(fr.src)
		v, err := unix.GetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR)
		if err != nil {
			return fmt.Errorf("PACKET_VNET_HDR: %w", err)
		}
		if fr.vnet = v != 0; fr.vnet {
			_, refused = unix.Write(fd, probe(true))
		}
		return nil
	})
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("port %s: %w", cfg.Name, err)
	}
	p, err := newPort(f, fr, cfg)
	if err == nil && errors.Is(refused, unix.EINVAL) {
		p.noTCP.Store(true)
		p.noUDP.Store(true)
		cfg.Log.Warn("kernel refuses joined packets, going on without", "port", cfg.Name, "err", refused)
	}
	return p, err
}
