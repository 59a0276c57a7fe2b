package main

import (
	"context"
	"fmt"
)

// startNebula starts a nebula on each site; site b is the lighthouse.
func startNebula(_ context.Context, l *lab, tools toolbox) (*joined, error) {
	if err := l.sites(); err != nil {
		return nil, err
	}
	cert := tools.find("nebula-cert")
	ca, caKey := l.path("ca.crt"), l.path("ca.key")
	if err := run(cert, "ca", "-name", "bench", "-out-crt", ca, "-out-key", caKey); err != nil {
		return nil, err
	}
	var daemons []*daemon
	for _, s := range []struct{ space, addr, lighthouse string }{
		{"b", tunnelB, "{am_lighthouse: true}"},
		{"a", tunnelA, fmt.Sprintf("{am_lighthouse: false, interval: 10, hosts: [%q]}", tunnelB)},
	} {
		crt, key := l.path(s.space+".crt"), l.path(s.space+".key")
		if err := run(cert, "sign", "-name", s.space, "-ip", s.addr+"/24", "-ca-crt", ca, "-ca-key", caKey, "-out-crt", crt, "-out-key", key); err != nil {
			return nil, err
		}
		config, err := l.write("nebula-"+s.space+".yaml", fmt.Sprintf(`pki: {ca: %s, cert: %s, key: %s}
static_host_map: {%q: ["%s:4242"]}
lighthouse: %s
listen: {host: 0.0.0.0, port: 4242}
punchy: {punch: false}
cipher: aes
tun: {dev: neb-%s, mtu: 1300}
logging: {level: warning}
firewall:
  outbound: [{port: any, proto: any, host: any}]
  inbound: [{port: any, proto: any, host: any}]
`, ca, crt, key, tunnelB, underlayB, s.lighthouse, s.space))
		if err != nil {
			return nil, err
		}
		d, err := l.start(s.space, "nebula-"+s.space, tools.find("nebula"), "-config", config)
		if err != nil {
			return nil, err
		}
		daemons = append(daemons, d)
	}
	return direct("a", "b", tunnelB, daemons...), nil
}
