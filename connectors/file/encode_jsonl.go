package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/extensions"
)

// jsonMetadata marks a text column whose values are JSON and stand unquoted.
var jsonMetadata = arrow.NewMetadata([]string{jsonMetaKey}, []string{jsonMetaValue})

const (
	jsonMetaKey   = "rapidbyte.type"
	jsonMetaValue = "json"
)

func isJSON(f arrow.Field) bool {
	v, ok := f.Metadata.GetValue(jsonMetaKey)
	return ok && v == jsonMetaValue
}

// jsonlEncoder writes one object a line, with every column, NULL as null.
type jsonlEncoder struct {
	w       io.Writer
	rows    *jsonRows
	scratch []byte
}

func newJSONLEncoder(w io.Writer, s *arrow.Schema) (*jsonlEncoder, error) {
	rows, err := newJSONRows(s)
	return &jsonlEncoder{w: w, rows: rows, scratch: make([]byte, 0, writeBuffer)}, err
}

func (e *jsonlEncoder) write(rec arrow.RecordBatch) (err error) {
	cols := e.rows.bind(rec)
	for row := range int(rec.NumRows()) {
		if e.scratch, err = e.rows.append(e.scratch, cols, row); err != nil {
			return err
		}
		e.scratch = append(e.scratch, '\n')
		if len(e.scratch) >= writeBuffer {
			if err := e.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *jsonlEncoder) flush() error {
	_, err := e.w.Write(e.scratch)
	e.scratch = e.scratch[:0]
	return err
}

func (e *jsonlEncoder) pending() int64 { return int64(len(e.scratch)) }

func (e *jsonlEncoder) close() error { return e.flush() }

// jsonRows writes rows of one schema as JSON objects.
type jsonRows struct {
	fields []arrow.Field
	keys   [][]byte // with punctuation: `{"a":`, `,"b":`
	values []jsonFunc
}

func newJSONRows(s *arrow.Schema) (*jsonRows, error) {
	r := &jsonRows{fields: s.Fields()}
	for i, f := range s.Fields() {
		value, err := jsonOf(f)
		if err != nil {
			return nil, err
		}
		r.values = append(r.values, value)
		key := []byte{','}
		if i == 0 {
			key[0] = '{'
		}
		key = appendJSONString(key, []byte(f.Name))
		r.keys = append(r.keys, append(key, ':'))
	}
	return r, nil
}

func (r *jsonRows) bind(rec arrow.RecordBatch) []boundText {
	cols := make([]boundText, rec.NumCols())
	for i, v := range r.values {
		cols[i] = v(rec.Column(i))
	}
	return cols
}

func (r *jsonRows) append(dst []byte, cols []boundText, row int) ([]byte, error) {
	var err error
	for i, col := range cols {
		dst = append(dst, r.keys[i]...)
		if dst, err = col(dst, row); err != nil {
			return dst, &valueError{row: row, field: r.fields[i].Name, err: err}
		}
	}
	if len(cols) == 0 {
		dst = append(dst, '{')
	}
	return append(dst, '}'), nil
}

// jsonFunc binds the writer of a column to an array of its type.
type jsonFunc func(arrow.Array) boundText

// jsonOf returns the writer of JSON values of a column, null included.
func jsonOf(f arrow.Field) (jsonFunc, error) {
	bare, err := jsonValueOf(f)
	if err != nil {
		return nil, err
	}
	return func(a arrow.Array) boundText {
		value := bare(a)
		return func(dst []byte, row int) ([]byte, error) {
			if a.IsNull(row) {
				return append(dst, "null"...), nil
			}
			return value(dst, row)
		}
	}, nil
}

func jsonValueOf(f arrow.Field) (jsonFunc, error) {
	switch dt := f.Type.(type) {
	case *arrow.StringType, *arrow.LargeStringType, *arrow.StringViewType:
		raw := isJSON(f)
		return func(a arrow.Array) boundText {
			s, _ := a.(array.StringLike)
			return func(dst []byte, row int) ([]byte, error) {
				if raw {
					return appendRawJSON(dst, []byte(s.Value(row)))
				}
				v := s.Value(row)
				if !utf8.ValidString(v) {
					return dst, errors.New("the text is not valid UTF-8")
				}
				return appendJSONString(dst, []byte(v)), nil
			}
		}, nil
	case *arrow.BooleanType, *arrow.Int8Type, *arrow.Int16Type, *arrow.Int32Type, *arrow.Int64Type,
		*arrow.Uint8Type, *arrow.Uint16Type, *arrow.Uint32Type, *arrow.Uint64Type:
		text, _, err := textOf(dt)
		return jsonFunc(text), err
	case *arrow.Float16Type, *arrow.Float32Type, *arrow.Float64Type:
		return finiteOf(dt)
	case *arrow.NullType:
		return func(arrow.Array) boundText {
			return func(dst []byte, _ int) ([]byte, error) { return append(dst, "null"...), nil }
		}, nil
	case arrow.ExtensionType: // before NestedType, which it implements
		if _, ok := dt.(*extensions.UUIDType); ok {
			break
		}
		value, err := jsonValueOf(arrow.Field{Type: dt.StorageType(), Metadata: f.Metadata})
		return func(a arrow.Array) boundText { return value(stored(a)) }, err
	case arrow.NestedType:
		return nestedOf(dt)
	case *arrow.DictionaryType:
		return dictionaryOf(arrow.Field{Type: dt.ValueType, Metadata: f.Metadata})
	}
	text, _, err := textOf(f.Type)
	if err != nil {
		return nil, err
	}
	return func(a arrow.Array) boundText {
		value := text(a)
		return func(dst []byte, row int) ([]byte, error) { // digits, letters, base64: nothing to escape
			dst, err := value(append(dst, '"'), row)
			return append(dst, '"'), err
		}
	}, nil
}

// appendRawJSON appends a JSON text as it is, on one line.
func appendRawJSON(dst, v []byte) ([]byte, error) {
	if !json.Valid(v) {
		return dst, errors.New("the column is declared as JSON, the value is not")
	}
	if bytes.IndexByte(v, '\n') < 0 && bytes.IndexByte(v, '\r') < 0 {
		return append(dst, v...), nil
	}
	var line bytes.Buffer
	if err := json.Compact(&line, v); err != nil {
		return dst, err
	}
	return append(dst, line.Bytes()...), nil
}

const hexDigits = "0123456789abcdef"

// appendJSONString appends valid UTF-8 as a JSON string, escaping what must be.
func appendJSONString(dst, v []byte) []byte {
	dst = append(dst, '"')
	from := 0
	for i, c := range v {
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, v[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, `\u00`...)
			dst = append(dst, hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(append(dst, v[from:]...), '"')
}
