package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"slicewire/api"
)

// linkPair is a connection with both ends here.
func linkPair(t *testing.T) (a, b *linkConn) {
	t.Helper()
	a, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	if b, err = fileLinkConn(theirs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestADescriptorTravelsWithItsMessage(t *testing.T) {
	a, b := linkPair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := errors.Join(a.send(linkMessage{Offer: &api.WorkloadOffer{Slice: "blue"}}, nil), a.send(linkMessage{Medium: mediumTUN}, w), a.send(linkMessage{Ready: true}, nil)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if m, f, err := b.receive(); err != nil || f != nil || m.Offer.Slice != "blue" {
		// The kernel hands the descriptor over with this one already.
		t.Fatalf("first: %+v, %v, %v", m, f, err)
	}
	m, f, err := b.receive()
	if err != nil || f == nil || m.Medium != mediumTUN {
		t.Fatalf("second: %+v, %v, %v", m, f, err)
	}
	if _, err := f.WriteString("through"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "through" {
		t.Errorf("%q, %v", got, err)
	}
	if m, f, err := b.receive(); err != nil || f != nil || !m.Ready {
		t.Errorf("third: %+v, %v, %v", m, f, err)
	}
	a.Close()
	if _, _, err := b.receive(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

func TestTheAgreementOnMessagesIsHeld(t *testing.T) {
	for _, tc := range []struct {
		name string
		line string
		fds  int
		says string
	}{
		{"two descriptors", `{"medium":"tun"}` + "\n", 2, "descriptors"},
		{"a flood of descriptors", `{"medium":"tun"}` + "\n", 200, "descriptors"},
		{"no JSON", "medium tun\n", 1, "message"},
		{"an unknown medium", `{"medium":"file"}` + "\n", 1, "no kind of device"},
		{"no end of line", strings.Repeat("x", 2*maxLinkMessage), 0, "more than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, b := linkPair(t)
			fds := make([]int, tc.fds)
			for i := range fds {
				fds[i] = int(os.Stderr.Fd())
			}
			var oob []byte
			if tc.fds > 0 {
				oob = unix.UnixRights(fds...)
			}
			if _, _, err := a.conn.WriteMsgUnix([]byte(tc.line), oob, nil); err != nil {
				t.Fatal(err)
			}
			before := openDescriptors(t)
			defer func() {
				b.Close()
				if after := openDescriptors(t); after >= before {
					t.Errorf("%d descriptors before, %d at the end", before, after)
				}
			}()
			if _, f, err := b.receive(); err == nil || f != nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v, %v; want it to say %q", f, err, tc.says)
			}
		})
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func FuzzLinkMessage(f *testing.F) {
	f.Add([]byte(`{"offer":{"slice":"blue","address":"10.1.2.3","subnet":"10.1.0.0/16","dns":["10.1.0.1"]},"terminal":true}`))
	f.Add([]byte(`{"medium":"tun"}`))
	f.Add([]byte(`{"error":"\u0000"}`))
	f.Add([]byte(`{"offer":{"address":"::ffff:1.2.3.4"}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := parseLinkMessage(line)
		if err != nil {
			if m != (linkMessage{}) {
				t.Fatalf("a refused message says %+v", m)
			}
			return
		}
		if len(line) > maxLinkMessage || m.Medium != "" && m.Medium != mediumTUN && m.Medium != mediumPacket {
			t.Fatalf("accepted %q", line)
		}
		if m.Offer != nil && bytes.ContainsAny([]byte(resolvConf(*m.Offer)), "\x00") && !bytes.Contains(line, []byte(`\u0000`)) {
			t.Fatalf("%q", line)
		}
	})
}
