package codec

import (
	"encoding/binary"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"rapidbyte.io/node/connectors"
)

const (
	firstRows = 1024    // rows of which the first batch thinks
	tailKeep  = 1 << 20 // bytes of a cut row's buffer that are kept for the next
)

// Decoder turns the payloads of COPY TO STDOUT (FORMAT binary) into record batches.
// It allocates per batch, not per row. It is not safe for concurrent use.
type Decoder struct {
	schema *arrow.Schema
	cols   []column
	vars   []*column // with bytes beside the fixed part
	limits connectors.Limits

	rowFixed int64 // footprint of a row beside bits and vars
	bitCols  int64 // columns with a bit a row, nulls or not
	offsets  int64 // columns with one offset more than rows

	n      int   // pending rows
	cap    int   // rows that every column has room for
	hint   int   // rows that the batch before had, about
	vbytes int64 // of vars, pending
	taken  int64 // rows of earlier batches

	tail   []byte // a row that the payloads so far have cut
	need   int    // bytes of tail below which another look is useless
	at     int    // bytes of the payload, or of tail, that are done; while again
	again  bool   // the next payload is the one that was answered with ErrFull
	begun  bool   // the header was seen
	ended  bool   // the trailer was seen
	failed error  // returned for ever
	bad    badValue
}

// badValue says where row stopped.
type badValue struct {
	col   int
	fault *fault
	value []byte
}

// NewDecoder returns a Decoder of rows whose column i has types[i], was selected as
// text if asText[i], and becomes field i of schema, as Field returned it. Batches
// are allocated from mem. A limit that is not positive does not limit.
func NewDecoder(schema *arrow.Schema, types []*Type, asText []bool, mem memory.Allocator, limits connectors.Limits) (*Decoder, error) {
	if len(types) != schema.NumFields() || len(asText) != len(types) {
		return nil, fmt.Errorf("decoder of %d fields: %d types, %d text flags", schema.NumFields(), len(types), len(asText))
	}
	limits = bounded(limits)
	d := &Decoder{schema: schema, cols: make([]column, len(types)), limits: limits}
	for i, f := range schema.Fields() {
		want, text := Field(Column{Name: f.Name, Type: types[i]}, asText[i])
		if !arrow.TypeEqual(want.Type, f.Type) || text != asText[i] {
			return nil, fmt.Errorf("decoder: column %s of type %s is read as %s, not as %s", f.Name, types[i].SQL, want.Type, f.Type)
		}
		c := &d.cols[i]
		*c = *newColumn(f, types[i], text, mem, limits)
		switch {
		case c.hasOffset():
			d.offsets++
			d.rowFixed += 4
			d.vars = append(d.vars, c)
		case c.op == opBool:
			d.bitCols++
		default:
			d.rowFixed += int64(c.width)
		}
		if c.op == opUUID {
			d.bitCols++
		}
	}
	return d, nil
}

// Append takes one CopyData payload; where payloads begin and end means nothing.
//
// ErrFull says that a row does not fit into the pending batch any more. Nothing of
// that row was taken: Take the batch, then Append the same payload again, which
// goes on with that row. Any other error is final; the rows before it are pending.
func (d *Decoder) Append(payload []byte) error {
	if d.failed != nil {
		return d.failed
	}
	buf, inTail := payload, len(d.tail) > 0
	if inTail {
		if !d.again {
			d.tail = append(d.tail, payload...)
		}
		buf = d.tail
		if len(buf) < d.need {
			return nil
		}
	}
	at := 0
	if d.again {
		at, d.again = min(d.at, len(buf)), false
	}
	if !d.begun {
		n, err := d.header(buf)
		if at = n; err != nil || !d.begun {
			return d.stop(err, at, buf, inTail)
		}
	}
	n, err := d.rows(buf[at:])
	if at += n; err == nil && at == len(buf) && !inTail {
		return nil
	}
	return d.stop(err, at, buf, inTail)
}

// stop remembers where payload or tail was left.
func (d *Decoder) stop(err error, at int, buf []byte, inTail bool) error {
	if err == nil {
		d.keep(buf[at:], inTail)
		return nil
	}
	if err == ErrFull { //nolint:errorlint // our own, never wrapped
		d.again, d.at = true, at
		return err
	}
	d.failed = err
	return err
}

// keep saves what is left of a payload.
func (d *Decoder) keep(rest []byte, inTail bool) {
	if !inTail {
		d.tail = append(d.tail, rest...)
		return
	}
	d.tail = d.tail[:copy(d.tail, rest)]
	if len(d.tail) == 0 && cap(d.tail) > tailKeep {
		d.tail = nil
	}
}

// rows takes whole rows and the trailer, and returns how long they were.
func (d *Decoder) rows(b []byte) (at int, err error) {
	for at < len(b) {
		if len(b)-at < 2 {
			d.need = 2
			return at, nil
		}
		fields := int(int16(binary.BigEndian.Uint16(b[at:])))
		if fields != len(d.cols) || d.ended {
			if err = d.trailer(fields); err != nil {
				return at, err
			}
			at += 2
			continue
		}
		if d.n == d.cap {
			if int64(d.n) >= d.limits.BatchRows {
				return at, ErrFull
			}
			d.grow()
		}
		size := d.row(b[at:])
		if size <= 0 {
			return at, d.unfinished()
		}
		if err = d.settle(size); err != nil {
			return at, err
		}
		at += size
	}
	return at, nil
}

// trailer takes what stands in the place of a count of fields and is none.
func (d *Decoder) trailer(fields int) error {
	if why := badTrailer(fields, len(d.cols), d.ended); why != "" {
		return d.format(why)
	}
	d.ended = true
	return nil
}

// settle counts the row that row has just written, or takes it back.
func (d *Decoder) settle(size int) error {
	var vbytes int64
	for _, c := range d.vars {
		vbytes += c.varBytes()
	}
	wire := int64(size - 2 - 4*len(d.cols))
	if rowBytes := max(wire, vbytes-d.vbytes); rowBytes > d.limits.RowBytes {
		d.undo()
		return &RowTooLargeError{Row: d.current(), Bytes: rowBytes, Max: d.limits.RowBytes}
	}
	if d.n > 0 && d.bound(d.n+1, vbytes) > d.limits.BatchBytes && d.footprint(d.n+1, vbytes) > d.limits.BatchBytes {
		d.undo()
		return ErrFull
	}
	d.n++
	d.vbytes = vbytes
	return nil
}

// unfinished takes back the part of a row that row has written, and says why it
// stopped; nil if only because b ends.
func (d *Decoder) unfinished() error {
	d.undo()
	bad := d.bad
	d.bad = badValue{}
	if bad.fault == nil {
		if wire := int64(d.need - 2 - 4*len(d.cols)); wire > d.limits.RowBytes {
			return &RowTooLargeError{Row: d.current(), Bytes: wire, Max: d.limits.RowBytes}
		}
		return nil
	}
	c := &d.cols[bad.col]
	switch bad.fault.class {
	case classRoom:
		if d.n > 0 {
			return ErrFull
		}
		return &RowTooLargeError{Row: d.current(), Bytes: int64(c.dataMax), Max: d.limits.RowBytes}
	case classFormat:
		return d.format("column " + c.field.Name + " of type " + c.sql + ": " + bad.fault.why)
	default:
	}
	e := &ValueError{Column: c.field.Name, Row: d.current(), Type: c.field.Type.String(), Why: bad.fault.why, Finer: bad.fault.class == classFiner}
	if bad.fault.show {
		e.Value = clip(bad.value)
	}
	return e
}

func (d *Decoder) undo() {
	for i := range d.cols {
		d.cols[i].cut(d.n, d.n+1)
	}
}

func (d *Decoder) format(why string) error { return &FormatError{Row: d.current(), Why: why} }

// current is the number of the row at hand.
func (d *Decoder) current() int64 {
	if !d.begun {
		return 0
	}
	return d.taken + int64(d.n) + 1
}

// grow makes room for more rows, within the limit.
func (d *Decoder) grow() {
	want := max(2*d.cap, d.hint)
	if want == 0 {
		want = firstRows
	}
	d.cap = int(min(int64(want), d.limits.BatchRows))
	for i := range d.cols {
		d.cols[i].reserve(d.cap)
	}
}

func (d *Decoder) header(b []byte) (int, error) {
	n, need, why := copyHeader(b)
	if why != "" {
		return 0, d.format(why)
	}
	d.need, d.begun = need, n > 0
	return n, nil
}

// bound is never below footprint, and cheaper.
func (d *Decoder) bound(n int, vbytes int64) int64 {
	return int64(n)*d.rowFixed + (d.bitCols+int64(len(d.cols)))*int64((n+7)/8) + 4*d.offsets + vbytes
}

// footprint is what messages.ArrowRows counts of n rows.
func (d *Decoder) footprint(n int, vbytes int64) int64 {
	bits := d.bitCols
	for i := range d.cols {
		if d.cols[i].nulls > 0 && d.cols[i].op != opUUID {
			bits++
		}
	}
	return int64(n)*d.rowFixed + bits*int64((n+7)/8) + 4*d.offsets + vbytes
}

// Rows returns the number of pending rows.
func (d *Decoder) Rows() int64 { return int64(d.n) }

// Bytes returns the footprint of the pending rows, as messages.ArrowRows counts it.
func (d *Decoder) Bytes() int64 {
	if d.n == 0 {
		return 0
	}
	return d.footprint(d.n, d.vbytes)
}

// Ended reports whether the trailer was seen: the server has sent everything.
func (d *Decoder) Ended() bool { return d.ended }

// Take returns the pending rows, which the caller owns; nil when there are none.
func (d *Decoder) Take() arrow.RecordBatch {
	if d.n == 0 {
		return nil
	}
	arrays := make([]arrow.Array, len(d.cols))
	for i := range d.cols {
		data := d.cols[i].take(d.n)
		arrays[i] = array.MakeFromData(data)
		data.Release()
	}
	rec := array.NewRecordBatch(d.schema, arrays, int64(d.n))
	for _, a := range arrays {
		a.Release()
	}
	d.taken += int64(d.n)
	d.hint = (d.n + 63) &^ 63
	d.n, d.cap, d.vbytes = 0, 0, 0
	return rec
}

// Release drops what is pending and frees everything. Idempotent.
func (d *Decoder) Release() {
	for i := range d.cols {
		d.cols[i].release()
	}
	d.n, d.cap, d.vbytes, d.tail = 0, 0, 0, nil
	if d.failed == nil {
		d.failed = errReleased
	}
}
