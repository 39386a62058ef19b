package transporttest_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/transporttest"
	"github.com/stretchr/testify/require"
)

const limit = 1 << 16

// broken transports, each wrong in one way, by the test that must find it.
var broken = map[string]func(coterie.Transport) coterie.Transport{
	"Delivers":                func(t coterie.Transport) coterie.Transport { return liar{t} },
	"PayloadsAreKept":         func(t coterie.Transport) coterie.Transport { return &recycler{Transport: t} },
	"SendErrors":              func(t coterie.Transport) coterie.Transport { return forgiving{t} },
	"OneGoroutineForEachPeer": func(t coterie.Transport) coterie.Transport { return hasty{t} },
	"NoCallAfterReceive":      func(t coterie.Transport) coterie.Transport { return &loose{Transport: t} },
	"NoCallAfterClose":        func(t coterie.Transport) coterie.Transport { return &loose{Transport: t, closes: true} },
}

// liar says that everything comes from z.
type liar struct{ coterie.Transport }

func (l liar) Receive(handle func(coterie.NodeID, []byte)) {
	l.Transport.Receive(func(_ coterie.NodeID, payload []byte) {
		if handle != nil {
			handle("z", payload)
		}
	})
}

// recycler reads into one buffer for ever.
type recycler struct {
	coterie.Transport
	buf [limit]byte
}

func (r *recycler) Receive(handle func(coterie.NodeID, []byte)) {
	r.Transport.Receive(func(from coterie.NodeID, payload []byte) {
		if handle != nil {
			handle(from, r.buf[:copy(r.buf[:], payload)])
		}
	})
}

// forgiving knows no errors.
type forgiving struct{ coterie.Transport }

func (f forgiving) Send(to coterie.NodeID, payload []byte) error {
	_ = f.Transport.Send(to, payload)
	return nil
}

// hasty calls the handler by many goroutines.
type hasty struct{ coterie.Transport }

func (h hasty) Receive(handle func(coterie.NodeID, []byte)) {
	h.Transport.Receive(func(from coterie.NodeID, payload []byte) {
		if handle != nil {
			for range 3 {
				go handle(from, payload)
			}
		}
	})
}

// loose calls an old handler still, when it has a new one; or, if it closes, after Close.
type loose struct {
	coterie.Transport
	closes bool
	last   func(coterie.NodeID, []byte)
}

func (l *loose) Receive(handle func(coterie.NodeID, []byte)) {
	old := l.last
	l.last = handle
	l.Transport.Receive(func(from coterie.NodeID, payload []byte) {
		if old != nil && !l.closes {
			old(from, payload)
		}
		if handle != nil {
			handle(from, payload)
		}
	})
}

func (l *loose) Close() error {
	err := l.Transport.Close()
	if l.closes && l.last != nil {
		l.last("a", nil)
	}
	return err
}

// Send of a loose transport calls its own handler after Close.
func (l *loose) Send(to coterie.NodeID, payload []byte) error {
	err := l.Transport.Send(to, payload)
	if l.closes && l.LocalID() == "b" && l.last != nil {
		l.last("a", payload)
	}
	return err
}

const brokenEnv = "COTERIE_BROKEN_TRANSPORT"

// TestBroken runs the suite on a broken transport, in a process of its own that TestSuiteFindsWhatIsBroken starts.
func TestBroken(t *testing.T) {
	wrap := broken[os.Getenv(brokenEnv)]
	if wrap == nil {
		t.Skip("started by TestSuiteFindsWhatIsBroken")
	}
	transporttest.Run(t, func(_ *testing.T, ids ...coterie.NodeID) *transporttest.Cluster {
		net := transport.NewNetwork(transport.NetworkConfig{MaxPayload: limit})
		c := &transporttest.Cluster{MaxPayload: limit}
		for _, id := range ids {
			c.Nodes = append(c.Nodes, wrap(net.Join(id)))
		}
		return c
	})
}

func TestSuiteFindsWhatIsBroken(t *testing.T) {
	for name := range broken {
		t.Run(name, func(t *testing.T) {
			command := exec.Command(os.Args[0], "-test.run=^TestBroken$/^"+name+"$", "-test.timeout=60s")
			command.Env = append(os.Environ(), brokenEnv+"="+name)
			out, err := command.CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, "the suite passes a broken transport:\n%s", out)
			require.Contains(t, string(out), "--- FAIL: TestBroken/"+name)
		})
	}
}
