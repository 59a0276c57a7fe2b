package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// demoServices are the programs that the demo's first site exports: a web
// server for each slice and, on iperf-slice, an iperf3 server where that is
// installed and an echo server where it is not.
type demoServices struct {
	web    map[string]*http.Server // by slice
	listen map[string]net.Listener
	seed   [32]byte // of the blob, new for every run: nothing cached can pass for it
	iperf3 string   // the program; empty when it is not installed
	echo   net.Listener
	target string // host:port behind iperf-server
	proc   *exec.Cmd
}

// demoPage is the first byte's page: it says which slice it belongs to.
func demoPage(slice string) string { return "hello from " + slice + "\n" }

// prepare opens the listeners, so that their addresses can go into node files.
func (s *demoServices) prepare() error {
	s.web, s.listen = make(map[string]*http.Server), make(map[string]net.Listener)
	for i := range s.seed {
		s.seed[i] = byte(rand.Uint32())
	}
	for _, slice := range []string{"iperf-slice", "blue"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		mux := http.NewServeMux()
		mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, demoPage(slice)) }) // a client that left is no fault
		mux.HandleFunc("GET /blob/{bytes}", s.blob)
		s.listen[slice], s.web[slice] = l, &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	}
	s.iperf3, _ = exec.LookPath("iperf3") // absent: the echo server takes its place
	if s.iperf3 != "" {
		ports, err := freePorts(1)
		if err != nil {
			return err
		}
		s.target = ports[0]
		return nil
	}
	var err error
	if s.echo, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	s.target = s.echo.Addr().String()
	return nil
}

// blob sends as many pseudo-random bytes as asked for, the same ones every time.
func (s *demoServices) blob(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.PathValue("bytes"), 10, 64)
	if err != nil || n < 0 {
		http.Error(w, "how many bytes?", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	_, _ = io.CopyN(w, rand.NewChaCha8(s.seed), n) // the client checks what it got
}

// blobSum is the SHA-256 of a blob of n bytes.
func (s *demoServices) blobSum(n int64) (string, error) {
	h := sha256.New()
	if _, err := io.CopyN(h, rand.NewChaCha8(s.seed), n); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (s *demoServices) start() error {
	for slice, srv := range s.web {
		go func() { _ = srv.Serve(s.listen[slice]) }() // ends with http.ErrServerClosed
	}
	if s.echo != nil {
		go serveEcho(s.echo)
		return nil
	}
	_, port, err := net.SplitHostPort(s.target)
	if err != nil {
		return err
	}
	s.proc = exec.Command(s.iperf3, "-s", "-B", "127.0.0.1", "-p", port)
	s.proc.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := s.proc.Start(); err != nil {
		return fmt.Errorf("start the iperf3 server: %w", err)
	}
	return nil
}

func serveEcho(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c) // the client checks what came back
		}()
	}
}

func (s *demoServices) close() error {
	var errs []error
	for _, srv := range s.web {
		errs = append(errs, srv.Close())
	}
	if s.echo != nil {
		errs = append(errs, s.echo.Close())
	}
	if s.proc != nil && s.proc.Process != nil {
		_ = s.proc.Process.Kill() // it may be gone already
		_ = s.proc.Wait()         // killed is how it ends
	}
	return errors.Join(errs...)
}

// Ports that the demo serves on are chosen at random below the range from which
// the kernel gives ports to clients (32768 and up): nobody takes one by chance
// between now and the start of the daemon that it is for.
const demoPortFirst, demoPorts = 10000, 22768

// freePorts returns loopback addresses with ports that nothing listens on, for
// TCP and for UDP: gossip and DNS use the same port for both. All are held until
// the last is found, so that they differ.
func freePorts(n int) ([]string, error) {
	var out []string
	var held []io.Closer
	defer func() {
		for _, h := range held {
			h.Close()
		}
	}()
	for range demoPorts {
		if len(out) == n {
			return out, nil
		}
		addr := fmt.Sprintf("127.0.0.1:%d", demoPortFirst+rand.N(demoPorts))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue // taken: another one, then
		}
		held = append(held, l)
		p, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue
		}
		held = append(held, p)
		out = append(out, addr)
	}
	return nil, fmt.Errorf("no %d free ports on 127.0.0.1 from %d to %d", n, demoPortFirst, demoPortFirst+demoPorts-1)
}

// command runs a real client and returns what it wrote to its standard output.
func command(ctx context.Context, name string, args ...string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out, fmt.Errorf("%s: %w: %s", name, err, exit.Stderr)
	}
	return out, err
}
