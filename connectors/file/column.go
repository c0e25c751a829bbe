package file

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strings"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// column reads the cells of one column of a table into an Arrow array, straight
// into its buffers.
type column struct {
	columnType
	name     string
	slot     int  // cell of a row; -1: the file has no such column
	declared bool // lenient readers
	quote    byte
	nulls    map[string]bool // unquoted CSV texts that mean NULL; nil: none
	mem      memory.Allocator
	scratch  []byte
}

// cellError is the first value of a column that cannot be read.
type cellError struct {
	row   int // of the table, from 0
	field string
	err   error
}

func (e *cellError) Error() string { return fmt.Sprintf("field %s: %v", e.field, e.err) }

// read returns the array of t's rows, which the caller owns.
func (c *column) read(t *table) (arrow.Array, *cellError) {
	if c.slot < 0 {
		return array.MakeArrayOfNull(c.mem, c.arrow(), t.rows), nil
	}
	switch c.kind {
	case kindText, kindJSON, kindBinary:
		return c.readText(t)
	case kindBool:
		return c.readBool(t)
	case kindInt16:
		return readFixed(c, t, arrow.PrimitiveTypes.Int16, narrow[int16](math.MinInt16, math.MaxInt16))
	case kindInt32:
		return readFixed(c, t, arrow.PrimitiveTypes.Int32, narrow[int32](math.MinInt32, math.MaxInt32))
	case kindInt64:
		return readFixed(c, t, arrow.PrimitiveTypes.Int64, narrow[int64](math.MinInt64, math.MaxInt64))
	case kindFloat32:
		return readFixed(c, t, arrow.PrimitiveTypes.Float32, func(_ *column, v []byte) (float32, bool) {
			f, ok := lenientFloat(v, 32)
			return float32(f), ok
		})
	case kindFloat64:
		return readFixed(c, t, arrow.PrimitiveTypes.Float64, toFloat)
	case kindDate:
		return readFixed(c, t, arrow.FixedWidthTypes.Date32, func(_ *column, v []byte) (int32, bool) { return parseDate(v) })
	case kindTimestamp, kindTimestampTZ:
		return readFixed(c, t, c.arrow(), toTimestamp)
	case kindDecimal:
		return readFixed(c, t, c.arrow(), toDecimal)
	}
	panic("file: a column of an unknown kind")
}

func narrow[T int16 | int32 | int64](low, high int64) func(*column, []byte) (T, bool) {
	return func(c *column, v []byte) (T, bool) {
		n, ok := parseInt(v)
		if !ok && c.declared {
			n, ok = lenientInt(v)
		}
		return T(n), ok && n >= low && n <= high
	}
}

func toFloat(c *column, v []byte) (float64, bool) {
	if c.declared {
		return lenientFloat(v, 64)
	}
	if f, ok := parseFloat(v); ok && numberShape(v)&fitsFloat != 0 {
		return f, true
	}
	return 0, false
}

func toTimestamp(c *column, v []byte) (int64, bool) {
	us, zoned, ok := parseTimestamp(v)
	if !ok && c.declared {
		us, zoned, ok = lenientTimestamp(v)
	}
	if !ok {
		return 0, false
	}
	// a declared timestamptz takes texts without a zone as UTC, a wall clock never loses one
	return us, zoned == (c.kind == kindTimestampTZ) || (c.declared && !zoned)
}

func toDecimal(c *column, v []byte) (decimal128.Num, bool) {
	text := string(v)
	negative := strings.HasPrefix(text, "-")
	whole, fraction, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(text, "-"), "+"), ".")
	if len(whole)+len(fraction) == 0 || len(whole)+len(fraction) > 80 {
		return decimal128.Num{}, false
	}
	fraction = strings.TrimRight(fraction, "0")
	if len(fraction) > int(c.scale) || strings.ContainsFunc(whole+fraction, func(r rune) bool { return r < '0' || r > '9' }) {
		return decimal128.Num{}, false
	}
	n, ok := new(big.Int).SetString("0"+whole+fraction+strings.Repeat("0", int(c.scale)-len(fraction)), 10)
	if !ok {
		return decimal128.Num{}, false
	}
	if negative {
		n.Neg(n)
	}
	limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(c.precision)), nil)
	if n.CmpAbs(limit) >= 0 {
		return decimal128.Num{}, false
	}
	return decimal128.FromBigInt(n), true
}

// isNull reports whether a cell of a typed column is NULL: an empty field is.
func (c *column) isNull(raw []byte, x cell) bool {
	switch x.kind {
	case cellMissing, cellNull:
		return true
	case cellPlain:
		return x.n == 0 || (c.nulls != nil && c.nulls[viewString(raw[x.at:x.at+x.n])])
	case cellQuoted:
		return x.n == 0
	default:
		return false
	}
}

// isNullText is isNull for a text column: an empty field is the empty string,
// unless null_values says otherwise.
func (c *column) isNullText(raw []byte, x cell) bool {
	switch x.kind {
	case cellMissing, cellNull:
		return true
	case cellPlain:
		return c.nulls != nil && c.nulls[viewString(raw[x.at:x.at+x.n])]
	default:
		return false
	}
}

// value returns the text of a cell for a typed column; it is valid until the next
// call.
func (c *column) value(raw []byte, x cell) ([]byte, error) {
	switch x.kind {
	case cellPlain, cellQuoted:
		return raw[x.at : x.at+x.n], nil
	case cellNumber:
		if !c.declared && c.kind != kindInt64 && c.kind != kindFloat64 {
			return nil, errKind
		}
		return raw[x.at : x.at+x.n], nil
	case cellBool:
		if !c.declared && c.kind != kindBool {
			return nil, errKind
		}
		return raw[x.at : x.at+x.n], nil
	case cellString, cellEscaped:
		if !c.declared {
			return nil, errKind
		}
	case cellRaw:
		return nil, errKind
	default:
	}
	var err error
	c.scratch, err = appendCell(c.scratch[:0], raw, x, c.quote)
	return c.scratch, err
}

var errKind = errors.New("it is another kind of JSON value")

// bad is the error of a value that does not fit the column.
func (c *column) bad(row int, raw []byte, x cell, err error) *cellError {
	v := excerpt(appendRawCell(nil, raw, x))
	cause := fmt.Errorf("%s is no %s", v, c.typeName())
	if err != nil && !errors.Is(err, errKind) {
		cause = fmt.Errorf("%s: %w", v, err)
	}
	return &cellError{row: row, field: c.name, err: cause}
}

func (c *column) typeName() string {
	for name, k := range kindNames {
		if k == c.kind && name != "string" {
			return name
		}
	}
	return c.arrow().String()
}

// validity is a bitmap that exists once there is a null.
type validity struct {
	buf   *memory.Buffer
	nulls int
}

func (v *validity) setNull(mem memory.Allocator, rows, i int) {
	if v.buf == nil {
		v.buf = memory.NewResizableBuffer(mem)
		v.buf.Resize(int(bitutil.BytesForBits(int64(rows))))
		memory.Set(v.buf.Bytes(), 0xff)
	}
	bitutil.ClearBit(v.buf.Bytes(), i)
	v.nulls++
}

func (v *validity) release() {
	if v.buf != nil {
		v.buf.Release()
	}
}

// finish makes the array and gives the buffers up to it.
func (v *validity) finish(dt arrow.DataType, rows int, bufs ...*memory.Buffer) arrow.Array {
	data := array.NewData(dt, rows, append([]*memory.Buffer{v.buf}, bufs...), nil, v.nulls, 0)
	defer data.Release()
	for _, b := range bufs {
		b.Release()
	}
	v.release()
	return array.MakeFromData(data)
}

// readFixed reads a column of fixed-width values.
func readFixed[T any](c *column, t *table, dt arrow.DataType, parse func(*column, []byte) (T, bool)) (arrow.Array, *cellError) {
	var nulls validity
	var zero T
	buf := memory.NewResizableBuffer(c.mem)
	buf.Resize(t.rows * int(unsafe.Sizeof(zero)))
	vals := unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(buf.Bytes()))), t.rows)
	for i := range vals {
		x := t.cells[i*t.width+c.slot]
		if c.isNull(t.raw, x) {
			nulls.setNull(c.mem, t.rows, i)
			vals[i] = zero
			continue
		}
		v, err := c.value(t.raw, x)
		ok := err == nil
		if ok {
			vals[i], ok = parse(c, v)
		}
		if !ok {
			bad := c.bad(i, t.raw, x, err)
			buf.Release()
			nulls.release()
			return nil, bad
		}
	}
	return nulls.finish(dt, t.rows, buf), nil
}

func (c *column) readBool(t *table) (arrow.Array, *cellError) {
	var nulls validity
	buf := memory.NewResizableBuffer(c.mem)
	buf.Resize(int(bitutil.BytesForBits(int64(t.rows))))
	bits := buf.Bytes()
	memory.Set(bits, 0)
	for i := range t.rows {
		x := t.cells[i*t.width+c.slot]
		if c.isNull(t.raw, x) {
			nulls.setNull(c.mem, t.rows, i)
			continue
		}
		v, err := c.value(t.raw, x)
		set, ok := false, err == nil
		if ok {
			if set, ok = parseBool(v); !ok && c.declared {
				set, ok = lenientBool(v)
			}
		}
		if !ok {
			bad := c.bad(i, t.raw, x, err)
			buf.Release()
			nulls.release()
			return nil, bad
		}
		if set {
			bitutil.SetBit(bits, i)
		}
	}
	return nulls.finish(arrow.FixedWidthTypes.Boolean, t.rows, buf), nil
}

// readText reads text, JSON and binary columns. The sum of the raw lengths bounds
// the data, so it is allocated once.
func (c *column) readText(t *table) (arrow.Array, *cellError) {
	var total int64
	for i := c.slot; i < len(t.cells); i += t.width {
		total += int64(t.cells[i].n) + 2
	}
	var nulls validity
	offsets, data := memory.NewResizableBuffer(c.mem), memory.NewResizableBuffer(c.mem)
	offsets.Resize((t.rows + 1) * arrow.Int32SizeBytes)
	data.Resize(int(total))
	offs, out := arrow.Int32Traits.CastFromBytes(offsets.Bytes()), data.Bytes()[:0]
	for i := range t.rows {
		offs[i] = int32(len(out)) //nolint:gosec // below the chunk's size
		x := t.cells[i*t.width+c.slot]
		if c.isNullText(t.raw, x) {
			nulls.setNull(c.mem, t.rows, i)
			continue
		}
		var err error
		if out, err = c.appendText(out, t.raw, x); err != nil {
			bad := c.bad(i, t.raw, x, err)
			offsets.Release()
			data.Release()
			nulls.release()
			return nil, bad
		}
	}
	offs[t.rows] = int32(len(out)) //nolint:gosec // below the chunk's size
	data.Resize(len(out))
	return nulls.finish(c.arrow(), t.rows, offsets, data), nil
}

func (c *column) appendText(out, raw []byte, x cell) ([]byte, error) {
	switch {
	case c.kind == kindJSON && x.kind >= cellNumber:
		return appendRawCell(out, raw, x), nil
	case c.kind == kindBinary:
		v, err := appendCell(c.scratch[:0], raw, x, c.quote)
		c.scratch = v
		if err != nil {
			return out, err
		}
		n, err := base64.StdEncoding.Decode(out[len(out):cap(out)], v)
		return out[:len(out)+n], err
	case x.kind >= cellNumber && x.kind != cellString && x.kind != cellEscaped && !c.declared:
		return out, errKind
	}
	return appendCell(out, raw, x, c.quote)
}
