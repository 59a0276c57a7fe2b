// Wireguard-netstack joins two sites as a user would with what wireguard-go
// ships and nothing else: a wireguard-go device on its own tun/netstack, a
// SOCKS5 proxy that dials into the tunnel, and ports of the tunnel that lead to
// this machine's loopback. Copies are io.Copy's, sockets are as they come.
//
// It is a module of its own: slicewire does not use tun/netstack, and no other
// program that does is at hand as a module. It runs until it is killed.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/netstack"
)

func main() {
	config := flag.String("config", "", "file with the device's configuration, as wg writes it to a UAPI socket")
	address := flag.String("address", "", "address of this end of the tunnel")
	mtu := flag.Int("mtu", device.DefaultMTU, "MTU of the tunnel")
	proxy := flag.String("socks", "", "host:port to serve SOCKS5 at")
	publish := flag.String("publish", "", "ports of the tunnel that lead to the same port of 127.0.0.1, separated by commas")
	flag.Parse()
	if err := run(*config, *address, *mtu, *proxy, *publish); err != nil {
		fmt.Fprintln(os.Stderr, "wireguard-netstack:", err)
		os.Exit(1)
	}
}

// run returns when one of its listeners fails.
func run(configFile, address string, mtu int, proxy, publish string) error {
	config, err := os.ReadFile(configFile)
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return err
	}
	tun, inner, err := netstack.CreateNetTUN([]netip.Addr{addr}, nil, mtu)
	if err != nil {
		return fmt.Errorf("make the network stack: %w", err)
	}
	dev := device.NewDevice(tun, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, ""))
	defer dev.Close()
	if err := errors.Join(dev.IpcSet(string(config)), dev.Up()); err != nil {
		return fmt.Errorf("configure the device: %w", err)
	}
	ended := make(chan error)
	if proxy != "" {
		l, err := net.Listen("tcp", proxy)
		if err != nil {
			return err
		}
		go func() { ended <- serve(l, func(c net.Conn) (net.Conn, error) { return socksAccept(c, inner) }) }()
	}
	for port := range strings.SplitSeq(publish, ",") {
		if port == "" {
			continue
		}
		at, err := netip.ParseAddrPort(net.JoinHostPort(address, port))
		if err != nil {
			return err
		}
		l, err := inner.ListenTCPAddrPort(at)
		if err != nil {
			return fmt.Errorf("listen in the tunnel: %w", err)
		}
		go func() {
			ended <- serve(l, func(net.Conn) (net.Conn, error) { return net.Dial("tcp", net.JoinHostPort("127.0.0.1", port)) })
		}()
	}
	return <-ended
}

// serve joins every connection with the one that dial makes for it.
func serve(l net.Listener, dial func(net.Conn) (net.Conn, error)) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			to, err := dial(c)
			if err != nil {
				fmt.Fprintln(os.Stderr, "wireguard-netstack:", err)
				return
			}
			defer to.Close()
			join(c, to)
		}()
	}
}

// join copies both ways until both have ended, passing on which has.
func join(a, b net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		copyOne(a, b)
	}()
	copyOne(b, a)
	<-done
}

// copyOne copies until from ends, and ends to's input.
func copyOne(to, from net.Conn) {
	_, _ = io.Copy(to, from) // a connection that breaks ends like one that is closed
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // it may be closed already
	}
}

// socksAccept answers one SOCKS5 client that wants no password (RFC 1928) and
// returns the connection it asked for.
func socksAccept(c net.Conn, inner *netstack.Net) (net.Conn, error) {
	to, err := socksRequest(c)
	if err != nil {
		return nil, err
	}
	conn, err := inner.DialTCPAddrPort(to)
	reply := byte(0)
	if err != nil {
		reply = 5 // connection refused
	}
	if _, errReply := c.Write([]byte{5, reply, 0, 1, 0, 0, 0, 0, 0, 0}); err == nil && errReply != nil {
		conn.Close()
		return nil, errReply
	}
	if err != nil { // conn is a typed nil
		return nil, fmt.Errorf("dial %v: %w", to, err)
	}
	return conn, nil
}

// socksRequest reads greeting and request: CONNECT to an IPv4 address, written
// as such or as a name.
func socksRequest(c io.ReadWriter) (netip.AddrPort, error) {
	var to netip.AddrPort
	var head [4]byte
	if _, err := io.ReadFull(c, head[:2]); err != nil {
		return to, err
	}
	if _, err := io.CopyN(io.Discard, c, int64(head[1])); err != nil {
		return to, err
	}
	if _, err := c.Write([]byte{5, 0}); err != nil {
		return to, err
	}
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return to, err
	}
	if head[0] != 5 || head[1] != 1 {
		return to, fmt.Errorf("socks: version %d, command %d", head[0], head[1])
	}
	host, err := socksHost(c, head[3])
	if err != nil {
		return to, err
	}
	var port [2]byte
	if _, err := io.ReadFull(c, port[:]); err != nil {
		return to, err
	}
	return netip.AddrPortFrom(host, uint16(port[0])<<8|uint16(port[1])), nil
}

func socksHost(r io.Reader, kind byte) (netip.Addr, error) {
	switch kind {
	case 1:
		var a [4]byte
		_, err := io.ReadFull(r, a[:])
		return netip.AddrFrom4(a), err
	case 3:
		var n [1]byte
		if _, err := io.ReadFull(r, n[:]); err != nil {
			return netip.Addr{}, err
		}
		name := make([]byte, n[0])
		if _, err := io.ReadFull(r, name); err != nil {
			return netip.Addr{}, err
		}
		return netip.ParseAddr(string(name))
	default:
		return netip.Addr{}, fmt.Errorf("socks: address of kind %d", kind)
	}
}
