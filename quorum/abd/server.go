package abd

import (
	"maps"
	"slices"

	"github.com/coterie-go/coterie"
)

// answerQuery reports what this server stores. The report waits for the disk: a read that finds one value at a whole
// quorum relies on all of them to remember it.
func (c *Core) answerQuery(from coterie.NodeID, m message) {
	r := c.registers[m.key]
	if !m.wantValue {
		r.value = nil
	}
	c.out.Send(from, message{kind: msgReport, round: m.round, register: r}.encode())
}

// store keeps the value if it is newer, and says so when it is on disk; also if it was not newer, for then what is
// stored is at least as new.
func (c *Core) store(from coterie.NodeID, m message) {
	if m.at.after(c.registers[m.key].at) {
		c.save(m.key, m.register)
	}
	c.out.Send(from, message{kind: msgStored, round: m.round}.encode())
}

// save stores the register and its record, of which the stored value is a part, so that the payload that brought it is
// not held.
func (c *Core) save(key string, r register) {
	record := encodeRecord(key, r)
	if r.value != nil {
		r.value = record[len(record)-len(r.value):]
	}
	c.registers[key] = r
	c.out.Save(record)
	c.records++
	if c.records > 1024+4*len(c.registers) {
		c.compact()
	}
}

// compact saves every register anew and lets go of all older records. Between two compactions the journal takes in four
// times as many records, so that each record is written 1.25 times on average.
func (c *Core) compact() {
	for _, key := range slices.Sorted(maps.Keys(c.registers)) {
		c.out.Save(encodeRecord(key, c.registers[key]))
	}
	c.records = len(c.registers)
	c.out.Keep(c.records)
}

// Replay takes back a register that this server stored. Records older than what Keep asked for change nothing.
func (c *Core) Replay(record []byte) error {
	key, r, err := decodeRecord(record)
	if err != nil {
		return err
	}
	c.records++
	if r.at.after(c.registers[key].at) {
		c.registers[key] = r
	}
	return nil
}
