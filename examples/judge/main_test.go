package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEveryStoreStandsWhereItShould(t *testing.T) {
	j := judge{out: t.TempDir(), patience: time.Minute}
	require.NoError(t, j.runs("", 2))
	for name, strongest := range map[string]string{
		"correct":        "linearizable register",
		"local-reads":    "sequential",
		"no-order":       "causal",
		"forgets-causes": "PRAM",
		"overtaking":     "read your writes, monotonic reads, writes follow reads, eventual convergence",
		"roaming":        "eventual convergence",
		"lossy":          "nothing that was asked",
		"serial":         "strict serializable",
		"snapshots":      "snapshot isolation",
		"blind-commit":   "read uncommitted",
		"live":           "no level",
	} {
		_, section, ok := strings.Cut(j.text.String(), name+": ")
		require.True(t, ok, name)
		section, _, _ = strings.Cut(section, "\n\n")
		require.Contains(t, section, "; strongest: "+strongest+"\n", name)
		page, err := os.ReadFile(filepath.Join(j.out, name+".html"))
		require.NoError(t, err)
		require.Contains(t, string(page), "<svg")
	}
	require.EqualError(t, j.runs("none", 1), `no store or database "none"; there are [correct local-reads no-order forgets-causes overtaking roaming lossy serial snapshots blind-commit live]`)
}

// Rules that keep more promise no less: of every seed.
func TestStoresKeepTheirPromises(t *testing.T) {
	for seed := range uint64(20) {
		j := judge{out: t.TempDir(), patience: time.Minute}
		require.NoError(t, j.runs("correct", seed))
		require.Contains(t, j.text.String(), "strongest: linearizable register")
		j.text.Reset()
		require.NoError(t, j.runs("serial", seed))
		require.Contains(t, j.text.String(), "strongest: strict serializable")
		j.text.Reset()
		require.NoError(t, j.runs("no-order", seed))
		require.Regexp(t, "strongest: (linearizable|sequential|causal)", j.text.String())
	}
}

func TestPublishedHistories(t *testing.T) {
	const folder = "../../replication/consistency/testdata/"
	for _, test := range []struct{ file, format, want string }{
		{"register.edn", "jepsen", "undecided: causal, PRAM, read your writes, monotonic reads, monotonic writes, writes follow reads\n  not sequential key-value store: no order"},
		{"listappend.edn", "jepsen-txn", "not serializable: write skew"},
		{"porcupine-register.log", "porcupine", "strongest: linearizable key-value store"},
		{"history-v1.jsonl", "json", "malformed history"}, // its values are numbers
		{"register.edn", "xml", "unknown format"},
		{"none", "json", "no such file"},
	} {
		j := judge{out: t.TempDir(), patience: time.Minute}
		if err := j.file(folder+test.file, test.format); err != nil {
			j.text.WriteString(err.Error())
		}
		require.Contains(t, j.text.String(), test.want)
	}
}
