package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/clock/clocksync"
)

// askNTP exchanges four packets with a server, as clocksync has it, and sets an interval clock by the best.
func askNTP(stdout *strings.Builder, server string) error {
	conn, err := net.Dial("udp", server)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	association, err := clocksync.NewAssociation(rand.Uint64() | 1)
	if err != nil {
		return err
	}
	interval, err := clock.NewIntervalClock(clock.IntervalConfig{})
	if err != nil {
		return err
	}
	for range 4 {
		s, err := exchange(conn, association)
		if err != nil {
			return fmt.Errorf("%s: %w", server, err)
		}
		fmt.Fprintf(stdout, "offset %v ± %v, round trip %v\n", s.Offset, s.Error, s.Delay)
		if err := interval.Sync(s.At, s.Interval()); err != nil {
			return err
		}
	}
	if best, ok := association.Best(time.Now()); ok {
		fmt.Fprintf(stdout, "the local clock is off by %v ± %v\n", best.Offset, best.Error)
	}
	fmt.Fprintf(stdout, "it is %v\n", interval.Now())
	return nil
}

// exchange sends one request and waits up to two seconds for its answer; what else comes is passed over.
func exchange(conn net.Conn, association *clocksync.Association) (clocksync.Sample, error) {
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return clocksync.Sample{}, err
	}
	if _, err := conn.Write(association.Request(time.Now())); err != nil {
		return clocksync.Sample{}, err
	}
	packet := make([]byte, 1024)
	for {
		n, err := conn.Read(packet)
		if err != nil {
			return clocksync.Sample{}, err
		}
		s, err := association.Receive(time.Now(), packet[:n])
		if errors.Is(err, clocksync.ErrBogus) {
			continue
		}
		return s, err
	}
}
