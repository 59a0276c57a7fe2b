// Coredns is CoreDNS with the plugins that a cluster's name server is usually
// configured with, and no others. It is a module of its own, since the versions
// that it wants of Kubernetes' modules are others.
package main

import (
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/cache"      // answers are kept
	_ "github.com/coredns/coredns/plugin/errors"     // says what went wrong
	_ "github.com/coredns/coredns/plugin/forward"    // stub zones
	_ "github.com/coredns/coredns/plugin/health"     // liveness
	_ "github.com/coredns/coredns/plugin/hosts"      // names of a zone without a server
	_ "github.com/coredns/coredns/plugin/kubernetes" // the cluster's own names
	_ "github.com/coredns/coredns/plugin/log"        // queries, when one looks for something
	_ "github.com/coredns/coredns/plugin/loop"       // usual in clusters' configuration
	_ "github.com/coredns/coredns/plugin/ready"      // readiness
	_ "github.com/coredns/coredns/plugin/reload"     // follows its ConfigMap
)

func main() { coremain.Run() }
