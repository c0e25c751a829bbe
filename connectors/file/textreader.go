package file

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// textReader reads CSV and JSON Lines: a batch of rows is cut into cells, then
// read column by column.
type textReader struct {
	split  split
	schema *arrow.Schema
	limits connectors.Limits
	in     *input
	chunk  *chunk
	csv    *csvScanner  // or nil
	json   *jsonScanner // or nil
	cols   []*column
	table  table
	fixed  int64 // Arrow bytes of a row without its texts
	rows   int64 // of the file, read so far
	held   error // found behind the batch that was returned last
}

func newTextReader(s split, schema *arrow.Schema, in *input, limits connectors.Limits, mem memory.Allocator) (*textReader, error) {
	r := &textReader{split: s, schema: schema, limits: limits, in: in, chunk: newChunk(in.r, limits.RowBytes)}
	if err := r.begin(); err != nil {
		return nil, err
	}
	var err error
	if s.Format == FormatCSV {
		err = r.beginCSV(mem)
	} else {
		r.beginJSON(mem)
	}
	for _, c := range r.cols {
		r.fixed += c.width()
	}
	return r, err
}

// begin fills the first chunk and skips a byte order mark.
func (r *textReader) begin() error {
	for len(r.chunk.bytes()) < len(byteOrder) && !r.chunk.eof {
		if err := r.fill(); err != nil {
			return err
		}
	}
	if bytes.HasPrefix(r.chunk.bytes(), byteOrder) {
		r.chunk.consume(len(byteOrder))
	}
	return nil
}

// fill classifies the errors of the chunk.
func (r *textReader) fill() error {
	err := r.chunk.fill()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errRowTooLarge):
		return rowTooLarge(r.split.Path, r.rows+1, r.limits.RowBytes)
	case r.in.unzip != nil:
		return damaged(r.split.Path, r.rows, err)
	default:
		return sourceError("read the file", r.split.Path, err)
	}
}

func (r *textReader) beginCSV(mem memory.Allocator) error {
	header, err := readHeader(r.split.Path, *r.split.CSV, r.chunk, r.fill)
	if err != nil {
		return err
	}
	r.csv = &csvScanner{dialect: *r.split.CSV, fields: len(header), path: r.split.Path, dest: make([]int, len(header))}
	for i, name := range header {
		r.csv.dest[i] = -1
		if r.schema.HasField(name) {
			r.csv.dest[i] = r.table.width
			r.table.width++
		}
	}
	var nulls map[string]bool
	for _, v := range r.split.CSV.Nulls {
		if nulls == nil {
			nulls = make(map[string]bool)
		}
		nulls[v] = true
	}
	r.addColumns(mem, func(c *column) {
		c.quote, c.nulls = r.split.CSV.Quote, nulls
		if i := slices.Index(header, c.name); i >= 0 {
			c.slot = r.csv.dest[i]
		}
	})
	return nil
}

func (r *textReader) beginJSON(mem memory.Allocator) {
	names := make([]string, r.schema.NumFields())
	for i, f := range r.schema.Fields() {
		names[i] = f.Name
	}
	r.json = newJSONScanner(r.split.Path, names, r.split.Skipped)
	r.table.width = len(names)
	r.addColumns(mem, func(c *column) { c.slot = slices.Index(names, c.name) })
}

func (r *textReader) addColumns(mem memory.Allocator, place func(*column)) {
	for _, f := range r.schema.Fields() {
		t, ok := typeOf(f)
		if !ok {
			panic("file: a text column of type " + f.Type.String())
		}
		c := &column{columnType: t, name: f.Name, slot: -1, declared: slices.Contains(r.split.Declared, f.Name), mem: mem}
		place(c)
		r.cols = append(r.cols, c)
	}
}

// seek goes on behind rows rows. offset is where they end in the file, or
// negative when only the count is known.
func (r *textReader) seek(rows, offset int64) error {
	if offset >= 0 && r.in.unzip == nil && rows > 0 {
		if _, err := r.in.raw.Seek(offset, io.SeekStart); err != nil {
			return sourceError("read the file", r.split.Path, err)
		}
		r.chunk = newChunk(r.in.raw, r.limits.RowBytes)
		r.chunk.offset, r.rows = offset, rows
		return nil
	}
	for r.rows < rows {
		r.table.rows = 0
		n, err := r.scan()
		if err != nil {
			return err
		}
		if n == 0 {
			if r.chunk.eof {
				return changed(r.split.Path, errors.New("it has fewer rows than were read from it"))
			}
			if err := r.fill(); err != nil {
				return err
			}
			continue
		}
		r.chunk.consume(n)
		r.rows += int64(r.table.rows)
	}
	return nil
}

// next returns the next batch, which the caller owns, or io.EOF.
func (r *textReader) next() (arrow.RecordBatch, error) {
	if r.held != nil {
		return nil, r.held
	}
	if r.chunk.low() {
		// an error is met again when what is there has been used
		if err := r.fill(); err != nil && len(r.chunk.bytes()) == 0 {
			return nil, err
		}
	}
	for {
		r.table.rows = 0
		r.table.raw = r.chunk.bytes()
		used := r.cut()
		if r.table.rows > 0 {
			rec, err := r.build()
			r.chunk.consume(used)
			return rec, err
		}
		if r.held != nil {
			return nil, r.held
		}
		r.chunk.consume(used)
		if used > 0 {
			continue // blank lines
		}
		if r.chunk.eof {
			return nil, r.atEnd()
		}
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
}

// cut scans rows until a limit or the end of the chunk. It returns the bytes it
// has used; what is wrong with the row behind them is held.
func (r *textReader) cut() (used int) {
	var size int64 // Arrow bytes of the batch, at most
	for int64(r.table.rows) < r.limits.BatchRows {
		before := r.table.rows
		n, err := r.scanAt(used)
		if err != nil {
			r.table.rows, r.held = before, err
		}
		if n == 0 {
			break
		}
		if r.table.rows > before {
			if size += r.fixed + int64(n); before > 0 && size > r.limits.BatchBytes {
				r.table.rows = before
				break
			}
		}
		used += n
	}
	r.table.cells = r.table.cells[:r.table.rows*r.table.width]
	return used
}

// scan scans one row at the front of the chunk.
func (r *textReader) scan() (int, error) {
	r.table.raw = r.chunk.bytes()
	return r.scanAt(0)
}

// scanAt scans the row at an offset of the table's bytes and returns its length, 0
// when its end is not there yet. A blank line has a length, but is no row.
func (r *textReader) scanAt(at int) (n int, err error) {
	b := r.table.raw[at:]
	row := r.rows + int64(r.table.rows)
	var isRow bool
	if r.csv != nil {
		n, isRow, err = r.scanCSV(b, at, row)
	} else {
		n, isRow, err = r.scanJSON(b, at, row)
	}
	if err != nil || n == 0 {
		return 0, err
	}
	if isRow {
		if r.limits.RowBytes > 0 && int64(n-1) > r.limits.RowBytes {
			return 0, rowTooLarge(r.split.Path, row+1, r.limits.RowBytes)
		}
		if !r.chunk.ascii {
			if err := checkUTF8(r.split.Path, row+1, b[:n]); err != nil {
				return 0, err
			}
		}
		r.table.rows++
	}
	return n, nil
}

func (r *textReader) scanCSV(b []byte, at int, row int64) (n int, isRow bool, err error) {
	if len(b) == 0 {
		return 0, false, nil
	}
	r.csv.row, r.csv.base = row, at
	n, err = r.csv.next(b, r.chunk.eof, &r.table)
	if err != nil || n == 0 {
		return 0, false, err
	}
	if r.csv.count != r.csv.fields {
		if r.csv.isBlank(b) {
			return n, false, nil
		}
		return 0, false, r.csv.ragged()
	}
	return n, true, nil
}

func (r *textReader) scanJSON(b []byte, at int, row int64) (n int, isRow bool, err error) {
	end := bytes.IndexByte(b, '\n')
	switch {
	case end >= 0:
		n = end + 1
	case r.chunk.eof && len(b) > 0:
		end, n = len(b), len(b)
	default:
		return 0, false, nil
	}
	r.json.row = row
	isRow, err = r.json.line(b[:end], at, r.table.grow())
	return n, isRow, err
}

// build reads the columns. A value that does not fit ends the batch before its
// row; the error is held until that batch is out.
func (r *textReader) build() (arrow.RecordBatch, error) {
	arrs := make([]arrow.Array, 0, len(r.cols))
	release := func() {
		for _, a := range arrs {
			a.Release()
		}
		arrs = arrs[:0]
	}
	for i := 0; i < len(r.cols); i++ {
		a, bad := r.cols[i].read(&r.table)
		if bad == nil {
			arrs = append(arrs, a)
			continue
		}
		release()
		r.held = rowError(r.split.Path, r.rows+int64(bad.row)+1, bad.field,
			"Mend the value, or declare the column: `columns: {"+bad.field+": text}`.", bad.err)
		if bad.row == 0 {
			return nil, r.held
		}
		r.table.rows = bad.row
		r.table.cells = r.table.cells[:bad.row*r.table.width]
		i = -1 // all columns again, with fewer rows
	}
	defer release()
	r.rows += int64(r.table.rows)
	return array.NewRecordBatch(r.schema, arrs, int64(r.table.rows)), nil
}

// atEnd is io.EOF, if the file is as long as it was.
func (r *textReader) atEnd() error {
	if r.in.unzip == nil && r.chunk.offset != r.split.Size {
		return changed(r.split.Path, errors.New("its length changed while it was read"))
	}
	return io.EOF
}

// position returns where the batch that next returned last ends.
func (r *textReader) position() messages.Cursor {
	if r.in.unzip != nil || r.held != nil {
		return messages.Int64Cursor(r.rows)
	}
	return messages.TupleCursor(messages.Int64Cursor(r.rows), messages.Int64Cursor(r.chunk.offset))
}

// readHeader returns the names of a file's columns and consumes them; a file
// without any row has none.
func readHeader(path string, d dialect, c *chunk, fill func() error) ([]string, error) {
	s := csvScanner{dialect: d, path: path, row: -1}
	for {
		b := c.bytes()
		if len(b) == 0 && c.eof {
			return nil, nil
		}
		n := 0
		if len(b) > 0 {
			var err error
			if n, err = s.next(b, c.eof, nil); err != nil {
				return nil, err
			}
		}
		if n == 0 {
			if err := fill(); err != nil {
				return nil, err
			}
			continue
		}
		if len(s.all) == 1 && s.all[0].n == 0 && s.all[0].kind == cellPlain && d.Header {
			c.consume(n) // blank lines before the header
			continue
		}
		names, err := s.names(b[:n])
		if err == nil && d.Header {
			c.consume(n)
		}
		return names, err
	}
}

// names reads the fields of the header, or makes names when there is none.
func (s *csvScanner) names(b []byte) ([]string, error) {
	names := make([]string, len(s.all))
	if err := checkUTF8(s.path, 0, b); err != nil {
		return nil, err
	}
	for i, c := range s.all {
		if !s.Header {
			names[i] = columnName(i)
			continue
		}
		v, err := appendCell(nil, b, c, s.Quote)
		if err != nil {
			return nil, err
		}
		names[i] = string(v)
	}
	return names, checkNames(s.path, names)
}

// close implements batches; the bytes of the table belong to the chunk.
func (r *textReader) close() {}
