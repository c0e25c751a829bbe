package file

import (
	"bytes"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
)

// csvEncoder writes RFC 4180 with a header and LF. NULL is an unquoted empty field
// and the empty string a quoted one, so that the source, given null_values [""],
// reads back what was written.
type csvEncoder struct {
	w       io.Writer
	schema  *arrow.Schema
	texts   []textFunc
	quoted  []bool // columns whose values may need quotes
	scratch []byte
}

func newCSVEncoder(w io.Writer, s *arrow.Schema) (*csvEncoder, error) {
	e := &csvEncoder{w: w, schema: s, scratch: make([]byte, 0, writeBuffer)}
	for i, f := range s.Fields() {
		text, quoted, err := textOf(f.Type)
		if err != nil {
			return nil, err
		}
		e.texts, e.quoted = append(e.texts, text), append(e.quoted, quoted)
		if i > 0 {
			e.scratch = append(e.scratch, ',')
		}
		e.scratch = appendQuoted(e.scratch, []byte(f.Name))
	}
	e.scratch = append(e.scratch, '\n')
	return e, nil
}

func (e *csvEncoder) write(rec arrow.RecordBatch) error {
	cols := make([]boundText, rec.NumCols())
	for i, text := range e.texts {
		cols[i] = text(rec.Column(i))
	}
	var err error
	var cell []byte
	for row := range int(rec.NumRows()) {
		for i, col := range cols {
			if i > 0 {
				e.scratch = append(e.scratch, ',')
			}
			if rec.Column(i).IsNull(row) {
				continue
			}
			if !e.quoted[i] {
				if e.scratch, err = col(e.scratch, row); err != nil {
					return &valueError{row: row, field: e.schema.Field(i).Name, err: err}
				}
				continue
			}
			if cell, err = col(cell[:0], row); err != nil {
				return &valueError{row: row, field: e.schema.Field(i).Name, err: err}
			}
			e.scratch = appendQuoted(e.scratch, cell)
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

func (e *csvEncoder) flush() error {
	_, err := e.w.Write(e.scratch)
	e.scratch = e.scratch[:0]
	return err
}

func (e *csvEncoder) pending() int64 { return int64(len(e.scratch)) }

func (e *csvEncoder) close() error { return e.flush() }

// appendQuoted appends a text field, quoted where it must be: when it is empty,
// holds a delimiter, quote or line end, or has spaces at an end that other readers
// trim.
func appendQuoted(dst, v []byte) []byte {
	if len(v) > 0 && bytes.IndexByte(v, ',') < 0 && bytes.IndexByte(v, '"') < 0 && bytes.IndexByte(v, '\n') < 0 &&
		bytes.IndexByte(v, '\r') < 0 && v[0] > ' ' && v[len(v)-1] > ' ' {
		return append(dst, v...)
	}
	dst = append(dst, '"')
	for {
		i := bytes.IndexByte(v, '"')
		if i < 0 {
			break
		}
		dst = append(append(dst, v[:i+1]...), '"')
		v = v[i+1:]
	}
	return append(append(dst, v...), '"')
}
