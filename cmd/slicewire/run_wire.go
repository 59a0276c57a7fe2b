package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"slicewire/api"
)

// A linkMessage is one line between a run's client and the daemon, after their
// connection has been upgraded, and between the client and what it starts in
// the new namespaces:
//
//  1. Offer, down: the place on the slice;
//  2. Medium, up, with one descriptor: the device made for it;
//  3. Ready, down: packets flow;
//  4. Error, either way at any time: why there is no going on.
//
// The end of the connection is the end of the attachment.
type linkMessage struct {
	Offer    *api.WorkloadOffer `json:"offer,omitempty"`
	Terminal bool               `json:"terminal,omitempty"` // with Offer: signals of the terminal come by themselves
	Medium   string             `json:"medium,omitempty"`
	Ready    bool               `json:"ready,omitempty"`
	Error    string             `json:"error,omitempty"`
}

// What a device can be.
const (
	mediumTUN    = "tun"
	mediumPacket = "packet"
)

// maxLinkMessage bounds one line.
const maxLinkMessage = 8 << 10

// A linkConn carries lines and descriptors over a unix stream socket. It is
// for one reader and one writer.
type linkConn struct {
	conn  *net.UnixConn
	buf   []byte     // read, and not yet a whole line
	files []*os.File // passed with what is in buf
}

// send writes one line; file, if any, travels with it and stays the caller's.
func (c *linkConn) send(m linkMessage, file *os.File) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if file == nil {
		_, err = c.conn.Write(line)
		return err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	// Control, unlike Fd, leaves the descriptor as it is: non-blocking.
	if cerr := raw.Control(func(fd uintptr) {
		_, _, err = c.conn.WriteMsgUnix(line, unix.UnixRights(int(fd)), nil)
	}); cerr != nil {
		return cerr
	}
	return err
}

// receive reads one line and, when it names a medium, the descriptor that came
// with it or, as the kernel joins what is written, with a line before it; that
// is then the caller's. A peer that passes more than one breaks the agreement.
func (c *linkConn) receive() (linkMessage, *os.File, error) {
	var oob [128]byte
	for {
		if i := bytes.IndexByte(c.buf, '\n'); i >= 0 {
			m, err := parseLinkMessage(c.buf[:i])
			c.buf = c.buf[i+1:]
			if err != nil || m.Medium == "" {
				return m, nil, err
			}
			return m, c.takeFile(), nil
		}
		if len(c.buf) > maxLinkMessage {
			return linkMessage{}, nil, fmt.Errorf("a message of more than %d bytes", maxLinkMessage)
		}
		var chunk [1024]byte
		n, oobn, _, _, err := c.conn.ReadMsgUnix(chunk[:], oob[:])
		c.buf = append(c.buf, chunk[:max(n, 0)]...)
		if oobn > 0 {
			if err := c.keepFiles(oob[:oobn]); err != nil {
				return linkMessage{}, nil, err
			}
		}
		if err != nil {
			return linkMessage{}, nil, err
		}
		if n == 0 {
			return linkMessage{}, nil, io.EOF
		}
	}
}

// keepFiles takes over the descriptors in a control message; the kernel has
// made them close on exec.
func (c *linkConn) keepFiles(oob []byte) error {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return err
		}
		for _, fd := range fds {
			c.files = append(c.files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	if n := len(c.files); n > 1 {
		c.closeFiles()
		return fmt.Errorf("%d descriptors passed, want one", n)
	}
	return nil
}

func (c *linkConn) takeFile() *os.File {
	if len(c.files) == 0 {
		return nil
	}
	f := c.files[0]
	c.files = nil
	return f
}

func (c *linkConn) closeFiles() {
	for _, f := range c.files {
		f.Close()
	}
	c.files = nil
}

// Close closes the connection and what was passed and not taken.
func (c *linkConn) Close() error {
	c.closeFiles()
	return c.conn.Close()
}

func parseLinkMessage(line []byte) (linkMessage, error) {
	var m linkMessage
	if len(line) > maxLinkMessage {
		return m, fmt.Errorf("a message of more than %d bytes", maxLinkMessage)
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return linkMessage{}, fmt.Errorf("message: %w", err)
	}
	switch m.Medium {
	case "", mediumTUN, mediumPacket:
	default:
		return linkMessage{}, fmt.Errorf("message: %q is no kind of device", m.Medium)
	}
	return m, nil
}
