package messages

import "github.com/apache/arrow-go/v18/arrow"

// Item is anything that travels down a task's chain, in order.
//
//sumtype:decl
type Item interface{ item() }

// Data is an Item that a transform or a writer works on.
//
//sumtype:decl
type Data interface {
	Item
	data()
}

// Stamp is set by the engine when a source emits; a connector leaves it zero and
// can therefore not lie about it.
type Stamp struct {
	Part  PartID
	Token Token
	Seq   Seq
}

// Batch carries rows of one stream and one schema version. Sending it moves
// Rows: the receiver releases it exactly once, on every path.
type Batch struct {
	Stamp
	Stream  StreamID
	Version uint64 // schema version, from 1; announced by a SchemaChange unless it is the planned one
	Rows    Rows
}

// Rows is the payload of a Batch: Arrow, or, when both ends agreed on it at plan
// time and no transform is in between, the bytes of whole rows.
//
//sumtype:decl
type Rows interface {
	Len() int64   // rows
	Bytes() int64 // true footprint, not the capacity of the buffers
	Retain()
	Release()
	rows()
}

// SchemaChange announces a new schema of Stream, before its first batch, at any
// place in the order, also inside a source transaction.
type SchemaChange struct {
	Stamp
	Stream  StreamID
	Version uint64
	Schema  *arrow.Schema // without the reserved columns
}

// Truncate empties Streams at this place in the order.
type Truncate struct {
	Stamp
	Streams []StreamID
}

// Rejected carries rows that a transform set aside. They become dead letters in
// the commit that covers this place in the order, never sooner or elsewhere.
type Rejected struct {
	Stamp
	Stream StreamID
	Reason string // stable code of the rule
	Rows   Rows   // moved, as in Batch
}

// BarrierKind says why a barrier was emitted.
type BarrierKind uint8

// The kinds.
const (
	BarrierPeriodic BarrierKind = iota // may be merged into a later one
	BarrierDrain                       // the task stops here and will resume
	BarrierEnd                         // the part is complete
)

// Barrier says: everything before me is covered by Position. The engine forwards
// it through transforms; no connector sees data of two commits mixed.
type Barrier struct {
	Stamp
	Kind     BarrierKind
	Position Position
	Rows     int64 // rows the source emitted since the barrier before
}

func (Batch) item()        {}
func (SchemaChange) item() {}
func (Truncate) item()     {}
func (Rejected) item()     {}
func (Barrier) item()      {}
func (Batch) data()        {}
func (SchemaChange) data() {}
func (Truncate) data()     {}
func (Rejected) data()     {}

// Reserved columns of a change batch, after the stream's own. A batch without
// ColumnOp holds plain rows.
const (
	ColumnOp        = "_rb_op"        // uint8, an Op; never null
	ColumnPosition  = "_rb_lsn"       // uint64; end of the source transaction
	ColumnUnchanged = "_rb_unchanged" // binary bitmap over the stream's columns; null: none
	ColumnBefore    = "_rb_before"    // struct of the old key or row; null: key unchanged
)

// Op says what a change row does.
type Op uint8

// The operations.
const (
	OpInsert Op = 'i'
	OpUpdate Op = 'u' // a column whose bit is set in ColumnUnchanged keeps its value
	OpDelete Op = 'd'
)

// ArrowRows is the general payload.
type ArrowRows struct{ Record arrow.RecordBatch }

// Len returns the number of rows.
func (r ArrowRows) Len() int64 { return r.Record.NumRows() }

// Bytes returns the bytes that the slice refers to.
func (r ArrowRows) Bytes() (n int64) {
	for _, c := range r.Record.Columns() {
		n += sliceBytes(c.Data())
	}
	return n
}

// Slice returns rows [from, to) as a new reference; the caller still owns r.
func (r ArrowRows) Slice(from, to int64) ArrowRows {
	return ArrowRows{Record: r.Record.NewSlice(from, to)}
}

// Retain adds a reference.
func (r ArrowRows) Retain() { r.Record.Retain() }

// Release drops one.
func (r ArrowRows) Release() { r.Record.Release() }
func (ArrowRows) rows()      {}

// RawRows holds whole rows in a wire format, cut at row boundaries by the source
// so that counts, barriers and hashes hold as they do for Arrow.
type RawRows struct {
	Format string // "pgcopy-binary/<fingerprint of the column types>"
	Count  int64
	Data   []byte
	Buffer interface {
		Retain()
		Release()
	} // owner of Data
}

// Len returns the number of rows.
func (r RawRows) Len() int64 { return r.Count }

// Bytes returns the size of Data.
func (r RawRows) Bytes() int64 { return int64(len(r.Data)) }

// Retain adds a reference.
func (r RawRows) Retain() { r.Buffer.Retain() }

// Release drops one.
func (r RawRows) Release() { r.Buffer.Release() }
func (RawRows) rows()      {}
