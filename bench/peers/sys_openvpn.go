package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// startOpenVPN joins the sites by one OpenVPN process each.
func startOpenVPN(_ context.Context, l *lab, tools toolbox) (*joined, error) {
	if err := l.sites(); err != nil {
		return nil, err
	}
	daemons, err := openVPNPair(l, tools, "a", "b", underlayA, underlayB)
	if err != nil {
		return nil, err
	}
	return direct("a", "b", tunnelB, daemons...), nil
}

// startChain lays KubeSlice's path of a packet: the workload's link leads to
// the slice router, which forwards to the gateway that runs OpenVPN, and the
// same in reverse on the other site. The four hops between are the kernel's.
func startChain(_ context.Context, l *lab, tools toolbox) (*joined, error) {
	if err := l.space("work-a", "router-a", "a", "b", "router-b", "work-b"); err != nil {
		return nil, err
	}
	err := errors.Join(
		l.link("work-a", "10.81.1.2/24", "router-a", "10.81.1.1/24"),
		l.link("router-a", "10.81.2.2/24", "a", "10.81.2.1/24"),
		l.link("a", underlayA+"/24", "b", underlayB+"/24"),
		l.link("b", "10.82.2.1/24", "router-b", "10.82.2.2/24"),
		l.link("router-b", "10.82.1.1/24", "work-b", "10.82.1.2/24"),
		l.forwarding("router-a", "a", "b", "router-b"),
		l.ip("work-a", "route", "add", "default", "via", "10.81.1.1"),
		l.ip("router-a", "route", "add", "10.82.0.0/16", "via", "10.81.2.1"),
		l.ip("a", "route", "add", "10.81.1.0/24", "via", "10.81.2.2"),
		l.ip("b", "route", "add", "10.82.1.0/24", "via", "10.82.2.2"),
		l.ip("router-b", "route", "add", "10.81.0.0/16", "via", "10.82.2.1"),
		l.ip("work-b", "route", "add", "default", "via", "10.82.1.1"),
	)
	if err != nil {
		return nil, err
	}
	daemons, err := openVPNPair(l, tools, "a", "b", underlayA, underlayB, "10.81.0.0 255.255.0.0", "10.82.0.0 255.255.0.0")
	if err != nil {
		return nil, err
	}
	return direct("work-a", "work-b", "10.82.1.2", daemons...), nil
}

// openVPNPair starts a TLS server in namespace b and its client in a, which
// know each other by the fingerprints of their certificates. behind are the
// networks behind a and b, in OpenVPN's notation, which each routes to the other.
func openVPNPair(l *lab, tools toolbox, a, b, addrA, addrB string, behind ...string) ([]*daemon, error) {
	printA, errA := openVPNIdentity(l, a)
	printB, errB := openVPNIdentity(l, b)
	if err := errors.Join(errA, errB); err != nil {
		return nil, err
	}
	routeA, routeB := "", ""
	if len(behind) == 2 {
		routeA, routeB = "route "+behind[1]+"\n", "route "+behind[0]+"\n"
	}
	common := "dev-type tun\nproto udp\nport 1194\nkeepalive 5 30\ncipher AES-256-GCM\ndata-ciphers AES-256-GCM\ndisable-dco\nverb 1\npersist-key\n"
	var daemons []*daemon
	for _, s := range []struct{ space, role, own, peer, remote, print, route string }{
		{b, "tls-server\ndh none", tunnelB, tunnelA, addrA, printA, routeB},
		{a, "tls-client", tunnelA, tunnelB, addrB, printB, routeA},
	} {
		config, err := l.write("openvpn-"+s.space+".conf", fmt.Sprintf("%sdev ovpn-%s\n%s\nremote %s\nifconfig %s %s\n%scert %s\nkey %s\npeer-fingerprint %s\n",
			common, s.space, s.role, s.remote, s.own, s.peer, s.route, l.path(s.space+".crt"), l.path(s.space+".key"), s.print))
		if err != nil {
			return nil, err
		}
		d, err := l.start(s.space, "openvpn-"+s.space, tools.find("openvpn"), "--config", config)
		if err != nil {
			return nil, err
		}
		daemons = append(daemons, d)
	}
	return daemons, nil
}

// openVPNIdentity makes a key and a certificate of its own and returns the
// certificate's SHA-256 fingerprint as OpenVPN writes it.
func openVPNIdentity(l *lab, name string) (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	_, errCert := l.write(name+".crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	_, errKey := l.write(name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
	return colonHex(sha256.Sum256(der)), errors.Join(errCert, errKey)
}

func colonHex(sum [sha256.Size]byte) string {
	parts := make([]string, len(sum))
	for i, b := range sum {
		parts[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(parts, ":")
}
