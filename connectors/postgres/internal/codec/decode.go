package codec

import (
	"encoding/binary"
	"math"
	"math/bits"
	"unicode/utf8"
)

// The server counts from 2000-01-01, Arrow from 1970-01-01.
const (
	epochMicros = 946_684_800_000_000
	epochDays   = 10_957
	dayMicros   = 86_400_000_000
)

// row writes the row at the beginning of b behind the pending ones, and returns its
// length. It returns 0 if b ends before, with d.need set, or if a value cannot be
// taken, with d.bad set.
func (d *Decoder) row(b []byte) int {
	n, p := d.n, 2
	for i := range d.cols {
		if len(b)-p < 4 {
			d.need = p + 4*(len(d.cols)-i)
			return 0
		}
		c := &d.cols[i]
		l := int(int32(binary.BigEndian.Uint32(b[p:])))
		p += 4
		if l < 0 {
			f := faultLength
			if l == -1 {
				f = c.null(n)
			}
			if f != nil {
				d.bad = badValue{col: i, fault: f}
				return 0
			}
			continue
		}
		if len(b)-p < l {
			d.need = p + l + 4*(len(d.cols)-i-1)
			return 0
		}
		v := b[p : p+l]
		p += l
		var f *fault
		switch c.op {
		case opFix8:
			if len(v) != 8 {
				f = faultLength
				break
			}
			binary.LittleEndian.PutUint64(c.fix[8*n:], binary.BigEndian.Uint64(v))
		case opFix4:
			if len(v) != 4 {
				f = faultLength
				break
			}
			binary.LittleEndian.PutUint32(c.fix[4*n:], binary.BigEndian.Uint32(v))
		case opStamp:
			f = c.putStamp(n, v)
		case opText:
			if l > len(c.data)-c.used {
				if f = c.reserveData(l); f != nil {
					break
				}
			}
			if !isASCII(v) && !utf8.Valid(v) {
				f = faultUTF8
				break
			}
			copy(c.data[c.used:], v)
			c.used += l
			binary.LittleEndian.PutUint32(c.fix[4*n+4:], uint32(c.used))
		default:
			f = c.put(n, v)
		}
		if f != nil {
			d.bad = badValue{col: i, fault: f, value: v}
			return 0
		}
	}
	return p
}

// isASCII is utf8.Valid for the usual texts, in fewer instructions.
func isASCII(v []byte) bool {
	const high = 0x8080808080808080
	var bits uint64
	for len(v) >= 32 {
		bits |= binary.LittleEndian.Uint64(v) | binary.LittleEndian.Uint64(v[8:]) | binary.LittleEndian.Uint64(v[16:]) | binary.LittleEndian.Uint64(v[24:])
		v = v[32:]
	}
	for len(v) >= 8 {
		bits |= binary.LittleEndian.Uint64(v)
		v = v[8:]
	}
	for _, b := range v {
		bits |= uint64(b)
	}
	return bits&high == 0
}

// put writes value n.
func (c *column) put(n int, v []byte) *fault {
	if c.width > 0 && c.op <= opInterval && len(v) != c.width {
		return faultLength
	}
	switch c.op {
	case opFix2:
		binary.LittleEndian.PutUint16(c.fix[2*n:], binary.BigEndian.Uint16(v))
	case opFix4:
		binary.LittleEndian.PutUint32(c.fix[4*n:], binary.BigEndian.Uint32(v))
	case opFix8:
		binary.LittleEndian.PutUint64(c.fix[8*n:], binary.BigEndian.Uint64(v))
	case opBool:
		if len(v) != 1 {
			return faultLength
		}
		if v[0] > 1 {
			return faultBool
		}
		c.fix[n>>3] |= v[0] << (n & 7)
	case opDate:
		return c.putDate(n, v)
	case opTime:
		us := binary.BigEndian.Uint64(v)
		if us >= dayMicros {
			if us == dayMicros {
				return faultMidnight
			}
			return faultRange
		}
		binary.LittleEndian.PutUint64(c.fix[8*n:], us)
	case opStamp:
		return c.putStamp(n, v)
	case opUUID:
		copy(c.fix[16*n:16*n+16], v)
	case opInterval:
		return c.putInterval(n, v)
	case opDecimal128, opDecimal256:
		return c.putDecimal(n, v)
	case opText:
		if !utf8.Valid(v) {
			return faultUTF8
		}
		return c.putBytes(n, v)
	case opBytes:
		return c.putBytes(n, v)
	case opJSONB:
		if len(v) == 0 || v[0] != 1 {
			return faultJSONB
		}
		if !utf8.Valid(v[1:]) {
			return faultUTF8
		}
		return c.putBytes(n, v[1:])
	case opChar:
		return c.putChar(n, v)
	case opNumeric:
		return c.putNumeric(n, v)
	case opList:
		return c.putList(n, v)
	}
	return nil
}

func (c *column) putBytes(n int, v []byte) *fault {
	if f := c.reserveData(len(v)); f != nil {
		return f
	}
	copy(c.data[c.used:], v)
	c.used += len(v)
	binary.LittleEndian.PutUint32(c.fix[4*n+4:], uint32(c.used))
	return nil
}

// putChar takes a "char": the byte 0 is the empty text.
func (c *column) putChar(n int, v []byte) *fault {
	switch {
	case len(v) != 1:
		return faultLength
	case v[0] == 0:
		v = nil
	case v[0] >= utf8.RuneSelf:
		return faultHighByte
	}
	return c.putBytes(n, v)
}

func (c *column) putDate(n int, v []byte) *fault {
	days := int32(binary.BigEndian.Uint32(v))
	switch {
	case days == math.MaxInt32:
		return faultInfinity
	case days == math.MinInt32:
		return faultNegInf
	case days > math.MaxInt32-epochDays:
		return faultRange
	}
	binary.LittleEndian.PutUint32(c.fix[4*n:], uint32(days+epochDays))
	return nil
}

func (c *column) putStamp(n int, v []byte) *fault {
	if len(v) != 8 {
		return faultLength
	}
	us := int64(binary.BigEndian.Uint64(v))
	if us > math.MaxInt64-epochMicros || us == math.MinInt64 {
		return stampFault(us)
	}
	binary.LittleEndian.PutUint64(c.fix[8*n:], uint64(us+epochMicros))
	return nil
}

func stampFault(us int64) *fault {
	switch us {
	case math.MaxInt64:
		return faultInfinity
	case math.MinInt64:
		return faultNegInf
	}
	return faultRange
}

// putInterval turns microseconds, days, months into months, days, nanoseconds.
func (c *column) putInterval(n int, v []byte) *fault {
	us := int64(binary.BigEndian.Uint64(v))
	if us > math.MaxInt64/1000 || us < math.MinInt64/1000 {
		return faultRange
	}
	to := c.fix[16*n : 16*n+16]
	binary.LittleEndian.PutUint32(to, binary.BigEndian.Uint32(v[12:]))
	binary.LittleEndian.PutUint32(to[4:], binary.BigEndian.Uint32(v[8:]))
	binary.LittleEndian.PutUint64(to[8:], uint64(us*1000))
	return nil
}

func (c *column) putDecimal(n int, v []byte) *fault {
	if c.op == opDecimal128 {
		if u, negative, ok := c.shape.small(v); ok {
			put128(c.fix[16*n:16*n+16], u, negative)
			return nil
		}
	}
	x, f := parseNumber(v)
	if f != nil {
		return f
	}
	if c.op == opDecimal128 {
		hi, lo, f := c.shape.words128(x)
		binary.LittleEndian.PutUint64(c.fix[16*n:], lo)
		binary.LittleEndian.PutUint64(c.fix[16*n+8:], hi)
		return f
	}
	w, f := c.shape.words256(x)
	for i := range w {
		binary.LittleEndian.PutUint64(c.fix[32*n+8*i:], w[i])
	}
	return f
}

// putNumeric writes a numeric as text.
func (c *column) putNumeric(n int, v []byte) *fault {
	x, f := parseNumber(v)
	if f != nil {
		return f
	}
	if f := c.reserveData(x.textSize()); f != nil {
		return f
	}
	text, f := x.appendText(c.data[:c.used])
	c.used = len(text)
	binary.LittleEndian.PutUint32(c.fix[4*n+4:], uint32(c.used))
	return f
}

const (
	arrayHead = 12 // dimensions, flag of nulls, type of the elements
	arrayDim  = 8  // length and lower bound
)

// putList writes an array of one dimension that begins at 1, or of none.
func (c *column) putList(n int, v []byte) *fault {
	if len(v) < arrayHead {
		return faultArray
	}
	dims, oid := binary.BigEndian.Uint32(v), binary.BigEndian.Uint32(v[8:])
	switch {
	case c.oid != 0 && oid != c.oid:
		return faultElement
	case dims == 0 && len(v) == arrayHead:
		binary.LittleEndian.PutUint32(c.fix[4*n+4:], uint32(c.child.n))
		return nil
	case dims > 1:
		return faultNested
	case dims == 0 || len(v) < arrayHead+arrayDim:
		return faultArray
	case binary.BigEndian.Uint32(v[16:]) != 1:
		return faultBound
	}
	count := int(binary.BigEndian.Uint32(v[12:]))
	v = v[arrayHead+arrayDim:]
	if count > len(v)/4 { // each element has a length of four bytes
		return faultArray
	}
	e := c.child
	if need := e.n + count; need > e.cap {
		if need > c.dataMax {
			return faultRoom
		}
		e.reserve(max(1<<bits.Len(uint(need)), e.hint))
	}
	for range count {
		rest, f := e.element(v)
		if f != nil {
			return f
		}
		v = rest
	}
	if len(v) != 0 {
		return faultArray
	}
	binary.LittleEndian.PutUint32(c.fix[4*n+4:], uint32(e.n))
	return nil
}

// element writes the first element of v and returns what follows.
func (c *column) element(v []byte) ([]byte, *fault) {
	if len(v) < 4 {
		return nil, faultArray
	}
	l := int(int32(binary.BigEndian.Uint32(v)))
	v = v[4:]
	if l > len(v) || l < -1 {
		return nil, faultArray
	}
	n := c.n
	c.n++ // also if it fails: cut takes it back
	if l < 0 {
		return v, c.null(n)
	}
	return v[l:], c.put(n, v[:l])
}
