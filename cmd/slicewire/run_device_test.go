package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"slicewire/netstack/port"
)

func TestOnlyADeviceIsTakenForOne(t *testing.T) {
	refuse := func(name string, f *os.File, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, medium := range []string{mediumTUN, mediumPacket} {
			if err := checkDevice(f, medium); !errors.Is(err, errDevice) {
				t.Errorf("%s as %s: %v", name, medium, err)
			}
		}
	}
	r, w, err := os.Pipe()
	refuse("a pipe", r, err)
	refuse("the other end", w, nil)
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	refuse("/dev/null", null, err)
	plain, err := os.Create(filepath.Join(t.TempDir(), "f"))
	refuse("a file", plain, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tcp, err := l.(*net.TCPListener).File()
	refuse("a TCP socket", tcp, err)
	a, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	refuse("a unix socket", theirs, nil)
}

func TestAPacketSocketHasToBeBound(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	if err := port.LoopbackUp(); err != nil {
		t.Fatal(err)
	}
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	open := func(family, kind int) (*os.File, int) {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fd), "socket"), fd
	}
	f, fd := open(unix.AF_PACKET, unix.SOCK_RAW)
	defer f.Close()
	if err := checkDevice(f, mediumPacket); !errors.Is(err, errDevice) {
		t.Errorf("not bound: %v", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: lo.Index}); err != nil {
		t.Fatal(err)
	}
	if err := checkDevice(f, mediumPacket); err != nil {
		t.Errorf("bound: %v", err)
	}
	if err := checkDevice(f, mediumTUN); !errors.Is(err, errDevice) {
		t.Errorf("a packet socket as a TUN: %v", err)
	}
}
