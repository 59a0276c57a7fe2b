package netstack

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	gvisor "gvisor.dev/gvisor/pkg/log"
)

// foreignLog takes what gVisor has to say, of which a peer causes some, out of
// the process's standard error and into our log, as a detail.
type foreignLog struct{ log *slog.Logger }

// Emit implements gVisor's log.Emitter.
func (f foreignLog) Emit(_ int, _ gvisor.Level, _ time.Time, format string, v ...any) {
	if f.log.Enabled(context.Background(), slog.LevelDebug) {
		f.log.Debug("gvisor", "text", fmt.Sprintf(format, v...))
	}
}
