package dnsd

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// bothPorts opens one loopback port for UDP and TCP, which nobody else has in
// either.
func bothPorts(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 100 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", pc.LocalAddr().String())
		if err == nil {
			return pc, l
		}
		pc.Close() // taken for TCP: another one, then
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

// listening runs a server on sockets of the kernel and returns its address.
func listening(t *testing.T, cfg Config, v View) (*Server, *net.UDPAddr) {
	t.Helper()
	pc, l := bothPorts(t)
	cfg.Packet, cfg.Stream = append(cfg.Packet, pc), append(cfg.Stream, l)
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Set(v)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, pc.LocalAddr().(*net.UDPAddr)
}

func protocolView() View {
	v := testView()
	v.Entries = append(v.Entries, testEntries()...)
	return v
}

// The protocol as a real client sees it: dig's own words, by what they must
// and must not hold.
func TestDigAgrees(t *testing.T) {
	dig, err := exec.LookPath("dig")
	if err != nil {
		t.Fatal("dig is missing: run `make prerequisites` as root")
	}
	_, addr := listening(t, Config{Zones: []string{"slice.local", "clusterset.local"}}, protocolView())
	_, port, _ := net.SplitHostPort(addr.String())
	const web, big = "web.shop.svc.slice.local", "big.shop.svc.slice.local"
	for _, c := range []struct {
		name, args string
		want, not  []string
	}{
		{"no EDNS", web + " A +noedns", []string{"status: NOERROR", " aa", "ANSWER: 2", "10.1.0.5"}, []string{"OPT", " ra"}},
		{"EDNS 0", web + " A +edns=0", []string{"NOERROR", "EDNS: version: 0", "udp: 1232", "ANSWER: 2"}, nil},
		{"EDNS 1", web + " A +edns=1 +noednsnegotiation", []string{"status: BADVERS", "EDNS: version: 0", "ANSWER: 0"}, nil},
		{"EDNS 1 with an unknown option", web + " A +edns=1 +noednsnegotiation +ednsopt=65001:0102", []string{"status: BADVERS", "EDNS: version: 0"}, []string{"65001"}},
		{"the largest size there is", web + " A +bufsize=65535", []string{"NOERROR", "udp: 1232", "ANSWER: 2"}, nil},
		{"the smallest", web + " A +bufsize=1", []string{"NOERROR", "ANSWER: 2"}, []string{" tc"}},
		{"an unknown option", web + " A +ednsopt=65001:0102", []string{"NOERROR", "ANSWER: 2"}, []string{"65001"}},
		{"an unknown EDNS flag", web + " A +ednsflags=0x80", []string{"NOERROR", "ANSWER: 2"}, []string{"MBZ"}},
		{"the DO bit comes back", web + " A +dnssec", []string{"NOERROR", "flags: do"}, nil},
		{"CD comes back", web + " A +cdflag", []string{"NOERROR", " cd"}, nil},
		{"AD does not", web + " A +adflag", []string{"NOERROR"}, []string{" ad;", " ad "}},
		{"0x20 is kept", "wEb.ShOp.SVC.slice.LOCAL A", []string{"wEb.ShOp.SVC.slice.LOCAL. 5\tIN\tA"}, nil},
		{"no such name", "nope.shop.svc.slice.local A", []string{"NXDOMAIN", "AUTHORITY: 1", "slice.local.\t\t5\tIN\tSOA"}, nil},
		{"no such data", "v4.shop.svc.slice.local AAAA", []string{"NOERROR", "ANSWER: 0", "IN\tSOA"}, nil},
		{"not ours", "www.example.org A", []string{"REFUSED", "EDE: 20 (Not Authoritative)"}, []string{" aa", "SOA"}},
		{"nobody is reached", "dead.shop.svc.slice.local A", []string{"NOERROR", "EDE: 22 (No Reachable Authority)", "SOA"}, nil},
		{"class CH", "version.bind CH TXT", []string{"REFUSED"}, nil},
		{"ANY", web + " ANY +notcp", []string{"NOERROR", "HINFO\t\"RFC8482\""}, []string{"10.1.0.5"}},
		{"ANY by TCP", web + " ANY +tcp", []string{"HINFO"}, nil},
		{"NOTIFY", web + " SOA +opcode=NOTIFY", []string{"status: NOTIMP", "opcode: NOTIFY"}, nil},
		{"UPDATE", web + " SOA +opcode=UPDATE", []string{"status: NOTIMP"}, nil},
		{"opcode 6", web + " A +opcode=6", []string{"status: NOTIMP"}, nil},
		{"a transfer", "slice.local AXFR", []string{"Transfer failed"}, nil},
		{"the apex", "slice.local SOA", []string{"NOERROR", "ANSWER: 1", "SOA"}, nil},
		{"cut off at 512", big + " A +noedns +ignore", []string{" tc"}, nil},
		{"cut off at 1232", big + " AAAA +bufsize=4096 +ignore", []string{" tc"}, nil},
		{"a size below 512 means 512", big + " A +bufsize=100 +ignore", []string{" tc", "ANSWER: 2"}, nil},
		{"whole by TCP after TC", big + " A +noedns", []string{"Truncated, retrying in TCP mode", "ANSWER: 100"}, []string{" tc"}},
		{"a question only", web + " A +header-only", []string{"FORMERR"}, nil},
		{"SRV", "_http._tcp.virt.shop.svc.clusterset.local SRV", []string{"0 1 80 virt.shop.svc.clusterset.local.", "ADDITIONAL: 3"}, nil},
		{"PTR", "-x 10.1.1.2", []string{"e1.east.head.shop.svc.slice.local."}, nil},
		{"PTR of IPv6", "-x fd00::1:1", []string{"e0.east.head.shop.svc.slice.local."}, nil},
		{"an address that nobody has", "-x 10.1.77.77", []string{"NXDOMAIN", "1.10.in-addr.arpa."}, nil},
		{"the version of the specification", "dns-version.clusterset.local TXT", []string{`"1.0.0"`}, nil},
		{"a cookie is ignored", web + " A +cookie=0102030405060708", []string{"ANSWER: 2"}, []string{"(good)"}},
		{"a subnet is ignored", web + " A +subnet=192.0.2.0/24", []string{"ANSWER: 2"}, []string{"CLIENT-SUBNET"}},
		{"padding is ignored", web + " A +padding=128", []string{"ANSWER: 2"}, []string{"PAD"}},
		{"NSID is nobody's", web + " A +nsid", []string{"ANSWER: 2"}, []string{"NSID"}},
		{"EXPIRE", web + " A +expire", []string{"ANSWER: 2"}, nil},
		{"keepalive", web + " A +tcp +keepalive", []string{"ANSWER: 2"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"@127.0.0.1", "-p", port, "+tries=1", "+time=5"}, strings.Fields(c.args)...)
			out, _ := exec.Command(dig, args...).CombinedOutput() // a failed transfer is an exit code
			for _, w := range c.want {
				if !strings.Contains(string(out), w) {
					t.Errorf("dig does not say %q:\n%s", w, out)
				}
			}
			for _, w := range c.not {
				if strings.Contains(strings.Join(answerLines(string(out)), "\n"), w) {
					t.Errorf("dig says %q:\n%s", w, out)
				}
			}
		})
	}
}

// answerLines leaves out what dig says of itself.
func answerLines(out string) (lines []string) {
	for l := range strings.Lines(out) {
		if !strings.HasPrefix(l, "; <<>>") && !strings.HasPrefix(l, ";; global") && !strings.HasPrefix(l, ";; WARNING") {
			lines = append(lines, l)
		}
	}
	return lines
}

// What no client sends by itself.
func TestCraftedPackets(t *testing.T) {
	_, addr := listening(t, Config{}, View{Entries: testEntries()})
	c, err := net.DialUDP("udp", nil, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	name := "0377656204" + hex.EncodeToString([]byte("shop")) + "0373766305" + hex.EncodeToString([]byte("slice")) + "05" + hex.EncodeToString([]byte("local")) + "00"
	q := name + "00010001"
	opt := "00002904d0000000000000"
	const none = "none" // no reply at all
	for _, c2 := range []struct{ what, msg, want string }{
		{"no question", "beef01000000000000000000", "FORMERR"},
		{"two questions", "beef01000002000000000000" + q + q, "FORMERR"},
		{"a response", "beef81000001000000000000" + q, none},
		{"a header cut off", "beef0100000100000000", none},
		{"a name cut off", "beef010000010000000000000377", "FORMERR"},
		{"a name that points at itself", "beef01000001000000000000c00c00010001", "FORMERR"},
		{"two OPT records", "beef01000001000000000002" + q + opt + opt, "FORMERR"},
		{"an OPT that is somebody's", "beef01000001000000000001" + q + "0161" + opt, "FORMERR"},
		{"an OPT in the answer", "beef01000001000100000000" + q + opt, "FORMERR"},
		{"an OPT longer than the message", "beef01000001000000000001" + q + "00002904d00000000000ff", "FORMERR"},
		{"a record that is not there", "beef01000001000000000001" + q, "FORMERR"},
		{"opcode STATUS", "beef11000001000000000000" + q, "NOTIMP"},
		{"EDNS version 255", "beef01000001000000000001" + q + "00002904d000ff00000000", "BADVERS"},
		{"a type that is none", "beef01000001000000000000" + name + "ffff0001", "NOERROR"},
		{"class ANY", "beef01000001000000000000" + name + "000100ff", "REFUSED"},
		{"all is well", "beef01000001000000000001" + q + opt, "NOERROR"},
	} {
		b, err := hex.DecodeString(c2.msg)
		if err != nil {
			t.Fatal(c2.what, err)
		}
		// Where there is to be none, the reply to a good question after it shows that
		// there was time for one.
		after := query("v4.shop.svc.slice.local", typeA)
		after.Id = 0x1234
		send := [][]byte{b}
		if c2.want == none {
			send = append(send, pack(t, after))
		}
		for _, m := range send {
			if _, err := c.Write(m); err != nil {
				t.Fatal(err)
			}
		}
		got := none
		for {
			var buf [2048]byte
			if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			n, err := c.Read(buf[:])
			if err != nil {
				t.Fatalf("%s: %v", c2.what, err)
			}
			if binary.BigEndian.Uint16(buf[:]) == 0x1234 {
				break
			}
			var m dns.Msg
			if err := m.Unpack(buf[:n]); err != nil {
				t.Fatalf("%s: %v", c2.what, err)
			}
			got = strings.Fields(show(&m))[0]
			if c2.want != none {
				break
			}
		}
		if got != c2.want {
			t.Errorf("%s: %s, want %s", c2.what, got, c2.want)
		}
	}
}

// What can be asked from a forged address on an open socket comes back at most
// four times as long, whatever is asked.
func TestAnswersToStrangersAreShort(t *testing.T) {
	s := newServer(t, Config{})
	worst := 0.0
	for _, name := range []string{"web.shop.svc.slice.local", "big.shop.svc.slice.local", "nope.slice.local", "example.com", "slice.local", "."} {
		for qtype := range uint16(270) {
			for _, size := range []uint16{0, 512, 1232, 65535} {
				q := query(name, qtype)
				if size > 0 {
					q.SetEdns0(size, true)
				}
				msg := pack(t, q)
				reply := s.respond(nil, msg, min(maxUDP, amplification*len(msg)))
				if ratio := float64(len(reply)) / float64(len(msg)); ratio > worst {
					worst = ratio
				}
				if len(reply) > amplification*len(msg) {
					t.Errorf("%s type %d, size %d: %d bytes for %d", name, qtype, size, len(reply), len(msg))
				}
				var m dns.Msg
				if m.Unpack(reply) != nil {
					t.Errorf("%s type %d: the reply does not parse", name, qtype)
				}
			}
		}
	}
	t.Logf("at most %.2f times as long", worst)
}

// Thousands of connections that say nothing, or half of something, cost UDP nothing.
func TestSlowStreamsDoNotHinderUDP(t *testing.T) {
	s, addr := listening(t, Config{}, View{Entries: testEntries()})
	for i := range 1000 {
		c, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer c.Close()
		if i%2 == 0 {
			_, _ = c.Write([]byte{0, 40, 1}) // it may have been refused already
		}
	}
	c, err := net.DialUDP("udp", nil, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 500 {
		q := query("v4.shop.svc.slice.local", typeA)
		q.Id = uint16(i)
		if _, err := c.Write(pack(t, q)); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		var buf [512]byte
		if _, err := io.ReadAtLeast(c, buf[:], 12); err != nil {
			t.Fatalf("question %d: %v", i, err)
		}
	}
	if n := s.Stats().Streams; n > maxStreamsPerClient {
		t.Errorf("%d streams are open, one client may have %d", n, maxStreamsPerClient)
	}
}
