package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os/exec"
	"strings"
	"time"

	"slicewire/api"
)

const (
	demoName  = "web.iperf.svc.slice.local"
	demoBytes = 256 << 20 // of the transfer whose checksum is compared

	// demoFirstByte is how long the first byte may take from the daemons' start.
	demoFirstByte = 5 * time.Second
)

// client and server are the nodes between which the demo's traffic flows.
func (d *demo) server() *demoNode { return d.nodes["worker-1"] }
func (d *demo) client() *demoNode { return d.nodes["worker-2"] }

// firstByte asks for the page again and again until it comes.
func (d *demo) firstByte(ctx context.Context, started time.Time) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*demoFirstByte, errors.New("no answer"))
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		body, err := fetch(ctx, d.client().slices["iperf-slice"].proxy, "http://"+demoName+"/")
		took := time.Since(started)
		if err == nil {
			if body != demoPage("iperf-slice") {
				return "", fmt.Errorf("the page says %q", body)
			}
			if took > demoFirstByte {
				return "", fmt.Errorf("took %v, more than %v", took, demoFirstByte)
			}
			return fmt.Sprintf("%v after the daemons' start, %s fetched a page of %s by its name", took.Round(time.Millisecond), d.client().site, d.server().site), nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// fetch gets a page through a SOCKS5 proxy that also resolves the name.
func fetch(ctx context.Context, proxy, page string) (string, error) {
	tr := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "socks5h", Host: proxy}), DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Client{Transport: tr, Timeout: 3 * time.Second}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return string(body), err
}

// checkName resolves the service at another site: by dig where it is installed.
func (d *demo) checkName(ctx context.Context) (string, error) {
	addrs, how, err := lookup(ctx, d.client().slices["iperf-slice"].dns, demoName)
	if err != nil {
		return "", err
	}
	if len(addrs) != 1 || !netip.MustParsePrefix("10.190.0.0/20").Contains(addrs[0]) {
		return "", fmt.Errorf("%s resolves to %v, not to one address of worker-1's 10.190.0.0/20", demoName, addrs)
	}
	return fmt.Sprintf("%s is %v at %s (%s)", demoName, addrs[0], d.client().site, how), nil
}

// errNoName says that a name does not exist.
var errNoName = errors.New("no such name")

func lookup(ctx context.Context, server, name string) (addrs []netip.Addr, how string, err error) {
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		return nil, "", err
	}
	if dig, err := exec.LookPath("dig"); err == nil {
		out, err := command(ctx, dig, "@"+host, "-p", port, name, "A", "+time=2", "+tries=2")
		if err != nil {
			return nil, "", err
		}
		if strings.Contains(string(out), "status: NXDOMAIN") {
			return nil, "dig", errNoName
		}
		for line := range strings.Lines(string(out)) {
			f := strings.Fields(line)
			if len(f) == 5 && f[3] == "A" && !strings.HasPrefix(f[0], ";") {
				a, err := netip.ParseAddr(f[4])
				if err != nil {
					return nil, "", err
				}
				addrs = append(addrs, a)
			}
		}
		return addrs, "dig", nil
	}
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, network, server)
	}}
	addrs, err = r.LookupNetIP(ctx, "ip4", name)
	var dnsErr *net.DNSError
	if errors.As(err, &dnsErr) && dnsErr.IsNotFound {
		err = errNoName
	}
	return addrs, "own client; dig is not installed", err
}

// checkProxy moves a large file through SOCKS5, the slice and the published
// service, and compares checksums.
func (d *demo) checkProxy(ctx context.Context) (string, error) {
	proxy := d.client().slices["iperf-slice"].proxy
	page := fmt.Sprintf("http://%s/blob/%d", demoName, demoBytes)
	want, err := d.services.blobSum(demoBytes)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	var n int64
	how := "curl"
	begin := time.Now()
	if curl, lookErr := exec.LookPath("curl"); lookErr == nil {
		n, err = pipeFrom(ctx, h, curl, "--silent", "--show-error", "--fail", "--proxy", "socks5h://"+proxy, page)
	} else {
		how = "own client; curl is not installed"
		n, err = download(ctx, h, proxy, page)
	}
	took := time.Since(begin)
	if err != nil {
		return "", err
	}
	if got := hex.EncodeToString(h.Sum(nil)); n != demoBytes || got != want {
		return "", fmt.Errorf("%d bytes with SHA-256 %s arrived, instead of %d with %s", n, got, demoBytes, want)
	}
	return fmt.Sprintf("%d MiB bit-exact through the proxy, %s (%s)", demoBytes>>20, rate(n, took), how), nil
}

func pipeFrom(ctx context.Context, w io.Writer, name string, args ...string) (int64, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	n, err := io.Copy(w, out)
	if waitErr := cmd.Wait(); waitErr != nil {
		return n, fmt.Errorf("%s: %w: %s", name, waitErr, said.String())
	}
	return n, err
}

func download(ctx context.Context, w io.Writer, proxy, page string) (int64, error) {
	tr := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "socks5h", Host: proxy}), DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return 0, err
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return io.Copy(w, resp.Body)
}

// checkForward uses iperf-server, exported by KubeSlice's own manifest, through
// a local port at the other site: by iperf3 where it is installed.
func (d *demo) checkForward(ctx context.Context) (string, error) {
	local := d.client().forward
	_, port, err := net.SplitHostPort(local)
	if err != nil {
		return "", err
	}
	if d.services.iperf3 == "" {
		return d.echoThrough(ctx, local)
	}
	out, err := command(ctx, d.services.iperf3, "-c", "127.0.0.1", "-p", port, "-t", "2", "-J")
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	var report struct {
		End struct {
			Received struct {
				Bits  float64 `json:"bits_per_second"`
				Bytes float64 `json:"bytes"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return "", fmt.Errorf("iperf3's report: %w", err)
	}
	if report.End.Received.Bytes == 0 {
		return "", errors.New("iperf3 received nothing")
	}
	return fmt.Sprintf("127.0.0.1:%s at %s leads to iperf-server at %s: %.2f Gbit/s (iperf3, 2 s)", port, d.client().site, d.server().site, report.End.Received.Bits/1e9), nil
}

func (d *demo) echoThrough(ctx context.Context, local string) (string, error) {
	const n = 64 << 20
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", local)
	if err != nil {
		return "", err
	}
	defer c.Close()
	begin := time.Now()
	sent := make(chan error, 1)
	go func() {
		_, err := io.CopyN(c, zeros{}, n)
		sent <- err
	}()
	got, err := io.CopyN(io.Discard, c, n)
	if err := errors.Join(err, <-sent); err != nil {
		return "", fmt.Errorf("%d bytes came back: %w", got, err)
	}
	return fmt.Sprintf("%s at %s leads to an echo server at %s: %s both ways (iperf3 is not installed)", local, d.client().site, d.server().site, rate(n, time.Since(begin))), nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func (d *demo) checkPing(ctx context.Context) (string, error) {
	best, n := 0.0, 0
	req := api.PingRequest{Slice: "iperf-slice", Target: demoName, Count: 20, Interval: 10 * time.Millisecond, Timeout: time.Second}
	err := newClient(d.client().socket).ping(ctx, req, func(p api.PingReply) {
		if p.Error == "" {
			if n == 0 || p.RTTMs < best {
				best = p.RTTMs
			}
			n++
		}
	})
	if err != nil {
		return "", err
	}
	if n != req.Count {
		return "", fmt.Errorf("%d of %d echo requests were answered", n, req.Count)
	}
	return fmt.Sprintf("%s to %s: %d of %d answered, best %.2f ms", d.client().site, d.server().site, n, req.Count, best), nil
}

// checkIsolation looks at the service of iperf-slice from slice blue, which
// has the same subnet: by name, by address, and by counting packets.
func (d *demo) checkIsolation(ctx context.Context) (string, error) {
	stranger := d.nodes["worker-3"].slices["blue"]
	if _, _, err := lookup(ctx, stranger.dns, demoName); !errors.Is(err, errNoName) {
		return "", fmt.Errorf("%s asked on slice blue: %w instead of NXDOMAIN", demoName, err)
	}
	addrs, _, err := lookup(ctx, d.client().slices["iperf-slice"].dns, demoName)
	if err != nil {
		return "", err
	}
	before, err := d.blueReceived(ctx)
	if err != nil {
		return "", err
	}
	const bytes = 16 << 20
	n, err := download(ctx, io.Discard, d.client().slices["iperf-slice"].proxy, fmt.Sprintf("http://%s/blob/%d", demoName, bytes))
	if err != nil || n != bytes {
		return "", fmt.Errorf("%d bytes on iperf-slice: %w", n, err)
	}
	after, err := d.blueReceived(ctx)
	if err != nil {
		return "", err
	}
	if after != before {
		return "", fmt.Errorf("slice blue received %d packets while iperf-slice moved %d bytes", after-before, bytes)
	}
	body, err := fetch(ctx, stranger.proxy, "http://"+addrs[0].String()+"/")
	if err == nil && body != demoPage("blue") {
		return "", fmt.Errorf("%v asked on slice blue answers %q", addrs[0], body)
	}
	own, err := fetch(ctx, stranger.proxy, "http://web.shop.svc.slice.local/")
	if err != nil || own != demoPage("blue") {
		return "", fmt.Errorf("blue's own service says %q, %w", own, err)
	}
	return fmt.Sprintf("slice blue has the same subnet: there %s does not exist and its address leads nowhere,\n"+
		"0 packets crossed while iperf-slice moved %d MiB, and blue's own web service answers", demoName, bytes>>20), nil
}

// blueReceived counts the inner packets that the nodes of slice blue received.
func (d *demo) blueReceived(ctx context.Context) (uint64, error) {
	var sum uint64
	for _, n := range d.nodes {
		s, err := newClient(n.socket).status(ctx)
		if err != nil {
			return 0, err
		}
		for _, x := range s.Slices {
			if x.Name == "blue" {
				sum += x.Counters.OutsideRxPackets
			}
		}
	}
	return sum, nil
}

// rate prints n bytes in the given time as bits per second.
func rate(n int64, d time.Duration) string {
	return fmt.Sprintf("%.2f Gbit/s", float64(n)*8/1e9/d.Seconds())
}
