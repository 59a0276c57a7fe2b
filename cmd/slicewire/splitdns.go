package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"slicewire/netstack/port"
	"slicewire/overlay/manifest"
)

// resolvedFolder is there while systemd-resolved runs.
const resolvedFolder = "/run/systemd/resolve"

// resolvectlTime is what each call of resolvectl may take.
const resolvectlTime = 10 * time.Second

// linkAddr is the address of a link that is there for its settings only: a link
// without one counts for nothing. No host has it (RFC 7600, section 4.8).
var linkAddr = netip.MustParsePrefix("192.0.0.8/32")

// A splitDNS has this machine's systemd-resolved ask a slice's listener for names
// of the slice, and for no others. It does so by a link of the daemon's own, a
// TUN to which nothing is sent: the settings of a link go with the link, and this
// one goes with the process, whatever ends it. So nothing has to be put back.
type splitDNS struct {
	at    netip.AddrPort // of the slice's listener
	zones []string
	log   *slog.Logger
}

// resolverSlice returns the slice whose names programs of this machine find
// through systemd-resolved: the one that has a listener for names and does not
// refuse; "" when there is none. Two would answer for the same zones, so then it is
// none either.
func resolverSlice(file *manifest.NodeFile) string {
	var with []string
	for name, s := range file.Slices {
		if s.DNS != "" && s.Resolver != manifest.ResolverOff {
			with = append(with, name)
		}
	}
	if len(with) != 1 {
		return ""
	}
	return with[0]
}

// Run makes the settings and takes them back when ctx ends. A machine without
// systemd-resolved, or a user who may not set it, is no fault: it is said once.
func (s *splitDNS) Run(ctx context.Context) error {
	link, err := s.open(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		s.log.Info("systemd-resolved is not told of the slice's names", "err", err)
	default:
		s.log.Info("systemd-resolved asks the slice for its names", "zones", s.zones)
	}
	<-ctx.Done()
	if link == nil {
		return nil
	}
	return link.Close()
}

// open makes the link and its settings.
func (s *splitDNS) open(ctx context.Context) (io.Closer, error) {
	if _, err := os.Stat(resolvedFolder); err != nil {
		return nil, errors.New("it does not run here")
	}
	program, err := exec.LookPath("resolvectl")
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("swdns%d", os.Getpid()%1e6)
	link, err := port.OpenTUNFile(port.Config{Name: name, Addrs: []netip.Prefix{linkAddr}})
	if err != nil {
		return nil, err
	}
	for _, args := range resolvectlCalls(name, s.at, s.zones) {
		if err := resolvectl(ctx, program, args); err != nil {
			return nil, errors.Join(err, link.Close())
		}
	}
	return link, nil
}

// resolvectlCalls lists what is asked of resolvectl. Names before a "~" are asked
// of the link, but are no search domains.
func resolvectlCalls(link string, at netip.AddrPort, zones []string) [][]string {
	domains := []string{"domain", link}
	for _, z := range zones {
		domains = append(domains, "~"+z)
	}
	return [][]string{
		{"llmnr", link, "no"}, {"mdns", link, "no"}, {"dnssec", link, "no"}, {"default-route", link, "no"},
		domains, {"dns", link, at.String()},
	}
}

func resolvectl(ctx context.Context, program string, args []string) error {
	ctx, cancel := context.WithTimeout(ctx, resolvectlTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("resolvectl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
