package swim

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/coterie-go/coterie"
)

// Config configures a member. Only ID and, for Start, Transport are required.
type Config struct {
	ID        coterie.NodeID    // required: this member
	Transport coterie.Transport // required by Start: package udp, or another; not closed by the Node
	// Seed decides all that is random. It must be another one for every member and every start: packets are encrypted
	// with nonces that follow from it. Required by NewCore; Start draws it if it is 0.
	Seed uint64

	Address string           // where others reach the Transport; default its Addr(), if it has that method
	Seeds   []coterie.NodeID // members to join by, whose addresses the Transport knows; default none: others join us
	Meta    []byte           // metadata, at most MaxMeta bytes; default none
	Keys    [][]byte         // AES keys of 16, 24 or 32 bytes: the first encrypts, all decrypt; default none: in the clear

	ProbeInterval time.Duration // P, between probes; default 500 ms
	ProbeTimeout  time.Duration // how long a direct probe waits for its answer, less than P; default 0.4 P
	SuspicionMult int           // a suspicion lasts at least SuspicionMult * max(1, log10 n) * P; default 6
	SyncInterval  time.Duration // between comparisons of the whole view with another member's; default 10 s
	RetryInterval time.Duration // between attempts to reach who is unreachable; default 10 s
	ForgetAfter   time.Duration // Unreachable becomes Dead after so long, and Dead and Left are forgotten; default 24 h
	MaxPacket     int           // bytes of a packet that the network carries whole, 512 to 65,000; default 1400

	Log *slog.Logger // what members send that is malformed; default silent

	plain bool // SWIM as it was before Lifeguard: for comparison
}

// Limits of what travels.
const (
	MaxMeta = 16 << 20 // bytes of metadata
	maxID   = 255      // bytes of an id or an address
)

// Constants of the protocol, as in the papers.
const (
	indirectProbes = 3 // k of SWIM
	fanout         = 3 // members that a round of gossip goes to
	retransmitMult = 4 // lambda: each change is sent lambda * ceil(log10(n+1)) times
	confirmations  = 3 // K of Lifeguard: independent suspicions that end the waiting early
	suspicionMax   = 6 // beta of Lifeguard: an unconfirmed suspicion lasts so many times the least
	maxHealth      = 8 // S of Lifeguard: the largest local health multiplier
	seekers        = 8 // expected number of members that check a suspicion of others at once
)

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	c.ProbeInterval = cmp.Or(c.ProbeInterval, 500*time.Millisecond)
	c.ProbeTimeout = cmp.Or(c.ProbeTimeout, c.ProbeInterval*2/5)
	c.SuspicionMult = cmp.Or(c.SuspicionMult, 6)
	c.SyncInterval = cmp.Or(c.SyncInterval, 10*time.Second)
	c.RetryInterval = cmp.Or(c.RetryInterval, 10*time.Second)
	c.ForgetAfter = cmp.Or(c.ForgetAfter, 24*time.Hour)
	c.MaxPacket = cmp.Or(c.MaxPacket, 1400)
	return c
}

// validate names every field that is wrong.
func (c Config) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("swim: Config."+format, args...))
		}
	}
	check(c.ID != "", "ID is required")
	check(len(c.ID) <= maxID, "ID is longer than %d bytes", maxID)
	check(c.Seed != 0, "Seed is required: another one for each member and each start")
	check(len(c.Address) <= maxID, "Address is longer than %d bytes", maxID)
	check(len(c.Meta) <= MaxMeta, "Meta has %d bytes, at most %d", len(c.Meta), MaxMeta)
	for _, seed := range c.Seeds {
		check(seed != "" && len(seed) <= maxID, "Seeds has an id of %d bytes, not 1 to %d", len(seed), maxID)
	}
	if _, err := newKeyring(c.Keys); err != nil {
		errs = append(errs, fmt.Errorf("swim: Config.Keys: %w", err))
	}
	const least, most = time.Millisecond, 24 * 365 * time.Hour
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"ProbeInterval", c.ProbeInterval}, {"ProbeTimeout", c.ProbeTimeout}, {"SyncInterval", c.SyncInterval},
		{"RetryInterval", c.RetryInterval}, {"ForgetAfter", c.ForgetAfter},
	} {
		check(d.value >= least && d.value <= most, "%s is %v, not %v to %v", d.name, d.value, least, most)
	}
	check(c.ProbeTimeout < c.ProbeInterval, "ProbeTimeout %v is not less than ProbeInterval %v", c.ProbeTimeout, c.ProbeInterval)
	check(c.SuspicionMult >= 1 && c.SuspicionMult <= 1000, "SuspicionMult is %d, not 1 to 1000", c.SuspicionMult)
	check(c.MaxPacket >= 512 && c.MaxPacket <= 65_000, "MaxPacket is %d, not 512 to 65,000", c.MaxPacket)
	return errors.Join(errs...)
}
