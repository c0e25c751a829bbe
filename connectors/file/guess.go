package file

// shape is a set of the types that a text fits.
type shape uint8

const (
	fitsInt shape = 1 << iota
	fitsFloat
	fitsBool
	fitsDate
	fitsTimestamp
	fitsTimestampTZ
	fitsText // JSON: a string
	fitsAny  = fitsInt | fitsFloat | fitsBool | fitsDate | fitsTimestamp | fitsTimestampTZ | fitsText
)

// guess narrows the type of one column, value by value. The zero guess has seen
// nothing. The result does not depend on the order of values.
type guess struct {
	excluded shape
	seen     bool
}

func (g *guess) add(s shape) {
	g.seen = true
	g.excluded |= fitsAny &^ s
}

// merge adds what another guess has seen.
func (g *guess) merge(h guess) {
	g.seen = g.seen || h.seen
	g.excluded |= h.excluded
}

func (g *guess) can(s shape) bool { return g.excluded&s == 0 }

// addCSV narrows by an unquoted or quoted text that is neither NULL nor empty.
func (g *guess) addCSV(v []byte) {
	if g.seen && g.excluded|fitsText == fitsAny {
		return // text already
	}
	g.add(shapeOf(v) | fitsText)
}

// shapeOf classifies a text.
func shapeOf(v []byte) shape {
	if len(v) == 0 {
		return 0
	}
	switch c := v[0]; {
	case c == 't' || c == 'f':
		if _, ok := parseBool(v); ok {
			return fitsBool
		}
		return 0
	case c != '-' && c != '.' && c-'0' > 9:
		return 0
	}
	if s := numberShape(v); s != 0 {
		return s
	}
	if _, ok := parseDate(v); ok {
		return fitsDate
	}
	if _, zoned, ok := parseTimestamp(v); ok {
		if zoned {
			return fitsTimestampTZ
		}
		return fitsTimestamp
	}
	return 0
}

// numberShape classifies a number; an integer beyond 2^53 is not a float, because
// among floats its last digits would be lost.
func numberShape(v []byte) shape {
	if n, ok := parseInt(v); ok {
		if n > maxExactInt || n < -maxExactInt {
			return fitsInt
		}
		return fitsInt | fitsFloat
	}
	if _, ok := parseFloat(v); ok && !isInteger(v) {
		return fitsFloat
	}
	return 0
}

// isInteger reports digits only: one that parseInt refused is too big or has a
// leading zero, and no number. -0 is a float.
func isInteger(v []byte) bool {
	if string(v) == "-0" {
		return false
	}
	for i, c := range v {
		if c-'0' > 9 && (i > 0 || c != '-') {
			return false
		}
	}
	return true
}

// csvType is the type of a CSV column; prior is that of earlier loads, which
// stays if the values fit it.
func (g *guess) csvType(prior columnType, hasPrior bool) columnType {
	if hasPrior && (!g.seen || prior.kind == kindText || g.can(shapeOfKind(prior.kind))) {
		return prior
	}
	return columnType{kind: g.kind(kindText)}
}

// jsonType is the type of a JSON column.
func (g *guess) jsonType(prior columnType, hasPrior bool) columnType {
	if hasPrior && (!g.seen || prior.kind == kindJSON || g.can(shapeOfKind(prior.kind))) {
		return prior
	}
	if g.seen && g.can(fitsText) {
		return columnType{kind: kindText}
	}
	return columnType{kind: g.kind(kindJSON)}
}

// kind returns the narrowest kind, other when nothing fits, text when nothing was
// seen.
func (g *guess) kind(other kind) kind {
	if !g.seen {
		return kindText
	}
	for _, k := range []kind{kindInt64, kindFloat64, kindBool, kindDate, kindTimestamp, kindTimestampTZ} {
		if g.can(shapeOfKind(k)) {
			return k
		}
	}
	return other
}

// shapeOfKind returns the shape whose values are read as k.
func shapeOfKind(k kind) shape {
	switch k {
	case kindInt64:
		return fitsInt
	case kindFloat64:
		return fitsFloat
	case kindBool:
		return fitsBool
	case kindDate:
		return fitsDate
	case kindTimestamp:
		return fitsTimestamp
	case kindTimestampTZ:
		return fitsTimestampTZ
	case kindText:
		return fitsText
	default: // only declared, never guessed
		return fitsAny
	}
}
