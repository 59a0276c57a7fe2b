package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// controlAddr is where tailscale's test control server listens, always.
const controlAddr = "127.0.0.1:9911"

// startTailscale starts a tailscaled with a TUN on each site.
func startTailscale(ctx context.Context, l *lab, tools toolbox) (*joined, error) {
	daemons, addr, err := tailnet(ctx, l, tools, func(site string) []string { return []string{"--tun=ts-" + site} })
	if err != nil {
		return nil, err
	}
	return direct("a", "b", addr, daemons...), nil
}

// startTailscaleUser starts tailscaled without a TUN: curl goes through the
// SOCKS5 server of site a, and site b's netstack dials the server on loopback.
func startTailscaleUser(ctx context.Context, l *lab, tools toolbox) (*joined, error) {
	daemons, addr, err := tailnet(ctx, l, tools, func(site string) []string {
		args := []string{"--tun=userspace-networking"}
		if site == "a" {
			args = append(args, "--socks5-server=127.0.0.1:1055")
		}
		return args
	})
	if err != nil {
		return nil, err
	}
	return &joined{
		client: "a", server: "b", daemons: daemons, proxy: "127.0.0.1:1055",
		web: "http://" + addr + ":" + portWeb, echo: addr + ":" + portEcho,
	}, nil
}

// tailnet starts the control server in site a, gives site b a way to it, and
// joins a tailscaled on each site. It returns site b's address in the tailnet.
func tailnet(ctx context.Context, l *lab, tools toolbox, args func(site string) []string) ([]*daemon, string, error) {
	if err := l.sites(); err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	control, err := l.start("a", "control", tools.find("testcontrol"))
	if err != nil {
		return nil, "", err
	}
	derp, err := derpAddress(ctx, l, control)
	if err != nil {
		return nil, "", err
	}
	for i, addr := range []string{controlAddr, derp} {
		socket := l.path(fmt.Sprintf("relay%d.sock", i))
		_, errA := l.start("a", fmt.Sprintf("relay-a%d", i), tools.self, "probe-relay", "unix", socket, "tcp", addr)
		_, errB := l.start("b", fmt.Sprintf("relay-b%d", i), tools.self, "probe-relay", "tcp", addr, "unix", socket)
		if err := errors.Join(errA, errB); err != nil {
			return nil, "", err
		}
	}
	var daemons []*daemon
	for _, site := range []string{"a", "b"} {
		argv := append([]string{tools.find("tailscaled"), "--statedir=" + l.path("state-"+site), "--socket=" + l.path(site+".sock"), "--port=41641", "--no-logs-no-support"}, args(site)...)
		d, err := l.start(site, "tailscaled-"+site, argv...)
		if err != nil {
			return nil, "", err
		}
		daemons = append(daemons, d)
	}
	for _, site := range []string{"a", "b"} {
		if err := tailscaleUp(ctx, l, tools, site); err != nil {
			return nil, "", err
		}
	}
	addr, err := output(exec.CommandContext(ctx, tools.find("tailscale"), "--socket="+l.path("b.sock"), "ip", "-4"))
	if err != nil {
		return nil, "", err
	}
	ip, err := netip.ParseAddr(strings.TrimSpace(string(addr)))
	return daemons, ip.String(), err
}

// tailscaleUp waits for the daemon's socket and logs the site in.
func tailscaleUp(ctx context.Context, l *lab, tools toolbox, site string) error {
	socket := l.path(site + ".sock")
	err := poll(ctx, 20*time.Millisecond, func() (bool, error) {
		_, err := os.Stat(socket)
		return err == nil, l.anyEnded()
	})
	if err != nil {
		return err
	}
	_, err = output(inside(ctx, l.tag+site, tools.find("tailscale"), "--socket="+socket, "up",
		"--login-server=http://"+controlAddr, "--accept-dns=false", "--netfilter-mode=off", "--hostname=site-"+site))
	return err
}

var derpLine = regexp.MustCompile(`DERP httpsrv listener: (127\.0\.0\.1:\d+)`)

// derpAddress waits until the control server has said where its relay listens.
func derpAddress(ctx context.Context, l *lab, control *daemon) (addr string, err error) {
	err = poll(ctx, 20*time.Millisecond, func() (bool, error) {
		log, err := os.ReadFile(control.logFile)
		if err != nil {
			return false, err
		}
		if m := derpLine.FindSubmatch(log); m != nil && strings.Contains(string(log), "listening on") {
			addr = string(m[1])
			return true, nil
		}
		return false, l.anyEnded()
	})
	return addr, err
}
