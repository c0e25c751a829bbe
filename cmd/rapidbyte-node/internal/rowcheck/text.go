package rowcheck

import (
	"math"
	"math/big"
	"strconv"
	"strings"
)

// Cell is a value as PostgreSQL writes it.
type Cell struct {
	Text string
	Null bool
}

// Null is a cell without a value.
var Null = Cell{Null: true}

// Text is a cell of a text, or of any type whose text is known.
func Text(text string) Cell { return Cell{Text: text} }

// Int is a cell of smallint, integer or bigint.
func Int(v int64) Cell { return Cell{Text: strconv.FormatInt(v, 10)} }

// Bool is a cell of boolean.
func Bool(v bool) Cell {
	if v {
		return Cell{Text: "t"}
	}
	return Cell{Text: "f"}
}

// Float is a cell of double precision, with the fewest digits that are exact.
func Float(v float64) Cell {
	switch {
	case math.IsNaN(v):
		return Cell{Text: "NaN"}
	case math.IsInf(v, 1):
		return Cell{Text: "Infinity"}
	case math.IsInf(v, -1):
		return Cell{Text: "-Infinity"}
	}
	text := strconv.FormatFloat(v, 'e', -1, 64)
	digits, exponent, _ := strings.Cut(text, "e")
	e, err := strconv.Atoi(exponent)
	if err == nil && e >= -4 && e < 15 {
		return Cell{Text: strconv.FormatFloat(v, 'f', -1, 64)}
	}
	for more := len(strings.TrimLeft(digits, "-")) - 1; e >= 15 && between(v, text); more++ {
		text = strconv.FormatFloat(v, 'e', more, 64)
	}
	return Cell{Text: text}
}

// between reports whether text lies in the very middle between v and a neighbour: by the
// rule for ties it stands for v, but PostgreSQL takes one more digit. Only a large
// integer can have so few digits there.
func between(v float64, text string) bool {
	const exact = 256
	number := func(v float64) *big.Float { return new(big.Float).SetPrec(exact).SetFloat64(v) }
	twice, _, err := big.ParseFloat(text, 10, exact, big.ToNearestEven)
	if err != nil {
		return false
	}
	twice.Add(twice, twice)
	for _, towards := range []float64{math.Inf(1), math.Inf(-1)} {
		n := math.Nextafter(v, towards)
		if !math.IsInf(n, 0) && twice.Cmp(new(big.Float).Add(number(v), number(n))) == 0 {
			return true
		}
	}
	return false
}

// appendRecord appends the text of a record.
func appendRecord(dst []byte, cells []Cell) []byte {
	dst = append(dst, '(')
	for i, c := range cells {
		if i > 0 {
			dst = append(dst, ',')
		}
		if !c.Null {
			dst = appendField(dst, c.Text)
		}
	}
	return append(dst, ')')
}

func appendField(dst []byte, text string) []byte {
	if text != "" && !strings.ContainsAny(text, "\"\\(), \t\n\v\f\r") {
		return append(dst, text...)
	}
	dst = append(dst, '"')
	for i := range len(text) {
		if text[i] == '"' || text[i] == '\\' {
			dst = append(dst, text[i])
		}
		dst = append(dst, text[i])
	}
	return append(dst, '"')
}
