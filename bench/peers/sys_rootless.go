package main

import (
	"context"
	"fmt"
)

// slirp4netns and pasta join a namespace without any link to the sockets of
// the one they run in. They encrypt nothing and have no other site: the server
// is at site b, in the clear, so that both ends are as far apart as elsewhere.

func startSlirp(mtu int) func(context.Context, *lab, toolbox) (*joined, error) {
	return func(_ context.Context, l *lab, tools toolbox) (*joined, error) {
		if err := l.sites(); err != nil {
			return nil, err
		}
		if err := l.space("work"); err != nil {
			return nil, err
		}
		d, err := l.start("a", "slirp4netns", tools.find("slirp4netns"),
			"--configure", fmt.Sprintf("--mtu=%d", mtu), "--netns-type=path", l.netns("work"), "tap0")
		if err != nil {
			return nil, err
		}
		j := direct("work", "b", underlayB, d)
		j.ping = "" // it needs ping sockets of the machine, which are off on most
		return j, nil
	}
}

func startPasta(_ context.Context, l *lab, tools toolbox) (*joined, error) {
	if err := l.sites(); err != nil {
		return nil, err
	}
	// pasta copies the default route of its surroundings, and would take its
	// gateway for this machine's loopback if it were not told otherwise.
	if err := l.ip("a", "route", "add", "default", "via", underlayB); err != nil {
		return nil, err
	}
	if err := l.space("work"); err != nil {
		return nil, err
	}
	d, err := l.start("a", "pasta", tools.find("pasta"), "--foreground", "--quiet", "--config-net",
		"--no-map-gw", "--ns-ifname", "pasta0", "--runas", "0", "-t", "none", "-u", "none", "-T", "none", "-U", "none", "--netns-only", "--netns", l.netns("work"))
	if err != nil {
		return nil, err
	}
	j := direct("work", "b", underlayB, d)
	j.ping = "" // as with slirp4netns
	return j, nil
}
