package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

// runProbe is this program as one of the probes' processes; known is false when
// the first argument names none.
func runProbe(args []string) (known bool, err error) {
	if len(args) == 0 {
		return false, nil
	}
	name, args := args[0], args[1:]
	want := map[string]int{"probe-echo": 3, "probe-udp-send": 4, "probe-udp-receive": 1, "probe-serve": 0, "probe-relay": 4}
	n, known := want[name]
	if !known {
		return false, nil
	}
	if len(args) != n {
		return true, fmt.Errorf("%s wants %d arguments", name, n)
	}
	switch name {
	case "probe-echo":
		length, err := time.ParseDuration(args[1])
		if err != nil {
			return true, err
		}
		return true, echoClient(os.Stdout, args[0], length, args[2])
	case "probe-udp-send":
		size, errSize := strconv.Atoi(args[1])
		rate, errRate := strconv.ParseFloat(args[2], 64)
		length, errLength := time.ParseDuration(args[3])
		if err := errors.Join(errSize, errRate, errLength); err != nil {
			return true, err
		}
		run, err := udpSend(args[0], size, rate, length)
		if err != nil {
			return true, err
		}
		return true, json.NewEncoder(os.Stdout).Encode(run)
	case "probe-udp-receive":
		return true, udpReceiver(args[0])
	case "probe-relay":
		return true, relay(args[0], args[1], args[2], args[3])
	default:
		return true, serveProbes()
	}
}

// udpReceiver is the program "probe-udp-receive": it says when it is ready,
// counts until its input ends, and prints the count.
func udpReceiver(addr string) error {
	listener, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	defer listener.Close()
	stop := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is the signal
		close(stop)
	}()
	answers := json.NewEncoder(os.Stdout)
	if err := answers.Encode("ready"); err != nil {
		return err
	}
	count, err := udpReceive(listener.(*net.UDPConn), stop)
	if err != nil {
		return err
	}
	return answers.Encode(count)
}

// serveProbes is the program "probe-serve": the echo service and the web
// server, until it is killed.
func serveProbes() error {
	echo, errEcho := net.Listen("tcp", ":"+portEcho)
	web, errWeb := net.Listen("tcp", ":"+portWeb)
	if err := errors.Join(errEcho, errWeb); err != nil {
		return err
	}
	go serveEcho(echo)
	server := http.Server{Handler: webHandler(), ReadHeaderTimeout: 10 * time.Second}
	return server.Serve(web)
}

// serveEcho sends back what it receives, until the listener is closed.
func serveEcho(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_, _ = io.Copy(conn, conn) // ends with its client
		}()
	}
}

// webHandler serves /down, zeros for the length asked for, and /up, which
// answers with the number of bytes it was sent.
func webHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /down", func(w http.ResponseWriter, r *http.Request) {
		length, err := time.ParseDuration(r.FormValue("length"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), length)
		defer cancel()
		block := make([]byte, 128<<10)
		for ctx.Err() == nil {
			if _, err := w.Write(block); err != nil {
				return // the client went away
			}
		}
	})
	mux.HandleFunc("PUT /up", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.CopyBuffer(onlyWriter{io.Discard}, r.Body, make([]byte, 128<<10))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, n)
	})
	return mux
}

// onlyWriter hides that io.Discard reads with a small buffer of its own.
type onlyWriter struct{ io.Writer }

// relay is the program "probe-relay": it passes connections of one address on
// to another. Two of them and a unix socket join the loopbacks of two
// namespaces, for what cannot be reached any other way.
func relay(fromNetwork, from, toNetwork, to string) error {
	l, err := net.Listen(fromNetwork, from)
	if err != nil {
		return err
	}
	for {
		in, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer in.Close()
			out, err := net.Dial(toNetwork, to)
			if err != nil {
				return // what connected sees it closed
			}
			defer out.Close()
			go func() {
				_, _ = io.Copy(out, in) // ends with either side
				out.Close()
			}()
			_, _ = io.Copy(in, out) // ends with either side
		}()
	}
}
