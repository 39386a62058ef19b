package rpc

import (
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/transport/internal/frame"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	helloFrame   = frame.New(kindHello, hello{}.encode())
	welcomeFrame = frame.New(kindWelcome, welcome{}.encode())
)

var someTrace = Trace{TraceID: [16]byte{1, 2}, SpanID: [8]byte{3}, Flags: 1, State: "a=b"}

// formats are one of each, as it travels or is kept.
func formats() map[string][]byte {
	q := request{
		id: 7, method: []byte("bank/pay"), timeout: 1500, trace: someTrace, tag: tag{99, 5, 3}, window: 4096,
		payload: []byte("payload"),
	}
	p := response{id: 7, err: &Error{Code: NotLeader, Message: "not here", Detail: "n2", NotRun: true}}
	return map[string][]byte{
		"hello":    frame.New(kindHello, hello{from: "a", to: "b"}.encode()),
		"welcome":  frame.New(kindWelcome, welcome{refusal: "no", code: Failed}.encode()),
		"request":  frame.New(kindRequest, append(q.appendHead(nil), q.payload...)),
		"response": frame.New(kindResponse, append(p.appendHead(nil), "x"...)),
		"credit":   frame.New(kindCredit, wire.AppendUvarint(wire.AppendUvarint(nil, 7), 300)),
		"opened":   record{what: recordOpened, tag: tag{session: 99}}.encode(),
		"begun":    record{what: recordBegun, tag: tag{99, 5, 3}}.encode(),
		"ended":    record{what: recordEnded, tag: tag{99, 5, 1}, failure: p.err, payload: []byte("x")}.encode(),
		"snapshot": goldenTable().encodeLocked(),
	}
}

func goldenTable() *table {
	t := newTestTable()
	s := t.addLocked(99, true)
	s.low = 3
	s.calls[3] = &outcome{payload: []byte("three")}
	s.calls[5] = &outcome{failure: lost}
	t.addLocked(100, false) // is not kept
	return t
}

func newTestTable() *table {
	t, err := newTable(&memory{}, 10, 1<<20)
	if err != nil {
		panic(err)
	}
	return t
}

func TestFormatsAreGolden(t *testing.T) {
	var got strings.Builder
	for _, name := range []string{"hello", "welcome", "request", "response", "credit", "opened", "begun", "ended", "snapshot"} {
		fmt.Fprintf(&got, "%s %x\n", name, formats()[name])
	}
	path := filepath.Join("testdata", "formats.golden")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got.String()), 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got.String())
}

// A peer of a later version may add fields: they are skipped.
func TestUnknownFieldsAreSkipped(t *testing.T) {
	extra := putBytes(putInt(nil, 77, 1234), 78, []byte("something new"))
	var q request
	body := append(putBytes([]byte{5}, fieldMethod, "m"), extra...)
	require.NoError(t, q.decode(append(append(body, 0), "payload"...)))
	require.Equal(t, request{id: 5, method: []byte("m"), payload: []byte("payload")}, q)
	var p response
	require.NoError(t, p.decode(append(append(append([]byte{5}, extra...), 0), "payload"...)))
	require.Equal(t, response{id: 5, payload: []byte("payload")}, p)
	h, err := decodeHello(append(append(putBytes(nil, fieldFrom, "a"), extra...), 0))
	require.NoError(t, err)
	require.Equal(t, hello{from: "a"}, h)
	w, err := decodeWelcome(append(extra, 0))
	require.NoError(t, err)
	require.Zero(t, w)
}

func TestRecordsOfANewerVersionAreRefused(t *testing.T) {
	tb := newTestTable()
	var format *coterie.FormatError
	require.ErrorAs(t, tb.replay([]byte{recordFormat + 1, recordOpened, 1}), &format)
	for _, bad := range [][]byte{nil, {0}, {1}, {1, 0}, {1, 9}, {1, recordOpened}, {1, recordOpened, 0}, {1, recordBegun, 1, 1, 2}, {1, recordSnapshot, 1}} {
		require.ErrorIs(t, tb.replay(bad), wire.ErrMalformed, "%x", bad)
		require.Zero(t, tb.order.Len())
	}
}

func TestTraceparent(t *testing.T) {
	require.Equal(t, "00-01020000000000000000000000000000-0300000000000000-01", someTrace.Traceparent())
	for _, s := range []string{
		"", "00", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
		"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
		"00-0af7651916cd43dd-448eb211c80319cb-b7ad6b7169203331-01",
	} {
		_, err := ParseTraceparent(s)
		require.Error(t, err, s)
	}
	later, err := ParseTraceparent("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-will-be-like")
	require.NoError(t, err)
	require.Equal(t, byte(1), later.Flags)
}

// deliverer plays both ends of a stream, with messages and credit under way between them, against the invariants.
func TestStreamCreditInvariants(t *testing.T) {
	testsize.Checks(t, 200, 20_000)
	rapid.Check(t, func(t *rapid.T) {
		window := rapid.IntRange(1, 2000).Draw(t, "window")
		toReceiver, toSender := &outbox{writing: true}, &outbox{writing: true} // that nobody writes: the test takes the frames
		sender := newStream(context.Background(), 1, toReceiver, 1<<20, 1, 0)
		receiver := newStream(context.Background(), 1, toSender, 1<<20, window, 0)
		require.NoError(t, sender.addCredit(uint64(window)))
		sent, received := 0, 0
		pass := func(o *outbox, take func(k kind, body []byte) error) {
			r := frame.Reader{From: strings.NewReader(string(o.buf)), Limit: frame.MaxLength}
			o.buf = nil
			for {
				k, body, err := r.Next()
				if err != nil {
					return
				}
				require.NoError(t, take(k, body))
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"send": func(t *rapid.T) {
				size := rapid.IntRange(0, 3000).Draw(t, "size")
				if sender.credit < cost(size, sender.most) {
					t.Skip("it would block")
				}
				require.NoError(t, sender.send(make([]byte, size)))
				sent++
			},
			"deliver": func(*rapid.T) {
				pass(toReceiver, func(_ kind, body []byte) error {
					_, payload, err := decodeMessage(body)
					require.NoError(t, err)
					return receiver.deliver(payload)
				})
			},
			"receive": func(t *rapid.T) {
				if len(receiver.inbox) == 0 {
					t.Skip("it would block")
				}
				_, err := receiver.recv()
				require.NoError(t, err)
				received++
			},
			"credit": func(*rapid.T) {
				pass(toSender, func(_ kind, body []byte) error {
					n, err := decodeNote(body, true)
					require.NoError(t, err)
					return sender.addCredit(n.amount)
				})
			},
			"": func(t *rapid.T) {
				waits := 0
				for _, p := range receiver.inbox {
					waits += cost(len(p), window)
				}
				require.GreaterOrEqual(t, sender.credit, 0)
				require.GreaterOrEqual(t, receiver.granted, 0)
				require.Equal(t, window, receiver.granted+waits+receiver.due)
				if len(toReceiver.buf)+len(toSender.buf) == 0 {
					require.Equal(t, sender.credit, receiver.granted, "nothing is under way")
					if waits == 0 {
						require.GreaterOrEqual(t, sender.credit, cost(1<<20, window), "any message can be sent")
					}
				}
			},
		})
	})
}

func FuzzRequest(f *testing.F) {
	f.Add(formats()["request"][frame.HeaderSize:])
	f.Add([]byte{1, 0})
	f.Add([]byte{1, 3, 200})
	f.Fuzz(func(t *testing.T, body []byte) {
		var q, again request
		if err := q.decode(body); err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			return
		}
		require.NoError(t, again.decode(append(q.appendHead(nil), q.payload...)))
		require.Equal(t, fmt.Sprintf("%+v", q), fmt.Sprintf("%+v", again))
	})
}

func FuzzResponse(f *testing.F) {
	f.Add(formats()["response"][frame.HeaderSize:])
	f.Add([]byte{1, 0})
	f.Fuzz(func(t *testing.T, body []byte) {
		var p, again response
		if err := p.decode(body); err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			return
		}
		require.NoError(t, again.decode(append(p.appendHead(nil), p.payload...)))
		require.Equal(t, p.err, again.err)
		require.Equal(t, string(p.payload), string(again.payload))
	})
}

func FuzzHello(f *testing.F) {
	f.Add(hello{"a", "b"}.encode())
	f.Add(welcome{"no", Failed}.encode())
	f.Fuzz(func(t *testing.T, body []byte) {
		if h, err := decodeHello(body); err == nil {
			again, err := decodeHello(h.encode())
			require.NoError(t, err)
			require.Equal(t, h, again)
		}
		if w, err := decodeWelcome(body); err == nil {
			_, err := decodeWelcome(w.encode())
			require.NoError(t, err)
		}
		_, _ = decodeNote(body, true)
		_, _, _ = decodeMessage(body)
	})
}

func FuzzTraceparent(f *testing.F) {
	f.Add(someTrace.Traceparent())
	f.Add("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Fuzz(func(t *testing.T, s string) {
		if tr, err := ParseTraceparent(s); err == nil && strings.HasPrefix(s, "00") {
			require.Equal(t, s, tr.Traceparent())
		}
	})
}

// FuzzSessionRecord replays two records: what is malformed changes nothing, and the table that results is saved and
// replayed as the same.
func FuzzSessionRecord(f *testing.F) {
	all := formats()
	f.Add(all["opened"], all["begun"])
	f.Add(all["snapshot"], all["ended"])
	f.Fuzz(func(t *testing.T, first, second []byte) {
		tb := newTestTable()
		for _, rec := range [][]byte{first, second} {
			before := tb.encodeLocked()
			if err := tb.replay(rec); err != nil {
				var format *coterie.FormatError
				require.True(t, errors.Is(err, wire.ErrMalformed) || errors.As(err, &format))
				require.Equal(t, before, tb.encodeLocked())
			}
		}
		again := newTestTable()
		require.NoError(t, again.replay(tb.encodeLocked()))
		require.Equal(t, hex.EncodeToString(tb.encodeLocked()), hex.EncodeToString(again.encodeLocked()))
		require.Equal(t, tb.bytes, again.bytes)
	})
}

// The window of a session against the slow definition: a set of all the calls that ever came.
func TestSessionAgreesWithASet(t *testing.T) {
	testsize.Checks(t, 100, 10_000)
	rapid.Check(t, func(t *rapid.T) {
		tb, err := newTable(nil, 4, 1<<20)
		require.NoError(t, err)
		id, err := tb.open(true)
		require.NoError(t, err)
		came := map[uint64]bool{}
		low := uint64(1)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		for range 200 {
			g := tag{session: id, seq: rng.Uint64N(30) + 1}
			g.low = rng.Uint64N(g.seq) + 1
			low = max(low, g.low)
			o, mine, _, refused := tb.begin(g)
			switch {
			case g.seq < low:
				require.NotNil(t, refused)
			case came[g.seq]:
				require.False(t, mine)
				require.Equal(t, fmt.Sprint(g.seq), string(o.payload))
			default:
				require.True(t, mine)
				tb.end(g, o, nil, []byte(fmt.Sprint(g.seq)))
				came[g.seq] = true
			}
		}
	})
}
