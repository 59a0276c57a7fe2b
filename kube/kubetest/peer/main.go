// Peer is what pods of tests talk with: it serves TCP and UDP and says who it is
// and whom it hears, and asks others for that.
//
//	peer serve :8080             answers each line and each datagram with a line:
//	                             HOSTNAME CLIENT-ADDRESS WHAT-WAS-SAID
//	peer proxied :8080           is serve for TCP whose connections begin with a header
//	                             of the PROXY protocol: the client is who it names
//	peer ask tcp HOST:PORT TEXT  prints the answer; fails after five seconds
//	peer ask udp HOST:PORT TEXT  tcp4, tcp6, udp4 and udp6 go by addresses of that
//	                             family only
//	peer steady tcp HOST:PORT 9s asks 20 times a second for so long, each time anew,
//	                             prints how often, and fails if any had no answer
//	                             in five seconds
//	peer lookup NAME             prints the addresses, one a line
//	peer srv NAME                prints the SRV records: PORT TARGET, one a line
//	peer txt NAME                prints the TXT records, one a line
package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
)

// patience is how long an answer may take.
const patience = 5 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "serve":
		return serve(args[1])
	case len(args) == 4 && args[0] == "ask":
		answer, err := ask(args[1], args[2], args[3])
		fmt.Print(answer)
		return err
	case len(args) == 4 && args[0] == "steady":
		return steady(args[1], args[2], args[3])
	case len(args) == 2 && args[0] == "proxied":
		return proxied(args[1])
	case len(args) == 2 && args[0] == "lookup":
		return lookup(args[1])
	case len(args) == 2 && args[0] == "srv":
		return services(args[1])
	case len(args) == 2 && args[0] == "txt":
		return texts(args[1])
	default:
		return fmt.Errorf("%q: want serve, proxied, ask, steady, lookup, srv or txt", args)
	}
}

func serve(addr string) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	p, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() { failed <- serveTCP(l, host) }()
	go func() { failed <- serveUDP(p, host) }()
	return <-failed
}

func proxied(addr string) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	must := func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) { return proxyproto.REQUIRE, nil }
	return serveTCP(&proxyproto.Listener{Listener: l, ConnPolicy: must}, host)
}

func serveTCP(l net.Listener, host string) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() { // until the client has gone
			defer c.Close()
			for in := bufio.NewScanner(c); in.Scan(); {
				if _, err := fmt.Fprintln(c, host, c.RemoteAddr(), in.Text()); err != nil {
					return
				}
			}
		}()
	}
}

func serveUDP(p net.PacketConn, host string) error {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := p.ReadFrom(buf)
		if err != nil {
			return err
		}
		_, _ = p.WriteTo(fmt.Appendln(nil, host, from, string(buf[:n])), from) // whoever cannot be answered asks again
	}
}

func ask(network, addr, text string) (string, error) {
	c, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if strings.HasPrefix(network, "tcp") {
		text += "\n"
	}
	if _, err := c.Write([]byte(text)); err != nil {
		return "", err
	}
	return bufio.NewReader(c).ReadString('\n')
}

func lookup(name string) error {
	return list(func(ctx context.Context) ([]string, error) { return net.DefaultResolver.LookupHost(ctx, name) })
}

func services(name string) error {
	return list(func(ctx context.Context) (out []string, err error) {
		_, records, err := net.DefaultResolver.LookupSRV(ctx, "", "", name)
		for _, r := range records {
			out = append(out, fmt.Sprint(r.Port, " ", r.Target))
		}
		return out, err
	})
}

func texts(name string) error {
	return list(func(ctx context.Context) ([]string, error) { return net.DefaultResolver.LookupTXT(ctx, name) })
}

// list prints what is answered in order, one a line.
func list(ask func(context.Context) ([]string, error)) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	lines, err := ask(ctx)
	slices.Sort(lines)
	for _, line := range lines {
		fmt.Println(line)
	}
	return err
}

// every is how often steady asks.
const every = 50 * time.Millisecond

func steady(network, addr, long string) error {
	length, err := time.ParseDuration(long)
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	var mu sync.Mutex // guards the counts
	asked, failed, lost := 0, 0, map[string]int{}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < length; asked++ {
		at := time.Since(began).Round(time.Second)
		all.Go(func() { // for patience at most
			if _, err := ask(network, addr, "steady"); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed++
				lost[fmt.Sprint(at, ": ", err)]++
			}
		})
		<-tick.C
	}
	all.Wait()
	fmt.Println(asked, "asked,", failed, "had no answer")
	if failed > 0 {
		return fmt.Errorf("of %d: %v", asked, lost)
	}
	return nil
}
