package generator

import (
	"encoding/binary"
	"math"
	"math/bits"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// column fills arrays of one column of one stream.
type column struct {
	kind  Kind
	field arrow.Field
	key   uint64 // what makes its values its own
	width int    // bytes of one value of kind text or bytes
	nulls uint64 // a value is missing if its draw is below; 0 never
}

func newColumn(c ColumnConfig, seed uint64, stream string) column {
	col := column{kind: c.Kind, width: int(c.Bytes), key: mix(hash(hash(mix(seed), stream), c.Name))}
	if col.width == 0 && c.Kind == KindText {
		col.width = textBytes
	}
	if col.width == 0 && c.Kind == KindBytes {
		col.width = payloadBytes
	}
	switch {
	case c.Nulls >= 1:
		col.nulls = math.MaxUint64
	case c.Nulls > 0:
		col.nulls = uint64(c.Nulls * (1 << 63) * 2)
	}
	col.field = arrow.Field{Name: c.Name, Type: typeOf(c.Kind), Nullable: c.Nulls > 0}
	return col
}

func typeOf(k Kind) arrow.DataType {
	switch k {
	case KindID, KindInt:
		return arrow.PrimitiveTypes.Int64
	case KindFloat:
		return arrow.PrimitiveTypes.Float64
	case KindBool:
		return arrow.FixedWidthTypes.Boolean
	case KindText:
		return arrow.BinaryTypes.String
	case KindBytes:
		return arrow.BinaryTypes.Binary
	case KindTimestamp:
		return arrow.FixedWidthTypes.Timestamp_us
	case KindDate:
		return arrow.FixedWidthTypes.Date32
	case KindUUID:
		return extensions.NewUUIDType()
	case KindDecimal:
		return &arrow.Decimal128Type{Precision: 18, Scale: 2}
	}
	panic("generator: no such kind: " + string(k)) // Problems refuses it
}

const (
	golden    = 0x9e3779b97f4a7c15 // step of the counter that mix turns into draws
	nullDraws = 0x5851f42d4c957f2d // draws for missing values are other ones
)

// mix is the output function of splitmix64: a bijection that looks random.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// hash folds s into h, with its length, so that no two lists of names collide by
// moving a letter from one to the next.
func hash(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 0x100000001b3
	}
	return mix(h ^ uint64(len(s))<<32)
}

// draw returns the draw of one row.
func draw(key uint64, row int64) uint64 {
	return mix(key + uint64(row)*golden) //nolint:gosec // a row is not negative
}

// fixedBits returns the size of a value in bits, 0 for text and bytes.
func (c column) fixedBits() int64 {
	switch c.kind {
	case KindText, KindBytes:
		return 0
	case KindBool:
		return 1
	case KindDate:
		return 32
	case KindUUID, KindDecimal:
		return 128
	case KindID, KindInt, KindFloat, KindTimestamp:
	}
	return 64
}

// size returns the bytes of n values.
func (c column) size(n int64) int64 {
	var sum int64
	if c.nulls > 0 {
		sum = (n + 7) / 8
	}
	if b := c.fixedBits(); b > 0 {
		return sum + (n*b+7)/8
	}
	return sum + 4*(n+1) + n*int64(c.width)
}

// array returns the values of rows [from, from+n). The caller owns it.
func (c column) array(mem memory.Allocator, from int64, n int) arrow.Array {
	valid, missing := c.validity(mem, from, n)
	buffers := []*memory.Buffer{valid}
	if b := c.fixedBits(); b > 0 {
		values := newBuffer(mem, int((int64(n)*b+7)/8))
		c.fill(values.Bytes(), from, n)
		buffers = append(buffers, values)
	} else {
		offsets, values := newBuffer(mem, 4*(n+1)), newBuffer(mem, n*c.width)
		at := arrow.GetData[int32](offsets.Bytes())
		for i := range at {
			at[i] = int32(i * c.width) //nolint:gosec // rowsOf keeps a batch below 2^31
		}
		c.fillBytes(values.Bytes(), from, n)
		buffers = append(buffers, offsets, values)
	}
	data := array.NewData(c.field.Type, n, buffers, nil, missing, 0)
	defer data.Release()
	for _, b := range buffers {
		if b != nil {
			b.Release()
		}
	}
	return array.MakeFromData(data)
}

func newBuffer(mem memory.Allocator, n int) *memory.Buffer {
	b := memory.NewResizableBuffer(mem)
	b.Resize(n)
	return b
}

// validity returns the bitmap of the values that are there, nil if all are.
func (c column) validity(mem memory.Allocator, from int64, n int) (*memory.Buffer, int) {
	if c.nulls == 0 {
		return nil, 0
	}
	b := newBuffer(mem, (n+7)/8)
	there := 0
	c.bitmap(b.Bytes(), n, func(i int) bool { return draw(c.key^nullDraws, from+int64(i)) >= c.nulls })
	for _, octet := range b.Bytes() {
		there += bits.OnesCount8(octet)
	}
	return b, n - there
}

// bitmap sets bit i to f(i) for the first n bits, the rest to 0.
func (c column) bitmap(dst []byte, n int, f func(i int) bool) {
	for at := range dst {
		var octet byte
		for bit := range min(8, n-8*at) {
			if f(8*at + bit) {
				octet |= 1 << bit
			}
		}
		dst[at] = octet
	}
}

var (
	firstInstant = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	instants     = uint64(time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro() - firstInstant) //nolint:gosec // positive
	firstDay     = int32(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Unix() / 86400)
)

const (
	days  = 10_000        // about 27 years
	cents = 2_000_000_001 // minus to plus ten million, in hundredths
)

// below maps a draw to [0, n) without a division.
func below(draw, n uint64) uint64 {
	hi, _ := bits.Mul64(draw, n)
	return hi
}

// fill writes values of fixed size. One loop per kind: the switch is per batch.
func (c column) fill(dst []byte, from int64, n int) {
	at := c.key + uint64(from)*golden //nolint:gosec // a row is not negative
	switch c.kind {
	case KindID:
		for i, v := 0, arrow.GetData[int64](dst); i < n; i++ {
			v[i] = from + int64(i) + 1
		}
	case KindInt:
		for i, v := 0, arrow.GetData[int64](dst); i < n; i, at = i+1, at+golden {
			v[i] = int64(int32(mix(at) >> 32)) //nolint:gosec // the sign is a random bit
		}
	case KindFloat:
		for i, v := 0, arrow.GetData[float64](dst); i < n; i, at = i+1, at+golden {
			v[i] = float64(mix(at)>>11) * (1000.0 / (1 << 53))
		}
	case KindTimestamp:
		for i, v := 0, arrow.GetData[int64](dst); i < n; i, at = i+1, at+golden {
			v[i] = firstInstant + int64(below(mix(at), instants)) //nolint:gosec // below 2^63
		}
	case KindDate:
		for i, v := 0, arrow.GetData[int32](dst); i < n; i, at = i+1, at+golden {
			v[i] = firstDay + int32(below(mix(at), days)) //nolint:gosec // below 2^31
		}
	case KindDecimal:
		for i, v := 0, arrow.GetData[decimal128.Num](dst); i < n; i, at = i+1, at+golden {
			v[i] = decimal128.FromI64(int64(below(mix(at), cents)) - cents/2) //nolint:gosec // below 2^63
		}
	case KindUUID:
		for i := 0; i < n; i, at = i+1, at+golden {
			h := mix(at)
			binary.BigEndian.PutUint64(dst[16*i:], h&^0xf000|0x4000)
			binary.BigEndian.PutUint64(dst[16*i+8:], mix(h^nullDraws)&^(3<<62)|2<<62)
		}
	case KindBool:
		c.bitmap(dst, n, func(i int) bool { return draw(c.key, from+int64(i))>>63 == 1 })
	case KindText, KindBytes:
	}
}

// fillBytes writes n values of width bytes, eight bytes of each at a time.
func (c column) fillBytes(dst []byte, from int64, n int) {
	var word [8]byte
	for i := range n {
		state := draw(c.key, from+int64(i))
		for value := dst[i*c.width : (i+1)*c.width]; len(value) > 0; state += golden {
			h := mix(state)
			if c.kind == KindText {
				h = h&0x0f0f0f0f0f0f0f0f + 0x6161616161616161
			}
			if len(value) >= 8 {
				binary.LittleEndian.PutUint64(value, h)
				value = value[8:]
				continue
			}
			binary.LittleEndian.PutUint64(word[:], h)
			value = value[copy(value, word[:]):]
		}
	}
}
