package codec

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/apache/arrow-go/v18/arrow"
)

// hasten notes what row and quick need to know of the cell.
func (c *cell) hasten() {
	c.texts = c.lay == layout32 && (c.op == cellBytes || c.op == cellJSONB || c.op == cellNumeric && c.limit == nil)
	if c.texts && c.op == cellBytes {
		c.op = cellText
	}
	if c.longest = math.MaxInt; c.bytesMax >= 0 {
		c.longest = c.bytesMax
	}
	if c.charsMax >= 0 {
		c.longest = min(c.longest, c.charsMax) // a character has a byte at least
	}
	if c.op == cellDecimal && c.id == arrow.DECIMAL128 && c.scale >= 0 && c.limit == nil {
		c.up, c.behind = pow10[-c.scale&3], (c.scale+3)/4
	}
	switch c.op {
	case cellFix8, cellStamp, cellClock:
		c.most = 12
	case cellFix4, cellDay:
		c.most = 8
	case cellFix2:
		c.most = 6
	case cellBool, cellJSONB, cellText:
		c.most = 5
	case cellFixed:
		c.most = 4 + c.width
	case cellDecimal, cellNumeric:
		c.most = decimalQuick
	default:
		c.most = 4 // of a null
	}
}

// decimalQuick is what a decimal of four groups takes, and a numeric beside its digits.
const decimalQuick = 4 + numericHead + 2*4

// quick writes length and bytes of value j, which is not null, and returns how long they
// are; 0 if that is for put to do.
func (c *cell) quick(to []byte, j int) int {
	switch c.op {
	case cellFix2:
		binary.BigEndian.PutUint32(to, 2)
		binary.BigEndian.PutUint16(to[4:], binary.LittleEndian.Uint16(c.fix[2*j:]))
		return 6
	case cellBool:
		k := c.off + j
		binary.BigEndian.PutUint32(to, 1)
		to[4] = c.fix[k>>3] >> (k & 7) & 1
		return 5
	case cellDay:
		v := int64(int32(binary.LittleEndian.Uint32(c.fix[4*j:]))) - epochDays
		if v < dateMin || v >= dateEnd {
			return 0
		}
		binary.BigEndian.PutUint64(to, 4<<32|uint64(uint32(v)))
		return 8
	case cellClock:
		us := binary.LittleEndian.Uint64(c.fix[8*j:])
		if us >= dayMicros {
			return 0
		}
		binary.BigEndian.PutUint32(to, 8)
		binary.BigEndian.PutUint64(to[4:], us)
		return 12
	case cellFixed:
		binary.BigEndian.PutUint32(to, uint32(c.width))
		return 4 + copy(to[4:], c.fix[j*c.width:(j+1)*c.width])
	case cellJSONB:
		if !c.texts || !c.clean {
			return 0
		}
		v := c.bytes(j)
		binary.BigEndian.PutUint32(to, uint32(len(v)+1))
		to[4] = 1
		return 5 + copy(to[5:], v)
	case cellDecimal:
		return c.quickDecimal(to, j)
	case cellNumeric:
		if !c.texts {
			return 0
		}
		return quickNumeric(to, c.bytes(j))
	default:
		return 0
	}
}

// quickDecimal is quick for a decimal128 of four groups at most.
func (c *cell) quickDecimal(to []byte, j int) int {
	if c.up == 0 {
		return 0
	}
	u, negative, ok := c.small(j)
	if !ok || u >= 1e16/c.up {
		return 0
	}
	u *= c.up
	high := u / 1e8
	low := u - high*1e8
	a, b := high/numericBase, low/numericBase
	w := a<<48 | (high-a*numericBase)<<32 | b<<16 | (low - b*numericBase)
	head := uint64(c.scale)
	if w == 0 {
		binary.BigEndian.PutUint32(to, numericHead)
		binary.BigEndian.PutUint64(to[4:], head)
		return 4 + numericHead
	}
	lead, trail := bits.LeadingZeros64(w)/16, bits.TrailingZeros64(w)/16
	n := 4 - lead - trail
	if negative {
		head |= signNegative << 16
	}
	binary.BigEndian.PutUint32(to, uint32(numericHead+2*n))
	binary.BigEndian.PutUint64(to[4:], head|uint64(n)<<48|uint64(uint16(3-lead-c.behind))<<32)
	binary.BigEndian.PutUint64(to[12:], w<<(16*lead))
	return 4 + numericHead + 2*n
}

// quickNumeric is appendNumericText for a number of at most sixteen digits on each side of
// the point; 0 if it is another.
func quickNumeric(to, v []byte) int {
	const zeros = "00000000000000000000000000000000"
	var negative bool
	if len(v) > 0 && v[0] == '-' {
		negative, v = true, v[1:]
	}
	before, behind := v, v[:0]
	if point := bytes.IndexByte(v, '.'); point >= 0 {
		if before, behind = v[:point], v[point+1:]; len(behind) == 0 {
			return 0
		}
	}
	if len(before) == 0 || len(before) > 16 || len(behind) > 16 {
		return 0
	}
	digits := [32]byte([]byte(zeros))
	copy(digits[16-len(before):16], before)
	copy(digits[16:], behind)
	a, okA := fourGroups(digits[:16])
	b, okB := fourGroups(digits[16:])
	if !okA || !okB {
		return 0
	}
	head := uint64(len(behind))
	if a|b == 0 {
		binary.BigEndian.PutUint32(to, numericHead)
		binary.BigEndian.PutUint64(to[4:], head)
		return 4 + numericHead
	}
	if negative {
		head |= signNegative << 16
	}
	var n, weight int
	if a != 0 {
		lead := bits.LeadingZeros64(a) / 16
		n, weight = 4-lead, 3-lead
		binary.BigEndian.PutUint64(to[12:], a<<(16*lead))
		binary.BigEndian.PutUint64(to[12+2*n:], b)
	} else {
		lead := bits.LeadingZeros64(b) / 16
		n, weight = -lead, -1-lead
		binary.BigEndian.PutUint64(to[12:], b<<(16*lead))
	}
	if b != 0 {
		n += 4 - bits.TrailingZeros64(b)/16
	} else {
		n -= bits.TrailingZeros64(a) / 16
	}
	binary.BigEndian.PutUint32(to, uint32(numericHead+2*n))
	binary.BigEndian.PutUint64(to[4:], head|uint64(n)<<48|uint64(uint16(weight))<<32)
	return 4 + numericHead + 2*n
}

// fourGroups returns the numbers that 16 digits are, four each, the first one highest.
func fourGroups(v []byte) (groups uint64, ok bool) {
	const zeros, most, high = 0x3030303030303030, 0x7676767676767676, 0x8080808080808080
	a, b := binary.LittleEndian.Uint64(v)^zeros, binary.LittleEndian.Uint64(v[8:])^zeros
	if (a|b|(a&^high+most)|(b&^high+most))&high != 0 {
		return 0, false
	}
	a, b = twoGroups(a), twoGroups(b)
	return (a<<48 | a>>32<<32) | (b&0xffff<<16 | b>>32), true
}

// twoGroups joins eight digits, the first one lowest, to two numbers of 32 bits, the first
// one lowest.
func twoGroups(x uint64) uint64 {
	x = (x*10 + x>>8) & 0x00ff00ff00ff00ff
	return (x*100 + x>>16) & 0x0000ffff0000ffff
}
