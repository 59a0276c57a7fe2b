package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"

	"slicewire/api"
	"slicewire/netstack/port"
	"slicewire/overlay"
	"slicewire/router"
)

// portConfig is the interface that a workload sees.
func portConfig(offer api.WorkloadOffer, device string) port.Config {
	return port.Config{
		Name: device, MTU: offer.MTU, Offload: true,
		Addrs: []netip.Prefix{
			netip.PrefixFrom(offer.Address, offer.Address.BitLen()), netip.PrefixFrom(offer.Address6, offer.Address6.BitLen()),
		},
		Routes: append([]netip.Prefix{offer.Subnet, offer.Subnet6, overlay.VirtualRange}, offer.Routes...),
	}
}

// openDevice makes a workload's interface in the current network namespace: a
// TUN where that may be opened, else a packet socket on a veth.
func openDevice(offer api.WorkloadOffer, device string) (file *os.File, medium string, err error) {
	cfg := portConfig(offer, device)
	file, tunErr := port.OpenTUNFile(cfg)
	if tunErr == nil {
		return file, mediumTUN, nil
	}
	if file, err = port.OpenPacketFile(cfg); err != nil {
		return nil, "", fmt.Errorf("neither a TUN (%w) nor a packet socket: %w", tunErr, err)
	}
	return file, mediumPacket, nil
}

// adopt makes a port of a descriptor that a client has passed, and owns it from
// then on.
func adopt(file *os.File, medium string, offer api.WorkloadOffer, log *slog.Logger) (router.Link, error) {
	if err := checkDevice(file, medium); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	cfg := portConfig(offer, "")
	cfg.Log = log.With("slice", offer.Slice)
	if medium == mediumPacket {
		p, err := port.FromPacket(file, cfg)
		if err != nil {
			return nil, err
		}
		return p, nil
	}
	p, err := port.FromTUN(file, cfg)
	if err != nil {
		return nil, err
	}
	return p, nil
}
