package file

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

const (
	pageBytesMax       = 64 << 20  // compressed
	pageUnpackedMax    = 256 << 20 // decompressed
	footerBytesMax     = 256 << 20
	firstBatchRows     = 256 // until the width of a row is known
	parquetReadBuffer  = 256 << 10
	parquetFooterBytes = 8
)

// parquetReader reads a row group at a time, in batches whose size follows the
// width of the rows seen so far.
type parquetReader struct {
	path    string
	schema  *arrow.Schema
	section *io.SectionReader
	file    *file.Reader
	arrow   *pqarrow.FileReader
	leaves  []int // that are read
	limits  connectors.Limits
	mem     memory.Allocator

	group   int // next row group
	readers []*pqarrow.ColumnReader
	names   map[string]int // of the readers
	left    int64          // rows of the open row group
	skip    int64          // rows that are committed already
	rows    int64          // of the file, read or skipped
	step    int64          // rows of the next batch
}

func openParquet(path string, in *input) (r *file.Reader, section *io.SectionReader, err error) {
	defer recovered(&err)
	if section, err = in.readerAt(path); err != nil {
		return nil, nil, err
	}
	if err := checkFooter(section); err != nil {
		return nil, nil, err
	}
	props := parquet.NewReaderProperties(capped{memory.DefaultAllocator})
	props.BufferedStreamEnabled, props.BufferSize = true, parquetReadBuffer
	props.MaxCompressedPageSize, props.MaxUncompressedPageSize = pageBytesMax, pageUnpackedMax
	r, err = file.NewParquetReader(section, file.WithReadProps(props))
	if err != nil {
		return nil, nil, err
	}
	if err := checkStoredSchema(r.MetaData().KeyValueMetadata()); err != nil {
		return nil, nil, err
	}
	var sum int64
	for i := range r.NumRowGroups() {
		n := r.MetaData().RowGroup(i).NumRows()
		if n < 0 {
			return nil, nil, fmt.Errorf("row group %d says that it has %d rows", i, n)
		}
		sum += n
	}
	if sum != r.NumRows() {
		return nil, nil, fmt.Errorf("its row groups have %d rows, the file says %d", sum, r.NumRows())
	}
	return r, section, nil
}

// checkStoredSchema checks the Arrow schema that a writer has left in the file,
// before the library decodes it.
func checkStoredSchema(kv metadata.KeyValueMetadata) error {
	v := kv.FindValue("ARROW:schema")
	if v == nil {
		return nil
	}
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(*v, "="))
	if err != nil {
		return fmt.Errorf("its stored schema: %w", err)
	}
	f := &frames{r: bufio.NewReader(bytes.NewReader(b)), left: int64(len(b)), want: -1}
	if err := f.next(); err != nil {
		return fmt.Errorf("its stored schema: %w", err)
	}
	return nil
}

// checkFooter refuses a footer that cannot be one before anything is allocated
// for it.
func checkFooter(r *io.SectionReader) error {
	if !hasPrefix(r, magicParquet) && !hasPrefix(r, []byte("PARE")) {
		return errNoMagic
	}
	b := make([]byte, parquetFooterBytes)
	if r.Size() < int64(len(b)) {
		return errors.New("it is too short")
	}
	if _, err := r.ReadAt(b, r.Size()-int64(len(b))); err != nil {
		return err
	}
	if size := int64(b[0]) | int64(b[1])<<8 | int64(b[2])<<16 | int64(b[3])<<24; size > min(footerBytesMax, r.Size()) {
		return fmt.Errorf("its footer says that it has %d bytes", size)
	}
	return nil
}

// parquetSchema returns the schema of a file and how many rows it has.
func parquetSchema(path string, in *input) (s *arrow.Schema, rows int64, err error) {
	r, _, err := openParquet(path, in)
	if err == nil {
		s, err = parquetArrowSchema(r)
	}
	if err != nil && strings.Contains(err.Error(), "invalid logical type") {
		return nil, 0, refused("read the schema", messages.CodeNotAvailable, messages.Place{File: path}, "Write the file without that type.",
			errors.New("a column has a logical type that this version does not know"))
	}
	if err != nil {
		return nil, 0, asDamaged(path, 0, err)
	}
	return s, r.NumRows(), nil
}

func parquetArrowSchema(r *file.Reader) (s *arrow.Schema, err error) {
	defer recovered(&err)
	s, err = pqarrow.FromParquet(r.MetaData().Schema, &pqarrow.ArrowReadProperties{}, r.MetaData().KeyValueMetadata())
	if err != nil {
		return nil, fmt.Errorf("its schema: %w", err)
	}
	return plainSchema(s), nil
}

// asDamaged keeps an error that says what to do and calls any other one damage.
func asDamaged(path string, rows int64, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*connectors.Error](err); ok {
		return err
	}
	return damaged(path, rows, err)
}

func newParquetReader(s split, schema *arrow.Schema, in *input, skip int64, limits connectors.Limits, mem memory.Allocator) (*parquetReader, error) {
	f, section, err := openParquet(s.Path, in)
	if err != nil {
		return nil, asDamaged(s.Path, 0, err)
	}
	r := &parquetReader{
		path: s.Path, schema: schema, section: section, file: f, limits: limits, mem: capped{mem}, skip: skip,
		step: min(firstBatchRows, limits.BatchRows), names: make(map[string]int),
	}
	if err := r.start(); err != nil {
		return nil, asDamaged(s.Path, 0, err)
	}
	return r, nil
}

// start picks the leaves of the planned columns and goes to the row group of the
// first row that is wanted.
func (r *parquetReader) start() (err error) {
	defer recovered(&err)
	if r.arrow, err = pqarrow.NewFileReader(r.file, pqarrow.ArrowReadProperties{}, r.mem); err != nil {
		return err
	}
	ps := r.file.MetaData().Schema
	for leaf := range ps.NumColumns() {
		root := ps.ColumnRoot(leaf)
		if r.schema.HasField(root.Name()) {
			r.leaves = append(r.leaves, leaf)
		}
	}
	for r.group < r.file.NumRowGroups() {
		n := r.file.MetaData().RowGroup(r.group).NumRows()
		if r.rows+n > r.skip {
			break
		}
		r.rows += n
		r.group++
	}
	r.skip -= r.rows
	return nil
}

// next implements batches.
func (r *parquetReader) next() (rec arrow.RecordBatch, err error) {
	for {
		if r.left == 0 {
			if err := r.openGroup(); err != nil {
				if errors.Is(err, io.EOF) {
					return nil, err
				}
				return nil, asDamaged(r.path, r.rows, err)
			}
			continue
		}
		n := min(r.step, r.left)
		if r.skip > 0 {
			n = min(n, r.skip)
		}
		rec, err := r.batch(n)
		if err != nil {
			return nil, asDamaged(r.path, r.rows, err)
		}
		r.left -= n
		r.rows += n
		if r.skip > 0 {
			r.skip -= n
			rec.Release()
			continue
		}
		r.learn(rec)
		return rec, nil
	}
}

// openGroup opens the next row group that has rows; io.EOF behind the last one.
func (r *parquetReader) openGroup() (err error) {
	defer recovered(&err)
	r.closeGroup()
	if r.group >= r.file.NumRowGroups() {
		return io.EOF
	}
	group := r.group
	r.group++
	if r.left = r.file.MetaData().RowGroup(group).NumRows(); r.left == 0 || len(r.leaves) == 0 {
		return nil
	}
	if err := r.checkGroup(group); err != nil {
		return err
	}
	readers, schema, err := r.arrow.GetFieldReaders(context.Background(), r.leaves, []int{group})
	if err != nil {
		return err
	}
	r.readers = readers
	for i, f := range schema.Fields() {
		r.names[f.Name] = i
	}
	return nil
}

// checkGroup looks at each column chunk first. The Arrow reader opens the leaves of
// a struct on goroutines of its own, where a panic over a malformed chunk could not
// be recovered; here it can.
func (r *parquetReader) checkGroup(group int) error {
	rg := r.file.RowGroup(group)
	for _, leaf := range r.leaves {
		chunk, err := rg.MetaData().ColumnChunk(leaf)
		if err != nil {
			return err
		}
		pages, err := rg.GetColumnPageReader(leaf)
		if err != nil {
			return err
		}
		if err := pages.Close(); err != nil {
			return err
		}
		if err := checkPages(r.section, chunk); err != nil {
			return fmt.Errorf("row group %d, column %s: %w", group, chunk.PathInSchema(), err)
		}
	}
	return nil
}

func (r *parquetReader) batch(n int64) (rec arrow.RecordBatch, err error) {
	defer recovered(&err)
	cols := make([]arrow.Array, 0, len(r.readers))
	defer func() {
		for _, a := range cols {
			a.Release()
		}
	}()
	for i, reader := range r.readers {
		chunks, err := reader.NextBatch(n)
		if err != nil {
			return nil, fmt.Errorf("column %d: %w", i+1, err)
		}
		a, err := single(chunks, r.mem)
		chunks.Release()
		if err != nil {
			return nil, err
		}
		cols = append(cols, a)
		if int64(a.Len()) != n {
			return nil, fmt.Errorf("column %d ends after %d of %d rows of its row group", i+1, r.rows+int64(a.Len()), r.rows+r.left)
		}
	}
	return adapt(r.path, r.schema, r.names, cols, n, r.rows, r.mem)
}

// single makes one array of several; the caller owns it.
func single(c *arrow.Chunked, mem memory.Allocator) (arrow.Array, error) {
	switch len(c.Chunks()) {
	case 0:
		return array.MakeArrayOfNull(mem, c.DataType(), 0), nil
	case 1:
		c.Chunk(0).Retain()
		return c.Chunk(0), nil
	}
	return array.Concatenate(c.Chunks(), mem)
}

// learn sets the size of the next batch from this one: it may hold at most twice as
// many rows, and about as many bytes as a batch should have.
func (r *parquetReader) learn(rec arrow.RecordBatch) {
	size := max(1, sizeOf(rec, 0, rec.NumRows()))
	r.step = max(1, min(r.limits.BatchRows, 2*rec.NumRows(), r.limits.BatchBytes*rec.NumRows()/size))
}

func (r *parquetReader) closeGroup() {
	for _, reader := range r.readers {
		if reader != nil {
			reader.Release()
		}
	}
	r.readers = nil
}

func (r *parquetReader) close() {
	var err error
	defer recovered(&err) // a damaged reader may not even close
	r.closeGroup()
}
