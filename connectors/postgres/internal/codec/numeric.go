package codec

import (
	"encoding/binary"
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
	if x.weight < 0 {
		dst = append(dst, '0')
	} else {
		dst = appendHead(dst, x.group(0))
		for i := 1; i <= x.weight; i++ {
			dst = appendGroup(dst, x.group(i))
		}
	}
	if x.dscale > 0 {
		dst = append(dst, '.')
		end := len(dst) + x.dscale
		i := x.weight + 1
		for ; len(dst) < end; i++ {
			if i < 0 {
				dst = append(dst, "0000"...)
				continue
			}
			dst = appendGroup(dst, x.group(i))
		}
		for _, c := range dst[end:] {
			if c != '0' {
				return dst, faultNumeric
			}
		}
		dst = dst[:end]
	}
	// The server never sends digits behind the display scale: they would be lost.
	if shown := x.weight + 1 + (x.dscale+3)/4; x.count() > max(shown, 0) {
		return dst, faultNumeric
	}
	return dst, nil
}

func appendGroup(dst []byte, g uint64) []byte {
	return append(dst, byte('0'+g/1000), byte('0'+g/100%10), byte('0'+g/10%10), byte('0'+g%10))
}

// appendHead writes the first group, without leading zeros.
func appendHead(dst []byte, g uint64) []byte {
	if g >= 1000 {
		dst = append(dst, byte('0'+g/1000))
	}
	if g >= 100 {
		dst = append(dst, byte('0'+g/100%10))
	}
	if g >= 10 {
		dst = append(dst, byte('0'+g/10%10))
	}
	return append(dst, byte('0'+g%10))
}
