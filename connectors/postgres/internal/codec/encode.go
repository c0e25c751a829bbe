package codec

import (
	"encoding/binary"
	"math"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// What the server holds, in its own or in Arrow's epoch. The last int64 of
// microseconds since 1970 is before the server's last time stamp.
const (
	stampMin = -211_813_488_000_000_000 + epochMicros // 4714-11-24 BC, Arrow's epoch
	dateMin  = -2_451_545                             // 4714-11-24 BC, the server's epoch
	dateEnd  = 2_145_031_949                          // 5874898-01-01
	nameMax  = 63                                     // bytes of a name
)

// put appends length and bytes of value j, which is not null.
func (c *cell) put(dst []byte, j int) ([]byte, *fault) {
	switch c.op {
	case cellFix8:
		dst = append(dst, 0, 0, 0, 8)
		return binary.BigEndian.AppendUint64(dst, binary.LittleEndian.Uint64(c.fix[8*j:])), nil
	case cellFix4:
		dst = append(dst, 0, 0, 0, 4)
		return binary.BigEndian.AppendUint32(dst, binary.LittleEndian.Uint32(c.fix[4*j:])), nil
	case cellFix2:
		dst = append(dst, 0, 0, 0, 2)
		return binary.BigEndian.AppendUint16(dst, binary.LittleEndian.Uint16(c.fix[2*j:])), nil
	case cellConstant:
		return append(dst, c.constant...), nil
	case cellNull:
		return append(dst, 0xff, 0xff, 0xff, 0xff), nil
	case cellBool:
		k := c.off + j
		return append(dst, 0, 0, 0, 1, c.fix[k>>3]>>(k&7)&1), nil
	case cellInt:
		return c.putInt(dst, j)
	case cellFloat:
		return c.putFloat(dst, j)
	case cellDay, cellDate:
		return c.putDate(dst, j)
	case cellStamp, cellClock, cellTime:
		return c.putTime(dst, j)
	case cellInterval:
		return c.putInterval(dst, j)
	case cellFixed:
		return appendValue(dst, c.bytes(j)), nil
	case cellText, cellBytes:
		v := c.bytes(j)
		if f := c.text(v); f != nil {
			return dst, f
		}
		return appendValue(dst, v), nil
	case cellChar:
		return c.putChar(dst, j)
	case cellUUID:
		return putUUID(dst, c.bytes(j))
	case cellJSONB:
		v := c.bytes(j)
		if f := jsonbFault(v); f != nil {
			return dst, f
		}
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(v)+1))
		return append(append(dst, 1), v...), nil
	case cellNumeric:
		return c.limited(dst, appendNumericText, c.bytes(j))
	case cellIntegral:
		return c.putIntegral(dst, j)
	case cellDecimal:
		return c.putDecimal(dst, j)
	case cellArray:
		return c.putArray(dst, j)
	case cellDict:
		k := c.dict.GetValueIndex(j)
		if c.elem.missing(k) {
			return append(dst, 0xff, 0xff, 0xff, 0xff), nil
		}
		return c.elem.put(dst, k)
	case cellObject:
		return c.putObject(dst, j)
	}
	panic("codec: a cell without an operation")
}

func appendValue(dst, v []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(v)))
	return append(dst, v...)
}

// text says why v does not fit; binaries always do.
func (c *cell) text(v []byte) *fault {
	if !c.check {
		return nil
	}
	if !plainASCII(v) {
		if f := textFault(v); f != nil {
			return f
		}
	}
	if c.bytesMax >= 0 && len(v) > c.bytesMax || c.charsMax >= 0 && len(v) > c.charsMax && utf8.RuneCount(v) > c.charsMax {
		return faultLong
	}
	return nil
}

// plainASCII reports whether v has only bytes 1 to 127.
func plainASCII(v []byte) bool {
	const high, low = 0x8080808080808080, 0x0101010101010101
	for len(v) >= 32 {
		a, b := binary.LittleEndian.Uint64(v), binary.LittleEndian.Uint64(v[8:])
		c, d := binary.LittleEndian.Uint64(v[16:]), binary.LittleEndian.Uint64(v[24:])
		if (a|(a-low)|b|(b-low)|c|(c-low)|d|(d-low))&high != 0 { // some byte is above 127, or was 0 and borrowed
			return false
		}
		v = v[32:]
	}
	for len(v) >= 8 {
		w := binary.LittleEndian.Uint64(v)
		if (w|(w-low))&high != 0 {
			return false
		}
		v = v[8:]
	}
	for _, b := range v {
		if b-1 >= 0x7f {
			return false
		}
	}
	return true
}

func (c *cell) putInt(dst []byte, j int) ([]byte, *fault) {
	v, big := c.integer(j)
	if big {
		return dst, faultServerRange
	}
	switch c.form {
	case formInt2:
		if v != int64(int16(v)) {
			return dst, faultServerRange
		}
		dst = append(dst, 0, 0, 0, 2)
		return binary.BigEndian.AppendUint16(dst, uint16(v)), nil
	case formInt4:
		if v != int64(int32(v)) {
			return dst, faultServerRange
		}
		dst = append(dst, 0, 0, 0, 4)
		return binary.BigEndian.AppendUint32(dst, uint32(v)), nil
	default:
		dst = append(dst, 0, 0, 0, 8)
		return binary.BigEndian.AppendUint64(dst, uint64(v)), nil
	}
}

func (c *cell) putFloat(dst []byte, j int) ([]byte, *fault) {
	var v float64
	switch a := c.arr.(type) {
	case *array.Float16:
		v = float64(a.Value(j).Float32())
	case *array.Float32:
		v = float64(a.Value(j))
	default:
		n, big := c.integer(j)
		if v = float64(n); big {
			v = float64(uint64(n))
		}
		if exact := v < 1<<63 && int64(v) == n; !exact && !(big && v < 1<<64 && uint64(v) == uint64(n)) {
			return dst, faultInexact
		}
	}
	if c.form == formFloat8 {
		dst = append(dst, 0, 0, 0, 8)
		return binary.BigEndian.AppendUint64(dst, math.Float64bits(v)), nil
	}
	if single := float32(v); float64(single) != v && v == v {
		return dst, faultInexact
	}
	dst = append(dst, 0, 0, 0, 4)
	return binary.BigEndian.AppendUint32(dst, math.Float32bits(float32(v))), nil
}

func (c *cell) putDate(dst []byte, j int) ([]byte, *fault) {
	v, _ := c.integer(j)
	if c.id == arrow.DATE64 {
		const day = 86_400_000 // milliseconds
		if v%day != 0 {
			return dst, faultDay
		}
		v /= day
	}
	if v -= epochDays; v < dateMin || v >= dateEnd {
		return dst, faultServerRange
	}
	dst = append(dst, 0, 0, 0, 4)
	return binary.BigEndian.AppendUint32(dst, uint32(v)), nil
}

// micros returns value v of the column's unit in microseconds.
func (c *cell) micros(v int64) (int64, *fault) {
	if c.div > 1 && v%c.div != 0 {
		return 0, faultFiner
	}
	us := v / c.div * c.mul
	if us/c.mul != v/c.div {
		return 0, faultServerRange
	}
	if us%c.unit != 0 {
		return 0, faultFiner
	}
	return us, nil
}

// putTime writes times of day and time stamps.
func (c *cell) putTime(dst []byte, j int) ([]byte, *fault) {
	v, _ := c.integer(j)
	us, f := c.micros(v)
	if f != nil {
		return dst, f
	}
	if c.shift == 0 && (us < 0 || us >= dayMicros) || c.shift != 0 && us < stampMin {
		return dst, faultServerRange
	}
	dst = append(dst, 0, 0, 0, 8)
	return binary.BigEndian.AppendUint64(dst, uint64(us+c.shift)), nil
}

func (c *cell) putInterval(dst []byte, j int) ([]byte, *fault) {
	var months, days int32
	var us int64
	var f *fault
	switch c.id {
	case arrow.INTERVAL_MONTHS:
		months = int32(binary.LittleEndian.Uint32(c.fix[4*j:]))
	case arrow.INTERVAL_DAY_TIME:
		days = int32(binary.LittleEndian.Uint32(c.fix[8*j:]))
		us = int64(int32(binary.LittleEndian.Uint32(c.fix[8*j+4:]))) * 1000
	case arrow.INTERVAL_MONTH_DAY_NANO:
		v := c.fix[16*j : 16*j+16]
		months, days = int32(binary.LittleEndian.Uint32(v)), int32(binary.LittleEndian.Uint32(v[4:]))
		ns := int64(binary.LittleEndian.Uint64(v[8:]))
		if us = ns / 1000; ns%1000 != 0 {
			return dst, faultFiner
		}
	default:
		v, _ := c.integer(j)
		if us, f = c.micros(v); f != nil {
			return dst, f
		}
	}
	if us%c.unit != 0 {
		return dst, faultFiner
	}
	dst = append(dst, 0, 0, 0, 16)
	dst = binary.BigEndian.AppendUint64(dst, uint64(us))
	dst = binary.BigEndian.AppendUint32(dst, uint32(days))
	return binary.BigEndian.AppendUint32(dst, uint32(months)), nil
}

// putChar writes a "char": the empty text is the byte 0.
func (c *cell) putChar(dst []byte, j int) ([]byte, *fault) {
	v := c.bytes(j)
	switch {
	case len(v) == 0:
		return append(dst, 0, 0, 0, 1, 0), nil
	case len(v) > 1:
		return dst, faultLong
	case v[0] == 0:
		return dst, faultNUL
	case v[0] >= utf8.RuneSelf:
		return dst, faultHighByte
	}
	return append(dst, 0, 0, 0, 1, v[0]), nil
}

// putUUID reads the usual text, 8-4-4-4-12 hexadecimal digits.
func putUUID(dst, v []byte) ([]byte, *fault) {
	if len(v) != 36 {
		return dst, faultUUID
	}
	dst = append(dst, 0, 0, 0, 16)
	for i := 0; i < len(v); {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if v[i] != '-' {
				return dst, faultUUID
			}
			i++
			continue
		}
		hi, lo := unhex(v[i]), unhex(v[i+1])
		if hi > 15 || lo > 15 {
			return dst, faultUUID
		}
		dst = append(dst, hi<<4|lo)
		i += 2
	}
	return dst, nil
}

func unhex(b byte) byte {
	switch {
	case '0' <= b && b <= '9':
		return b - '0'
	case 'a' <= b && b <= 'f':
		return b - 'a' + 10
	case 'A' <= b && b <= 'F':
		return b - 'A' + 10
	}
	return 0xff
}

// putArray writes a list as an array of one dimension, an empty one as of none.
func (c *cell) putArray(dst []byte, j int) ([]byte, *fault) {
	from, to := c.list.ValueOffsets(j)
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, c.oid)
	if to > from {
		dst[start+7] = 1 // dimension
		dst = binary.BigEndian.AppendUint32(dst, uint32(to-from))
		dst = append(dst, 0, 0, 0, 1)
	}
	var f *fault
	for k := int(from); k < int(to); k++ {
		if c.elem.missing(k) {
			dst[start+11] = 1 // has nulls
			dst = append(dst, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		if dst, f = c.elem.put(dst, k); f != nil {
			return dst, f
		}
	}
	return sized(dst, start)
}

// putObject writes a struct or a map as jsonb.
func (c *cell) putObject(dst []byte, j int) ([]byte, *fault) {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0, 1)
	dst, f := appendJSON(dst, c.arr, j)
	if f != nil {
		return dst, f
	}
	return sized(dst, start)
}

// valueMax is the largest field that the server takes.
const valueMax = 1<<30 - 1

// sized writes the length of what was appended behind start.
func sized(dst []byte, start int) ([]byte, *fault) {
	n := len(dst) - start - 4
	if n > valueMax {
		return dst, faultLong
	}
	binary.BigEndian.PutUint32(dst[start:], uint32(n))
	return dst, nil
}
