package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// errDevice says that a passed descriptor is not the device it should be.
var errDevice = errors.New("the passed descriptor is no such device")

// The device number of /dev/net/tun.
const (
	tunMajor = 10
	tunMinor = 200
)

// checkDevice reports whether file is what its sender says: an attached TUN
// without packet information, or a bound AF_PACKET socket. Nothing else may
// get into the packet path: a file would be read to its end, a stream would
// block. Where the device is and what comes out of it is not trusted either;
// the router checks every packet.
func checkDevice(file *os.File, medium string) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) {
		if medium == mediumPacket {
			err = checkPacket(int(fd))
		} else {
			err = checkTUN(int(fd))
		}
	}); cerr != nil {
		return cerr
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", errDevice, medium, err)
	}
	return nil
}

func checkTUN(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(tunMajor, tunMinor) {
		return errors.New("not /dev/net/tun")
	}
	mode, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	if mode&unix.O_ACCMODE != unix.O_RDWR {
		return errors.New("not open for reading and writing")
	}
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr); err != nil {
		return fmt.Errorf("not attached: %w", err)
	}
	if flags := ifr.Uint16(); flags&unix.IFF_TUN == 0 || flags&unix.IFF_NO_PI == 0 {
		return fmt.Errorf("flags %#x: not a TUN without packet information", flags)
	}
	return nil
}

func checkPacket(fd int) error {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return err
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return err
	}
	if family != unix.AF_PACKET || kind != unix.SOCK_RAW && kind != unix.SOCK_DGRAM {
		return fmt.Errorf("family %d, type %d: not a packet socket", family, kind)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	if at, ok := name.(*unix.SockaddrLinklayer); !ok || at.Ifindex <= 0 {
		return errors.New("not bound to a device")
	}
	return nil
}
