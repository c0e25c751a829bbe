package codec

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// A numeric on the wire: count of digit groups, weight of the first one, sign and
// display scale, 16 bits each; then the groups, base 10000, without leading and
// trailing zeros. Group i counts 10000^(weight-i).
const (
	numericHead = 8 // bytes before the groups
	numericBase = 10000

	signNegative = 0x4000
	signNaN      = 0xC000
	signPosInf   = 0xD000
	signNegInf   = 0xF000

	dscaleMax = 0x3fff // digits behind the point that the server keeps
	digitsMax = 131072 // digits before it
)

var pow10 = [20]uint64{
	1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
}

// number is a numeric taken apart. Its digits alias the wire.
type number struct {
	digits []byte // two bytes each
	weight int
	sign   uint16
	dscale int
}

func (x number) count() int { return len(x.digits) / 2 }

// group returns group i, 0 behind the last.
func (x number) group(i int) uint64 {
	if 2*i >= len(x.digits) {
		return 0
	}
	return uint64(binary.BigEndian.Uint16(x.digits[2*i:]))
}

// parseNumber checks everything that the rest relies on.
func parseNumber(v []byte) (x number, f *fault) {
	if len(v) < numericHead || len(v) != numericHead+2*int(binary.BigEndian.Uint16(v)) {
		return x, faultLength
	}
	x = number{
		digits: v[numericHead:],
		weight: int(int16(binary.BigEndian.Uint16(v[2:]))),
		sign:   binary.BigEndian.Uint16(v[4:]),
		dscale: int(binary.BigEndian.Uint16(v[6:])),
	}
	switch x.sign {
	case 0, signNegative:
	case signNaN, signPosInf, signNegInf:
		return x, nil
	default:
		return x, faultNumeric
	}
	if x.dscale > dscaleMax {
		return x, faultNumeric
	}
	for i := 0; i < len(x.digits); i += 2 {
		if binary.BigEndian.Uint16(x.digits[i:]) >= numericBase {
			return x, faultNumeric
		}
	}
	return x, nil
}

// decimalShape is what a decimal column needs of each value.
type decimalShape struct {
	precision, scale int
}

// admit reports why x has no place in the shape, and how many groups stand before
// the one that the scale cuts; -1 for a zero that lies wholly behind.
func (s decimalShape) admit(x number) (groups int, f *fault) {
	switch x.sign {
	case signNaN:
		return 0, faultNaN
	case signPosInf, signNegInf:
		return 0, faultInfinity
	}
	if len(x.digits) == 0 {
		return -1, nil
	}
	if x.weight >= 0 {
		if room := s.precision - s.scale - 4*x.weight; room < 4 && (room < 1 || x.group(0) >= pow10[room]) {
			return 0, faultPrecision
		}
	}
	groups = x.weight + 1 + s.scale/4
	if groups < 0 {
		return 0, faultScale
	}
	rest := groups
	if r := s.scale % 4; r > 0 {
		if x.group(groups)%pow10[4-r] != 0 {
			return 0, faultScale
		}
		rest++
	}
	for i := rest; i < x.count(); i++ {
		if x.group(i) != 0 {
			return 0, faultScale
		}
	}
	return groups, nil
}

// small returns the magnitude of the numeric in v times 10^scale, if four groups and
// what the scale cuts from a fifth hold it. If not ok, v is longer, or wrong.
func (s decimalShape) small(v []byte) (u uint64, negative, ok bool) {
	if len(v) < numericHead {
		return 0, false, false
	}
	head := binary.BigEndian.Uint64(v) // count, weight, sign, display scale
	n, digits := int(head>>48), v[numericHead:]
	groups := int(int16(head>>32)) + 1 + s.scale>>2
	if len(digits) != 2*n || head>>16&^signNegative&0xffff != 0 || head&0xffff > dscaleMax {
		return 0, false, false
	}
	if n == 0 {
		return 0, false, true
	}
	r := s.scale & 3
	if groups < 0 || groups > 4 || n > groups+1 || n > groups && r == 0 {
		return 0, false, false
	}
	bad := digits[0]|digits[1] == 0 // no server sends that
	whole := min(groups, n)
	for i := range whole {
		g := uint64(binary.BigEndian.Uint16(digits[2*i:]))
		bad = bad || g >= numericBase
		u = u*numericBase + g
	}
	u *= pow10[4*(groups-whole)]
	if r > 0 {
		var g uint32
		if n > groups {
			g = uint32(binary.BigEndian.Uint16(digits[2*groups:]))
		}
		unit := uint32(pow10[4-r])
		q := g / unit
		bad = bad || g >= numericBase || q*unit != g
		u = u*pow10[r] + uint64(q)
	}
	if bad || s.precision < len(pow10) && u >= pow10[s.precision] {
		return 0, false, false
	}
	return u, head&(signNegative<<16) != 0, true
}

// put128 writes a decimal128 of magnitude u.
func put128(to []byte, u uint64, negative bool) {
	var hi uint64
	if negative && u > 0 {
		u, hi = -u, math.MaxUint64
	}
	binary.LittleEndian.PutUint64(to, u)
	binary.LittleEndian.PutUint64(to[8:], hi)
}

// words128 returns x times 10^scale; the shape has at most 38 digits.
func (s decimalShape) words128(x number) (hi, lo uint64, f *fault) {
	groups, f := s.admit(x)
	if f != nil || groups < 0 {
		return 0, 0, f
	}
	r := s.scale % 4
	if groups <= 4 { // at most 16 digits and three more
		for i := range groups {
			lo = lo*numericBase + x.group(i)
		}
		if r > 0 {
			lo = lo*pow10[r] + x.group(groups)/pow10[4-r]
		}
	} else {
		for i := range groups {
			hi, lo = mulAdd128(hi, lo, numericBase, x.group(i))
		}
		if r > 0 {
			hi, lo = mulAdd128(hi, lo, pow10[r], x.group(groups)/pow10[4-r])
		}
	}
	if x.sign == signNegative {
		var borrow uint64
		lo, borrow = bits.Sub64(0, lo, 0)
		hi, _ = bits.Sub64(0, hi, borrow)
	}
	return hi, lo, nil
}

func mulAdd128(hi, lo, m, a uint64) (uint64, uint64) {
	carry, low := bits.Mul64(lo, m)
	low, c := bits.Add64(low, a, 0)
	return hi*m + carry + c, low
}

// words256 is words128 for up to 76 digits, low word first.
func (s decimalShape) words256(x number) (w [4]uint64, f *fault) {
	groups, f := s.admit(x)
	if f != nil || groups < 0 {
		return w, f
	}
	for i := range groups {
		mulAdd256(&w, numericBase, x.group(i))
	}
	if r := s.scale % 4; r > 0 {
		mulAdd256(&w, pow10[r], x.group(groups)/pow10[4-r])
	}
	if x.sign == signNegative {
		negate256(&w)
	}
	return w, nil
}

func mulAdd256(w *[4]uint64, m, a uint64) {
	for i := range w {
		hi, lo := bits.Mul64(w[i], m)
		var c uint64
		w[i], c = bits.Add64(lo, a, 0)
		a = hi + c
	}
}

func negate256(w *[4]uint64) {
	var borrow uint64
	for i := range w {
		w[i], borrow = bits.Sub64(0, w[i], borrow)
	}
}

// textSize bounds the length of x as text.
func (x number) textSize() int {
	return 4*max(x.weight+1, 1) + x.dscale + 10
}

// appendText writes x as the server prints it. dst has room for textSize bytes.
func (x number) appendText(dst []byte) ([]byte, *fault) {
	switch x.sign {
	case signNaN:
		return append(dst, "NaN"...), nil
	case signPosInf:
		return append(dst, "Infinity"...), nil
	case signNegInf:
		return append(dst, "-Infinity"...), nil
	case signNegative:
		dst = append(dst, '-')
	}
	p := len(dst)
	dst = dst[:cap(dst)]
	if x.weight < 0 {
		dst[p] = '0'
		p++
	} else {
		p += putHead(dst[p:], x.group(0))
		for i := 1; i <= x.weight; i++ {
			putGroup(dst[p:], x.group(i))
			p += 4
		}
	}
	if x.dscale > 0 {
		dst[p] = '.'
		p++
		end := p + x.dscale
		for i := x.weight + 1; p < end; i++ {
			var g uint64
			if i >= 0 {
				g = x.group(i)
			}
			putGroup(dst[p:], g)
			p += 4
		}
		for _, c := range dst[end:p] {
			if c != '0' {
				return dst[:p], faultNumeric
			}
		}
		p = end
	}
	// The server never sends digits behind the display scale: they would be lost.
	if shown := x.weight + 1 + (x.dscale+3)/4; x.count() > max(shown, 0) {
		return dst[:p], faultNumeric
	}
	return dst[:p], nil
}

// pairs are the numbers of two digits, as they are written, the first digit lowest.
var pairs = func() (p [100]uint32) {
	for i := range p {
		p[i] = uint32('0'+i/10) | uint32('0'+i%10)<<8
	}
	return p
}()

// putGroup writes the four digits of g.
func putGroup(dst []byte, g uint64) { binary.LittleEndian.PutUint32(dst, fourDigits(g)) }

func fourDigits(g uint64) uint32 {
	hi := g / 100
	return pairs[hi] | pairs[g-100*hi]<<16
}

// putHead writes the first group, without leading zeros, and returns its length. dst
// has room for four digits.
func putHead(dst []byte, g uint64) int {
	four := fourDigits(g)
	zeros := bits.TrailingZeros32((four^0x30303030)|1<<24) &^ 7
	binary.LittleEndian.PutUint32(dst, four>>zeros)
	return 4 - zeros/8
}
