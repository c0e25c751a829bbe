package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
)

// Target is one column of the rows that an Encoder writes.
type Target struct {
	Field    int    // index into the schema; -1: Constant in every row
	Type     *Type  // of the column
	Constant []byte // length and bytes of the value, as in a COPY row
}

// Encoder turns record batches into rows of COPY FROM STDIN (FORMAT binary). It
// allocates nothing per row, but for structs and maps. It is not safe for concurrent
// use.
type Encoder struct {
	cells  []cell
	casts  []bool
	wire   []*Type
	schema *arrow.Schema
	seen   *arrow.Schema // of the batch before, found equal to schema
	bare   bool          // rows without their count of fields
	room   int           // bytes that the rest of a stretch takes at most
}

// stretch is how many rows are looked at column by column before they are written.
const stretch = 256

// NewEncoder returns an Encoder of batches of schema into rows of targets. A
// *FitError names the first column whose type has no exact conversion into its
// target.
func NewEncoder(schema *arrow.Schema, targets []Target) (*Encoder, error) {
	if len(targets) > 0x7fff {
		return nil, fmt.Errorf("encoder of %d columns: a row has at most %d", len(targets), 0x7fff)
	}
	e := &Encoder{schema: schema, seen: schema, cells: make([]cell, len(targets)), casts: make([]bool, len(targets)), wire: make([]*Type, len(targets))}
	for i, t := range targets {
		e.wire[i] = t.Type
		if t.Field < 0 {
			e.cells[i] = cell{op: cellConstant, field: t.Field, constant: t.Constant}
			continue
		}
		if t.Field >= schema.NumFields() {
			return nil, fmt.Errorf("encoder: target %d is of field %d, the schema has %d", i, t.Field, schema.NumFields())
		}
		f := schema.Field(t.Field)
		c, why := planCell(f, t.Type)
		if why != "" {
			return nil, &FitError{Column: f.Name, From: from(f), To: t.Type.SQL, Why: why}
		}
		c.field = t.Field
		c.hasten()
		if e.cells[i] = *c; c.cast {
			e.casts[i], e.wire[i] = true, plain("text")
		}
	}
	return e, nil
}

// Casts returns which targets are sent as text and have to be cast by the statement:
// their type has no binary form here. COPY does not cast, so it needs staging.
func (e *Encoder) Casts() []bool { return e.casts }

// Wire returns the types as sent: text for casts, else those of the targets.
func (e *Encoder) Wire() []*Type { return e.wire }

// OmitFieldCount leaves the count of fields in front of each row out: what is left
// are the parameters of an INSERT.
func (e *Encoder) OmitFieldCount() { e.bare = true }

// errBatch is a batch that is not of the encoder's schema.
var errBatch = errors.New("encode: the batch has other columns than the encoder was made for")

// Encode appends rows [from, to) of rec, which it borrows, to dst until that has soft
// bytes, and returns the row that would be next. A row with a value that does not fit
// its target is not appended: next is that row, err a *ValueError, and the caller may
// go on behind it.
func (e *Encoder) Encode(dst []byte, rec arrow.RecordBatch, from, to int64, soft int) (out []byte, next int64, err error) {
	if !e.fits(rec) || from < 0 || to > rec.NumRows() {
		return dst, from, errBatch
	}
	for i := range e.cells {
		if c := &e.cells[i]; c.field >= 0 {
			c.bind(rec.Column(c.field))
		}
	}
	defer e.unbind()
	for row := from; row < to; {
		end := min(row+stretch, to)
		e.room = e.prepare(int(row), int(end))
		dst = slices.Grow(dst, e.room)
		for ; row < end; row++ {
			if len(dst) >= soft {
				return dst, row, nil
			}
			start := len(dst)
			var bad int
			var f *fault
			if dst, bad, f = e.row(dst, int(row)); f != nil {
				return dst[:start], row, e.valueError(rec, bad, row, f)
			}
		}
	}
	return dst, max(from, to), nil
}

// fits reports whether rec has the types that the encoder was made for.
func (e *Encoder) fits(rec arrow.RecordBatch) bool {
	s := rec.Schema()
	if s == e.seen {
		return true
	}
	if s.NumFields() != e.schema.NumFields() {
		return false
	}
	for i, f := range s.Fields() {
		if !arrow.TypeEqual(f.Type, e.schema.Field(i).Type) {
			return false
		}
	}
	e.seen = s
	return true
}

// unbind lets go of the batch.
func (e *Encoder) unbind() {
	for i := range e.cells {
		e.cells[i].unbind()
	}
}

func (e *Encoder) valueError(rec arrow.RecordBatch, bad int, row int64, f *fault) error {
	c := &e.cells[bad]
	err := &ValueError{
		Column: e.schema.Field(c.field).Name, Row: row + 1, Type: e.wire[bad].SQL, Why: f.why, Finer: f.class == classFiner,
	}
	if f.show {
		err.Value = clip([]byte(rec.Column(c.field).ValueStr(int(row))))
	}
	return err
}

// prepare looks at rows [from, to) of the batch column by column: it notes which texts need
// no look of their own, and returns how many bytes the rows take at most, but for the cells
// that row does not write itself.
func (e *Encoder) prepare(from, to int) (room int) {
	n := to - from
	room = 2*n + 16
	for i := range e.cells {
		c := &e.cells[i]
		room += n * c.most
		c.clean = false
		if !c.texts || len(c.fix) < 4*(to+1) {
			continue
		}
		v := c.data[binary.LittleEndian.Uint32(c.fix[4*from:]):binary.LittleEndian.Uint32(c.fix[4*to:])]
		room += len(v)
		c.clean = !c.check || plainASCII(v) && (c.op != cellJSONB || bytes.IndexByte(v, '\\') < 0)
	}
	return room
}

// row appends one row; bad is the cell that has no value for it. dst has room for what
// prepare has counted.
func (e *Encoder) row(dst []byte, j int) (out []byte, bad int, f *fault) {
	p, b := len(dst), dst[:cap(dst)]
	if !e.bare {
		binary.BigEndian.PutUint16(b[p:], uint16(len(e.cells)))
		p += 2
	}
	for i := range e.cells {
		c := &e.cells[i]
		if c.valid != nil {
			if k := c.off + j; c.valid[k>>3]&(1<<(k&7)) == 0 {
				binary.BigEndian.PutUint32(b[p:], math.MaxUint32)
				p += 4
				continue
			}
		}
		switch c.op {
		case cellFix8:
			to := b[p : p+12]
			binary.BigEndian.PutUint32(to, 8)
			binary.BigEndian.PutUint64(to[4:], binary.LittleEndian.Uint64(c.fix[8*j:]))
			p += 12
		case cellFix4:
			to := b[p : p+8]
			binary.BigEndian.PutUint64(to, 4<<32|uint64(binary.LittleEndian.Uint32(c.fix[4*j:])))
			p += 8
		case cellStamp:
			us := int64(binary.LittleEndian.Uint64(c.fix[8*j:]))
			if us < stampMin {
				return dst, i, faultServerRange
			}
			to := b[p : p+12]
			binary.BigEndian.PutUint32(to, 8)
			binary.BigEndian.PutUint64(to[4:], uint64(us-epochMicros))
			p += 12
		case cellText:
			v := c.data[binary.LittleEndian.Uint32(c.fix[4*j:]):binary.LittleEndian.Uint32(c.fix[4*j+4:])]
			if !c.clean || len(v) > c.longest {
				if f = c.text(v); f != nil {
					return dst, i, f
				}
			}
			binary.BigEndian.PutUint32(b[p:], uint32(len(v)))
			p += 4
			p += copy(b[p:], v)
		default:
			if k := c.quick(b[p:], j); k > 0 {
				p += k
				continue
			}
			if dst, f = c.put(b[:p], j); f != nil {
				return dst, i, f
			}
			dst = slices.Grow(dst, e.room)
			p, b = len(dst), dst[:cap(dst)]
		}
	}
	return b[:p], 0, nil
}

// AppendHeader appends what binary COPY begins with.
func AppendHeader(dst []byte) []byte {
	return append(append(dst, signature...), 0, 0, 0, 0, 0, 0, 0, 0)
}

// AppendTrailer appends what binary COPY ends with.
func AppendTrailer(dst []byte) []byte { return append(dst, 0xff, 0xff) }
