// Peer is what pods of tests talk with: it serves TCP and UDP and says who it is
// and whom it hears, and asks others for that.
//
//	peer serve :8080             answers each line and each datagram with a line:
//	                             HOSTNAME CLIENT-ADDRESS WHAT-WAS-SAID
//	peer ask tcp HOST:PORT TEXT  prints the answer; fails after five seconds
//	peer ask udp HOST:PORT TEXT
//	peer lookup NAME             prints the addresses, one a line
package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"time"
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
	case len(args) == 2 && args[0] == "lookup":
		return lookup(args[1])
	default:
		return fmt.Errorf("%q: want serve, ask or lookup", args)
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
	if network == "tcp" {
		text += "\n"
	}
	if _, err := c.Write([]byte(text)); err != nil {
		return "", err
	}
	return bufio.NewReader(c).ReadString('\n')
}

func lookup(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupHost(ctx, name)
	slices.Sort(addrs)
	for _, a := range addrs {
		fmt.Println(a)
	}
	return err
}
