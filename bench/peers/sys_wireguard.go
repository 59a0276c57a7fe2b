package main

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// Addresses inside the tunnels of the systems that have a TUN.
const (
	tunnelA = "10.88.0.1"
	tunnelB = "10.88.0.2"
)

// wireguardMTU is WireGuard's for an underlay of 1500 bytes, IPv6 or not.
const wireguardMTU = 1420

// startWireguard starts a wireguard-go on each site and configures both over
// their UAPI sockets, as wg does.
func startWireguard(ctx context.Context, l *lab, tools toolbox) (*joined, error) {
	if err := l.sites(); err != nil {
		return nil, err
	}
	keyA, errA := ecdh.X25519().GenerateKey(rand.Reader)
	keyB, errB := ecdh.X25519().GenerateKey(rand.Reader)
	if err := errors.Join(errA, errB); err != nil {
		return nil, err
	}
	var daemons []*daemon
	for _, s := range []struct {
		space, addr, peerTunnel, peer string
		own, other                    *ecdh.PrivateKey
	}{
		{"a", tunnelA, tunnelB, underlayB, keyA, keyB},
		{"b", tunnelB, tunnelA, underlayA, keyB, keyA},
	} {
		dev := "wg-" + s.space
		d, err := l.startEnv([]string{"LOG_LEVEL=error"}, s.space, "wireguard-"+s.space, tools.find("wireguard"), "-f", dev)
		if err != nil {
			return nil, err
		}
		daemons = append(daemons, d)
		config := fmt.Sprintf("set=1\nprivate_key=%s\nlisten_port=51820\nreplace_peers=true\npublic_key=%s\nendpoint=%s:51820\nallowed_ip=%s/32\n\n",
			hex.EncodeToString(s.own.Bytes()), hex.EncodeToString(s.other.PublicKey().Bytes()), s.peer, s.peerTunnel)
		if err := configureWireguard(ctx, l, sandboxRun+"/wireguard/"+dev+".sock", config); err != nil {
			return nil, fmt.Errorf("configure %s: %w", dev, err)
		}
		if err := l.address(s.space, dev, s.addr+"/24", wireguardMTU); err != nil {
			return nil, err
		}
	}
	return direct("a", "b", tunnelB, daemons...), nil
}

// configureWireguard waits for the UAPI socket and writes config to it.
func configureWireguard(ctx context.Context, l *lab, socket, config string) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	err := poll(ctx, 10*time.Millisecond, func() (bool, error) {
		_, err := os.Stat(socket)
		return err == nil, l.anyEnded()
	})
	if err != nil {
		return err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(config)); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if answer = strings.TrimSpace(answer); answer != "errno=0" {
		return errors.New(answer)
	}
	return nil
}
