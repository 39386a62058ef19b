package saga

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// format is the first byte of every record.
const format = 1

// maxBlob is the longest input or result, in bytes.
const maxBlob = 1 << 20

type recordKind byte

const (
	recordCheckpoint   recordKind = iota + 1 // all sagas: replaces what came before
	recordBegin                              // a saga
	recordDone                               // a step of it is done
	recordCompensating                       // it is to be undone
	recordUndone                             // a step of it is undone
)

// record is any record; which fields count depends on the kind.
type record struct {
	kind   recordKind
	id     string
	step   string   // Done, Undone; Compensating: the one that failed
	blob   []byte   // Begin: the input; Done: the result
	def    string   // Begin
	begun  int64    // Begin: nanoseconds of Unix time
	steps  []string // Begin: how many steps are to be done, by name; Compensating: those to undo
	reason string   // Compensating

	owner coterie.NodeID // Checkpoint
	sagas []*instance    // Checkpoint
}

// instance is a saga, as the journal knows it.
type instance struct {
	id, def string
	begun   time.Time
	input   []byte
	state   State    // never Stuck
	left    []string // steps to do, or to undo
	done    []result // in the order of their ends
	failed  string
	reason  string
}

type result struct {
	step  string
	value []byte
}

func (rec *record) encode() []byte {
	b := []byte{format, byte(rec.kind)}
	if rec.kind == recordCheckpoint {
		b = wire.AppendString(b, rec.owner)
		b = wire.AppendUvarint(b, uint64(len(rec.sagas)))
		for _, in := range rec.sagas {
			b = in.append(b)
		}
		return b
	}
	b = wire.AppendString(b, rec.id)
	switch rec.kind {
	case recordBegin:
		b = wire.AppendString(b, rec.def)
		b = wire.AppendVarint(b, rec.begun)
		b = appendStrings(b, rec.steps)
		b = wire.AppendBytes(b, rec.blob)
	case recordDone:
		b = wire.AppendString(b, rec.step)
		b = wire.AppendBytes(b, rec.blob)
	case recordCompensating:
		b = wire.AppendString(b, rec.step)
		b = wire.AppendString(b, rec.reason)
		b = appendStrings(b, rec.steps)
	default: // Undone
		b = wire.AppendString(b, rec.step)
	}
	return b
}

func decodeRecord(p []byte) (rec record, err error) {
	r := wire.NewReader(p)
	if f := r.Byte(); f > format {
		return rec, &coterie.FormatError{What: "saga record", Got: f, Max: format}
	} else if f < format {
		r.Fail("format %d", f)
	}
	rec.kind = recordKind(r.Byte())
	if rec.kind == recordCheckpoint {
		rec.owner = coterie.NodeID(r.String())
		rec.sagas = make([]*instance, r.Count(8))
		for i := range rec.sagas {
			rec.sagas[i] = readInstance(&r)
		}
		return rec, r.Done()
	}
	rec.id = r.String()
	switch rec.kind {
	case recordBegin:
		rec.def = r.String()
		rec.begun = r.Varint()
		rec.steps = readStrings(&r)
		rec.blob = r.Bytes()
		if len(rec.steps) == 0 {
			r.Fail("no steps")
		}
	case recordDone:
		rec.step = r.String()
		rec.blob = r.Bytes()
	case recordCompensating:
		rec.step = r.String()
		rec.reason = r.String()
		rec.steps = readStrings(&r)
	case recordUndone:
		rec.step = r.String()
	default:
		r.Fail("record kind %d", byte(rec.kind))
	}
	return rec, r.Done()
}

func (in *instance) append(b []byte) []byte {
	b = wire.AppendString(b, in.id)
	b = wire.AppendString(b, in.def)
	b = wire.AppendVarint(b, in.begun.UnixNano())
	b = wire.AppendBytes(b, in.input)
	b = append(b, byte(in.state))
	b = appendStrings(b, in.left)
	b = wire.AppendUvarint(b, uint64(len(in.done)))
	for _, d := range in.done {
		b = wire.AppendString(b, d.step)
		b = wire.AppendBytes(b, d.value)
	}
	b = wire.AppendString(b, in.failed)
	return wire.AppendString(b, in.reason)
}

func readInstance(r *wire.Reader) *instance {
	in := &instance{id: r.String(), def: r.String(), begun: time.Unix(0, r.Varint()), input: r.Bytes(), state: State(r.Byte())}
	if in.state < Running || in.state > Compensated {
		r.Fail("state %d", byte(in.state))
	}
	in.left = readStrings(r)
	if over := in.state == Done || in.state == Compensated; over != (len(in.left) == 0) {
		r.Fail("%v with %d steps left", in.state, len(in.left))
	}
	in.done = make([]result, r.Count(2))
	for i := range in.done {
		in.done[i] = result{r.String(), r.Bytes()}
	}
	in.failed = r.String()
	in.reason = r.String()
	return in
}

func appendStrings(b []byte, list []string) []byte {
	b = wire.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = wire.AppendString(b, s)
	}
	return b
}

func readStrings(r *wire.Reader) []string {
	list := make([]string, r.Count(1))
	for i := range list {
		list[i] = r.String()
	}
	return list
}

// book is the state that the journal describes: it changes by apply alone, at work as at replay.
type book struct {
	owner  coterie.NodeID
	retain int
	sagas  map[string]*instance
	over   []string // finished ones, oldest first
	read   bool     // a checkpoint has been seen
}

// apply does what a record says.
func (b *book) apply(rec *record) error {
	if rec.kind == recordCheckpoint {
		return b.replace(rec)
	}
	in := b.sagas[rec.id]
	switch {
	case !b.read:
		return nil // the journal begins before what it was asked to keep: the checkpoint comes
	case rec.kind == recordBegin:
		if in != nil {
			return fmt.Errorf("saga: %q begun twice", rec.id)
		}
		b.sagas[rec.id] = &instance{id: rec.id, def: rec.def, begun: time.Unix(0, rec.begun), input: rec.blob, state: Running, left: slices.Clone(rec.steps)}
		return nil
	case in == nil:
		return fmt.Errorf("saga: a record of %q, which was not begun", rec.id)
	}
	switch rec.kind {
	case recordDone:
		if in.state != Running || !in.strike(rec.step) {
			return fmt.Errorf("saga: step %q of %q, which is %v, done out of turn", rec.step, rec.id, in.state)
		}
		in.done = append(in.done, result{rec.step, rec.blob})
		if len(in.left) == 0 {
			b.finish(in, Done)
		}
	case recordCompensating:
		if in.state != Running {
			return fmt.Errorf("saga: %q, which is %v, cannot compensate", rec.id, in.state)
		}
		in.state, in.left, in.failed, in.reason = Compensating, slices.Clone(rec.steps), rec.step, rec.reason
		if len(in.left) == 0 {
			b.finish(in, Compensated)
		}
	default: // Undone
		if in.state != Compensating || !in.strike(rec.step) {
			return fmt.Errorf("saga: step %q of %q, which is %v, undone out of turn", rec.step, rec.id, in.state)
		}
		if len(in.left) == 0 {
			b.finish(in, Compensated)
		}
	}
	return nil
}

func (b *book) replace(rec *record) error {
	if rec.owner != b.owner {
		return fmt.Errorf("saga: the journal is that of %q, not of %q", rec.owner, b.owner)
	}
	b.read, b.sagas, b.over = true, make(map[string]*instance, len(rec.sagas)), nil
	for _, in := range rec.sagas {
		if b.sagas[in.id] != nil {
			return fmt.Errorf("saga: %q twice in a checkpoint", in.id)
		}
		b.sagas[in.id] = in
		if in.state == Done || in.state == Compensated {
			b.over = append(b.over, in.id)
		}
	}
	return nil
}

// strike takes a step off those that are left.
func (in *instance) strike(step string) bool {
	i := slices.Index(in.left, step)
	if i >= 0 {
		in.left = slices.Delete(in.left, i, i+1)
	}
	return i >= 0
}

func (b *book) finish(in *instance, s State) {
	in.state = s
	b.over = append(b.over, in.id)
	for len(b.over) > b.retain {
		delete(b.sagas, b.over[0])
		b.over = b.over[1:]
	}
}

// open is how many sagas are not over.
func (b *book) open() int { return len(b.sagas) - len(b.over) }

// checkpoint is the record that stands for all sagas: the finished in the order of their ends, then the others by ID.
func (b *book) checkpoint() *record {
	rec := &record{kind: recordCheckpoint, owner: b.owner}
	for _, id := range b.over {
		rec.sagas = append(rec.sagas, b.sagas[id])
	}
	var open []*instance
	for _, in := range b.sagas {
		if in.state == Running || in.state == Compensating {
			open = append(open, in)
		}
	}
	slices.SortFunc(open, func(x, y *instance) int { return cmp.Compare(x.id, y.id) })
	rec.sagas = append(rec.sagas, open...)
	return rec
}
