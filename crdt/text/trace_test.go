package text

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie/clock"
)

// trace is an editing trace in the format of github.com/josephg/editing-traces.
type trace struct {
	Kind         string `json:"kind"`
	StartContent string `json:"startContent"`
	EndContent   string `json:"endContent"`
	NumAgents    int    `json:"numAgents"`
	Txns         []struct {
		Parents []int  `json:"parents"`
		Agent   int    `json:"agent"`
		Patches []edit `json:"patches"`
	} `json:"txns"`
}

// edit is [position, characters deleted, text inserted].
type edit struct {
	pos, del int
	ins      string
}

func (p *edit) UnmarshalJSON(b []byte) error {
	var ins json.RawMessage
	if err := json.Unmarshal(b, &[]any{&p.pos, &p.del, &ins}); err != nil {
		return err
	}
	return json.Unmarshal(ins, &p.ins)
}

// loadTrace reads a trace, from the folder that COTERIE_TRACES names or beside the repository. Where there is none it
// says so and makes one up: bursts of typing and correcting at places that wander, as people's are.
func loadTrace(tb testing.TB, name string) *trace {
	tb.Helper()
	dir := os.Getenv("COTERIE_TRACES")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "editing-traces")
	}
	tr := &trace{}
	f, err := os.Open(filepath.Join(dir, name+".json.gz"))
	if err != nil {
		fmt.Printf("no editing trace %s (%v): using a generated one\n", name, err)
		return generateTrace(tb, name != "automerge-paper")
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(tb, err)
	require.NoError(tb, json.NewDecoder(z).Decode(tr))
	return tr
}

// generateTrace makes a trace of 26,000 edits, 7 of 10 of which insert a character, by one author or two who merge now
// and then.
func generateTrace(tb testing.TB, concurrent bool) *trace {
	tb.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	tr := &trace{NumAgents: 1}
	authors := []*Text{{}}
	if concurrent {
		tr.NumAgents = 2
		authors = append(authors, &Text{})
	}
	last := []int{-1, -1}
	cursor := 0
	for i := range 26_000 {
		a := rng.IntN(len(authors))
		x := authors[a]
		parents := []int{}
		if last[a] >= 0 {
			parents = append(parents, last[a])
		}
		if concurrent && rng.IntN(3) == 0 && last[1-a] >= 0 {
			d, err := authors[1-a].Since(x.Version())
			require.NoError(tb, err)
			require.NoError(tb, x.Merge(d))
			parents = append(parents, last[1-a])
		}
		if rng.IntN(20) == 0 || cursor > x.Len() {
			cursor = rng.IntN(x.Len() + 1)
		}
		p := edit{pos: cursor, ins: string(rune('a' + rng.IntN(26)))}
		if cursor > 0 && rng.IntN(10) < 3 {
			p = edit{pos: cursor - 1, del: 1}
		}
		apply(tb, x, ids[a], p)
		cursor = p.pos + len(p.ins)
		tr.Txns = append(tr.Txns, struct {
			Parents []int  `json:"parents"`
			Agent   int    `json:"agent"`
			Patches []edit `json:"patches"`
		}{parents, a, []edit{p}})
		last[a] = i
	}
	for _, other := range authors[1:] {
		d, err := other.Since(authors[0].Version())
		require.NoError(tb, err)
		require.NoError(tb, authors[0].Merge(d))
	}
	tr.EndContent = authors[0].String()
	return tr
}

func apply(tb testing.TB, x *Text, by id, p edit) (ds []Delta) {
	tb.Helper()
	if p.del > 0 {
		d, err := x.Delete(by, p.pos, p.del)
		require.NoError(tb, err)
		ds = append(ds, d)
	}
	if p.ins != "" {
		d, err := x.Insert(by, p.pos, p.ins)
		require.NoError(tb, err)
		ds = append(ds, d)
	}
	return ds
}

func TestTraceOfOneAuthor(t *testing.T) {
	tr := loadTrace(t, "automerge-paper")
	var x, remote Text
	var deltas []Delta
	start := time.Now()
	for _, txn := range tr.Txns {
		for _, p := range txn.Patches {
			if p.del > 0 {
				d, err := x.Delete("a", p.pos, p.del)
				require.NoError(t, err)
				deltas = append(deltas, d)
			}
			if p.ins != "" {
				d, err := x.Insert("a", p.pos, p.ins)
				require.NoError(t, err)
				deltas = append(deltas, d)
			}
		}
	}
	t.Logf("%v local, %d deltas, %d blocks", time.Since(start), len(deltas), len(x.blocks))
	require.True(t, tr.EndContent == x.String())
	start = time.Now()
	for _, d := range deltas {
		require.NoError(t, remote.Merge(d))
	}
	t.Logf("%v remote", time.Since(start))
	require.True(t, tr.EndContent == remote.String())
	require.NoError(t, x.check())
	require.NoError(t, remote.check())
	d, err := x.Since(clock.Vector{})
	require.NoError(t, err)
	wire, err := x.MarshalBinary()
	require.NoError(t, err)
	t.Logf("%d bytes", len(wire))
	var loaded Text
	require.NoError(t, loaded.Merge(recode(t, d)))
	require.NoError(t, loaded.check())
	require.True(t, tr.EndContent == loaded.String())
}

// Each transaction of the trace is made by its author on what its parents and all before them have made.
func TestTraceOfTwoAuthors(t *testing.T) {
	tr := loadTrace(t, "friendsforever")
	authors := make([]Text, tr.NumAgents)
	made := make([][]Delta, len(tr.Txns))
	merged := make([][]bool, tr.NumAgents)
	for a := range merged {
		merged[a] = make([]bool, len(tr.Txns))
	}
	for i, txn := range tr.Txns {
		x := &authors[txn.Agent]
		var need func(n int)
		need = func(n int) {
			if merged[txn.Agent][n] {
				return
			}
			merged[txn.Agent][n] = true
			for _, p := range tr.Txns[n].Parents {
				need(p)
			}
			for _, d := range made[n] {
				require.NoError(t, x.Merge(d))
			}
		}
		for _, p := range txn.Parents {
			need(p)
		}
		for _, p := range txn.Patches {
			made[i] = append(made[i], apply(t, x, ids[txn.Agent], p)...)
		}
		merged[txn.Agent][i] = true
	}
	var all Text
	for _, ds := range made {
		for _, d := range ds {
			require.NoError(t, all.Merge(d))
		}
	}
	require.Zero(t, all.Pending())
	require.NoError(t, all.check())
	requireText(t, tr.EndContent, all.String())
}

// requireText compares long texts, and shows where they differ.
func requireText(tb testing.TB, want, got string) {
	tb.Helper()
	if want == got {
		return
	}
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	tb.Fatalf("%d bytes, want %d; at %d comes %q, want %q", len(got), len(want), i,
		got[max(0, i-30):min(i+90, len(got))], want[max(i-30, 0):min(i+90, len(want))])
}
