package consensus

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/internal/wire"
)

func (r *rig) names(t *testing.T) []string {
	t.Helper()
	names, err := r.store.Names()
	require.NoError(t, err)
	return names
}

// The index and the state stand in one file, so that a restart applies each entry once (etcd-io/etcd#13766).
func TestSnapshotsAreTakenAndRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{SnapshotEntries: 10})
		for range 35 {
			r.mustPropose(t, 1)
			synctest.Wait()
		}
		r.mustDo(t, func(s *solo) {
			assert.Len(t, s.compacts, 3)
			assert.Equal(t, uint64(30), s.base)
		})
		synctest.Wait()
		assert.Equal(t, []string{snapshotName("a", 30)}, r.names(t), "superseded snapshots stay")
		r.stop(t)

		r.store.files["orphan"] = nil
		r.start(t)
		synctest.Wait()
		assert.Equal(t, []string{snapshotName("a", 30)}, r.names(t), "orphans stay")
		assert.Equal(t, 1, r.sm.restored)
		assert.Len(t, r.sm.entries, 5)
		assert.Equal(t, 36, r.mustPropose(t, 1))
		assert.Equal(t, uint64(36), r.Status().Applied)
	})
}

// A snapshot is due by the bytes of the log, and not before the log has grown by as much as the last one had.
func TestSnapshotDue(t *testing.T) {
	m := NewMachine(MachineConfig{StateMachine: new(tally), SnapshotBytes: 1000})
	apply := func(n int) {
		for range n {
			e := envelope{kind: kindPlain, body: make([]byte, 27)} // 100 bytes with all around it
			_, err := m.Apply(Committed{m.Index() + 1, []Entry{{Command: e.append(nil)}}})
			require.NoError(t, err)
		}
	}
	apply(9)
	assert.False(t, m.SnapshotDue())
	apply(1)
	assert.True(t, m.SnapshotDue())
	_, err := m.Capture()
	require.NoError(t, err)
	m.Written(2000)
	apply(19)
	assert.False(t, m.SnapshotDue())
	apply(1)
	assert.True(t, m.SnapshotDue())
	m.cfg.SnapshotBytes = -1
	assert.False(t, m.SnapshotDue())
}

func TestCorruptSnapshotStopsStart(t *testing.T) {
	for name, damage := range map[string]func(*memory, string){
		"flipped":   func(m *memory, n string) { m.files[n][len(m.files[n])/2] ^= 1 },
		"truncated": func(m *memory, n string) { m.files[n] = m.files[n][:len(m.files[n])-1] },
		"longer":    func(m *memory, n string) { m.files[n] = append(m.files[n], 0) },
		"missing":   func(m *memory, n string) { delete(m.files, n) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Config{})
				r.mustPropose(t, 7)
				require.NoError(t, r.Snapshot(t.Context()))
				require.NoError(t, r.Snapshot(t.Context()), "nothing has changed")
				r.stop(t)
				file := r.names(t)[0]
				damage(r.store, file)
				err := r.tryStart(t)
				require.Error(t, err)
				assert.ErrorContains(t, err, file)
				if name == "missing" {
					assert.ErrorIs(t, err, os.ErrNotExist)
				} else {
					assert.ErrorIs(t, err, ErrCorruptSnapshot)
				}
				assert.Equal(t, 0, r.sm.restored, "the state machine saw a corrupt snapshot")
			})
		})
	}
}

// A disk that takes no snapshot does not stop the log.
func TestSnapshotThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{SnapshotEntries: 2})
		r.store.fail = errors.New("disk full")
		r.mustPropose(t, 1)
		assert.ErrorIs(t, r.Snapshot(t.Context()), r.store.fail)
		for range 10 {
			r.mustPropose(t, 1)
		}
		synctest.Wait()
		r.mustDo(t, func(s *solo) { assert.Empty(t, s.compacts) })
		r.store.mu.Lock()
		r.store.fail = nil
		r.store.mu.Unlock()
		require.NoError(t, r.Snapshot(t.Context()))
		r.mustDo(t, func(s *solo) { assert.Len(t, s.compacts, 1) })
	})
}

func TestChunksTravel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, to := newRig(t, Config{}), newRig(t, Config{})
		from.mustPropose(t, 123456)
		require.NoError(t, from.Snapshot(t.Context()))
		var snap Snapshot
		from.mustDo(t, func(s *solo) { snap = s.snapshot })
		content := from.store.files[snap.Name]
		assert.Equal(t, snap, Snapshot{snap.Name, int64(len(content)), xxhash.Sum64(content)})
		snap.Name = "received"

		const size = 4
		for at := 0; at < len(content); at += size {
			from.mustDo(t, func(s *solo) {
				s.Emit(ReadChunk{ID: uint64(at), Name: from.names(t)[0], Offset: int64(at), Limit: size})
			})
			to.mustDo(t, func(s *solo) {
				s.Emit(WriteChunk{ID: uint64(at), Snapshot: snap, Offset: int64(at), Data: content[at:min(at+size, len(content))]})
			})
			synctest.Wait()
		}
		var want, written []any
		for at := 0; at < len(content); at += size {
			want = append(want, "read "+fmtChunk(at, content[at:min(at+size, len(content))]))
			written = append(written, "written "+strconv.Itoa(at)+" <nil>")
		}
		from.mustDo(t, func(s *solo) { assert.Equal(t, want, s.chunks) })
		to.mustDo(t, func(s *solo) { assert.Equal(t, written, s.chunks) })
		assert.Equal(t, content, to.store.files["received"])

		to.mustDo(t, func(s *solo) {
			s.base, s.committed, s.entries = 1, 1, nil
			s.Emit(Installed{Index: 1, Snapshot: snap})
		})
		synctest.Wait()
		assert.Equal(t, 123457, to.mustPropose(t, 1))
		assert.Equal(t, uint64(2), to.Status().Applied)
	})
}

func TestClerkRefusesWhatDoesNotFit(t *testing.T) {
	content := []byte("0123456789")
	snap := Snapshot{Name: "s", Size: 10, Checksum: xxhash.Sum64(content)}
	store := newMemory()
	c := clerk{store: store}
	defer c.close()
	begin := func() { require.NoError(t, c.write(WriteChunk{Snapshot: snap, Data: content[:4]})) }
	wrong := snap
	wrong.Checksum++
	for name, e := range map[string]WriteChunk{
		"gap":            {Snapshot: snap, Offset: 5, Data: content[5:]},
		"repetition":     {Snapshot: snap, Offset: 2, Data: content[2:]},
		"too long":       {Snapshot: snap, Offset: 4, Data: append(content[4:10:10], 'x')},
		"other snapshot": {Snapshot: wrong, Offset: 4, Data: content[4:]},
	} {
		begin()
		require.Error(t, c.write(e), name)
		require.Error(t, c.write(WriteChunk{Snapshot: snap, Offset: 4, Data: content[4:]}), "after %s something was left", name)
	}
	err := c.write(WriteChunk{Snapshot: wrong, Data: content})
	require.ErrorIs(t, err, ErrCorruptSnapshot)
	assert.Empty(t, store.files)
	begin()
	begin() // anew
	require.NoError(t, c.write(WriteChunk{Snapshot: snap, Offset: 4, Data: content[4:]}))
	assert.Equal(t, content, store.files["s"])

	for _, e := range []ReadChunk{{Name: "s", Offset: -1, Limit: 1}, {Name: "s", Limit: -1}, {Name: "none", Limit: 1}} {
		_, err := c.read(e)
		require.Error(t, err, "%+v", e)
	}
	for _, at := range []int64{0, 3, 0, 6, 9, 10, 12} { // several peers, each at its place
		data, err := c.read(ReadChunk{Name: "s", Offset: at, Limit: 3})
		require.NoError(t, err)
		assert.Equal(t, string(content[min(at, 10):min(at+3, 10)]), string(data))
	}
	assert.LessOrEqual(t, len(c.readers), maxReaders)
	require.NoError(t, c.remove("s"))
	assert.Empty(t, c.readers)
	assert.Empty(t, store.files)
}

func fmtChunk(id int, data []byte) string {
	var b strings.Builder
	b.WriteString(strconv.Itoa(id) + " ")
	b.WriteString(strconv.Quote(string(data)))
	b.WriteString(" <nil>")
	return b.String()
}

// A snapshot that a newer one overtook is removed and not given to the core.
func TestSnapshotOvertakenByAnInstall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		for range 3 {
			r.mustPropose(t, 1)
		}
		r.newest = 5
		r.store.files["late"] = []byte("x")
		r.events.put(snapshotWritten{index: 3, snapshot: Snapshot{Name: "late"}})
		synctest.Wait()
		assert.Empty(t, r.names(t))
		r.mustDo(t, func(s *solo) { assert.Empty(t, s.compacts) })
	})
}

// A log of a newer version stops the replica rather than be applied differently.
func TestNewerLogStopsTheReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		r.mustDo(t, func(s *solo) {
			s.entries = append(s.entries, Entry{Command: []byte{maxKind + 1}})
			s.commit()
		})
		<-r.Done()
		var newer *coterie.FormatError
		require.ErrorAs(t, r.Err(), &newer)
		_, err := r.Propose(t.Context(), []byte("1"))
		assert.ErrorIs(t, err, coterie.ErrClosed)
		assert.ErrorAs(t, r.Close(), &newer)
	})
}

// A gap in the log is the core's fault and stops the replica.
func TestGapStopsTheReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		r.mustDo(t, func(s *solo) { s.Emit(Committed{Index: 2, Entries: []Entry{{Internal: true}}}) })
		<-r.Done()
		assert.ErrorContains(t, r.Err(), "entry 2 committed after 0")
	})
}

// What no driver proposes is skipped by every replica alike.
func TestMalformedCommandChangesNothing(t *testing.T) {
	m := NewMachine(MachineConfig{StateMachine: new(tally)})
	for i, command := range [][]byte{nil, {}, {0}, {byte(kindPlain)}, {byte(kindOf), 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1}, {byte(kindPlain), 0x80, 0, 0, 0, 0, 0, 0, 0}} {
		out, err := m.Apply(Committed{uint64(i + 1), []Entry{{ID: 1, Command: command}}})
		require.NoError(t, err)
		require.ErrorIs(t, out[0].Err, wire.ErrMalformed)
	}
	assert.Empty(t, m.cfg.StateMachine.(*tally).entries)
	assert.Equal(t, time.Unix(0, 0).UTC(), m.Now())
}

func drawEnvelope(t *rapid.T) envelope {
	e := envelope{kind: kind(rapid.IntRange(1, int(maxKind)).Draw(t, "kind")), stamp: rapid.Int64Min(0).Draw(t, "stamp")}
	switch e.kind {
	case kindPlain:
		e.body = rapid.SliceOf(rapid.Byte()).Draw(t, "body")
	case kindOf:
		e.tag.Session = rapid.Uint64().Draw(t, "session")
		e.tag.Seq = rapid.Uint64Min(1).Draw(t, "seq")
		e.tag.Low = rapid.Uint64Range(1, e.tag.Seq).Draw(t, "low")
		e.body = rapid.SliceOf(rapid.Byte()).Draw(t, "body")
	case kindOpen:
		e.limits = limits{rapid.Int64Min(0).Draw(t, "ttl"), rapid.IntRange(0, 1<<40).Draw(t, "count"), rapid.IntRange(0, 1<<60).Draw(t, "bytes")}
	case kindEnd:
		e.tag.Session = rapid.Uint64().Draw(t, "session")
	case kindTick:
	}
	return e
}

func TestEnvelopeRoundTrip(t *testing.T) {
	testsize.Checks(t, 500, 50_000)
	rapid.Check(t, func(t *rapid.T) {
		e := drawEnvelope(t)
		b := e.append(nil)
		if len(b) > len(e.body)+maxHeader {
			t.Fatalf("header of %d bytes", len(b)-len(e.body))
		}
		setStamp(b, 77)
		e.stamp = 77
		got, err := decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.body, e.body) {
			t.Fatalf("body %q became %q", e.body, got.body)
		}
		got.body, e.body = nil, nil
		assert.Equal(t, e, got)
	})
}

func FuzzDecodeEnvelope(f *testing.F) {
	for _, e := range []envelope{{kind: kindPlain, body: []byte("x")}, {kind: kindOf, tag: Tag{300, 7, 5}, body: []byte("y")}, {kind: kindOpen, limits: limits{1, 2, 3}}, {kind: kindEnd, tag: Tag{Session: 1}}, {kind: kindTick}} {
		f.Add(e.append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decode(b)
		if err != nil {
			return
		}
		again, err := decode(e.append(nil))
		require.NoError(t, err)
		assert.Equal(t, e, again)
	})
}

// sampleMachine has a little of everything in its state.
func sampleMachine(t require.TestingT) *Machine {
	m := NewMachine(MachineConfig{StateMachine: new(tally)})
	entries := []Entry{
		{Internal: true},
		{Command: (&envelope{kind: kindOpen, stamp: 1000, limits: limits{1 << 40, 10, 1000}}).append(nil)},
		{Command: (&envelope{kind: kindOf, stamp: 2000, tag: Tag{2, 1, 1}, body: []byte("40")}).append(nil)},
		{Command: (&envelope{kind: kindOf, stamp: 1500, tag: Tag{2, 3, 1}, body: []byte("2")}).append(nil)},
		{Command: (&envelope{kind: kindOpen, stamp: 3000, limits: limits{1 << 40, 10, 1000}}).append(nil)},
	}
	_, err := m.Apply(Committed{1, entries})
	require.NoError(t, err)
	return m
}

func capture(t require.TestingT, m *Machine) []byte {
	c, err := m.Capture()
	require.NoError(t, err)
	var b bytes.Buffer
	n, err := c.WriteTo(&b)
	require.NoError(t, err)
	require.Equal(t, int64(b.Len()), n)
	return b.Bytes()
}

// The formats of the log's commands and of snapshots are pinned.
func TestGolden(t *testing.T) {
	var got strings.Builder
	for _, e := range []envelope{
		{kind: kindPlain, stamp: 1, body: []byte("plain")},
		{kind: kindOf, stamp: 2, tag: Tag{300, 7, 5}, body: []byte("of a session")},
		{kind: kindOpen, stamp: 3, limits: limits{1000, 20, 30}},
		{kind: kindEnd, stamp: 4, tag: Tag{Session: 300}},
		{kind: kindTick, stamp: 1 << 62},
	} {
		got.WriteString(hex.EncodeToString(e.append(nil)) + "\n")
	}
	got.WriteString(hex.EncodeToString(capture(t, sampleMachine(t))) + "\n")
	path := filepath.Join("testdata", "formats.golden")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		require.NoError(t, os.WriteFile(path, []byte(got.String()), 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), got.String())
}

func TestRestoreRefusesWhatIsWrong(t *testing.T) {
	good := capture(t, sampleMachine(t))
	m := NewMachine(MachineConfig{StateMachine: new(tally)})
	require.NoError(t, m.Restore(5, bytes.NewReader(good)))
	assert.Equal(t, good, capture(t, m))
	assert.Equal(t, 2, m.Sessions())
	assert.Equal(t, time.Unix(0, 3000).UTC(), m.Now())

	require.Error(t, m.Restore(6, bytes.NewReader(good)), "another index")
	newer := append([]byte{snapshotFormat + 1}, good[1:]...)
	var format *coterie.FormatError
	require.ErrorAs(t, m.Restore(5, bytes.NewReader(newer)), &format)
	for n := range len(good) - 2 { // the last two are the application's state
		require.Error(t, m.Restore(5, bytes.NewReader(good[:n])), "cut at %d", n)
		assert.Equal(t, uint64(5), m.Index())
	}
	assert.Equal(t, 2, m.Sessions())
}

func FuzzRestore(f *testing.F) {
	good := capture(f, sampleMachine(f))
	f.Add(good)
	f.Add(good[:len(good)-5])
	f.Fuzz(func(t *testing.T, b []byte) {
		header, _, err := readHeader(bytes.NewReader(b))
		if err != nil {
			return
		}
		in := wire.NewReader(header)
		index := in.Uvarint()
		m := NewMachine(MachineConfig{StateMachine: anything{}})
		if m.Restore(index, bytes.NewReader(b)) != nil {
			require.Equal(t, 0, m.Sessions())
			return
		}
		before := m.appendHeader(nil)
		again := NewMachine(MachineConfig{StateMachine: anything{}})
		require.NoError(t, again.Restore(index, bytes.NewReader(capture(t, m))))
		require.Equal(t, before, again.appendHeader(nil))
		e := envelope{kind: kindTick, stamp: 1 << 62}
		_, _ = m.Apply(Committed{index + 1, []Entry{{Command: e.append(nil)}}})
	})
}

// anything is a state machine that restores from anything.
type anything struct{ coterie.StateMachine }

func (anything) Apply(coterie.Entry) []byte { return nil }
func (anything) Restore(io.Reader) error    { return nil }
func (anything) Snapshot() (func(io.Writer) error, error) {
	return func(io.Writer) error { return nil }, nil
}
