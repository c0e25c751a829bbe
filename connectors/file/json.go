package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// jsonScanner cuts JSON Lines rows: one object a line.
type jsonScanner struct {
	path    string
	row     int64          // rows before the next one, in the file
	columns []string       // of a row's cells
	lookup  map[string]int // columns by name, -1: known but not read
	next    int            // column that the next key probably is

	// see learns keys; nil when the columns are known and others are errors.
	see func(key []byte, c cell, line []byte) error

	seen    []uint32 // stamp of the last row that had the column
	stamp   uint32
	scratch []byte // unescaped key
	extra   map[string]bool
}

func newJSONScanner(path string, columns []string, skipped []string) *jsonScanner {
	s := &jsonScanner{path: path, columns: columns, lookup: make(map[string]int, len(columns)), seen: make([]uint32, len(columns))}
	for i, c := range columns {
		s.lookup[c] = i
	}
	for _, c := range skipped {
		s.lookup[c] = -1
	}
	return s
}

// line scans one line, without its end. base is where it stands in the table's
// bytes; a cell counts from there. A blank line is no row (ok is false).
func (s *jsonScanner) line(b []byte, base int, row []cell) (ok bool, err error) {
	i := skipSpace(b, 0)
	if i == len(b) {
		return false, nil
	}
	if b[i] != '{' {
		return false, s.notObject(b[i:])
	}
	s.stamp++
	s.next = 0
	if s.extra != nil {
		clear(s.extra)
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return true, s.end(b, i+1)
	}
	for {
		if i, err = s.member(b, i, base, row); err != nil {
			return false, err
		}
		i = skipSpace(b, i)
		if i >= len(b) {
			return false, s.bad("", errors.New("the object is not closed on its line"))
		}
		if b[i] == '}' {
			return true, s.end(b, i+1)
		}
		if b[i] != ',' {
			return false, s.bad("", fmt.Errorf("expected a comma or } at byte %d, found %s", i+1, excerpt(b[i:])))
		}
		i = skipSpace(b, i+1)
	}
}

func (s *jsonScanner) end(b []byte, i int) error {
	if i = skipSpace(b, i); i < len(b) {
		return s.bad("", fmt.Errorf("there is more behind the object: %s", excerpt(b[i:])))
	}
	return nil
}

// member scans "key": value and stores the value's cell.
func (s *jsonScanner) member(b []byte, i, base int, row []cell) (int, error) {
	key, i, err := s.key(b, i)
	if err != nil {
		return 0, err
	}
	c, end, err := scanValue(b, i)
	if err != nil {
		return 0, s.bad(string(key), err)
	}
	if s.see != nil {
		if err := s.once(key); err != nil {
			return 0, err
		}
		return end, s.see(key, c, b)
	}
	col, known := s.column(key)
	if !known {
		return 0, rowError(s.path, s.row+1, string(key), "Declare the key under `columns:`, or make the first rows hold every key.",
			errors.New("the key was not among the rows from which the columns were inferred"))
	}
	if col < 0 {
		return end, nil
	}
	if s.seen[col] == s.stamp {
		return 0, s.bad(string(key), errors.New("the key stands twice in the object"))
	}
	s.seen[col] = s.stamp
	c.at += int32(base) //nolint:gosec // a chunk is below 2 GiB
	row[col] = c
	return end, nil
}

// key scans a key with its colon; the key is valid until the next call.
func (s *jsonScanner) key(b []byte, i int) (key []byte, next int, err error) {
	if i >= len(b) || b[i] != '"' {
		return nil, 0, s.bad("", fmt.Errorf("expected a key at byte %d, found %s", i+1, excerpt(b[min(i, len(b)):])))
	}
	c, next, err := scanString(b, i)
	if err != nil {
		return nil, 0, s.bad("", err)
	}
	key = b[c.at : c.at+c.n]
	if c.kind == cellEscaped {
		if s.scratch, err = appendUnescaped(s.scratch[:0], key); err != nil {
			return nil, 0, s.bad(string(key), err)
		}
		key = s.scratch
	}
	next = skipSpace(b, next)
	if next >= len(b) || b[next] != ':' {
		return nil, 0, s.bad(string(key), errors.New("expected a colon behind the key"))
	}
	return key, skipSpace(b, next+1), nil
}

// column finds a key; keys mostly come in the order of the columns.
func (s *jsonScanner) column(key []byte) (int, bool) {
	if s.next < len(s.columns) && string(key) == s.columns[s.next] {
		s.next++
		return s.next - 1, true
	}
	col, ok := s.lookup[string(key)]
	if ok && col >= 0 {
		s.next = col + 1
	}
	return col, ok
}

// once refuses a key that stands twice, while keys are learned.
func (s *jsonScanner) once(key []byte) error {
	if s.extra == nil {
		s.extra = make(map[string]bool)
	}
	if s.extra[string(key)] {
		return s.bad(string(key), errors.New("the key stands twice in the object"))
	}
	s.extra[string(key)] = true
	return nil
}

func (s *jsonScanner) bad(field string, err error) error {
	return rowError(s.path, s.row+1, field, "", err)
}

func (s *jsonScanner) notObject(b []byte) error {
	if b[0] == '[' {
		return s.bad("", errors.New("it begins with [: this is a JSON array, JSON Lines has one object a line"))
	}
	return s.bad("", fmt.Errorf("expected an object, found %s", excerpt(b)))
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}

// scanValue scans the value at i and returns where it ends.
func scanValue(b []byte, i int) (cell, int, error) {
	if i >= len(b) {
		return cell{}, 0, errors.New("the value is missing")
	}
	switch c := b[i]; {
	case c == '"':
		return scanString(b, i)
	case c == '{' || c == '[':
		return scanNested(b, i)
	case c == '-' || c-'0' <= 9:
		return scanNumber(b, i)
	case bytes.HasPrefix(b[i:], []byte("true")):
		return cell{at: int32(i), n: 4, kind: cellBool}, i + 4, nil //nolint:gosec // a chunk is below 2 GiB
	case bytes.HasPrefix(b[i:], []byte("false")):
		return cell{at: int32(i), n: 5, kind: cellBool}, i + 5, nil //nolint:gosec // a chunk is below 2 GiB
	case bytes.HasPrefix(b[i:], []byte("null")):
		return cell{at: int32(i), n: 4, kind: cellNull}, i + 4, nil //nolint:gosec // a chunk is below 2 GiB
	}
	return cell{}, 0, fmt.Errorf("expected a value, found %s", excerpt(b[i:]))
}

func scanString(b []byte, i int) (cell, int, error) {
	kind := cellString
	for j := i + 1; j < len(b); j++ {
		switch c := b[j]; {
		case c == '"':
			return cell{at: int32(i + 1), n: int32(j - i - 1), kind: kind}, j + 1, nil //nolint:gosec // a chunk is below 2 GiB
		case c == '\\':
			kind = cellEscaped
			j++
		case c < ' ':
			return cell{}, 0, fmt.Errorf("a text holds the control character %#x, which JSON wants escaped", c)
		}
	}
	return cell{}, 0, errors.New("a text is not closed on its line")
}

// scanNumber checks JSON's grammar of numbers.
func scanNumber(b []byte, i int) (cell, int, error) {
	j := i
	if b[j] == '-' {
		j++
	}
	whole := j
	j = skipDigits(b, j)
	if j == whole || (b[whole] == '0' && j > whole+1) {
		return cell{}, 0, fmt.Errorf("%s is not a JSON number", excerpt(b[i:]))
	}
	if j < len(b) && b[j] == '.' {
		from := j + 1
		if j = skipDigits(b, from); j == from {
			return cell{}, 0, fmt.Errorf("%s is not a JSON number", excerpt(b[i:]))
		}
	}
	if j < len(b) && (b[j] == 'e' || b[j] == 'E') {
		from := j + 1
		if from < len(b) && (b[from] == '+' || b[from] == '-') {
			from++
		}
		if j = skipDigits(b, from); j == from {
			return cell{}, 0, fmt.Errorf("%s is not a JSON number", excerpt(b[i:]))
		}
	}
	return cell{at: int32(i), n: int32(j - i), kind: cellNumber}, j, nil //nolint:gosec // a chunk is below 2 GiB
}

func skipDigits(b []byte, i int) int {
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	return i
}

// scanNested finds the end of an object or array and checks what is in it.
func scanNested(b []byte, i int) (cell, int, error) {
	depth, inText := 0, false
	for j := i; j < len(b); j++ {
		switch c := b[j]; {
		case inText && c == '\\':
			j++
		case c == '"':
			inText = !inText
		case inText:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth--; depth > 0 {
				continue
			}
			if v := b[i : j+1]; !json.Valid(v) {
				return cell{}, 0, fmt.Errorf("%s is not valid JSON", excerpt(v))
			}
			return cell{at: int32(i), n: int32(j + 1 - i), kind: cellRaw}, j + 1, nil //nolint:gosec // a chunk is below 2 GiB
		}
	}
	return cell{}, 0, errors.New("an object or array is not closed on its line")
}
