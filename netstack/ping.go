package netstack

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// pingBytes is the payload of an echo request: a nonce.
const pingBytes = 16

// Ping sends one ICMP echo request to dst, IPv4 or IPv6, from the stack's first
// address of that family, and returns how long the reply took. It waits until
// ctx ends.
func (st *Stack) Ping(ctx context.Context, dst netip.Addr) (time.Duration, error) {
	rtt, err := st.ping(ctx, dst)
	if err != nil {
		return 0, fmt.Errorf("ping %v: %w", dst, err)
	}
	return rtt, nil
}

func (st *Stack) ping(ctx context.Context, dst netip.Addr) (time.Duration, error) {
	src, err := st.source(netip.Addr{}, netip.AddrPortFrom(dst, 0))
	if err != nil {
		return 0, err
	}
	proto, request := icmp.ProtocolNumber4, byte(header.ICMPv4Echo)
	if dst.Is6() {
		proto, request = icmp.ProtocolNumber6, byte(header.ICMPv6EchoRequest)
	}
	var wq waiter.Queue
	// Bound to an identifier of its own, the endpoint hears the replies to
	// that only, so that pings at the same time do not mix.
	ep, terr := st.s.NewEndpoint(proto, family(dst), &wq)
	if terr != nil {
		return 0, fault(terr)
	}
	defer ep.Close()
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	if terr = ep.Bind(full(netip.AddrPortFrom(src, 0))); terr == nil {
		terr = ep.Connect(full(netip.AddrPortFrom(dst, 0)))
	}
	if terr != nil {
		return 0, fault(terr)
	}

	const head = header.ICMPv4MinimumSize // that of ICMPv6's echo is the same
	msg := make([]byte, head+pingBytes)
	msg[0] = request
	binary.BigEndian.PutUint16(msg[6:], 1)
	for i := head; i < len(msg); i += 8 {
		binary.BigEndian.PutUint64(msg[i:], rand.Uint64())
	}
	start := time.Now()
	if _, terr = ep.Write(bytes.NewReader(msg), tcpip.WriteOptions{}); terr != nil {
		return 0, fault(terr)
	}
	for {
		var got bytes.Buffer
		_, terr := ep.Read(&got, tcpip.ReadOptions{})
		switch terr.(type) {
		case nil:
			if b := got.Bytes(); len(b) == len(msg) && bytes.Equal(b[head:], msg[head:]) {
				return time.Since(start), nil
			}
			continue
		case *tcpip.ErrWouldBlock:
		default:
			return 0, fault(terr)
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-ready:
		}
	}
}
