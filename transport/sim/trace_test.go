package sim_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/sim/simtest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// stormy runs a cluster of registers under everything that can be drawn.
func stormy(seed uint64, trace *sim.Trace) (*cluster, error) {
	c, err := newCluster(sim.Config{
		Seed: seed, Trace: trace, MaxSkew: time.Second, MaxDrift: 100,
		Link: sim.Link{Latency: sim.LogNormal(0, 2*time.Millisecond, 1), Loss: 0.05, Duplicate: 0.05, Reorder: 0.05},
		Disk: sim.Disk{Crash: 0.01, Slow: 0.3},
	}, 5, none)
	if err != nil {
		return nil, err
	}
	c.write(5 * time.Millisecond)
	if err := c.Play(sim.DrawSchedule(seed, sim.Limits{Nodes: c.ids, Length: 5 * time.Second})); err != nil {
		return nil, err
	}
	for _, id := range c.ids {
		c.Crash(id)
	}
	c.HealAll()
	return c, c.Run(2 * time.Second)
}

func TestSameSeedSameTrace(t *testing.T) {
	simtest.Seeds(t, 20, func(t *testing.T, seed uint64) {
		simtest.RequireDeterministic(t, func(trace *sim.Trace) {
			_, err := stormy(seed, trace)
			require.NoError(t, err)
		})
	})
}

const digestVariable = "SIM_TEST_DIGEST"

// digest is a checksum of the traces of some seeds in all three forms.
func digest(t *testing.T) string {
	t.Helper()
	h := sha256.New()
	for seed := range uint64(5) {
		trace := &sim.Trace{}
		_, err := stormy(seed+1, trace)
		require.NoError(t, err)
		require.NoError(t, trace.WriteJSON(h))
		require.NoError(t, trace.WriteShiViz(h))
		require.NoError(t, trace.WriteHTML(h))
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func TestSameSeedSameTraceInAnotherProcess(t *testing.T) {
	if os.Getenv(digestVariable) != "" {
		fmt.Println("digest:", digest(t))
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestSameSeedSameTraceInAnotherProcess$", "-test.v")
	cmd.Env = append(os.Environ(), digestVariable+"=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "digest: "+digest(t))
}

func TestAnotherSeedAnotherTrace(t *testing.T) {
	var a, b bytes.Buffer
	for seed, out := range map[uint64]*bytes.Buffer{1: &a, 2: &b} {
		trace := &sim.Trace{}
		_, err := stormy(seed, trace)
		require.NoError(t, err)
		require.NoError(t, trace.WriteJSON(out))
	}
	require.NotEqual(t, a.Bytes()[:2000], b.Bytes()[:2000])
}

// TestTracingChangesNothing: a run that is traced is the run that failed untraced.
func TestTracingChangesNothing(t *testing.T) {
	a, err := stormy(3, nil)
	require.NoError(t, err)
	b, err := stormy(3, &sim.Trace{})
	require.NoError(t, err)
	require.Equal(t, a.Stats(), b.Stats())
	require.Equal(t, a.acked, b.acked)
}

// small is a run that has every kind of entry.
func small(t *testing.T) *sim.Trace {
	t.Helper()
	trace := &sim.Trace{}
	cfg := fixed()
	cfg.Trace = trace
	b := newBench(t, cfg, func(_ coterie.NodeID, p *probe) {
		p.onStep = func(_ *probe, _ time.Time, _ coterie.NodeID, payload []byte) error {
			if string(payload) == "bad" {
				return errors.New("malformed")
			}
			return nil
		}
	}, "a", "b")
	b.do("a", func(p *probe, _ time.Time) {
		p.Save([]byte("r"))
		p.Send("a", []byte("own"))
		p.Send("b", []byte("hello"))
		p.Emit(struct{ N int }{7})
	})
	b.run(10 * time.Millisecond)
	b.do("b", func(p *probe, _ time.Time) { p.Send("a", []byte("bad")) })
	b.run(10 * time.Millisecond)
	b.Cut("a", "b")
	b.do("a", func(p *probe, _ time.Time) { p.Send("b", []byte("lost with <tags> & \"quotes\"")) })
	b.Join("a", "b")
	b.Partition([]coterie.NodeID{"a"})
	b.Heal()
	b.Pause("a")
	b.Resume("a")
	b.StallDisk("a")
	b.ResumeDisk("a")
	require.NoError(t, b.Apply(sim.Schedule{fault(sim.FaultCrash, "b")}))
	b.do("b", func(p *probe, _ time.Time) { p.Send("a", []byte("a payload that is too long to be shown whole")) })
	b.run(2 * time.Second)
	b.Invariant("none", func(*sim.World) error { return errors.New("no") })
	b.After(0, func() {})
	require.Error(t, b.Run(time.Second))
	return trace
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}

func TestGoldenTraces(t *testing.T) {
	var out bytes.Buffer
	trace := small(t)
	require.NoError(t, trace.WriteJSON(&out))
	golden(t, "trace.jsonl", out.Bytes())
	for _, kind := range []string{
		"start", "send", "receive", "reject", "lost", "save", "saved", "event", "crash", "pause", "resume", "stall",
		"unstall", "cut", "join", "partition", "heal", "fault", "fault-end", "violation",
	} {
		require.Contains(t, out.String(), `"kind":"`+kind+`"`)
	}
	out.Reset()
	require.NoError(t, trace.WriteShiViz(&out))
	golden(t, "trace.shiviz", out.Bytes())
}

type line struct {
	At               int64
	Kind, Node, Peer string
	ID               uint64
	Size             int
	Text             string
}

func lines(t *testing.T, trace *sim.Trace) []line {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, trace.WriteJSON(&out))
	dec := json.NewDecoder(&out)
	var head struct{ Format, Seed, Dropped int }
	require.NoError(t, dec.Decode(&head))
	require.Equal(t, 1, head.Format)
	var all []line
	for dec.More() {
		var l line
		require.NoError(t, dec.Decode(&l))
		all = append(all, l)
	}
	return all
}

// The log must be what ShiViz's expression parses, and its clocks those of happened-before.
func TestShiVizClocks(t *testing.T) {
	trace := &sim.Trace{}
	_, err := stormy(4, trace)
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, trace.WriteShiViz(&out))
	header, body, ok := strings.Cut(out.String(), "\n\n")
	require.True(t, ok)
	parser, err := regexp.Compile(strings.ReplaceAll(header, "(?<", "(?P<"))
	require.NoError(t, err)
	found := parser.FindAllStringSubmatch(body, -1)

	var all []line
	for _, l := range lines(t, trace) {
		if l.Node != "" && l.Kind != "lost" && l.Kind != "cut" && l.Kind != "join" {
			all = append(all, l)
		}
	}
	require.Len(t, found, len(all))
	own := map[string]uint64{}
	sent := map[uint64]map[string]uint64{}
	for i, m := range found {
		var clock map[string]uint64
		require.NoError(t, json.Unmarshal([]byte(m[2]), &clock))
		require.Equal(t, all[i].Node, m[1])
		own[m[1]]++
		require.Equal(t, own[m[1]], clock[m[1]])
		switch all[i].Kind {
		case "send":
			sent[all[i].ID] = clock
		case "receive":
			for node, n := range sent[all[i].ID] {
				require.GreaterOrEqual(t, clock[node], n)
			}
		}
	}
	require.Greater(t, len(sent), 100)
}

func page(t *testing.T, trace *sim.Trace) (text string, data map[string]any) {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, trace.WriteHTML(&out))
	text = out.String()
	_, rest, ok := strings.Cut(text, `<script id="data" type="application/json">`)
	require.True(t, ok)
	body, _, ok := strings.Cut(rest, "</script>")
	require.True(t, ok)
	require.NoError(t, json.Unmarshal([]byte(body), &data))
	return text, data
}

func TestDiagramIsOnePageOfItsOwn(t *testing.T) {
	text, data := page(t, small(t))
	for _, outside := range []string{"http:", "https:", "src=", "href=", "@import", "url(", "{{", "<tags>"} {
		require.NotContains(t, text, outside)
	}
	require.Len(t, data["nodes"], 2)
	require.Len(t, data["messages"], 5)
	require.Contains(t, fmt.Sprint(data["texts"]), "no")
	spans := data["spans"].([]any)
	down := 0
	for _, s := range spans {
		if s.([]any)[3] == 0.0 {
			down++
			require.Equal(t, 1e9, s.([]any)[2].(float64)-s.([]any)[1].(float64))
		}
	}
	require.Equal(t, 1, down)
	require.Len(t, data["bands"], 2, "a cut and a partition; the crash is on its lane")
}

// Every message of the trace is an arrow, and each is what became of it.
func TestDiagramHasEveryMessage(t *testing.T) {
	trace := &sim.Trace{Limit: -1}
	c, err := stormy(6, trace)
	require.NoError(t, err)
	_, data := page(t, trace)
	states := map[float64]uint64{}
	for _, m := range data["messages"].([]any) {
		states[m.([]any)[4].(float64)]++
	}
	count := map[string]uint64{}
	for _, l := range lines(t, trace) {
		count[l.Kind]++
	}
	require.Greater(t, count["send"], uint64(200))
	require.Equal(t, count["receive"], states[0])
	require.Equal(t, count["lost"], states[1])
	require.Equal(t, c.Stats().Lost, states[1])
}

// Bands last as long as their faults, or until everything is healed.
func TestDiagramShadesPartitionsWhileTheyLast(t *testing.T) {
	trace := &sim.Trace{}
	cfg := fixed()
	cfg.Trace = trace
	b := newBench(t, cfg, nil, "a", "b")
	short, long, crash := fault(sim.FaultPartition, "a"), fault(sim.FaultCut, "b"), fault(sim.FaultCrash, "b")
	long.Duration = time.Hour
	require.NoError(t, b.Apply(sim.Schedule{short, long, crash}))
	b.run(2 * time.Second)
	b.HealAll()
	b.run(2 * time.Hour)
	_, data := page(t, trace)
	bands := data["bands"].([]any)
	require.Len(t, bands, 2)
	for i, lasts := range []float64{1e9, 1.9e9} {
		band := bands[i].([]any)
		require.Equal(t, 101e6, band[0])
		require.Equal(t, 101e6+lasts, band[1])
		require.Equal(t, 0.0, band[3])
	}
}

func TestTraceKeepsTheNewest(t *testing.T) {
	all, some := &sim.Trace{Limit: -1}, &sim.Trace{Limit: 100}
	for _, trace := range []*sim.Trace{all, some} {
		_, err := stormy(5, trace)
		require.NoError(t, err)
	}
	require.Equal(t, 100, some.Len())
	require.EqualValues(t, all.Len()-100, some.Dropped())
	require.Zero(t, all.Dropped())
	want := lines(t, all)
	require.Equal(t, want[len(want)-100:], lines(t, some))
	page(t, some) // arrows without a beginning are left out
	require.NoError(t, some.WriteShiViz(bufio.NewWriter(&bytes.Buffer{})))
}

func TestTraceErrors(t *testing.T) {
	for name, write := range map[string]func(*sim.Trace, *full) error{
		"json":   func(t *sim.Trace, w *full) error { return t.WriteJSON(w) },
		"shiviz": func(t *sim.Trace, w *full) error { return t.WriteShiViz(w) },
		"html":   func(t *sim.Trace, w *full) error { return t.WriteHTML(w) },
	} {
		require.ErrorContains(t, write(&sim.Trace{}, nil), "Config.Trace", name)
		require.ErrorIs(t, write(small(t), &full{}), errFull, name)
	}
	require.Panics(t, func() {
		trace := small(t)
		_, _ = sim.New(sim.Config{Seed: 1, Trace: trace})
	})
}

type full struct{}

var errFull = errors.New("disk full")

func (*full) Write([]byte) (int, error) { return 0, errFull }
