package codec

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/apache/arrow-go/v18/arrow"
)

// digits bounds a numeric with a modifier. A negative count stands for places on the
// other side of the point that have to be zero.
type digits struct{ before, behind int }

func digitsOf(t *Type) *digits {
	p, s, ok := t.numericMod()
	if !ok {
		return nil
	}
	return &digits{before: int(p - s), behind: int(s)}
}

// holds says why the numeric in wire, from its count of groups on, is out of bounds.
func (d *digits) holds(wire []byte) *fault {
	n := int(binary.BigEndian.Uint16(wire))
	switch binary.BigEndian.Uint16(wire[4:]) {
	case signPosInf, signNegInf:
		return faultServerRange
	case signNaN:
		return nil
	}
	if n == 0 {
		return nil
	}
	weight := int(int16(binary.BigEndian.Uint16(wire[2:])))
	first := binary.BigEndian.Uint16(wire[numericHead:])
	before := 4 * weight
	for ; first > 0; first /= 10 {
		before++
	}
	last := binary.BigEndian.Uint16(wire[numericHead+2*(n-1):])
	behind := 4 * (n - 1 - weight)
	for ; last%10 == 0; last /= 10 {
		behind--
	}
	switch {
	case before > d.before:
		return faultPrecision
	case behind > d.behind:
		return faultScale
	}
	return nil
}

// limited appends v through write and checks what that has written.
func (c *cell) limited(dst []byte, write func(dst, v []byte) ([]byte, *fault), v []byte) ([]byte, *fault) {
	start := len(dst)
	dst, f := write(dst, v)
	if f == nil && c.limit != nil {
		f = c.limit.holds(dst[start+4:])
	}
	return dst, f
}

// groups collects the digits of a numeric, the last group first. 256 bits have 78
// digits.
type groups struct {
	at [24]uint16
	n  int
}

// add appends the four groups of x, below 10^16.
func (g *groups) add(x uint64) {
	for i := range 4 {
		q := x / numericBase
		g.at[g.n+i] = uint16(x - q*numericBase)
		x = q
	}
	g.n += 4
}

// rest appends the groups of x without leading zeros.
func (g *groups) rest(x uint64) {
	for x != 0 {
		q := x / numericBase
		g.at[g.n] = uint16(x - q*numericBase)
		g.n++
		x = q
	}
	for g.n > 0 && g.at[g.n-1] == 0 {
		g.n--
	}
}

// append appends the numeric, length first. The last group counts 10000^-behind.
func (g *groups) append(dst []byte, negative bool, behind, dscale int) []byte {
	low := 0
	for low < g.n && g.at[low] == 0 {
		low++
	}
	n, weight := g.n-low, g.n-1-behind
	var sign uint16
	switch {
	case n == 0:
		weight = 0
	case negative:
		sign = signNegative
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(numericHead+2*n))
	dst = binary.BigEndian.AppendUint64(dst, uint64(n)<<48|uint64(uint16(weight))<<32|uint64(sign)<<16|uint64(dscale))
	for i := g.n - 1; i >= low; i-- {
		dst = binary.BigEndian.AppendUint16(dst, g.at[i])
	}
	return dst
}

func (c *cell) putIntegral(dst []byte, j int) ([]byte, *fault) {
	v, big := c.integer(j)
	negative := v < 0 && !big
	u := uint64(v)
	if negative {
		u = -u
	}
	var g groups
	g.rest(u)
	start := len(dst)
	dst = g.append(dst, negative, 0, 0)
	if c.limit != nil {
		return dst, c.limit.holds(dst[start+4:])
	}
	return dst, nil
}

func (c *cell) putDecimal(dst []byte, j int) ([]byte, *fault) {
	var g groups
	behind, r := c.scale>>2, c.scale&3 // scale = 4*behind + r, also below zero
	u, negative, ok := c.small(j)
	if ok {
		if r > 0 {
			q := u / pow10[r]
			g.cut(u-q*pow10[r], r)
			u = q
		}
		g.rest(u)
	} else {
		var w [4]uint64
		w, negative = c.words(j)
		if r > 0 {
			g.cut(divide(&w, pow10[r]), r)
		}
		for w[1]|w[2]|w[3] != 0 {
			g.add(divide(&w, 1e16))
		}
		g.rest(w[0])
	}
	if r > 0 {
		behind++
	}
	start := len(dst)
	dst = g.append(dst, negative, behind, max(c.scale, 0))
	if c.limit != nil {
		return dst, c.limit.holds(dst[start+4:])
	}
	return dst, nil
}

// cut begins with the group that the scale cuts: its first r digits.
func (g *groups) cut(x uint64, r int) {
	g.at[0] = uint16(x * pow10[4-r])
	g.n = 1
}

// small returns the magnitude of a decimal128 that an int64 holds, as most do.
func (c *cell) small(j int) (u uint64, negative, ok bool) {
	if c.id != arrow.DECIMAL128 {
		return 0, false, false
	}
	lo, hi := binary.LittleEndian.Uint64(c.fix[16*j:]), binary.LittleEndian.Uint64(c.fix[16*j+8:])
	if int64(hi) != int64(lo)>>63 {
		return 0, false, false
	}
	if int64(lo) < 0 {
		return -lo, true, true
	}
	return lo, false, true
}

// words returns the magnitude of decimal j, low word first.
func (c *cell) words(j int) (w [4]uint64, negative bool) {
	switch c.id {
	case arrow.DECIMAL128:
		w[0], w[1] = binary.LittleEndian.Uint64(c.fix[16*j:]), binary.LittleEndian.Uint64(c.fix[16*j+8:])
		if negative = int64(w[1]) < 0; negative {
			var borrow uint64
			w[0], borrow = bits.Sub64(0, w[0], 0)
			w[1], _ = bits.Sub64(0, w[1], borrow)
		}
		return w, negative
	case arrow.DECIMAL256:
		for i := range w {
			w[i] = binary.LittleEndian.Uint64(c.fix[32*j+8*i:])
		}
		if negative = int64(w[3]) < 0; negative {
			negate256(&w)
		}
		return w, negative
	default:
	}
	v, _ := c.integer(j)
	w[0] = uint64(v)
	if negative = v < 0; negative {
		w[0] = -w[0]
	}
	return w, negative
}

// divide divides w by d and returns the remainder.
func divide(w *[4]uint64, d uint64) (rem uint64) {
	if w[1]|w[2]|w[3] == 0 {
		rem = w[0] % d
		w[0] /= d
		return rem
	}
	for i := 3; i >= 0; i-- {
		w[i], rem = bits.Div64(rem, w[i], d)
	}
	return rem
}

// appendNumericText appends the numeric that v is the server's text of, length first.
func appendNumericText(dst, v []byte) ([]byte, *fault) {
	switch string(v) {
	case "NaN":
		return append(dst, 0, 0, 0, 8, 0, 0, 0, 0, 0xC0, 0, 0, 0), nil
	case "Infinity":
		return append(dst, 0, 0, 0, 8, 0, 0, 0, 0, 0xD0, 0, 0, 0), nil
	case "-Infinity":
		return append(dst, 0, 0, 0, 8, 0, 0, 0, 0, 0xF0, 0, 0, 0), nil
	}
	var sign uint16
	if len(v) > 0 && v[0] == '-' {
		sign, v = signNegative, v[1:]
	}
	before, behind, point := bytes.Cut(v, []byte{'.'})
	if len(before) == 0 || point && len(behind) == 0 || !allDigits(before) || !allDigits(behind) {
		return dst, faultNumber
	}
	before = bytes.TrimLeft(before, "0")
	if len(before) > digitsMax || len(behind) > dscaleMax {
		return dst, faultServerRange
	}
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	weight := (len(before)+3)/4 - 1
	for len(before) > 0 {
		k := (len(before)-1)%4 + 1
		dst = binary.BigEndian.AppendUint16(dst, group(before[:k]))
		before = before[k:]
	}
	for rest := behind; len(rest) > 0; {
		k := min(4, len(rest))
		g := group(rest[:k]) * uint16(pow10[4-k])
		if rest = rest[k:]; g == 0 && len(dst) == start+4+numericHead {
			weight-- // a zero in front
			continue
		}
		dst = binary.BigEndian.AppendUint16(dst, g)
	}
	first := start + 4 + numericHead
	for len(dst) > first && dst[len(dst)-1] == 0 && dst[len(dst)-2] == 0 {
		dst = dst[:len(dst)-2]
	}
	n := (len(dst) - first) / 2
	if n == 0 {
		weight, sign = 0, 0
	}
	binary.BigEndian.PutUint32(dst[start:], uint32(numericHead+2*n))
	binary.BigEndian.PutUint64(dst[start+4:], uint64(n)<<48|uint64(uint16(weight))<<32|uint64(sign)<<16|uint64(len(behind)))
	return dst, nil
}

func allDigits(v []byte) bool {
	for _, b := range v {
		if b-'0' > 9 {
			return false
		}
	}
	return true
}

func group(v []byte) (g uint16) {
	for _, b := range v {
		g = g*10 + uint16(b-'0')
	}
	return g
}
