package codec

import (
	"encoding/binary"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"rapidbyte.io/node/connectors"
)

// op is what a Decoder does with the values of a column.
type op uint8

const (
	opFix2 op = iota // byte order only
	opFix4
	opFix8
	opDate
	opTime
	opStamp
	opBool
	opUUID
	opInterval
	opDecimal128
	opDecimal256
	opText
	opBytes
	opJSONB
	opChar
	opNumeric // as text
	opList
)

var opWidths = [...]int{
	opFix2: 2, opFix4: 4, opFix8: 8, opDate: 4, opTime: 8, opStamp: 8, opUUID: 16, opInterval: 16, opDecimal128: 16, opDecimal256: 32, opList: 0,
}

var formOps = map[form]op{
	formBool: opBool, formInt2: opFix2, formInt4: opFix4, formInt8: opFix8, formFloat4: opFix4, formFloat8: opFix8,
	formText: opText, formChar: opChar, formBytea: opBytes, formDate: opDate, formTime: opTime,
	formTimestamp: opStamp, formTimestampTZ: opStamp, formInterval: opInterval, formUUID: opUUID,
	formJSON: opText, formJSONB: opJSONB, formArray: opList,
}

// column collects the values of one column, or of the elements of a list, in the
// buffers of the array that it becomes. A bitmap of validity exists from the first
// null on.
type column struct {
	// What the hot loop touches comes first.
	op    op
	fix   []byte // values; bits of booleans; offsets, one more than values
	data  []byte // of texts and binaries, used to used
	used  int
	width int // bytes of a value in fix; 0 for bits and offsets

	valid []byte // nil: no null so far
	nulls int
	cap   int // values that fix has room for
	n     int // values; of elements only: the Decoder counts its rows

	child *column // elements of a list
	shape decimalShape
	oid   uint32 // of the elements of a list; 0 unknown

	field    arrow.Field
	sql      string
	dataMax  int // bytes of data, or elements, that a batch may have
	dataHint int // bytes that the batch before had, and a little more
	hint     int // elements that the batch before had
	hintMax  int // of both hints: one large row does not make the next batches large

	mem                       memory.Allocator
	fixBuf, dataBuf, validBuf *memory.Buffer
}

func newColumn(f arrow.Field, t *Type, asText bool, mem memory.Allocator, limits connectors.Limits) *column {
	c := &column{field: f, sql: t.SQL, mem: mem, op: opText, hintMax: int(limits.BatchBytes), dataMax: int(limits.BatchBytes + limits.RowBytes)}
	if asText {
		return c
	}
	if op, ok := formOps[t.form()]; ok {
		c.op = op
	}
	switch dt := f.Type.(type) {
	case *arrow.Decimal128Type:
		c.op, c.shape = opDecimal128, decimalShape{int(dt.Precision), int(dt.Scale)}
	case *arrow.Decimal256Type:
		c.op, c.shape = opDecimal256, decimalShape{int(dt.Precision), int(dt.Scale)}
	case *arrow.ListType:
		elem := t.root().Elem
		c.child = newColumn(dt.ElemField(), elem, false, mem, limits)
		c.oid = elem.oid()
	case *arrow.StringType:
		if t.form() == formNumeric {
			c.op = opNumeric
		}
	}
	c.width = opWidths[c.op]
	return c
}

func (c *column) isVar() bool     { return c.op >= opText && c.op <= opNumeric }
func (c *column) hasOffset() bool { return c.op >= opText }

// reserve makes room for n values in all.
func (c *column) reserve(n int) {
	if n <= c.cap {
		return
	}
	size := n * c.width
	switch {
	case c.op == opBool:
		size = (n + 7) / 8
	case c.hasOffset():
		size = 4 * (n + 1)
	}
	old := len(c.fix)
	if c.fixBuf == nil {
		c.fixBuf = memory.NewResizableBuffer(c.mem)
	}
	c.fixBuf.Reserve(size)
	c.fix = c.fixBuf.Buf()
	if c.op == opBool {
		clear(c.fix[old:])
	}
	if c.hasOffset() && old == 0 {
		binary.LittleEndian.PutUint32(c.fix, 0)
	}
	c.cap = n
	if c.valid != nil {
		c.reserveValid()
	}
}

// reserveValid makes the bitmap as long as cap; what is new is valid.
func (c *column) reserveValid() {
	old := len(c.valid)
	if c.validBuf == nil {
		c.validBuf = memory.NewResizableBuffer(c.mem)
	}
	c.validBuf.Reserve((c.cap + 7) / 8)
	c.valid = c.validBuf.Buf()
	for i := old; i < len(c.valid); i++ {
		c.valid[i] = 0xff
	}
}

// reserveData makes room for n more bytes.
func (c *column) reserveData(n int) *fault {
	need := c.used + n
	if need <= len(c.data) {
		return nil
	}
	if need > c.dataMax {
		return faultRoom
	}
	if c.dataBuf == nil {
		c.dataBuf = memory.NewResizableBuffer(c.mem)
		need = max(need, c.dataHint)
	} else {
		need = max(need, 2*len(c.data))
	}
	c.dataBuf.Reserve(min(need, c.dataMax))
	c.data = c.dataBuf.Buf()
	return nil
}

// null makes value n missing.
func (c *column) null(n int) *fault {
	if !c.field.Nullable {
		return faultNull
	}
	if c.valid == nil {
		c.reserveValid()
	}
	c.valid[n>>3] &^= 1 << (n & 7)
	c.nulls++
	switch {
	case c.hasOffset():
		copy(c.fix[4*n+4:4*n+8], c.fix[4*n:])
	case c.width > 0:
		clear(c.fix[n*c.width : (n+1)*c.width])
	}
	return nil
}

func (c *column) offset(n int) int { return int(binary.LittleEndian.Uint32(c.fix[4*n:])) }

// cut takes values [n, end) back, of which some may not have been written.
func (c *column) cut(n, end int) {
	if c.fix == nil {
		return // elements of lists that are all empty
	}
	for i := n; i < end; i++ {
		if c.valid != nil && c.valid[i>>3]&(1<<(i&7)) == 0 {
			c.valid[i>>3] |= 1 << (i & 7)
			c.nulls--
		}
		if c.op == opBool {
			c.fix[i>>3] &^= 1 << (i & 7)
		}
	}
	switch {
	case c.op == opList:
		at := c.offset(n)
		c.child.cut(at, c.child.n)
		c.child.n = at
	case c.hasOffset():
		c.used = c.offset(n)
	}
}

// varBytes is what the footprint has beside the fixed part.
func (c *column) varBytes() int64 {
	switch {
	case c.op != opList:
		return int64(c.used)
	case c.child.n == 0:
		return 0
	}
	return c.child.bytes(c.child.n)
}

// bytes is the footprint of the first n values, as messages.ArrowRows counts it.
func (c *column) bytes(n int) int64 {
	bits := int64(n+7) / 8
	var sum int64
	switch {
	case c.hasOffset():
		sum = 4*int64(n+1) + c.varBytes()
	case c.op == opBool:
		sum = bits
	default:
		sum = int64(n) * int64(c.width)
	}
	if c.nulls > 0 || c.op == opUUID {
		sum += bits
	}
	return sum
}

// take returns the first n values as an array's data, which the caller owns, and
// begins anew.
func (c *column) take(n int) arrow.ArrayData {
	var bufs [3]*memory.Buffer
	if c.nulls > 0 {
		c.validBuf.ResizeNoShrink((n + 7) / 8)
		bufs[0] = c.validBuf
		if n&7 != 0 {
			c.valid[n>>3] &= 1<<(n&7) - 1
		}
	}
	if c.fixBuf == nil { // elements of lists without any
		c.reserve(1)
	}
	count := 2
	switch {
	case c.isVar():
		count = 3
		c.dataHint = min(c.used+c.used/8, c.hintMax)
		if c.dataBuf == nil {
			c.dataBuf = memory.NewResizableBuffer(c.mem)
		}
		c.dataBuf.ResizeNoShrink(c.used)
		bufs[2] = c.dataBuf
		c.fixBuf.ResizeNoShrink(4 * (n + 1))
	case c.op == opList:
		c.fixBuf.ResizeNoShrink(4 * (n + 1))
	case c.op == opBool:
		c.fixBuf.ResizeNoShrink((n + 7) / 8)
	default:
		c.fixBuf.ResizeNoShrink(n * c.width)
	}
	bufs[1] = c.fixBuf
	var children []arrow.ArrayData
	if c.child != nil {
		children = []arrow.ArrayData{c.child.take(c.child.n)}
		defer children[0].Release()
	}
	out := array.NewData(c.field.Type, n, bufs[:count], children, c.nulls, 0)
	c.release()
	c.hint = min(n, c.hintMax)
	return out
}

// release gives the buffers back.
func (c *column) release() {
	for _, b := range []**memory.Buffer{&c.fixBuf, &c.dataBuf, &c.validBuf} {
		if *b != nil {
			(*b).Release()
			*b = nil
		}
	}
	c.fix, c.data, c.valid = nil, nil, nil
	c.used, c.nulls, c.cap, c.n = 0, 0, 0, 0
	if c.child != nil {
		c.child.release()
	}
}
