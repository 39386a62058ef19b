package kv

import (
	"errors"
	"fmt"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// A command, a query and an answer begin with the format byte and a kind.
const format = 1

// The kinds of a command.
const (
	cmdTxn = iota + 1
	cmdGrant
	cmdKeepAlive
	cmdRevoke
	cmdCompact
)

// The kinds of a query.
const (
	queryGet = iota + 1
	queryWatch
	queryTurn
	queryLease
	queryStatus
)

// The kinds of an Op.
const (
	opPut = iota + 1
	opDelete
	opGet
	opRollback
)

// command is one of the log.
type command struct {
	kind     byte
	txn      Txn
	lease    uint64
	ttl      time.Duration
	revision uint64
}

func start(kind byte) []byte { return append(make([]byte, 0, 64), format, kind) }

func appendSpan(b []byte, s Span) []byte {
	return wire.AppendString(wire.AppendString(b, s.From), s.To)
}

func readSpan(r *wire.Reader) Span { return Span{From: readKey(r), To: readKey(r)} }

// readKey takes a key, which is short enough.
func readKey(r *wire.Reader) string {
	k := r.String()
	if len(k) > MaxKeyBytes {
		r.Fail("key of %d bytes", len(k))
	}
	return k
}

func (p Put) appendTo(b []byte) []byte {
	b = wire.AppendString(append(b, opPut), p.Key)
	b = wire.AppendUvarint(wire.AppendBytes(b, p.Value), p.Lease)
	return wire.AppendBool(b, p.Sequential)
}

func (d Delete) appendTo(b []byte) []byte { return appendSpan(append(b, opDelete), d.Span) }

func (o Rollback) appendTo(b []byte) []byte {
	return wire.AppendUvarint(appendSpan(append(b, opRollback), o.Span), o.Revision)
}

func (g Get) appendTo(b []byte) []byte { return g.append(append(b, opGet)) }

func (g Get) append(b []byte) []byte {
	b = wire.AppendUvarint(appendSpan(b, g.Span), g.Revision)
	b = wire.AppendUvarint(b, uint64(max(g.Limit, 0)))
	b = wire.AppendBool(b, g.KeysOnly)
	b = wire.AppendBool(b, g.CountOnly)
	return wire.AppendBool(b, g.Descending)
}

func readGet(r *wire.Reader) Get {
	return Get{
		Span: readSpan(r), Revision: r.Uvarint(), Limit: r.Int(1 << 30), KeysOnly: r.Bool(), CountOnly: r.Bool(), Descending: r.Bool(),
	}
}

func readOp(r *wire.Reader) Op {
	switch kind := r.Byte(); kind {
	case opPut:
		return Put{Key: readKey(r), Value: r.Bytes(), Lease: r.Uvarint(), Sequential: r.Bool()}
	case opDelete:
		return Delete{Span: readSpan(r)}
	case opGet:
		return readGet(r)
	case opRollback:
		o := Rollback{Span: readSpan(r), Revision: r.Uvarint()}
		if o.Revision == 0 {
			r.Fail("rollback to no revision")
		}
		return o
	default:
		r.Fail("act of kind %d", kind)
		return nil
	}
}

func appendOps(b []byte, ops []Op) []byte {
	b = wire.AppendUvarint(b, uint64(len(ops)))
	for _, o := range ops {
		b = o.appendTo(b)
	}
	return b
}

func readOps(r *wire.Reader) []Op {
	n := bounded(r, r.Count(2))
	ops := make([]Op, 0, n)
	for range n {
		ops = append(ops, readOp(r))
	}
	return ops
}

func bounded(r *wire.Reader, n int) int {
	if n > MaxOps {
		r.Fail("%d of at most %d", n, MaxOps)
		return 0
	}
	return n
}

func (c *Compare) appendTo(b []byte) []byte {
	b = appendSpan(wire.AppendString(b, c.Key), c.Span)
	b = wire.AppendUvarint(append(b, byte(c.Field), byte(c.Is)), c.Number)
	return wire.AppendBytes(b, c.Bytes)
}

func readCompare(r *wire.Reader) Compare {
	c := Compare{Key: readKey(r), Span: readSpan(r), Field: Field(r.Byte()), Is: Relation(r.Byte()), Number: r.Uvarint(), Bytes: r.Bytes()}
	if c.Field < FieldCreate || c.Field > FieldCount {
		r.Fail("field %d", c.Field)
	}
	if c.Is < Equal || c.Is > Greater {
		r.Fail("relation %d", c.Is)
	}
	return c
}

func (t *Txn) encode() []byte {
	b := wire.AppendUvarint(start(cmdTxn), uint64(len(t.If)))
	for i := range t.If {
		b = t.If[i].appendTo(b)
	}
	return appendOps(appendOps(b, t.Then), t.Else)
}

// check tells what readers would refuse, and what cannot be encoded.
func (t *Txn) check() error {
	for _, list := range [][]Op{t.Then, t.Else} {
		for _, o := range list {
			if o == nil {
				return fmt.Errorf("%w: an act of the Txn is nil", ErrBadCommand)
			}
		}
	}
	_, err := readCommand(t.encode())
	return err
}

func readTxn(r *wire.Reader) (t Txn) {
	n := bounded(r, r.Count(8))
	for range n {
		t.If = append(t.If, readCompare(r))
	}
	t.Then, t.Else = readOps(r), readOps(r)
	return t
}

// begin takes the format byte and the kind.
func begin(r *wire.Reader, what string) (kind byte, err error) {
	f := r.Byte()
	if r.Err() == nil && f > format {
		return 0, &coterie.FormatError{What: what, Got: f, Max: format}
	}
	if f != format {
		r.Fail("format %d", f)
	}
	return r.Byte(), nil
}

func readCommand(b []byte) (command, error) {
	r := wire.NewReader(b)
	kind, err := begin(&r, "kv command")
	if err != nil {
		return command{}, err
	}
	c := command{kind: kind}
	switch kind {
	case cmdTxn:
		c.txn = readTxn(&r)
	case cmdGrant:
		if c.ttl = time.Duration(r.Varint()); c.ttl <= 0 || c.ttl > MaxTTL {
			r.Fail("TTL %v", c.ttl)
		}
	case cmdKeepAlive, cmdRevoke:
		c.lease = r.Uvarint()
	case cmdCompact:
		c.revision = r.Uvarint()
	default:
		r.Fail("command of kind %d", kind)
	}
	if err := r.Done(); err != nil {
		return command{}, fmt.Errorf("%w: %w", ErrBadCommand, err)
	}
	return c, nil
}

// query is one of a Read. wait is how long a replica that can may wait for an answer that is worth it.
type query struct {
	kind  byte
	wait  time.Duration
	get   Get
	span  Span   // of a watch
	from  uint64 // revision
	turn  Turn
	lease uint64
}

func (q *query) encode() []byte {
	b := wire.AppendUvarint(start(q.kind), uint64(q.wait/time.Millisecond))
	switch q.kind {
	case queryGet:
		b = q.get.append(b)
	case queryWatch:
		b = wire.AppendUvarint(appendSpan(b, q.span), q.from)
	case queryTurn:
		b = wire.AppendString(b, q.turn.Key)
		b = wire.AppendUvarint(b, uint64(max(q.turn.Below, 1)))
		b = wire.AppendUvarint(b, q.turn.Revision)
		b = wire.AppendUvarint(b, uint64(len(q.turn.Spans)))
		for _, s := range q.turn.Spans {
			b = appendSpan(b, s)
		}
	case queryLease:
		b = wire.AppendUvarint(b, q.lease)
	}
	return b
}

// maxWait bounds how long one query waits.
const maxWait = time.Minute

func readQuery(b []byte) (query, error) {
	r := wire.NewReader(b)
	kind, err := begin(&r, "kv query")
	if err != nil {
		return query{}, err
	}
	q := query{kind: kind, wait: time.Duration(r.Int(int(maxWait/time.Millisecond))) * time.Millisecond}
	switch kind {
	case queryGet:
		q.get = readGet(&r)
	case queryWatch:
		q.span, q.from = readSpan(&r), r.Uvarint()
	case queryTurn:
		q.turn = Turn{Key: readKey(&r), Below: r.Int(1 << 20), Revision: r.Uvarint()}
		for range bounded(&r, r.Count(2)) {
			q.turn.Spans = append(q.turn.Spans, readSpan(&r))
		}
	case queryLease:
		q.lease = r.Uvarint()
	case queryStatus:
	default:
		r.Fail("query of kind %d", kind)
	}
	if err := r.Done(); err != nil {
		return query{}, fmt.Errorf("%w: %w", ErrBadCommand, err)
	}
	return q, nil
}

// An answer is: format | 0 | revision | what the kind has, or: format | number of the fault | revision | its fields.
var faults = []error{1: ErrCompacted, 2: ErrFuture, 3: ErrNoLease, 4: ErrInvalid, 5: ErrFull, 6: ErrBadCommand}

// answer begins an answer.
func answer(revision uint64) []byte {
	return wire.AppendUvarint(append(make([]byte, 0, 32), format, 0), revision)
}

func appendFault(revision uint64, err error) []byte {
	number := len(faults) - 1 // what is not known more exactly is a bad command
	for i := 1; i < len(faults); i++ {
		if errors.Is(err, faults[i]) {
			number = i
			break
		}
	}
	b := wire.AppendUvarint([]byte{format, byte(number)}, revision)
	b = wire.AppendString(b, err.Error())
	if c := (*CompactedError)(nil); errors.As(err, &c) {
		b = wire.AppendUvarint(wire.AppendUvarint(b, c.Asked), c.Oldest)
	}
	return b
}

// readAnswer takes the beginning of an answer; its fault is the error.
func readAnswer(b []byte) (r wire.Reader, revision uint64, err error) {
	r = wire.NewReader(b)
	number, err := begin(&r, "kv answer")
	if err != nil {
		return r, 0, err
	}
	revision = r.Uvarint()
	if r.Err() != nil || number == 0 {
		return r, revision, wrong(r.Err())
	}
	text := r.String()
	if int(number) >= len(faults) {
		return r, revision, fmt.Errorf("kv: %s", text)
	}
	fault := faults[number]
	if errors.Is(fault, ErrCompacted) {
		fault = &CompactedError{Asked: r.Uvarint(), Oldest: r.Uvarint()}
		text = ""
	}
	if err := r.Done(); err != nil {
		return r, revision, wrong(err)
	}
	if text == "" || text == fault.Error() {
		return r, revision, fault
	}
	return r, revision, &remoteError{fault: fault, text: text}
}

// remoteError is a fault of the store with its text.
type remoteError struct {
	fault error
	text  string
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.fault }

func wrong(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("kv: answer: %w", err)
}

func appendKV(b []byte, k *KV) []byte {
	b = wire.AppendBytes(wire.AppendString(b, k.Key), k.Value)
	for _, v := range [...]uint64{k.Create, k.Mod, k.Version, k.Lease} {
		b = wire.AppendUvarint(b, v)
	}
	return b
}

const minKV = 6

func readKV(r *wire.Reader) KV {
	return KV{Key: r.String(), Value: r.Bytes(), Create: r.Uvarint(), Mod: r.Uvarint(), Version: r.Uvarint(), Lease: r.Uvarint()}
}

func appendKVs(b []byte, kvs []KV) []byte {
	b = wire.AppendUvarint(b, uint64(len(kvs)))
	for i := range kvs {
		b = appendKV(b, &kvs[i])
	}
	return b
}

func readKVs(r *wire.Reader) []KV {
	n := r.Count(minKV)
	if n == 0 {
		return nil
	}
	kvs := make([]KV, n)
	for i := range kvs {
		kvs[i] = readKV(r)
	}
	return kvs
}

func appendResult(b []byte, res *Result) []byte {
	b = wire.AppendUvarint(wire.AppendString(b, res.Key), uint64(res.Count))
	return wire.AppendBool(appendKVs(b, res.KVs), res.More)
}

func readResult(r *wire.Reader) Result {
	return Result{Key: r.String(), Count: r.Int(1 << 40), KVs: readKVs(r), More: r.Bool()}
}

func appendTxnResult(b []byte, t *TxnResult) []byte {
	b = wire.AppendUvarint(wire.AppendBool(b, t.Succeeded), uint64(len(t.Results)))
	for i := range t.Results {
		b = appendResult(b, &t.Results[i])
	}
	return b
}

func readTxnResult(r *wire.Reader, revision uint64) (TxnResult, error) {
	t := TxnResult{Revision: revision, Succeeded: r.Bool()}
	n := r.Count(4)
	for range n {
		t.Results = append(t.Results, readResult(r))
	}
	return t, wrong(r.Done())
}
