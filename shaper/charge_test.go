package shaper

import (
	"fmt"
	"net/netip"
	"testing"

	"slicewire/netstack/segment"
	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

// What is charged for a packet that stands for several is what those cost that
// leave, in the queue of a fast class and in that of a slow one.
func TestWhatStandsForSeveralIsChargedAsThose(t *testing.T) {
	four := [2]netip.AddrPort{netip.AddrPortFrom(here, 1), netip.AddrPortFrom(there, 2)}
	six := [2]netip.AddrPort{netip.MustParseAddrPort("[fd00::1]:1"), netip.MustParseAddrPort("[fd00::2]:2")}
	stamps := []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8} // TCP's timestamps
	for _, ends := range [][2]netip.AddrPort{four, six} {
		for _, size := range []int{1, 1368, 1369, 20000, 64000} {
			for _, piece := range []int{100, 536, 1000, 1368} {
				for name, pkt := range map[string][]byte{
					"TCP":              overlaytest.TCP(ends[0], ends[1], 1, 1, segment.ACK, nil, make([]byte, size)),
					"TCP with options": overlaytest.TCP(ends[0], ends[1], 1, 1, segment.ACK, stamps, make([]byte, size)),
					"UDP":              overlaytest.UDP(ends[0], ends[1], make([]byte, size)),
				} {
					for _, r := range []Rate{fast, cutBelow - 1} {
						what := fmt.Sprintf("%s from %v, %d bytes by %d at %d", name, ends[0], size, piece, r)
						q := New(nil)
						q.Set(Plan{Share: Share{Ceiling: r}})
						if err := q.Write([][]byte{buffer(pkt, overlay.Meta{Piece: uint16(piece)})}); err != nil {
							t.Fatal(err)
						}
						charged, counted, want := q.tree.classes[0].bytes, 0, 0
						for f := range q.tree.classes[0].all {
							for p := q.tree.classes[0].all[f].head; p != nil; p = p.next {
								counted += p.count
							}
						}
						out := drain(t, q)
						for _, p := range out {
							want += charge(len(p))
						}
						if charged != want || counted != len(out) || len(out) != (size+piece-1)/piece {
							t.Errorf("%s: charged %d bytes for %d packets, %d left with %d", what, charged, counted, len(out), want)
						}
					}
				}
			}
		}
	}
}

func TestShortPacketsAreChargedAsWireGuardFillsThem(t *testing.T) {
	for n, want := range map[int]int{1: 76, 16: 76, 17: 92, 64: 124, 65: 140, 1279: 1340, 1280: 1340, 1420: 1480} {
		if got := charge(n); got != want {
			t.Errorf("%d bytes for a packet of %d, want %d", got, n, want)
		}
	}
}
