package crdt_test

import (
	"encoding"
	"encoding/hex"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
	. "github.com/coterie-go/coterie/crdt" //nolint:revive // the laws are of its types, and read better without the name
)

var update = flag.Bool("update", false, "write the golden files anew")

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// codec is what every type has.
type codec interface {
	encoding.BinaryMarshaler
	encoding.BinaryUnmarshaler
	json.Marshaler
}

// samples returns of each type a value with something of everything, an empty one to decode into, and its JSON.
func samples() map[string]struct {
	full, empty codec
	json        string
} {
	t := func(n uint64) clock.Timestamp { return clock.Timestamp{Time: n, Node: "a"} }
	type sample = struct {
		full, empty codec
		json        string
	}
	all := map[string]sample{}

	var gc GCounter
	gc.Inc("a", 300)
	gc.Inc("b", 1)
	all["gcounter"] = sample{&gc, &GCounter{}, `{"a":300,"b":1}`}
	var pn PNCounter
	pn.Add("a", 5)
	pn.Add("b", -7)
	all["pncounter"] = sample{&pn, &PNCounter{}, `{"value":-2,"up":{"a":5},"down":{"b":7}}`}
	var cc CausalCounter
	cc.Add("a", 5)
	cc.Add("a", -7)
	all["causalcounter"] = sample{&cc, &CausalCounter{}, `-2`}
	var bc BoundedCounter
	bc.Inc("a", 5)
	_, _ = bc.Transfer("a", "b", 2)
	_, _ = bc.Dec("b", 1)
	all["boundedcounter"] = sample{&bc, &BoundedCounter{}, `{"value":4,"rights":{"a":3,"b":1}}`}
	var gs GSet[string]
	gs.Add("x")
	gs.Add("y")
	all["gset"] = sample{&gs, &GSet[string]{}, `["x","y"]`}
	var tp TwoPhaseSet[int]
	tp.Add(-1)
	tp.Add(2)
	tp.Remove(2)
	all["twophaseset"] = sample{&tp, &TwoPhaseSet[int]{}, `[-1]`}
	var ls LWWSet[string]
	ls.Add(t(1), "x")
	ls.Remove(t(2), "y")
	all["lwwset"] = sample{&ls, &LWWSet[string]{}, `["x"]`}
	var os ORSet[string]
	os.Add("a", "x")
	os.Add("b", "y")
	os.Add("a", "z")
	os.Remove("z")
	all["orset"] = sample{&os, &ORSet[string]{}, `["x","y"]`}
	var rs RWSet[string]
	rs.Add("a", "x")
	rs.Remove("b", "y")
	all["rwset"] = sample{&rs, &RWSet[string]{}, `["x"]`}
	var ew EWFlag
	ew.Enable("a")
	all["ewflag"] = sample{&ew, &EWFlag{}, `true`}
	var dw DWFlag
	dw.Enable("a")
	dw.Disable("a")
	all["dwflag"] = sample{&dw, &DWFlag{}, `false`}
	var lr LWWRegister[string]
	lr.Set(t(1), "x")
	all["lwwregister"] = sample{&lr, &LWWRegister[string]{}, `"x"`}
	var mv, mv2 MVRegister[string]
	mv.Set("a", "x")
	mv2.Set("b", "y")
	mv.Merge(mv2)
	all["mvregister"] = sample{&mv, &MVRegister[string]{}, `["x","y"]`}
	var lm LWWMap[string, int]
	lm.Put(t(1), "x", 5)
	lm.Delete(t(2), "y")
	all["lwwmap"] = sample{&lm, &LWWMap[string, int]{}, `{"x":5}`}
	var om ORMap[string, ORSet[string]]
	om.Update("k", func(v *ORSet[string]) ORSet[string] { return v.Add("a", "x") })
	om.Update("k", func(v *ORSet[string]) ORSet[string] { return v.Add("b", "y") })
	all["ormap"] = sample{&om, &ORMap[string, ORSet[string]]{}, `{"k":["x","y"]}`}
	var li List[string]
	li.Insert("a", 0, "x")
	li.Insert("b", 0, "y")
	li.Insert("a", 2, "z")
	li.Delete(2)
	all["list"] = sample{&li, &List[string]{}, `["y","x"]`}
	return all
}

// What format 1 wrote must be read for ever: the files pin it byte by byte.
func TestGoldenFormats(t *testing.T) {
	for name, s := range samples() {
		b, err := s.full.MarshalBinary()
		require.NoError(t, err)
		path := filepath.Join("testdata", "golden", name+".hex")
		if *update {
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			require.NoError(t, os.WriteFile(path, []byte(hex.EncodeToString(b)+"\n"), 0o644))
		}
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, strings.TrimSpace(string(want)), hex.EncodeToString(b), name)
		require.NoError(t, s.empty.UnmarshalBinary(b), name)
		again, err := s.empty.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, b, again, name)
		j, err := json.Marshal(s.empty)
		require.NoError(t, err)
		require.JSONEq(t, s.json, string(j), name)
	}
}

// Every part of an encoding, every other type's and a newer format's give an error, and change nothing.
func TestMalformedChangesNothing(t *testing.T) {
	all := samples()
	for name, s := range all {
		b, err := s.full.MarshalBinary()
		require.NoError(t, err)
		for n := range b {
			if name == "lwwregister" && n == 2 {
				continue // no value
			}
			require.Error(t, s.full.UnmarshalBinary(b[:n]), "%s, %d of %d bytes", name, n, len(b))
		}
		require.Error(t, s.full.UnmarshalBinary(append(slices.Clip(b), 0)), name)
		newer := append([]byte{2}, b[1:]...)
		var format *coterie.FormatError
		require.ErrorAs(t, s.full.UnmarshalBinary(newer), &format, name)
		for other, o := range all {
			if other != name {
				require.Error(t, o.full.UnmarshalBinary(b), "%s as %s", name, other)
			}
		}
		after, err := s.full.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, b, after, name)
	}
}

// Elements of every kind come out as they went in.
func TestElements(t *testing.T) {
	roundTrip(t, "text", "", "\x00ä")
	roundTrip(t, 0, -5, 1<<62)
	roundTrip[int8](t, 0, -128, 127)
	roundTrip[uint16](t, 0, 65535)
	roundTrip(t, true, false)
	roundTrip(t, 1.5, -0.25)
	roundTrip(t, coterie.NodeID("x"))
	roundTrip(t, time.Unix(5, 6).UTC())
	roundTrip(t, [2]int{1, 2})
	roundTrip(t, struct{ A, B string }{"a", "b"})
}

func roundTrip[E comparable](t *testing.T, values ...E) {
	t.Helper()
	var s, read ORSet[E]
	for _, v := range values {
		s.Add("a", v)
	}
	b, err := s.MarshalBinary()
	require.NoError(t, err)
	require.NoError(t, read.UnmarshalBinary(b))
	require.Equal(t, len(values), read.Len())
	for _, v := range values {
		require.True(t, read.Contains(v), "%v", v)
	}
}

func TestElementsOutOfRange(t *testing.T) {
	var wide ORSet[int]
	wide.Add("a", 300)
	b, err := wide.MarshalBinary()
	require.NoError(t, err)
	var narrow ORSet[int8]
	require.Error(t, narrow.UnmarshalBinary(b))
}

// FuzzUnmarshal: whatever the bytes, a decoder of any type returns an error and leaves the value as it was, or reads what
// encodes again, merges with itself and has a digest.
func FuzzUnmarshal(f *testing.F) {
	for _, s := range samples() {
		b, err := s.full.MarshalBinary()
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, s := range samples() {
			before, err := s.full.MarshalBinary()
			require.NoError(t, err)
			if s.full.UnmarshalBinary(b) != nil {
				after, err := s.full.MarshalBinary()
				require.NoError(t, err)
				require.Equal(t, before, after, name)
				continue
			}
			once, err := s.full.MarshalBinary()
			require.NoError(t, err, name)
			require.NoError(t, s.empty.UnmarshalBinary(once), name)
			again, err := s.empty.MarshalBinary()
			require.NoError(t, err)
			require.Equal(t, once, again, name)
		}
	})
}

// FuzzDigest: a digest of whatever bytes gives an error or a difference.
func FuzzDigest(f *testing.F) {
	var s ORSet[string]
	for _, e := range []string{"x", "y", "z"} {
		s.Add("a", e)
	}
	s.Remove("y")
	d, err := s.AppendDigest(nil)
	require.NoError(f, err)
	f.Add(d)
	f.Fuzz(func(t *testing.T, b []byte) {
		delta, err := s.Diff(b)
		if err != nil {
			return
		}
		c := s.Clone()
		c.Merge(delta)
		require.Equal(t, s.Len(), c.Len())
	})
}
