//go:build linux

package port

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"slicewire/overlay"

	"golang.org/x/sys/unix"
)

// DefaultName is the name of an interface that was given none.
const DefaultName = "sw0"

// Config says what a port is like.
type Config struct {
	Name string // of the interface; empty means DefaultName
	MTU  int    // zero means overlay.DefaultMTU

	// Addrs are the interface's addresses, each with the prefix that is on the
	// link; Routes what else goes through it.
	Addrs, Routes []netip.Prefix

	Offload bool // false: every packet crosses alone and whole, for kernels with broken offloads

	// Owner marks what outlives a killed process, for Cleanup. It should name
	// the process's state folder or the like; empty is an owner, too.
	Owner string

	Log *slog.Logger // nil means none
}

func (c Config) withDefaults() (Config, error) {
	if c.Name == "" {
		c.Name = DefaultName
	}
	if c.MTU == 0 {
		c.MTU = overlay.DefaultMTU
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if len(c.Name) > unix.IFNAMSIZ-1-len(farSuffix) {
		return c, fmt.Errorf("port %q: name is longer than %d", c.Name, unix.IFNAMSIZ-1-len(farSuffix))
	}
	if c.MTU < 576 || c.MTU > overlay.MaxPacket {
		return c, fmt.Errorf("port %s: MTU %d: not between 576 and %d", c.Name, c.MTU, overlay.MaxPacket)
	}
	for _, p := range c.Addrs {
		if !p.IsValid() || p.Addr().Is4In6() {
			return c, fmt.Errorf("port %s: address %v: not a prefix", c.Name, p)
		}
	}
	for _, p := range c.Routes {
		if !p.IsValid() || p.Addr().Is4In6() {
			return c, fmt.Errorf("port %s: route %v: not a prefix", c.Name, p)
		}
	}
	return c, nil
}

// A Port is an open device as a Link of the router.
type Port struct {
	name  string
	mtu   int
	file  *os.File
	raw   syscall.RawConn
	frame frame
	log   *slog.Logger
	undo  func() error // nil unless something outlives the file
	drops overlay.Drops

	reader  reader
	writers sync.Pool // *writer
	noTCP   atomic.Bool
	noUDP   atomic.Bool
	down    atomic.Bool

	closing sync.Once
	gone    error
}

// frame is what stands before a packet on the device.
type frame struct {
	vnet bool // a virtio_net_hdr
	eth  bool // and then an Ethernet header
	// dst is the workload's interface, src what it sees as the sender. Zero
	// where there is no Ethernet header.
	dst, src [6]byte
}

// link is the bytes of the link header, len those of all headers.
func (f *frame) link() int {
	if f.eth {
		return ethLen
	}
	return 0
}

func (f *frame) len() int {
	if f.vnet {
		return vnetLen + f.link()
	}
	return f.link()
}

// newPort makes a Port of an open device and owns f from then on.
func newPort(f *os.File, fr frame, cfg Config) (*Port, error) {
	own, err := reopen(f)
	if err != nil {
		return nil, err
	}
	p := &Port{name: cfg.Name, mtu: cfg.MTU, file: own, frame: fr, log: cfg.Log}
	if p.raw, err = own.SyscallConn(); err != nil {
		own.Close()
		return nil, fmt.Errorf("port %s: %w", cfg.Name, err)
	}
	p.reader.init(p)
	p.writers.New = func() any { return newWriter(p) }
	return p, nil
}

// reopen returns f as a file that the runtime polls, whatever f was made by,
// and closes f.
func reopen(f *os.File) (*os.File, error) {
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	if e := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		return nil, e
	}
	if err != nil {
		return nil, fmt.Errorf("dup %s: %w", f.Name(), err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%s: nonblocking: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// Name returns the name of the interface.
func (p *Port) Name() string { return p.name }

// Drops returns the counts of packets that went no further, in both directions.
func (p *Port) Drops() *overlay.Drops { return &p.drops }

// Offloads reports whether the device hands over and takes packets larger than
// the MTU; which of TCP and UDP are joined may shrink when the kernel refuses.
func (p *Port) Offloads() (tcp, udp bool) {
	return p.frame.vnet && !p.noTCP.Load(), p.frame.vnet && !p.noUDP.Load()
}

// Read implements Link. Only the calling goroutine may use bufs until it returns.
func (p *Port) Read(bufs [][]byte, sizes []int) (int, error) { return p.reader.read(bufs, sizes) }

// Write implements Link.
func (p *Port) Write(bufs [][]byte) error {
	w := p.writers.Get().(*writer)
	defer p.writers.Put(w)
	for len(bufs) > 0 {
		n := min(len(bufs), overlay.BatchSize)
		if err := w.write(bufs[:n]); err != nil {
			return err
		}
		bufs = bufs[n:]
	}
	return nil
}

// Close closes the device and removes what Open made.
func (p *Port) Close() error {
	p.closing.Do(func() {
		p.gone = p.file.Close() // first, so that Read hears of nothing else
		if p.undo != nil {
			p.gone = errors.Join(p.gone, p.undo())
		}
	})
	return p.gone
}
