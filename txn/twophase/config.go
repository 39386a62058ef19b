package twophase

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/txn"
)

// Config describes a node. ID is required; Start also needs Transport and Journal.
type Config struct {
	ID        coterie.NodeID    // required; at most 255 bytes
	Transport coterie.Transport // required by Start; NewCore ignores it
	Journal   coterie.Journal   // required by Start; NewCore ignores it
	// Resource takes part in transactions under this node's name; nil for a node that only coordinates, which votes No.
	// NewCore ignores it: who runs a Core answers its events instead.
	Resource txn.Participant

	PrepareTimeout time.Duration // from the start of voting until the coordinator aborts; default 5 s
	Resend         time.Duration // until the coordinator repeats what was not answered, then twice as long, up to 16 times; default 250 ms
	InquireAfter   time.Duration // without news until a participant asks, then twice as long, up to 16 times; default 1 s
	MaxOpen        int           // unfinished transactions in each role; default 65,536
	Log            *slog.Logger  // Start only; nil is silent
}

func (c Config) withDefaults() Config {
	if c.PrepareTimeout == 0 {
		c.PrepareTimeout = 5 * time.Second
	}
	if c.Resend == 0 {
		c.Resend = 250 * time.Millisecond
	}
	if c.InquireAfter == 0 {
		c.InquireAfter = time.Second
	}
	if c.MaxOpen == 0 {
		c.MaxOpen = 1 << 16
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.ID == "":
		return errors.New("twophase: Config.ID is required")
	case len(c.ID) > 255:
		return fmt.Errorf("twophase: Config.ID has %d bytes, over 255", len(c.ID))
	case c.PrepareTimeout < 0:
		return errors.New("twophase: Config.PrepareTimeout is negative")
	case c.Resend < 0:
		return errors.New("twophase: Config.Resend is negative")
	case c.InquireAfter < 0:
		return errors.New("twophase: Config.InquireAfter is negative")
	case c.MaxOpen < 0:
		return errors.New("twophase: Config.MaxOpen is negative")
	}
	return nil
}
