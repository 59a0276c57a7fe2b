package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"slicewire/overlay"
)

// refusals are the decrypted packets that a device drops before they get to its
// inner: it says so in its log and counts nothing. The words are the device's;
// tests send packets with others' sources, and fail when another version has
// other words. No device sends what has no version: that line has no test.
var refusals = map[string]overlay.Drop{
	"IPv4 packet with disallowed source address from %v": overlay.DropSource,
	"IPv6 packet with disallowed source address from %v": overlay.DropSource,
	"Packet with invalid IP version from %v":             overlay.DropMalformed,
}

// deviceLogger leads a device's messages to slog, and packets that it refuses to
// refused. They name peers by a part of their public key and hold no secret.
func deviceLogger(log *slog.Logger, refused func(overlay.Drop)) *device.Logger {
	var mu sync.Mutex
	var last time.Time
	return &device.Logger{
		Verbosef: func(format string, args ...any) {
			if d, ok := refusals[format]; ok {
				refused(d)
				return // a packet is no message
			}
			if log.Enabled(context.Background(), slog.LevelDebug) {
				log.Debug("wireguard", "detail", fmt.Sprintf(format, args...))
			}
		},
		Errorf: func(format string, args ...any) {
			mu.Lock()
			quiet := time.Since(last) < errorLogEvery
			if !quiet {
				last = time.Now()
			}
			mu.Unlock()
			if !quiet {
				log.Warn("wireguard fault", "detail", fmt.Sprintf(format, args...))
			}
		},
	}
}
