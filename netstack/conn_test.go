package netstack

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

func TestAbortResetsTheOtherSide(t *testing.T) {
	one, two := pair(t, nil)
	near, far := connect(t, one, two, two4)
	defer near.Close()
	defer far.Close()
	blocked := make(chan error, 1)
	go func() {
		_, err := far.Read(make([]byte, 1))
		blocked <- err
	}()
	far.(interface{ Abort() }).Abort()
	if err := near.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the other side reads %v, want ECONNRESET", err)
	}
	if err := <-blocked; err == nil {
		t.Error("a blocked read goes on without an error")
	}
}

func TestAListenerTakesThePlaceOfAnEarlierOne(t *testing.T) {
	one, two := pair(t, nil)
	for round := range 2 {
		l, err := two.ListenTCP(netip.AddrPortFrom(two4, 80))
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		accepted := make(chan net.Conn, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				t.Error(err)
			}
			accepted <- c
		}()
		near, err := one.DialTCP(within(t), netip.Addr{}, l.Addr().(*net.TCPAddr).AddrPort())
		if err != nil {
			t.Fatal(err)
		}
		// The listening side closes first: its end is the one in TIME_WAIT.
		far := <-accepted
		far.Close()
		if _, err := near.Read(make([]byte, 1)); err == nil {
			t.Error("data from a closed connection")
		}
		near.Close()
		l.Close()
	}
}
