// Command dns measures slicewire's name server beside CoreDNS (hosts) and
// dnsmasq: the same 10,000 names, the same questions, one after another on this
// machine. With "serve" it is the server that is measured: dnsd as a node runs
// it, with a view, the health of its endpoints and the rate of answers on.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"slicewire/dnsd"
	"slicewire/overlay"
)

// names is how many services there are; each has one endpoint of each family.
const names = 10_000

func main() {
	log.SetFlags(0)
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		if err := serve(os.Args[2]); err != nil {
			log.Fatal(err)
		}
		return
	}
	bin := flag.String("bin", ".cache/peers/bin", "folder with coredns, if it is not in PATH")
	seconds := flag.Int("seconds", 8, "how long each load lasts")
	runs := flag.Int("runs", 3, "how often each server is measured, in turn")
	flag.Parse()
	if err := bench(*bin, *seconds, *runs); err != nil {
		log.Fatal(err)
	}
}

func serve(addr string) error {
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s, err := dnsd.New(dnsd.Config{Packet: []net.PacketConn{pc}, Stream: []net.Listener{l}, Zones: []string{overlay.Zone, overlay.ClusterSetZone}})
	if err != nil {
		return err
	}
	here := overlay.NodeID{Site: "east", Node: "n1"}
	v := dnsd.View{Reach: map[overlay.NodeID]overlay.Reach{here: {Rank: 2}}, Reverse: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for i := range names {
		x := overlay.ServiceView{Name: fmt.Sprintf("s%d", i), Namespace: "bench", DNSNames: []string{nameOf(i)}}
		x.Endpoints = []overlay.EndpointView{{Origin: here, Endpoint: overlay.Endpoint{Name: "e", Addr: addrOf(i)}}}
		v.Services = append(v.Services, x)
	}
	s.Set(v)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	return s.Run(ctx)
}

func nameOf(i int) string     { return overlay.ServiceDNSName(fmt.Sprintf("s%d", i), "bench") }
func addrOf(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}) }

// A server is a program that answers on a port.
type server struct {
	name string
	args func(dir string, port int) ([]string, error) // the command line; files go to dir
}

func bench(bin string, seconds, runs int) error {
	if _, err := exec.LookPath("dnsperf"); err != nil {
		return errors.New("dnsperf is missing: as root, apt-get install dnsperf")
	}
	dir, err := os.MkdirTemp("", "bench-dns")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var hosts, questions bytes.Buffer
	for i := range names {
		fmt.Fprintf(&hosts, "%v %s\n", addrOf(i), nameOf(i))
		fmt.Fprintf(&questions, "%s A\n", nameOf(i*7919%names)) // in no order that a cache likes
	}
	for name, b := range map[string][]byte{"hosts": hosts.Bytes(), "questions": questions.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	servers := []server{
		{"slicewire", func(_ string, port int) ([]string, error) {
			return []string{self, "serve", fmt.Sprintf("127.0.0.1:%d", port)}, nil
		}},
		{"coredns", func(dir string, port int) ([]string, error) {
			path, err := find(bin, "coredns")
			if err != nil {
				return nil, err
			}
			conf := fmt.Sprintf(".:%d {\n  bind 127.0.0.1\n  hosts %s/hosts {\n    ttl 5\n    no_reverse\n  }\n}\n", port, dir)
			return []string{path, "-conf", dir + "/Corefile"}, os.WriteFile(dir+"/Corefile", []byte(conf), 0o644)
		}},
		{"dnsmasq", func(dir string, port int) ([]string, error) {
			path, err := find("/usr/sbin", "dnsmasq")
			return []string{path, "-k", "--no-resolv", "--no-hosts", "--addn-hosts=" + dir + "/hosts", "--local-ttl=5", "--cache-size=0", "--user=", "--group=",
				"--pid-file", "--conf-file=/dev/null", "--listen-address=127.0.0.1", "--bind-interfaces", "-p", strconv.Itoa(port)}, err
		}},
	}
	all := make(map[string][]result)
	for range runs {
		for _, s := range servers {
			r, err := s.measure(dir, seconds)
			if err != nil {
				fmt.Printf("%s: unavailable: %v\n", s.name, err)
				continue
			}
			all[s.name] = append(all[s.name], r)
		}
	}
	return report(os.Stdout, servers, all)
}

func find(dir, name string) (string, error) {
	if p, err := filepath.Abs(filepath.Join(dir, name)); err == nil {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return exec.LookPath(name)
}

// measure starts the server, waits until it answers, and puts it under load:
// first as much as it takes, then 10,000 questions a second.
func (s server) measure(dir string, seconds int) (r result, err error) {
	port, err := freePort()
	if err != nil {
		return r, err
	}
	args, err := s.args(dir, port)
	if err != nil {
		return r, err
	}
	cmd := exec.Command(args[0], args[1:]...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &said
	if err := cmd.Start(); err != nil {
		return r, err
	}
	defer func() {
		err = errors.Join(err, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
	}()
	if err := answers(port); err != nil {
		return r, fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	if r.idleKiB, err = residentKiB(cmd.Process.Pid); err != nil {
		return r, err
	}
	before, err := cpuOf(cmd.Process.Pid)
	if err != nil {
		return r, err
	}
	most, err := dnsperf(dir, port, "-l", strconv.Itoa(seconds), "-c", "16", "-T", "2", "-q", "400")
	if err != nil {
		return r, err
	}
	after, err := cpuOf(cmd.Process.Pid)
	if err != nil {
		return r, err
	}
	r.qps, r.lost = most.qps, most.lost
	r.cpuPerMillion = (after - before).Seconds() / float64(most.completed) * 1e6
	paced, err := dnsperf(dir, port, "-l", strconv.Itoa(seconds), "-c", "16", "-Q", "10000", "-v")
	if err != nil {
		return r, err
	}
	r.p50, r.p99, r.pacedLost = paced.p50, paced.p99, paced.lost
	return r, nil
}

// freePort returns a port that was free for UDP and TCP a moment ago: the
// servers cannot be handed a socket.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	pc, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return 0, err
	}
	return port, pc.Close()
}

// answers waits until a server gives the last name's address.
func answers(port int) error {
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", fmt.Sprintf("127.0.0.1:%d", port))
	}}
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		var got []netip.Addr
		got, err = r.LookupNetIP(ctx, "ip4", nameOf(names-1)+".")
		cancel()
		if err == nil && len(got) == 1 && got[0].Unmap() == addrOf(names-1) {
			return nil
		}
	}
	return fmt.Errorf("no right answer within 10 s: %w", err)
}
