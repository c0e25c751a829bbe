package codec

import (
	"encoding/binary"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// cellOp is what an Encoder does with the values of a column.
type cellOp uint8

const (
	cellFix8     cellOp = iota // byte order only
	cellFix4                   //
	cellFix2                   //
	cellStamp                  // microseconds, all of them kept
	cellText                   // text or binary of 32-bit offsets
	cellConstant               // the same in every row
	cellNull                   // a column of nulls
	cellBool                   //
	cellInt                    // whole number into one of another width
	cellFloat                  // whole number or float into a float
	cellDay                    // date of days
	cellDate                   // of any unit
	cellClock                  // time of day of microseconds, all of them kept
	cellTime                   // and time stamps, of any unit
	cellInterval               //
	cellFixed                  // bytes of a fixed width
	cellBytes                  // texts and binaries of other layouts
	cellChar                   //
	cellUUID                   // from its text
	cellJSONB                  // from text
	cellNumeric                // from text
	cellIntegral               // whole number into a numeric
	cellDecimal                //
	cellArray                  //
	cellDict                   //
	cellObject                 // struct or map into a jsonb
)

// layout is how an array keeps its values.
type layout uint8

const (
	layoutFixed layout = iota
	layoutBits
	layout32 // offsets
	layout64
	layoutView
	layoutOther // read through the array
)

// cell encodes one column.
type cell struct {
	op    cellOp
	field int
	cast  bool // sent as text
	id    arrow.Type
	lay   layout
	width int // bytes of a value in fix

	form     form    // of the target
	check    bool    // text: valid UTF-8 without NUL
	charsMax int     // text: characters, -1 any
	bytesMax int     // text: bytes, -1 any
	unit     int64   // time: the target's value is a multiple of so many microseconds
	mul, div int64   // time: microseconds are value * mul / div
	shift    int64   // time: added to microseconds
	scale    int     // decimal: of the source
	limit    *digits // numeric: of the target; nil: none to check
	oid      uint32  // array: of the elements
	elem     *cell   // array: element; dictionary: value
	constant []byte

	most    int    // bytes that a value takes at most if quick or row writes it, but for texts
	texts   bool   // of 32-bit offsets
	longest int    // text: bytes that are few enough, whatever the characters
	up      uint64 // decimal: makes a value whole groups; 0: not written quickly
	behind  int    // decimal: groups behind the point

	clean bool // texts: those of the stretch at hand are what they should be

	// Of the batch at hand. fix begins at its first value, valid does not.
	fix, data, valid []byte
	off              int
	arr              arrow.Array
	list             array.ListLike
	dict             *array.Dictionary
}

var widths = map[arrow.Type]int{
	arrow.INT8: 1, arrow.UINT8: 1, arrow.INT16: 2, arrow.UINT16: 2, arrow.FLOAT16: 2, arrow.INT32: 4, arrow.UINT32: 4, arrow.FLOAT32: 4,
	arrow.INT64: 8, arrow.UINT64: 8, arrow.FLOAT64: 8, arrow.DATE32: 4, arrow.DATE64: 8, arrow.TIME32: 4, arrow.TIME64: 8,
	arrow.TIMESTAMP: 8, arrow.DURATION: 8, arrow.INTERVAL_MONTHS: 4, arrow.INTERVAL_DAY_TIME: 8, arrow.INTERVAL_MONTH_DAY_NANO: 16,
	arrow.DECIMAL32: 4, arrow.DECIMAL64: 8, arrow.DECIMAL128: 16, arrow.DECIMAL256: 32,
}

// shape notes how dt keeps its values.
func (c *cell) shape(dt arrow.DataType) {
	c.id = dt.ID()
	switch c.id {
	case arrow.BOOL:
		c.lay = layoutBits
	case arrow.STRING, arrow.BINARY:
		c.lay = layout32
	case arrow.LARGE_STRING, arrow.LARGE_BINARY:
		c.lay = layout64
	case arrow.STRING_VIEW, arrow.BINARY_VIEW:
		c.lay = layoutView
	case arrow.FIXED_SIZE_BINARY:
		c.width = dt.(*arrow.FixedSizeBinaryType).ByteWidth //nolint:errcheck // by its ID
	default:
		w, ok := widths[c.id]
		if c.width = w; !ok {
			c.lay = layoutOther
		}
	}
}

// bind points the cell at a, until unbind.
func (c *cell) bind(a arrow.Array) {
	if x, ok := a.(array.ExtensionArray); ok {
		a = x.Storage()
	}
	d := a.Data()
	c.arr, c.off, c.valid = a, d.Offset(), nil
	if a.NullN() > 0 && c.op != cellNull {
		c.valid = a.NullBitmapBytes()
	}
	switch c.lay {
	case layoutFixed:
		c.fix = window(d, 1, c.off*c.width)
	case layoutBits:
		c.fix = window(d, 1, 0)
	case layout32:
		c.fix, c.data = window(d, 1, 4*c.off), window(d, 2, 0)
	case layout64:
		c.fix, c.data = window(d, 1, 8*c.off), window(d, 2, 0)
	case layoutView, layoutOther:
	}
	switch c.op {
	case cellArray:
		c.list = a.(array.ListLike) //nolint:errcheck // by its type
		c.elem.bind(c.list.ListValues())
	case cellDict:
		c.dict = a.(*array.Dictionary) //nolint:errcheck // by its type
		c.elem.bind(c.dict.Dictionary())
	default:
	}
}

// window returns buffer i of d from byte at on.
func window(d arrow.ArrayData, i, at int) []byte {
	bufs := d.Buffers()
	if i >= len(bufs) || bufs[i] == nil || bufs[i].Len() < at {
		return nil
	}
	return bufs[i].Bytes()[at:]
}

func (c *cell) unbind() {
	c.fix, c.data, c.valid, c.arr, c.list, c.dict = nil, nil, nil, nil, nil, nil
	if c.elem != nil {
		c.elem.unbind()
	}
}

// missing reports whether value j is null.
func (c *cell) missing(j int) bool {
	k := c.off + j
	return c.op == cellNull || c.valid != nil && c.valid[k>>3]&(1<<(k&7)) == 0
}

// bytes returns value j of a text or binary.
func (c *cell) bytes(j int) []byte {
	switch c.lay {
	case layout32:
		return c.data[binary.LittleEndian.Uint32(c.fix[4*j:]):binary.LittleEndian.Uint32(c.fix[4*j+4:])]
	case layout64:
		return c.data[binary.LittleEndian.Uint64(c.fix[8*j:]):binary.LittleEndian.Uint64(c.fix[8*j+8:])]
	case layoutFixed:
		return c.fix[j*c.width : (j+1)*c.width]
	default:
	}
	switch a := c.arr.(type) {
	case *array.StringView:
		return []byte(a.Value(j))
	case *array.BinaryView:
		return a.Value(j)
	}
	panic("codec: a value without bytes")
}

// integer returns value j of a whole number; big is set for a uint64 above the
// int64s, of which v is then the bits.
func (c *cell) integer(j int) (v int64, big bool) {
	switch c.id {
	case arrow.INT8:
		return int64(int8(c.fix[j])), false
	case arrow.UINT8:
		return int64(c.fix[j]), false
	case arrow.INT16:
		return int64(int16(binary.LittleEndian.Uint16(c.fix[2*j:]))), false
	case arrow.UINT16:
		return int64(binary.LittleEndian.Uint16(c.fix[2*j:])), false
	case arrow.INT32, arrow.DATE32, arrow.TIME32, arrow.INTERVAL_MONTHS, arrow.DECIMAL32:
		return int64(int32(binary.LittleEndian.Uint32(c.fix[4*j:]))), false
	case arrow.UINT32:
		return int64(binary.LittleEndian.Uint32(c.fix[4*j:])), false
	default:
		v = int64(binary.LittleEndian.Uint64(c.fix[8*j:]))
		return v, c.id == arrow.UINT64 && v < 0
	}
}
