package main

import (
	"fmt"
	"net"
	"testing"
)

// A Kubernetes node has one address on the interfaces of all its pods: it is told
// once, and addresses that nobody else can send to are not.
func TestAddressesOfTheMachineAreToldOnce(t *testing.T) {
	var addrs []net.Addr
	for _, s := range []string{"127.0.0.1/8", "10.241.0.1/32", "10.241.0.1/32", "fe80::1/64", "192.0.2.7/24", "10.241.0.1/24"} {
		ip, network, err := net.ParseCIDR(s)
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, &net.IPNet{IP: ip, Mask: network.Mask})
	}
	if got := fmt.Sprint(usable(addrs, 1)); got != "[10.241.0.1:1 192.0.2.7:1]" {
		t.Errorf("got %s", got)
	}
}
