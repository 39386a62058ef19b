package pbft

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
)

var update = flag.Bool("update", false, "write the golden files anew")

// samples are one payload or record of each kind, by name.
func samples(tb testing.TB) (names []string, payloads [][]byte) {
	tb.Helper()
	cfg, keys := testConfig(4)
	cfg.hashed = true
	cfg.ID, cfg.Key = "a", keys["a"]
	core, err := NewCore(cfg)
	require.NoError(tb, err)
	add := func(name string, payload []byte) {
		names, payloads = append(names, name), append(payloads, payload)
	}
	q := &request{from: 0, life: 2, num: 3, commands: [][]byte{command("x"), command("yy")}}
	q.raw = q.appendUnsigned(nil)
	q.raw = append(q.raw, core.group.sign(cfg.Key, q.raw)...)
	add("request", payloadOf(q.raw))
	b := newBatch([]*request{q})
	v := core.signVote(kindPrePrepare, 4, 5, b.digest)
	add("pre-prepare", core.prePrepare(v, b))
	cert := certificate{v}
	for _, k := range []kind{kindPrepare, kindCommit, kindCheckpoint} {
		v := core.signVote(k, 4, 5, b.digest)
		cert = append(cert, v)
		add(k.String(), payloadOf(v.append(nil)))
	}
	vc := &viewChange{view: 6, from: 0, stable: 4, proof: cert[3:], prepared: []certificate{cert[:2]}}
	raw := vc.unsigned()
	vc.raw = append(raw, core.group.sign(cfg.Key, raw)...)
	add("view change", payloadOf(vc.raw))
	nv := &newView{view: 6, from: 0, changes: []*viewChange{vc}, prePrepares: cert[:1]}
	raw = nv.appendUnsigned(nil)
	add("new view", payloadOf(append(raw, core.group.sign(cfg.Key, raw)...)))
	s := status{view: 1, active: true, executed: 2, stable: 3, vouched: 4, helper: 1, missing: []digest{b.digest}}
	add("status", payloadOf(s.encode()))
	add("decided", appendDecided([]byte{format, byte(kindDecided)}, []decided{{b, cert[2:3]}}))
	add("stable", cert[3:].append([]byte{format, byte(kindStable)}))
	st := newState(4)
	st.seq, st.index, st.since = 7, 8, 9
	w := vouch{seq: 7, state: st.digest(), size: 10, checksum: 11, content: sha256.Sum256([]byte("content"))}
	w.sig = core.group.sign(cfg.Key, w.appendUnsigned(nil))
	add("vouch", payloadOf(w.append(nil)))
	add("offer", w.append(append(st.append([]byte{format, byte(kindOffer)}), 1)))
	add("ask chunk", []byte{format, byte(kindAskChunk), 7, 100})
	add("chunk", appendChunk(7, 100, []byte("data")))
	core.base = base{st, consensus.Snapshot{Name: "n", Size: 10, Checksum: 11}}
	core.view, core.life = 6, 2
	core.stable = checkpoint{5, cert[3:]}
	core.rewrite()
	for i, r := range core.out.Take().Save[:3] {
		add([]string{"record base", "record life", "record view"}[i], r)
	}
	add("record accepted", appendAccepted(nil, &v, b))
	add("record prepared", cert[:2].append([]byte{format, byte(kindPrepared)}))
	add("record committed", cert[2:3].append([]byte{format, byte(kindCommitted)}))
	return names, payloads
}

// The formats are pinned: a change of one is a change of its format byte.
func TestFormats(t *testing.T) {
	names, payloads := samples(t)
	var text strings.Builder
	for i := range names {
		fmt.Fprintf(&text, "%s: %s\n", names[i], hex.EncodeToString(payloads[i]))
	}
	const file = "testdata/formats.golden"
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text.String()), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), text.String())
	for i, payload := range payloads {
		var m message
		require.NoError(t, m.decode(payload), names[i])
		require.Contains(t, new(Core).Describe(payload), m.kind.String())
		newer := append([]byte{format + 1}, payload[1:]...)
		fault := (*coterie.FormatError)(nil)
		require.ErrorAs(t, m.decode(newer), &fault, names[i])
		for n := range len(payload) {
			if n > 2 && (strings.Contains(names[i], "chunk") || strings.Contains(names[i], "accepted")) {
				continue // these end with what is left
			}
			require.Error(t, m.decode(payload[:n]), "%s cut at %d", names[i], n)
		}
	}
}

// FuzzVerify feeds bytes to Verify and to a Core: an error or not, but never a panic.
func FuzzVerify(f *testing.F) {
	_, payloads := samples(f)
	for _, p := range payloads {
		f.Add(p)
	}
	cfg, keys := testConfig(4)
	cfg.ID, cfg.Key, cfg.hashed = "b", keys["b"], true
	verifier, err := NewVerifier(cfg)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, payload []byte) {
		_ = verifier.Verify("a", payload)
		core, err := NewCore(cfg)
		require.NoError(t, err)
		_ = core.Replay(payload)
		b := core.state.digest()
		if core.Step(testStart, "a", payload) != nil {
			require.Equal(t, b, core.state.digest())
		}
		core.Tick(testStart)
		core.Ready()
	})
}

// FuzzRestore feeds bytes to the table of clients.
func FuzzRestore(f *testing.F) {
	write, err := newClients(newLedger()).Snapshot()
	require.NoError(f, err)
	var b writer
	require.NoError(f, write(&b))
	f.Add([]byte(b))
	f.Fuzz(func(_ *testing.T, data []byte) {
		_ = newClients(newLedger()).Restore(&reader{data})
	})
}
