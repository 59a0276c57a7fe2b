package shaper

import (
	"testing"
	"testing/synctest"
	"time"

	"slicewire/overlay"
)

// counter is a Link that counts what it is given.
type counter struct{ packets int }

func (c *counter) Read([][]byte, []int) (int, error) { return 0, nil }
func (c *counter) Write(bufs [][]byte) error         { c.packets += len(bufs); return nil }
func (c *counter) Close() error                      { return nil }
func (c *counter) Wake()                             {}

func TestWhatComesInAboveTheRateIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var drops overlay.Drops
		in := &counter{}
		p := NewPolicer(in, &drops)
		batch := make([][]byte, 10)
		for i := range batch {
			batch[i] = make([]byte, overlay.Headroom+1420)
		}
		const every = 10 * time.Millisecond // 11.84 Mbit/s
		run := func(d time.Duration) (sent int) {
			for range d / every {
				_ = p.Write(batch)
				sent += len(batch)
				time.Sleep(every)
			}
			return sent
		}
		if sent := run(time.Second); in.packets != sent {
			t.Fatalf("%d of %d without a rate", in.packets, sent)
		}
		p.Set(12 * Mbps)
		if sent := run(5 * time.Second); in.packets != sent+1000 || drops.Get(overlay.DropPoliced) != 0 {
			t.Errorf("below the rate %d packets were dropped", drops.Get(overlay.DropPoliced))
		}
		p.Set(5 * Mbps)
		run(5 * time.Second) // what may come at once is used up
		in.packets = 0
		before := drops.Get(overlay.DropPoliced)
		sent := run(10 * time.Second)
		if got := float64(in.packets*wholePacket*8) / 10; got < 4.8e6 || got > 5.05e6 {
			t.Errorf("%.0f bit/s pass at 5 Mbit/s", got)
		}
		if lost := int(drops.Get(overlay.DropPoliced) - before); in.packets+lost != sent {
			t.Errorf("%d passed, %d counted, of %d", in.packets, lost, sent)
		}
		p.Set(0)
		in.packets = 0
		if sent := run(time.Second); in.packets != sent {
			t.Errorf("%d of %d after the rate was taken away", in.packets, sent)
		}
	})
}
