package statedir

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// How long a daemon waits for the folder: one that was killed holds it until the
// kernel has cleared it away, which may be after its successor has started.
const (
	lockWait  = 2 * time.Second
	lockRetry = 10 * time.Millisecond
)

// Lock makes this process the only user of the folder until the returned
// release is called or the process ends, however it ends.
func (d Dir) Lock() (release func(), err error) {
	f, err := os.OpenFile(d.Path(fileLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state folder: %w", err)
	}
	for end := time.Now().Add(lockWait); ; time.Sleep(lockRetry) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			f.Close()
			return nil, fmt.Errorf("lock the state folder %s: another daemon uses it (%w)", d, err)
		}
	}
}
