package kv

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"
)

// model is the definition of a Store.
type model struct {
	kvs      map[string]KV
	past     []map[string]string // by revision, printed
	oldest   uint64
	sequence uint64
	leases   map[uint64]*modelLease
	now      time.Time
}

type modelLease struct {
	ttl     time.Duration
	expires time.Time
}

func newModel() *model {
	return &model{kvs: map[string]KV{}, past: []map[string]string{{}}, leases: map[uint64]*modelLease{}}
}

func (m *model) revision() uint64 { return uint64(len(m.past) - 1) }

func (m *model) deadline() (first time.Time) {
	for _, l := range m.leases {
		if first.IsZero() || l.expires.Before(first) {
			first = l.expires
		}
	}
	return first
}

// apply executes a command and returns what it is refused with.
func (m *model) apply(index uint64, now time.Time, b []byte) error {
	m.now = now
	for {
		ids := slices.SortedFunc(maps.Keys(m.leases), func(a, b uint64) int {
			if c := m.leases[a].expires.Compare(m.leases[b].expires); c != 0 {
				return c
			}
			return int(a) - int(b)
		})
		if len(ids) == 0 || m.leases[ids[0]].expires.After(now) {
			break
		}
		m.revoke(ids[0])
	}
	if len(b) == 0 {
		return nil
	}
	c, err := readCommand(b)
	if err != nil {
		return ErrBadCommand
	}
	switch c.kind {
	case cmdGrant:
		m.leases[index] = &modelLease{c.ttl, now.Add(c.ttl)}
	case cmdKeepAlive:
		l := m.leases[c.lease]
		if l == nil {
			return ErrNoLease
		}
		l.expires = now.Add(l.ttl)
	case cmdRevoke:
		if m.leases[c.lease] == nil {
			return ErrNoLease
		}
		m.revoke(c.lease)
	case cmdCompact:
		if c.revision > m.revision() {
			return ErrFuture
		}
		m.oldest = max(m.oldest, c.revision)
	case cmdTxn:
		return m.transact(&c.txn)
	}
	return nil
}

func (m *model) revoke(id uint64) {
	changed := false
	for key, k := range m.kvs {
		if k.Lease == id {
			delete(m.kvs, key)
			changed = true
		}
	}
	delete(m.leases, id)
	m.commit(changed)
}

func (m *model) commit(changed bool) {
	if !changed {
		return
	}
	printed := map[string]string{}
	for key, k := range m.kvs {
		if len(k.Value) == 0 {
			k.Value = nil
		}
		printed[key] = fmt.Sprintf("%+v", k)
	}
	m.past = append(m.past, printed)
}

func (m *model) transact(t *Txn) error {
	kvs, sequence := maps.Clone(m.kvs), m.sequence
	ops := t.Then
	for _, c := range t.If {
		if !m.holds(c) {
			ops = t.Else
		}
	}
	changed := false
	for _, o := range ops {
		did, err := m.act(o)
		if err != nil {
			m.kvs, m.sequence = kvs, sequence
			return err
		}
		changed = changed || did
	}
	m.commit(changed)
	return nil
}

func (m *model) holds(c Compare) bool {
	k := m.kvs[c.Key]
	var order int
	switch c.Field {
	case FieldValue:
		if k.Version == 0 {
			return c.Is == NotEqual
		}
		order = bytes.Compare(k.Value, c.Bytes)
	default:
		n := map[Field]uint64{FieldCreate: k.Create, FieldMod: k.Mod, FieldVersion: k.Version, FieldLease: k.Lease}[c.Field]
		if c.Field == FieldCount {
			n = uint64(len(m.in(c.Span)))
		}
		order = int(n) - int(c.Number)
	}
	return c.Is == Equal && order == 0 || c.Is == NotEqual && order != 0 || c.Is == Less && order < 0 || c.Is == Greater && order > 0
}

func (m *model) in(s Span) (keys []string) {
	for key := range m.kvs {
		if s.Contains(key) {
			keys = append(keys, key)
		}
	}
	return keys
}

func (m *model) at(revision uint64) (map[string]string, error) {
	switch {
	case revision > m.revision():
		return nil, ErrFuture
	case revision < m.oldest && revision > 0:
		return nil, ErrCompacted
	case revision == 0:
		revision = m.revision()
	}
	return m.past[revision], nil
}

func (m *model) put(key string, value []byte, lease uint64) {
	k := m.kvs[key]
	if k.Version == 0 {
		k = KV{Key: key, Create: m.revision() + 1}
	}
	k.Value, k.Lease, k.Mod = value, lease, m.revision()+1
	k.Version++
	m.kvs[key] = k
}

func (m *model) act(o Op) (changed bool, err error) {
	switch o := o.(type) {
	case Put:
		if o.Lease != 0 && m.leases[o.Lease] == nil {
			return false, ErrNoLease
		}
		if o.Sequential {
			m.sequence++
			o.Key = fmt.Sprintf("%s%016x", o.Key, m.sequence)
		}
		m.put(o.Key, o.Value, o.Lease)
		return true, nil
	case Delete:
		for _, key := range m.in(o.Span) {
			delete(m.kvs, key)
			changed = true
		}
	case Get:
		_, err = m.at(o.Revision)
	case Rollback:
		was, err := m.at(o.Revision)
		if err != nil {
			return false, err
		}
		return m.rollback(o.Span, was), nil
	}
	return changed, err
}

// rollback reads the past from its print.
func (m *model) rollback(s Span, was map[string]string) (changed bool) {
	for _, key := range m.in(s) {
		if _, ok := was[key]; !ok {
			delete(m.kvs, key)
			changed = true
		}
	}
	for key, printed := range was {
		if !s.Contains(key) {
			continue
		}
		value, lease := parsePrint(printed)
		is, ok := m.kvs[key]
		switch {
		case ok && bytes.Equal(is.Value, value) && is.Lease == lease:
		case lease != 0 && m.leases[lease] == nil:
			delete(m.kvs, key)
			changed = changed || ok
		default:
			m.put(key, value, lease)
			changed = true
		}
	}
	return changed
}

func parsePrint(printed string) (value []byte, lease uint64) {
	at := bytes.LastIndex([]byte(printed), []byte("Value:["))
	list := printed[at+len("Value:["):]
	list = list[:bytes.IndexByte([]byte(list), ']')]
	for f := range bytes.FieldsSeq([]byte(list)) {
		var b byte
		_, _ = fmt.Sscan(string(f), &b)
		value = append(value, b)
	}
	at = bytes.LastIndex([]byte(printed), []byte("Lease:"))
	_, _ = fmt.Sscanf(printed[at:], "Lease:%d}", &lease)
	return value, lease
}
