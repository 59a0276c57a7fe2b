package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// A node whose IPv4 block on the slice is a /24 publishes a thousand services of
// five endpoints. Another knows them all, and reaches those that have an IPv6
// address only by the names of endpoints and of services.
func TestANodePublishesMoreThanItsBlockHas(t *testing.T) {
	const services, each = 1000, 5
	m := startMesh(t, "worker-1", "worker-2")
	m.until("first byte", m.reaches)
	n := m.server()
	var b strings.Builder
	target := addrOf(m.services.listen["iperf-slice"])
	for i := range services {
		for k := range each {
			fmt.Fprintf(&b, "- {slice: iperf-slice, namespace: iperf, service: many-%d, backend: many-%d-6d5f9c7b8-x7k%d, target: \"%s\", export: [{name: http, port: 80}]}\n", i, i, k, target)
		}
	}
	config, err := os.ReadFile(n.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.config, append(config, b.String()...), 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, errs, code := program(t, "reload", "--socket", n.socket); code != 0 {
		t.Fatalf("reload: exit %d, %s", code, errs)
	}
	t.Logf("reloaded in %v", time.Since(began))
	only6 := ""
	m.until("the other site knows all services and endpoints", func() bool {
		s, up := m.status(m.client())
		endpoints := 0
		for _, x := range s.Slices {
			for _, y := range x.Services {
				if strings.HasPrefix(y.Name, "many-") {
					endpoints += len(y.Endpoints)
				}
				for _, e := range y.Endpoints {
					if !e.Address6.IsValid() {
						t.Fatalf("%s of %s has no address", e.Name, y.Name)
					}
					if !e.Address.IsValid() {
						only6 = y.Name
					}
				}
			}
		}
		return up && endpoints == services*each
	})
	t.Logf("known to the other site after %v", time.Since(began))
	if only6 == "" {
		t.Fatal("every endpoint has an IPv4 address")
	}
	for _, name := range []string{only6, only6 + "-6d5f9c7b8-x7k4.worker-1." + only6, "many-0", "many-999"} {
		page := "http://" + name + ".iperf.svc.slice.local/"
		var said error
		m.until(page, func() bool {
			body, err := fetch(t.Context(), m.client().slices["iperf-slice"].proxy, page)
			if said = err; err == nil && body != demoPage("iperf-slice") {
				t.Fatalf("%s: %.80q", page, body)
			}
			return err == nil
		})
		if said != nil {
			t.Errorf("%s: %v", page, said)
		}
	}
	if !m.reaches() {
		t.Error("what was there before is not reached any more")
	}
}
