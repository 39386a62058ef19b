package consistency

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// jepsenOp is one line of a Jepsen history: the start or the end of an operation.
type jepsenOp struct {
	process int
	kind    ednKeyword // invoke, ok, fail or info
	f       ednKeyword
	key     any
	value   any
	time    time.Duration
}

// ReadJepsenRegisters reads a history of registers in the EDN of Jepsen (github.com/jepsen-io/jepsen): operations :read,
// :write, :append and :cas, as maps one after the other or in a vector. A value that is a pair is one of independent
// keys; a :key may stand beside it too. Values become text, nil the empty text, so that CASRegister("") is its model.
// Operations of other processes than clients are left out. An :info is of unknown outcome, a :fail did not happen.
func ReadJepsenRegisters(r io.Reader) (History[Access[string], Answer[string]], error) {
	ops, err := readJepsen(r)
	if err != nil {
		return nil, err
	}
	return pair(ops, registerIn, registerOut, false)
}

// ReadJepsenTxns reads a history of transactions in the EDN of Jepsen's list-append and rw-register workloads:
// operations :txn whose values are steps [:append k v], [:w k v] and [:r k v].
func ReadJepsenTxns(r io.Reader) (TxnHistory, error) {
	ops, err := readJepsen(r)
	if err != nil {
		return nil, err
	}
	return pair(ops, txnIn, func(op jepsenOp, in []TxnOp) (TxnOut, error) {
		steps, err := txnIn(op)
		if op.kind == "fail" {
			return TxnOut{Ops: in, Aborted: true}, nil
		}
		return TxnOut{Ops: steps}, err
	}, true)
}

// ReadPorcupineLog reads the text logs of porcupine's tests (github.com/anishathalye/porcupine, test_data): lines of
// jepsen.util for one register, in which a :fail of a :cas answers that it found another value, or the maps of its
// key-value store. Other lines are left out. The model is CASRegister("") or KV().
func ReadPorcupineLog(r io.Reader) (History[Access[string], Answer[string]], error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	var ops []jepsenOp
	for n := 1; lines.Scan(); n++ {
		op, ok, err := porcupineLine(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("%w (line %d of the log)", err, n)
		}
		if ok {
			ops = append(ops, op)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("consistency: reading a history: %w", err)
	}
	for i := range ops {
		if op := &ops[i]; op.kind == "fail" && op.f == "cas" {
			op.kind = "refused"
		}
	}
	return pair(ops, registerIn, registerOut, false)
}

func porcupineLine(line string) (op jepsenOp, ok bool, err error) {
	if strings.HasPrefix(strings.TrimSpace(line), "{") {
		reader := ednReader{text: line}
		v, err := reader.value()
		if err != nil {
			return op, false, err
		}
		return jepsenEntry(v)
	}
	_, rest, ok := strings.Cut(line, "jepsen.util - ")
	if !ok {
		return op, false, nil
	}
	fields := strings.SplitN(rest, "\t", 4)
	if len(fields) < 3 {
		return op, false, nil
	}
	op.process, err = strconv.Atoi(strings.TrimSpace(fields[0]))
	if err != nil {
		return op, false, nil // the nemesis
	}
	op.kind = ednKeyword(strings.TrimPrefix(strings.TrimSpace(fields[1]), ":"))
	op.f = ednKeyword(strings.TrimPrefix(strings.TrimSpace(fields[2]), ":"))
	if len(fields) == 4 {
		reader := ednReader{text: fields[3]}
		op.value, err = reader.value()
	}
	return op, err == nil, err
}

// readJepsen reads all entries of clients.
func readJepsen(r io.Reader) ([]jepsenOp, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("consistency: reading a history: %w", err)
	}
	reader := ednReader{text: string(text)}
	var ops []jepsenOp
	take := func(v any) error {
		op, ok, err := jepsenEntry(v)
		if ok {
			ops = append(ops, op)
		}
		return err
	}
	for {
		ok, err := reader.more()
		if err != nil {
			return nil, err
		}
		if !ok {
			return ops, nil
		}
		v, err := reader.value()
		if err != nil {
			return nil, err
		}
		entries, many := v.([]any)
		if !many {
			entries = []any{v}
		}
		for _, e := range entries {
			if err := take(e); err != nil {
				return nil, err
			}
		}
	}
}

// jepsenEntry takes an entry apart; ok is false for one of no client.
func jepsenEntry(v any) (op jepsenOp, ok bool, err error) {
	m, isMap := v.(ednMap)
	if !isMap {
		return op, false, fmt.Errorf("%w: an entry is no map: %.60s", ErrHistory, ednText(v))
	}
	process, isClient := m.get("process").(int64)
	if !isClient {
		return op, false, nil
	}
	kind, isKind := m.get("type").(ednKeyword)
	f, isF := m.get("f").(ednKeyword)
	if !isKind || !isF {
		return op, false, fmt.Errorf("%w: an entry without :type or :f: %.60s", ErrHistory, ednText(v))
	}
	op = jepsenOp{process: int(process), kind: kind, f: f, key: m.get("key"), value: m.get("value")}
	if at, ok := m.get("time").(int64); ok {
		op.time = time.Duration(at)
	}
	return op, true, nil
}

// pair joins starts and ends. Entries are in order whatever their times say. With aborts, operations that failed are
// kept: they should have left no trace.
func pair[In, Out any](ops []jepsenOp, in func(jepsenOp) (In, error), out func(jepsenOp, In) (Out, error), aborts bool) (History[In, Out], error) {
	var h History[In, Out]
	var failed []bool
	open := make(map[int]int)
	last := time.Duration(-1)
	for i, op := range ops {
		last = max(last+1, op.time)
		if op.kind == "invoke" {
			if n, busy := open[op.process]; busy {
				h[n].Unknown = true // its end is missing
			}
			input, err := in(op)
			if err != nil {
				return nil, fmt.Errorf("%w: entry %d: %w", ErrHistory, i, err)
			}
			open[op.process] = len(h)
			h = append(h, Operation[In, Out]{Client: op.process, In: input, Call: last})
			failed = append(failed, false)
			continue
		}
		n, ok := open[op.process]
		if !ok {
			return nil, fmt.Errorf("%w: entry %d ends an operation of process %d, which has none", ErrHistory, i, op.process)
		}
		delete(open, op.process)
		switch op.kind {
		case "info":
			h[n].Unknown = true
			continue
		case "fail":
			failed[n] = !aborts
		case "ok", "refused":
		default:
			return nil, fmt.Errorf("%w: entry %d has type %s", ErrHistory, i, op.kind)
		}
		h[n].Return = last
		if failed[n] {
			continue
		}
		answer, err := out(op, h[n].In)
		if err != nil {
			return nil, fmt.Errorf("%w: entry %d: %w", ErrHistory, i, err)
		}
		h[n].Out = answer
	}
	for _, n := range open {
		h[n].Unknown = true
	}
	kept := h[:0]
	for n, op := range h {
		if !failed[n] {
			kept = append(kept, op)
		}
	}
	return kept, kept.Validate()
}

// registerIn reads what was asked of a register.
func registerIn(op jepsenOp) (Access[string], error) {
	key, value := op.split()
	in := Access[string]{Key: ednText(key)}
	switch op.f {
	case "read", "get":
		return in, nil
	case "write", "put":
		in.Kind, in.Value = Write, ednText(value)
		return in, nil
	case "append":
		in.Kind, in.Value = Append, ednText(value)
		return in, nil
	case "cas":
		v, ok := value.([]any)
		if !ok || len(v) != 2 {
			return in, fmt.Errorf("the value of a :cas is no pair: %.60s", ednText(value))
		}
		in.Kind, in.Old, in.Value = CompareAndSet, ednText(v[0]), ednText(v[1])
		return in, nil
	}
	return in, fmt.Errorf("unknown operation :%s", op.f)
}

func registerOut(op jepsenOp, in Access[string]) (Answer[string], error) {
	switch in.Kind {
	case Read:
		_, value := op.split()
		return Answer[string]{Value: ednText(value)}, nil
	case CompareAndSet:
		return Answer[string]{OK: op.kind == "ok"}, nil
	case Write, Append:
	}
	return Answer[string]{}, nil
}

// split returns the key and the value of an entry, whose value may be a pair of both.
func (op jepsenOp) split() (key, value any) {
	pair, ok := op.value.([]any)
	if op.key != nil || !ok || len(pair) != 2 {
		return op.key, op.value
	}
	if _, nested := pair[1].([]any); op.f == "cas" && !nested {
		return nil, op.value
	}
	return pair[0], pair[1]
}

// txnIn reads the steps of a transaction.
func txnIn(op jepsenOp) ([]TxnOp, error) {
	steps, ok := op.value.([]any)
	if op.f != "txn" || !ok {
		return nil, fmt.Errorf("no :txn with steps: :%s %.60s", op.f, ednText(op.value))
	}
	ops := make([]TxnOp, 0, len(steps))
	for _, s := range steps {
		step, ok := s.([]any)
		if !ok || len(step) != 3 {
			return nil, fmt.Errorf("a step is no triple: %.60s", ednText(s))
		}
		f, _ := step[0].(ednKeyword)
		t := TxnOp{Key: ednText(step[1])}
		n, isInt := step[2].(int64)
		switch list, isList := step[2].([]any); {
		case (f == "append" || f == "w") && isInt:
			t.Kind, t.Value = Write, n
			if f == "append" {
				t.Kind = Append
			}
		case f == "r" && isInt:
			t.Value = n
		case f == "r" && step[2] == nil:
		case f == "r" && isList:
			t.List = make([]int64, len(list))
			for i, v := range list {
				if t.List[i], isInt = v.(int64); !isInt {
					return nil, fmt.Errorf("a list of more than integers: %.60s", ednText(step[2]))
				}
			}
		default:
			return nil, fmt.Errorf("unknown step: %.60s", ednText(s))
		}
		ops = append(ops, t)
	}
	return ops, nil
}
