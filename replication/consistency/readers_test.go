package consistency

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
)

func testdata(t *testing.T, name string) *bytes.Reader {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	return bytes.NewReader(b)
}

func TestJepsenRegistersAreJudged(t *testing.T) {
	h, err := ReadJepsenRegisters(testdata(t, "register.edn"))
	require.NoError(t, err)
	require.Len(t, h, 7, "without the nemesis and the one that failed")
	require.Equal(t, Access[string]{Kind: CompareAndSet, Key: "8", Old: "1", Value: "2"}, h[2].In)
	require.True(t, h[4].Unknown)
	require.True(t, h[6].Unknown, "its end is missing")
	require.EqualValues(t, 7000, h[5].Call)
	r, err := Shrink(t.Context(), h, CASRegister(""))
	require.NoError(t, err)
	require.Equal(t, `linearizable compare-and-set register: violated: no order of the operations explains operation 5 (client 1, read 8=1): before it the state could only be "2"`, r.String())
	require.Equal(t, []int{3, 5}, r.Ops, "whether or not the writes happened: 2 was read, then 1")
}

func TestJepsenTxnsAreJudged(t *testing.T) {
	h, err := ReadJepsenTxns(testdata(t, "listappend.edn"))
	require.NoError(t, err)
	require.Len(t, h, 4)
	require.True(t, h[2].Out.Aborted)
	r, err := ListAppend(t.Context(), h)
	require.NoError(t, err)
	require.Equal(t, SnapshotIsolation, r.Strongest)
	require.Equal(t, WriteSkew, r.Anomalies[0].Kind)
	require.Equal(t, "write skew: transaction 0 did not see what transaction 1 wrote to 1; transaction 1 did not see what transaction 0 wrote to 2",
		string(r.Anomalies[0].Kind)+": "+r.Anomalies[0].Reason)

	h, err = ReadJepsenTxns(strings.NewReader(`{:type :invoke, :process 0, :f :txn, :value [[:w 1 5] [:r 1 nil]]}
		{:type :ok, :process 0, :f :txn, :value [[:w 1 5] [:r 1 5]]}`))
	require.NoError(t, err)
	require.Equal(t, []TxnOp{wr("1", 5), rr("1", 5)}, h[0].Out.Ops)
}

func TestPorcupineLogsAreJudged(t *testing.T) {
	h, err := ReadPorcupineLog(testdata(t, "porcupine-register.log"))
	require.NoError(t, err)
	require.Len(t, h, 5)
	require.False(t, h[2].Unknown)
	require.False(t, h[2].Out.OK)
	require.True(t, h[3].Unknown)
	require.Equal(t, Holds, mustLinearizable(t, h, CASRegister("")).Verdict)

	h, err = ReadPorcupineLog(testdata(t, "porcupine-kv.log"))
	require.NoError(t, err)
	require.Equal(t, `a "b"`, h[1].In.Value)
	require.Equal(t, Holds, mustLinearizable(t, h[:3], KV()).Verdict)
	require.Equal(t, Violated, mustLinearizable(t, h, KV()).Verdict)
}

func TestJSONKeepsAHistory(t *testing.T) {
	for seed := range 200 {
		rng := rand.New(rand.NewPCG(uint64(seed), 12))
		h := randomRegister(rng, rng.IntN(20), randomShape(rng))
		var b bytes.Buffer
		require.NoError(t, WriteJSON(&b, h))
		got, err := ReadJSON[Access[int], Answer[int]](&b)
		require.NoError(t, err)
		for i := range h {
			if h[i].Unknown {
				h[i].Out = Answer[int]{}
			}
		}
		require.Equal(t, h, got)
	}
}

func TestJSONGolden(t *testing.T) {
	h, err := ReadJSON[Access[int], Answer[int]](testdata(t, "history-v1.jsonl"))
	require.NoError(t, err)
	require.Equal(t, Holds, mustLinearizable(t, h, CASRegister(0)).Verdict)
	var b bytes.Buffer
	require.NoError(t, WriteJSON(&b, h))
	want, err := os.ReadFile("testdata/history-v1.jsonl")
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
}

func TestReadersRefuseWhatTheyDoNotKnow(t *testing.T) {
	read := func(s string) error {
		_, err := ReadJSON[Access[int], Answer[int]](strings.NewReader(s))
		return err
	}
	var newer *coterie.FormatError
	require.ErrorAs(t, read(`{"format":"coterie history","version":2}`), &newer)
	require.Equal(t, coterie.FormatError{What: "history", Got: 2, Max: 1}, *newer)
	require.ErrorIs(t, read(`{"format":"coterie history","version":0}`), ErrHistory)
	require.ErrorIs(t, read(`{"client":1}`), ErrHistory)
	require.ErrorIs(t, read("{\"format\":\"coterie history\",\"version\":1}\n{"), ErrHistory)
	require.ErrorIs(t, read("{\"format\":\"coterie history\",\"version\":1}\n{\"call\":5,\"return\":4}"), ErrHistory)

	for in, want := range map[string]string{
		`{:process 0 :type :ok :f :read}`:             "entry 0 ends an operation of process 0, which has none",
		`{:process 0 :type :invoke :f :jump}`:         "unknown operation :jump",
		`{:process 0 :type :invoke :f :cas :value 3}`: "the value of a :cas is no pair: 3",
		`{:process 0 :type :invoke}`:                  "an entry without :type or :f",
		"[1 2":                                        "line 1: unexpected end",
		"\n\n{:a}":                                    "line 3: a map with a key but no value",
		strings.Repeat("[", 300):                      "values nest deeper than 200",
		`7`:                                           "an entry is no map: 7",
		`"abc`:                                        "a string without an end",
		`{:process 0 :type :invoke :f :read} {:process 0 :type :x :f :read}`: "entry 1 has type x",
	} {
		_, err := ReadJepsenRegisters(strings.NewReader(in))
		require.ErrorIs(t, err, ErrHistory)
		require.ErrorContains(t, err, want)
	}
	_, err := ReadJepsenTxns(strings.NewReader(`{:process 0 :type :invoke :f :txn :value [[:x 1 2]]}`))
	require.ErrorContains(t, err, "unknown step")
}

func TestEDN(t *testing.T) {
	for text, want := range map[string]any{
		"nil": nil, "true": true, "-12": int64(-12), "+3": int64(3), "12N": int64(12), "1.5M": 1.5, "1e3": 1000.0,
		":a/b": ednKeyword("a/b"), "sym": ednSymbol("sym"), `"a\n\u0041\"":`: "a\nA\"", `\newline`: "newline", `\a`: "a",
		"#{1 2}": []any{int64(1), int64(2)}, `#inst "2020"`: "2020", "(1, #_ 9 2)": []any{int64(1), int64(2)},
		"; comment\n[]": []any{}, "{:a 1}": ednMap{{ednKeyword("a"), int64(1)}}, "-": ednSymbol("-"),
	} {
		r := ednReader{text: text}
		got, err := r.value()
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "#", "#_", ":", `"\q"`, `"\u12"`, `"\uzzzz"`, `\`, ")", "1x", "{1", "#tag"} {
		r := ednReader{text: text}
		_, err := r.value()
		require.ErrorIs(t, err, ErrHistory, "%q", text)
	}
}

func FuzzEDN(f *testing.F) {
	for _, name := range []string{"register.edn", "listappend.edn", "porcupine-register.log", "porcupine-kv.log"} {
		b, err := os.ReadFile("testdata/" + name)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		registers, err := ReadJepsenRegisters(bytes.NewReader(b))
		if err == nil {
			require.NoError(t, registers.Validate())
		}
		if txns, err := ReadJepsenTxns(bytes.NewReader(b)); err == nil {
			require.NoError(t, txns.Validate())
			_, err := ListAppend(t.Context(), txns)
			require.True(t, err == nil || errors.Is(err, ErrHistory))
			_, err = ReadWrite(t.Context(), txns)
			require.True(t, err == nil || errors.Is(err, ErrHistory))
		}
		if log, err := ReadPorcupineLog(bytes.NewReader(b)); err == nil {
			require.NoError(t, log.Validate())
		}
	})
}

func FuzzJSON(f *testing.F) {
	b, err := os.ReadFile("testdata/history-v1.jsonl")
	require.NoError(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ReadJSON[Access[int], Answer[int]](bytes.NewReader(b))
		if err != nil {
			return
		}
		var out bytes.Buffer
		require.NoError(t, WriteJSON(&out, h))
		again, err := ReadJSON[Access[int], Answer[int]](&out)
		require.NoError(t, err)
		require.Equal(t, h, again)
	})
}
