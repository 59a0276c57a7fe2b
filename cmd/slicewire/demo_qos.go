package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

const (
	// demoCeiling is slice blue's, as profile1 has it, in bits a second.
	demoCeiling = 5120e3
	// demoShaped is what is fetched over it: some three seconds.
	demoShaped = 1600 << 10
	// demoSkipped is what comes before the measurement begins: TCP's start, and
	// what the idle slice may send at once.
	demoSkipped = 128 << 10
	// demoUsed is the least part of the ceiling that has to be data: headers of
	// all layers are 8 % of a full packet.
	demoUsed = 0.8
)

// checkQoS fetches a file over slice blue, which has KubeSlice's example profile,
// and compares its rate with the slice's ceiling.
func (d *demo) checkQoS(ctx context.Context) (string, error) {
	proxy := d.nodes["worker-3"].slices["blue"].proxy
	page := fmt.Sprintf("http://web.shop.svc.slice.local/blob/%d", demoShaped)
	tr := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "socks5h", Host: proxy}), DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	buf := make([]byte, 32<<10)
	var begin time.Time
	n, counted := 0, 0
	for n < demoShaped {
		k, err := resp.Body.Read(buf)
		n += k
		switch {
		case !begin.IsZero():
			counted += k
		case n >= demoSkipped:
			begin = time.Now()
		}
		if err != nil && n < demoShaped {
			return "", fmt.Errorf("%d of %d bytes came: %w", n, demoShaped, err)
		}
	}
	took := time.Since(begin)
	bits := float64(counted) * 8 / took.Seconds()
	if bits > demoCeiling*1.01 || bits < demoCeiling*demoUsed {
		return "", fmt.Errorf("slice blue has a ceiling of %.0f kbit/s and moved %.0f kbit/s of data in %v", demoCeiling/1e3, bits/1e3, took.Round(time.Millisecond))
	}
	return fmt.Sprintf("slice blue (profile1: ceiling %.0f kbit/s with all headers) moved %.0f kbit/s of data for %.1f s", demoCeiling/1e3, bits/1e3, took.Seconds()), nil
}
