package simulation_test

import (
	"rapidbyte.io/node/messages"
)

// rows are the cheapest batch there is: numbers, and a weight. The engine never looks
// into the rows of a batch, so that nothing of it is left out by this.
type rows struct {
	node    *node
	attempt messages.Token
	part    messages.PartID
	ids     []row
	refs    int
}

// row is a row of a stream: its number and, above it, the version of the source.
type row uint64

func rowOf(version, id int64) row { return row(version)<<32 | row(id) } //nolint:gosec // both are small

func (r row) id() int64      { return int64(r & 0xffffffff) } //nolint:gosec // 32 bits
func (r row) version() int64 { return int64(r >> 32) }        //nolint:gosec // 32 bits

const rowBytes = 16 << 10

var weight [64 * rowBytes]byte // of any batch: nobody writes to it

// batch makes rows that count as in flight until they are released.
func (n *node) batch(t messages.Token, p messages.PartID, ids []row) messages.RawRows {
	r := &rows{node: n, attempt: t, part: p, ids: ids, refs: 1}
	n.hold(r)
	return messages.RawRows{Format: "simulation", Count: int64(len(ids)), Data: weight[:len(ids)*rowBytes], Buffer: r}
}

// Retain implements the buffer of messages.RawRows.
func (r *rows) Retain() { r.refs++ }

// Release implements the buffer of messages.RawRows.
func (r *rows) Release() {
	r.refs--
	switch {
	case r.refs == 0:
		r.node.drop(r)
	case r.refs < 0:
		r.node.w.fail("a batch of %s was released twice", r.part)
	}
}

// idsOf returns what a batch holds.
func idsOf(m messages.Rows) []row {
	raw, ok := m.(messages.RawRows)
	if !ok {
		return nil
	}
	r, ok := raw.Buffer.(*rows)
	if !ok {
		return nil
	}
	if r.refs < 1 {
		r.node.w.fail("a batch of %s is used after it was released", r.part)
	}
	return r.ids
}
