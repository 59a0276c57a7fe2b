package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lock makes this process the only user of the folder until the returned
// release is called or the process ends, however it ends.
func (d stateDir) lock() (release func(), err error) {
	f, err := os.OpenFile(d.path(fileLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the state folder %s: another daemon uses it (%w)", d, err)
	}
	return func() { f.Close() }, nil
}
