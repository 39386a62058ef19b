package consensus

import (
	"errors"
	"log/slog"
	"time"

	"github.com/coterie-go/coterie"
)

// Config tells a Driver what to run a core on.
type Config struct {
	Transport    coterie.Transport    // required; names this node; not closed by the driver
	Journal      coterie.Journal      // required; not closed by the driver
	Snapshots    coterie.Snapshots    // required; all that is in it and that the journal does not name is removed
	StateMachine coterie.StateMachine // required; a panic of it ends the process

	SnapshotBytes   int64 // bytes of log between two snapshots, see MachineConfig; default 64 MiB, negative is never
	SnapshotEntries int   // entries between two snapshots; default 0, only bytes count

	MaxPending      int // proposals and reads that wait for an answer; default 65,536; beyond it ErrOverloaded
	MaxPendingBytes int // bytes of them; default 64 MiB

	// The bounds of the table of sessions count when this node's driver proposes to open one: they travel in the log.
	SessionTTL      time.Duration // of the log's clock, that a session may be idle; default 1 h
	MaxSessions     int           // default 65,536; beyond it the one idle for longest is forgotten
	MaxSessionBytes int           // results kept for all sessions; default 64 MiB

	// Clock tells the wall time that entries are stamped with; default time.Now. It may be wrong: the log's clock still
	// never goes back, but what expires by it expires early or late.
	Clock func() time.Time
	// Check is the host's: it sees each message before the core does.
	Check func(from coterie.NodeID, payload []byte) error
	// Event sees each event of the core but Committed, ReadAt, Rejected, ReadChunk and WriteChunk, on the host's
	// goroutine: it must not block, and may not call Do or Close.
	Event        func(now time.Time, event any)
	Log          *slog.Logger  // default silent
	CloseTimeout time.Duration // how long Close bears with one hung sync; default 10 s

	bug bug
}

func (c Config) withDefaults() Config {
	if c.MaxPending == 0 {
		c.MaxPending = 1 << 16
	}
	if c.MaxPendingBytes == 0 {
		c.MaxPendingBytes = 64 << 20
	}
	if c.SessionTTL == 0 {
		c.SessionTTL = time.Hour
	}
	if c.MaxSessions == 0 {
		c.MaxSessions = 1 << 16
	}
	if c.MaxSessionBytes == 0 {
		c.MaxSessionBytes = 64 << 20
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	check := func(ok bool, fault string) {
		if !ok {
			errs = append(errs, errors.New("consensus: Config."+fault))
		}
	}
	check(c.Transport != nil, "Transport is required")
	check(c.Journal != nil, "Journal is required")
	check(c.Snapshots != nil, "Snapshots is required")
	check(c.StateMachine != nil, "StateMachine is required")
	check(c.SnapshotEntries >= 0, "SnapshotEntries is negative")
	check(c.MaxPending >= 0, "MaxPending is negative")
	check(c.MaxPending <= 1<<24, "MaxPending is over 16,777,216")
	check(c.MaxPendingBytes >= 0, "MaxPendingBytes is negative")
	check(c.SessionTTL >= 0, "SessionTTL is negative")
	check(c.MaxSessions >= 0, "MaxSessions is negative")
	check(c.MaxSessionBytes >= 0, "MaxSessionBytes is negative")
	check(c.CloseTimeout >= 0, "CloseTimeout is negative")
	return errors.Join(errs...)
}

func (c Config) limits() limits {
	return limits{ttl: int64(c.SessionTTL), count: c.MaxSessions, bytes: c.MaxSessionBytes}
}
