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
	"strconv"
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

// A wireguardSite is one end of a tunnel between two sites.
type wireguardSite struct{ space, addr, config string }

// wireguardSites returns both ends, with new keys, as wg configures them.
func wireguardSites() ([]wireguardSite, error) {
	keyA, errA := ecdh.X25519().GenerateKey(rand.Reader)
	keyB, errB := ecdh.X25519().GenerateKey(rand.Reader)
	if err := errors.Join(errA, errB); err != nil {
		return nil, err
	}
	config := func(own, other *ecdh.PrivateKey, peer, peerTunnel string) string {
		return fmt.Sprintf("private_key=%s\nlisten_port=51820\nreplace_peers=true\npublic_key=%s\nendpoint=%s:51820\nallowed_ip=%s/32\n",
			hex.EncodeToString(own.Bytes()), hex.EncodeToString(other.PublicKey().Bytes()), peer, peerTunnel)
	}
	return []wireguardSite{
		{"a", tunnelA, config(keyA, keyB, underlayB, tunnelB)},
		{"b", tunnelB, config(keyB, keyA, underlayA, tunnelA)},
	}, nil
}

// startWireguard starts a wireguard-go on each site and configures both over
// their UAPI sockets, as wg does.
func startWireguard(ctx context.Context, l *lab, tools toolbox) (*joined, error) {
	if err := l.sites(); err != nil {
		return nil, err
	}
	sites, err := wireguardSites()
	if err != nil {
		return nil, err
	}
	var daemons []*daemon
	for _, s := range sites {
		dev := "wg-" + s.space
		d, err := l.startEnv([]string{"LOG_LEVEL=error"}, s.space, "wireguard-"+s.space, tools.find("wireguard"), "-f", dev)
		if err != nil {
			return nil, err
		}
		daemons = append(daemons, d)
		if err := configureWireguard(ctx, l, sandboxRun+"/wireguard/"+dev+".sock", "set=1\n"+s.config+"\n"); err != nil {
			return nil, fmt.Errorf("configure %s: %w", dev, err)
		}
		if err := l.address(s.space, dev, s.addr+"/24", wireguardMTU); err != nil {
			return nil, err
		}
	}
	return direct("a", "b", tunnelB, daemons...), nil
}

// startWireguardNetstack starts a wireguard-go without a TUN on each site: curl
// goes through the SOCKS5 proxy of site a, and site b leads the probes' ports
// to its loopback.
func startWireguardNetstack(_ context.Context, l *lab, tools toolbox) (*joined, error) {
	if err := l.sites(); err != nil {
		return nil, err
	}
	sites, err := wireguardSites()
	if err != nil {
		return nil, err
	}
	j := &joined{
		client: "a", server: "b", proxy: "127.0.0.1:1080",
		web: "http://" + tunnelB + ":" + portWeb, echo: tunnelB + ":" + portEcho,
	}
	serves := map[string][]string{"a": {"-socks", j.proxy}, "b": {"-publish", portEcho + "," + portWeb}}
	for _, s := range sites {
		config, err := l.write("wireguard-"+s.space+".conf", s.config)
		if err != nil {
			return nil, err
		}
		d, err := l.start(s.space, "netstack-"+s.space, append([]string{tools.find("wireguard-netstack"),
			"-config", config, "-address", s.addr, "-mtu", strconv.Itoa(wireguardMTU)}, serves[s.space]...)...)
		if err != nil {
			return nil, err
		}
		j.daemons = append(j.daemons, d)
	}
	return j, nil
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
