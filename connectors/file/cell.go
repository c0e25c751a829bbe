package file

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// cellKind says how the bytes of a cell are to be read.
type cellKind uint8

const (
	cellMissing cellKind = iota // JSON: no such key in this row
	cellNull                    // JSON: null
	cellPlain                   // CSV: unquoted
	cellQuoted                  // CSV: quoted, as it stands
	cellDoubled                 // CSV: quoted, with doubled quotes inside
	cellNumber                  // JSON
	cellBool                    // JSON
	cellString                  // JSON, as it stands
	cellEscaped                 // JSON string with escapes
	cellRaw                     // JSON object or array
)

// cell is where one value stands in the bytes of a table: without its quotes.
type cell struct {
	at, n int32
	kind  cellKind
}

// table is a batch of rows, cut into cells but not yet read. Its bytes belong to
// a chunk and are valid until the chunk is filled again.
type table struct {
	raw   []byte
	cells []cell // rows x width
	width int    // cells of a row: the columns that are read
	rows  int
}

// grow makes room for one more row and returns it, cleared.
func (t *table) grow() []cell {
	from := t.rows * t.width
	to := from + t.width
	if to > cap(t.cells) {
		grown := make([]cell, to, max(2*cap(t.cells), 64*t.width, to))
		copy(grown, t.cells[:from])
		t.cells = grown
	}
	t.cells = t.cells[:to]
	row := t.cells[from:to]
	clear(row)
	return row
}

var (
	errSurrogate = errors.New("it holds a lone surrogate, which is no character")
	errEscape    = errors.New("it holds an invalid escape")
)

// appendCell appends the text of a cell, without quotes and escapes.
func appendCell(dst, raw []byte, c cell, quote byte) ([]byte, error) {
	v := raw[c.at : c.at+c.n]
	switch c.kind {
	case cellDoubled:
		return appendUndoubled(dst, v, quote), nil
	case cellEscaped:
		return appendUnescaped(dst, v)
	default:
		return append(dst, v...), nil
	}
}

// appendRawCell appends the JSON text of a cell, quotes and escapes included.
func appendRawCell(dst, raw []byte, c cell) []byte {
	if c.kind == cellString || c.kind == cellEscaped {
		return append(dst, raw[c.at-1:c.at+c.n+1]...)
	}
	return append(dst, raw[c.at:c.at+c.n]...)
}

func appendUndoubled(dst, v []byte, quote byte) []byte {
	for {
		i := bytes.IndexByte(v, quote)
		if i < 0 {
			return append(dst, v...)
		}
		dst = append(dst, v[:i+1]...)
		v = v[i+2:]
	}
}

// appendUnescaped reads the escapes of a JSON string whose end was found already.
func appendUnescaped(dst, v []byte) ([]byte, error) {
	for {
		i := bytes.IndexByte(v, '\\')
		if i < 0 {
			return append(dst, v...), nil
		}
		dst = append(dst, v[:i]...)
		v = v[i:]
		if len(v) < 2 {
			return dst, errEscape
		}
		if plain := simpleEscapes[v[1]]; plain != 0 {
			dst = append(dst, plain)
			v = v[2:]
			continue
		}
		r, ok := unicodeEscape(v)
		if !ok {
			return dst, errEscape
		}
		v = v[6:]
		if r >= 0xD800 && r < 0xE000 {
			low, ok := unicodeEscape(v)
			if r >= 0xDC00 || !ok || low < 0xDC00 || low >= 0xE000 {
				return dst, errSurrogate
			}
			v = v[6:]
			r = 0x10000 + (r-0xD800)<<10 + (low - 0xDC00)
		}
		dst = utf8.AppendRune(dst, r)
	}
}

var simpleEscapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// unicodeEscape reads \uXXXX.
func unicodeEscape(v []byte) (rune, bool) {
	if len(v) < 6 || v[0] != '\\' || v[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range v[2:6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// dialect says how rows are cut into cells. It is part of a split, so that a
// continued load is read as it was planned.
type dialect struct {
	Delimiter byte     `json:"delimiter"`
	Quote     byte     `json:"quote"` // 0: none
	Header    bool     `json:"header"`
	Nulls     []string `json:"nulls,omitempty"`
}

// csvScanner cuts CSV rows. RFC 4180, with LF or CRLF, and what it leaves open
// decided so that no byte is lost: a quote inside an unquoted field is data, a
// text behind a closing quote is an error.
type csvScanner struct {
	dialect
	fields int   // of each row; 0 while the header is read
	dest   []int // cell of a row for each field; negative: not read
	path   string
	row    int64 // rows before the next one, in the file

	base   int // where the row being scanned stands in the table's bytes
	count  int // its fields
	dstRow []cell
	all    []cell // fields of the header
}

// next scans the row at the front of b. It returns the row's length, line end
// included, or 0 when b ends before the row does. A row ends at the end of the
// file, too.
func (s *csvScanner) next(b []byte, eof bool, t *table) (int, error) {
	s.count, s.all = 0, s.all[:0]
	if t != nil {
		s.dstRow = t.grow()
	}
	i := 0
	for {
		var last bool
		var err error
		if i < len(b) && s.Quote != 0 && b[i] == s.Quote {
			i, last, err = s.quoted(b, i, eof)
		} else {
			i, last = s.plain(b, i, eof)
		}
		if err != nil {
			return 0, err
		}
		if i < 0 {
			return 0, nil
		}
		if last {
			break
		}
	}
	return i, nil
}

// put keeps a field.
func (s *csvScanner) put(at, end int, kind cellKind) {
	c := cell{at: int32(s.base + at), n: int32(end - at), kind: kind} //nolint:gosec // a chunk is below 2 GiB
	if s.fields == 0 {
		s.all = append(s.all, c)
	} else if s.count < len(s.dest) && s.dest[s.count] >= 0 && s.dstRow != nil {
		s.dstRow[s.dest[s.count]] = c
	}
	s.count++
}

// plain scans an unquoted field; it returns where the next field begins, whether
// it was the last of the row, and -1 for the place when b is too short.
func (s *csvScanner) plain(b []byte, at int, eof bool) (next int, last bool) {
	delimiter := s.Delimiter
	for i := at; i < len(b); i++ {
		switch b[i] {
		case delimiter:
			s.put(at, i, cellPlain)
			return i + 1, false
		case '\n':
			end := i
			if end > at && b[end-1] == '\r' {
				end--
			}
			s.put(at, end, cellPlain)
			return i + 1, true
		}
	}
	if !eof {
		return -1, false
	}
	end := len(b)
	if end > at && b[end-1] == '\r' {
		end--
	}
	s.put(at, end, cellPlain)
	return len(b), true
}

// quoted scans a field that begins with a quote, like plain.
func (s *csvScanner) quoted(b []byte, at int, eof bool) (next int, last bool, err error) {
	kind, i := cellQuoted, at+1
	for {
		j := bytes.IndexByte(b[i:], s.Quote)
		if j < 0 {
			if eof {
				return 0, false, rowError(s.path, s.row+1, "", "", fmt.Errorf("the quote that opens field %d is never closed", s.count+1))
			}
			return -1, false, nil
		}
		i += j + 1
		if i == len(b) && !eof {
			return -1, false, nil
		}
		if i == len(b) || b[i] != s.Quote {
			break
		}
		kind = cellDoubled
		i++
	}
	s.put(at+1, i-1, kind)
	rest := b[i:]
	switch {
	case len(rest) == 0:
		return i, true, nil
	case rest[0] == s.Delimiter:
		return i + 1, false, nil
	case rest[0] == '\n':
		return i + 1, true, nil
	case rest[0] == '\r' && len(rest) == 1 && !eof:
		return -1, false, nil
	case rest[0] == '\r' && len(rest) == 1:
		return i + 1, true, nil
	case rest[0] == '\r' && rest[1] == '\n':
		return i + 2, true, nil
	}
	return 0, false, rowError(s.path, s.row+1, "", "", fmt.Errorf("field %d goes on behind its closing quote", s.count))
}

// isBlank reports whether the row just scanned is an empty line, which is no row
// unless rows have a single field.
func (s *csvScanner) isBlank(b []byte) bool {
	return s.count == 1 && s.fields > 1 && (b[0] == '\n' || b[0] == '\r')
}

// ragged is the error of a row with too few or too many fields.
func (s *csvScanner) ragged() error {
	return rowError(s.path, s.row+1, "", "", fmt.Errorf("the row has %d fields, the header has %d", s.count, s.fields))
}

var errUTF8 = errors.New("the row is not valid UTF-8")

// checkUTF8 refuses a row that is not UTF-8.
func checkUTF8(path string, row int64, b []byte) error {
	if utf8.Valid(b) {
		return nil
	}
	i := 0
	for i < len(b) {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n <= 1 {
			break
		}
		i += n
	}
	end := min(len(b), i+4, math.MaxInt32)
	return rowError(path, row, "", "Convert the file to UTF-8.", fmt.Errorf("%w: bytes %x at byte %d of the row", errUTF8, b[i:end], i+1))
}
