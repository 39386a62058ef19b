package text

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"unicode/utf8"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/internal/wire"
)

// format is the first byte of an encoding, of a Delta or, as it is one, of a Text. The second says whether the rest is
// compressed.
const format = 1

const (
	plain   = 0
	deflate = 1
)

// What the head byte of an operation says.
const (
	opDeletion = 1 << iota // else an insertion
	opNext                 // its number is the next one after the operation before
	opSame                 // its replica is that of the operation before
	opRun                  // its parent is the character before it, of its own replica
	opLeft                 // it is a left child
	opDead                 // its characters are deleted
)

// columns holds the operations of a Delta apart by kind of number: what is alike lies together, and compresses.
type columns struct {
	ids   []coterie.NodeID
	byID  map[coterie.NodeID]int
	heads []byte
	nums  []byte // replica, number
	sizes []byte
	refs  []byte // parents
	dels  []byte // deletions
	texts []byte
}

func (c *columns) id(id coterie.NodeID) uint64 {
	i, found := c.byID[id]
	if !found {
		i = len(c.ids)
		c.byID[id] = i
		c.ids = append(c.ids, id)
	}
	return uint64(i)
}

// AppendBinary appends the encoding of d: a single edit in some 10 bytes and its text, a whole text compressed. It never
// fails.
func (d Delta) AppendBinary(b []byte) ([]byte, error) {
	c := columns{byID: make(map[coterie.NodeID]int)}
	n, last, lastID, lastDel := uint64(0), uint32(0), coterie.NodeID(""), int64(0)
	lastParent := map[coterie.NodeID]uint32{}
	for o := range d.ops {
		n++
		head := byte(0)
		if o.seq == last+1 && o.id == lastID {
			head |= opNext
		}
		if n > 1 && o.id == lastID {
			head |= opSame
		} else {
			c.nums = wire.AppendUvarint(c.nums, c.id(o.id))
		}
		if head&opNext == 0 {
			if head&opSame == 0 {
				last = 0
			}
			c.nums = wire.AppendVarint(c.nums, int64(o.seq)-int64(last))
		}
		if o.n == 0 {
			head |= opDeletion
			c.deletion(o)
		} else {
			head |= c.insertion(o, lastParent, &lastDel)
		}
		c.heads = append(c.heads, head)
		last, lastID = o.last(), o.id
	}
	raw := c.body(n, &d)
	if len(raw) < 256 {
		return append(append(b, format, plain), raw...), nil
	}
	out := bytes.NewBuffer(append(b, format, deflate))
	z, err := flate.NewWriter(out, flate.BestCompression)
	if err != nil {
		return b, err
	}
	if _, err := z.Write(raw); err != nil {
		return b, err
	}
	if err := z.Close(); err != nil {
		return b, err
	}
	return out.Bytes(), nil
}

// MarshalBinary returns the encoding of d.
func (d Delta) MarshalBinary() ([]byte, error) { return d.AppendBinary(nil) }

func (c *columns) insertion(o *op, lastParent map[coterie.NodeID]uint32, lastDel *int64) (head byte) {
	c.sizes = wire.AppendUvarint(c.sizes, uint64(o.n))
	if o.left {
		head |= opLeft
	}
	if o.parentID == o.id && o.parentSeq == o.seq-1 && !o.left {
		head |= opRun
	} else {
		// 0 is the beginning of the text, which has no replica.
		if o.parentSeq == 0 {
			c.refs = wire.AppendUvarint(c.refs, 0)
		} else {
			c.refs = wire.AppendUvarint(c.refs, c.id(o.parentID)+1)
			c.refs = wire.AppendVarint(c.refs, int64(o.parentSeq)-int64(lastParent[o.parentID]))
			lastParent[o.parentID] = o.parentSeq
		}
	}
	if o.dead {
		head |= opDead
		c.dels = wire.AppendUvarint(c.dels, c.id(o.byID))
		c.dels = wire.AppendVarint(c.dels, int64(o.bySeq)-*lastDel)
		*lastDel = int64(o.bySeq)
	} else {
		c.texts = append(c.texts, o.text...)
	}
	return head
}

func (c *columns) deletion(o *op) {
	n, last := uint64(0), int64(0)
	for range o.allSpans {
		n++
	}
	c.dels = wire.AppendUvarint(c.dels, n)
	for s := range o.allSpans {
		c.dels = wire.AppendUvarint(c.dels, c.id(s.id))
		c.dels = wire.AppendVarint(c.dels, int64(s.seq)-last)
		c.dels = wire.AppendUvarint(c.dels, uint64(s.n))
		last = int64(s.seq)
	}
}

// body joins the columns.
func (c *columns) body(n uint64, d *Delta) []byte {
	b := wire.AppendUvarint(nil, uint64(len(c.ids)))
	for _, id := range c.ids {
		b = wire.AppendString(b, id)
	}
	for _, v := range []clock.Vector{d.base, d.upto, d.gone} {
		b = wire.AppendUvarint(b, uint64(v.Len()))
		for id, n := range v.All() {
			b = wire.AppendUvarint(wire.AppendString(b, id), n)
		}
	}
	b = wire.AppendUvarint(b, n)
	b = append(b, c.heads...)
	for _, col := range [][]byte{c.nums, c.sizes, c.refs, c.dels} {
		b = wire.AppendBytes(b, col)
	}
	return append(b, c.texts...)
}

// maxInflate is the most that deflated data can grow: 258 bytes for two bits and a little.
const maxInflate = 1032

// UnmarshalBinary sets d from an encoding. Malformed bytes give an error and leave d as it was; those of a newer format
// a *coterie.FormatError.
func (d *Delta) UnmarshalBinary(b []byte) error {
	if len(b) < 2 {
		return fmt.Errorf("text: delta: %w: ended early", wire.ErrMalformed)
	}
	if b[0] > format {
		return &coterie.FormatError{What: "text delta", Got: b[0], Max: format}
	}
	raw := b[2:]
	switch {
	case b[0] != format || b[1] > deflate:
		return fmt.Errorf("text: delta: %w: format %d, %d", wire.ErrMalformed, b[0], b[1])
	case b[1] == deflate:
		var err error
		in := io.LimitReader(flate.NewReader(bytes.NewReader(raw)), maxInflate*int64(len(raw)))
		if raw, err = io.ReadAll(in); err != nil {
			return fmt.Errorf("text: delta: %w: %w", wire.ErrMalformed, err)
		}
	}
	var read decoder
	read.all = wire.NewReader(raw)
	if err := read.decode(); err != nil {
		return fmt.Errorf("text: delta: %w", err)
	}
	*d = read.d
	return nil
}

// decoder takes a Delta out of its columns.
type decoder struct {
	all                     wire.Reader
	nums, sizes, refs, dels wire.Reader
	texts                   string
	ids                     []coterie.NodeID
	d                       Delta
	lastParent              []int64 // by id
	lastDel                 int64
}

func (x *decoder) decode() error {
	for range x.all.Count(1) {
		x.ids = append(x.ids, coterie.NodeID(x.all.String()))
	}
	x.lastParent = make([]int64, len(x.ids))
	x.d.base, x.d.upto, x.d.gone = x.vector(), x.vector(), x.vector()
	heads := x.all.Fixed(x.all.Count(1))
	x.nums = wire.NewReader(x.all.Bytes())
	x.sizes = wire.NewReader(x.all.Bytes())
	x.refs = wire.NewReader(x.all.Bytes())
	x.dels = wire.NewReader(x.all.Bytes())
	x.texts = string(x.all.Rest())
	if err := x.all.Done(); err != nil {
		return err
	}
	if !utf8.ValidString(x.texts) {
		return fmt.Errorf("%w: text is not UTF-8", wire.ErrMalformed)
	}
	ops := make([]op, 0, min(len(heads), 4096))
	for i, head := range heads {
		var before *op
		if i > 0 {
			before = &ops[i-1]
		}
		o, err := x.op(head, before)
		if err != nil {
			return err
		}
		ops = append(ops, o)
	}
	for _, r := range []*wire.Reader{&x.nums, &x.sizes, &x.refs, &x.dels} {
		if err := r.Done(); err != nil {
			return err
		}
	}
	if x.texts != "" {
		return fmt.Errorf("%w: %d bytes of text left over", wire.ErrMalformed, len(x.texts))
	}
	if len(ops) > 0 {
		x.d.op, x.d.more = ops[0], ops[1:]
	}
	return nil
}

func (x *decoder) vector() (v clock.Vector) {
	last := coterie.NodeID("")
	for i := range x.all.Count(2) {
		id, n := coterie.NodeID(x.all.String()), x.all.Uvarint()
		if x.all.Err() == nil && (n == 0 || n > maxSeq || (i > 0 && id <= last)) {
			x.all.Fail("version %d of %q", n, id)
		}
		if x.all.Err() != nil {
			return v
		}
		v.Set(id, n)
		last = id
	}
	return v
}

// name takes an index into the table of ids.
func (x *decoder) name(r *wire.Reader) coterie.NodeID {
	i := r.Uvarint()
	if i >= uint64(len(x.ids)) {
		r.Fail("replica %d of %d", i, len(x.ids))
		return ""
	}
	return x.ids[i]
}

// number takes a number as its difference to another.
func number(r *wire.Reader, last int64) uint32 {
	n := r.Varint()
	if n < -math.MaxUint32 || n > math.MaxUint32 || last+n < 1 || last+n > maxSeq {
		r.Fail("number out of range")
		return 0
	}
	return uint32(last + n)
}

func (x *decoder) op(head byte, before *op) (o op, err error) {
	if head&opSame != 0 && before != nil {
		o.id = before.id
	} else {
		o.id = x.name(&x.nums)
	}
	switch {
	case head&opNext != 0 && before != nil:
		o.seq = before.last() + 1
	case head&opSame != 0 && before != nil:
		o.seq = number(&x.nums, int64(before.last()))
	default:
		o.seq = number(&x.nums, 0)
	}
	if head&opDeletion != 0 {
		x.deletion(&o)
	} else {
		x.insertion(&o, head)
	}
	for _, r := range []*wire.Reader{&x.nums, &x.sizes, &x.refs, &x.dels} {
		if err := r.Err(); err != nil {
			return o, err
		}
	}
	if uint64(o.seq)+uint64(o.n) > maxSeq || o.seq == 0 {
		return o, fmt.Errorf("%w: number %d", wire.ErrMalformed, o.seq)
	}
	return o, nil
}

func (x *decoder) insertion(o *op, head byte) {
	o.n = uint32(x.sizes.Int(maxSeq))
	if o.n == 0 {
		x.sizes.Fail("an insertion of nothing")
		return
	}
	o.left = head&opLeft != 0
	switch {
	case head&opRun != 0:
		if o.parentID, o.parentSeq = o.id, o.seq-1; o.parentSeq == 0 || o.left {
			x.refs.Fail("a run without beginning")
		}
	default:
		if i := x.refs.Uvarint(); i > uint64(len(x.ids)) {
			x.refs.Fail("replica %d of %d", i, len(x.ids))
		} else if i > 0 {
			o.parentID = x.ids[i-1]
			o.parentSeq = number(&x.refs, x.lastParent[i-1])
			x.lastParent[i-1] = int64(o.parentSeq)
		}
	}
	if o.dead = head&opDead != 0; o.dead {
		o.byID = x.name(&x.dels)
		o.bySeq = number(&x.dels, x.lastDel)
		x.lastDel = int64(o.bySeq)
		if !x.d.isState() {
			x.dels.Fail("deleted characters in a single edit")
		}
		return
	}
	end := 0
	for range o.n {
		if end == len(x.texts) {
			x.sizes.Fail("text ended early")
			return
		}
		_, size := utf8.DecodeRuneInString(x.texts[end:])
		end += size
	}
	o.text, x.texts = x.texts[:end], x.texts[end:]
}

func (x *decoder) deletion(o *op) {
	last := int64(0)
	n := x.dels.Count(3)
	if n == 0 {
		x.dels.Fail("a deletion of nothing")
	}
	for range n {
		var s span
		s.id = x.name(&x.dels)
		s.seq = number(&x.dels, last)
		s.n = uint32(x.dels.Int(maxSeq))
		if x.dels.Err() == nil && (s.n == 0 || uint64(s.seq)+uint64(s.n) > maxSeq) {
			x.dels.Fail("%d characters from %d", s.n, s.seq)
		}
		if x.dels.Err() != nil {
			return
		}
		last = int64(s.seq)
		o.addSpan(s)
	}
}

// AppendBinary appends the encoding of the whole text, which is that of Since with the zero Vector. It never fails.
func (t *Text) AppendBinary(b []byte) ([]byte, error) {
	d, err := t.Since(clock.Vector{})
	if err != nil {
		return b, err
	}
	return d.AppendBinary(b)
}

// MarshalBinary returns the encoding of the whole text.
func (t *Text) MarshalBinary() ([]byte, error) { return t.AppendBinary(nil) }

// UnmarshalBinary sets t from an encoding of a whole text. An error leaves t as it was. Its watchers see nothing of it,
// what waited is dropped.
func (t *Text) UnmarshalBinary(b []byte) error {
	var d Delta
	if err := d.UnmarshalBinary(b); err != nil {
		return err
	}
	if d.base.Len() > 0 || (!d.isState() && !d.IsEmpty()) {
		return fmt.Errorf("text: %w: a delta, not a whole text", wire.ErrMalformed)
	}
	var read Text
	if err := read.Merge(d); err != nil {
		return err
	}
	read.watchers = t.watchers
	*t = read
	return nil
}

// MarshalJSON returns the text as a string.
func (t *Text) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }
