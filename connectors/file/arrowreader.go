package file

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// arrowReader reads the IPC file and stream formats, a record batch at a time.
type arrowReader struct {
	path   string
	schema *arrow.Schema
	names  map[string]int
	mem    memory.Allocator
	skip   int64
	rows   int64 // of the file, read or skipped

	file   *ipc.FileReader // or nil
	batch  int             // next one of file
	stream *ipc.Reader     // or nil
}

func newArrowReader(s split, schema *arrow.Schema, in *input, skip int64, mem memory.Allocator) (*arrowReader, error) {
	r, err := openArrow(s.Path, in, mem)
	if err != nil {
		return nil, asDamaged(s.Path, 0, err)
	}
	r.schema, r.skip = schema, skip
	return r, nil
}

// arrowSchema returns the schema of a file; how many rows it has is not known
// before they are read.
func arrowSchema(path string, in *input) (*arrow.Schema, int64, error) {
	r, err := openArrow(path, in, memory.DefaultAllocator)
	if err != nil {
		return nil, 0, asDamaged(path, 0, err)
	}
	defer r.close()
	return plainSchema(r.fileSchema()), 0, nil
}

// openArrow tells the two formats apart by their first bytes. The file format holds
// the stream format, so a compressed file is read as a stream.
func openArrow(path string, in *input, mem memory.Allocator) (r *arrowReader, err error) {
	defer recovered(&err)
	r = &arrowReader{path: path, mem: capped{mem}, names: make(map[string]int)}
	opts := []ipc.Option{ipc.WithAllocator(r.mem)}
	if in.unzip == nil && hasPrefix(in.disk, magicArrow) {
		section, err := in.readerAt(path)
		if err != nil {
			return nil, err
		}
		if r.file, err = ipc.NewFileReader(section, opts...); err != nil {
			return nil, err
		}
	} else {
		b := bufio.NewReaderSize(in.r, chunkBytes)
		head, err := b.Peek(len(magicArrow))
		if err != nil {
			return nil, fmt.Errorf("its first bytes: %w", err)
		}
		if bytes.Equal(head, magicArrow) {
			if _, err := b.Discard(len(magicArrow)); err != nil {
				return nil, err
			}
		}
		ended := &endedReader{MessageReader: ipc.NewMessageReader(b, opts...)}
		if r.stream, err = ipc.NewReaderFromMessageReader(ended, opts...); err != nil {
			return nil, err
		}
	}
	for i, f := range r.fileSchema().Fields() {
		r.names[f.Name] = i
	}
	return r, nil
}

// endedReader tells a stream that ends from one that is cut off between two
// messages: the first has an end marker.
type endedReader struct{ ipc.MessageReader }

// Message implements ipc.MessageReader.
func (e *endedReader) Message() (*ipc.Message, error) {
	m, err := e.MessageReader.Message()
	if err == io.EOF { //nolint:errorlint // bare: the end marker was read; wrapped: the file ended
		return nil, io.EOF
	}
	if errors.Is(err, io.EOF) {
		return nil, errors.New("it ends without the end marker of a stream")
	}
	return m, err
}

func (r *arrowReader) fileSchema() *arrow.Schema {
	if r.file != nil {
		return r.file.Schema()
	}
	return r.stream.Schema()
}

// next implements batches.
func (r *arrowReader) next() (arrow.RecordBatch, error) {
	for {
		rec, err := r.read()
		if err == io.EOF { //nolint:errorlint // a wrapped one is a file that is too short
			return nil, io.EOF
		}
		if err != nil {
			return nil, asDamaged(r.path, r.rows, err)
		}
		rows := rec.NumRows()
		if rows <= r.skip {
			r.skip -= rows
			r.rows += rows
			rec.Release()
			continue
		}
		if r.skip > 0 {
			part := rec.NewSlice(r.skip, rows)
			rec.Release()
			r.rows, r.skip, rec = r.rows+r.skip, 0, part
		}
		out, err := r.adapt(rec)
		rec.Release()
		if err != nil {
			return nil, asDamaged(r.path, r.rows, err)
		}
		r.rows += out.NumRows()
		return out, nil
	}
}

func (r *arrowReader) adapt(rec arrow.RecordBatch) (out arrow.RecordBatch, err error) {
	defer recovered(&err)
	return adapt(r.path, r.schema, r.names, rec.Columns(), rec.NumRows(), r.rows, r.mem)
}

// read returns the next batch of the file, checked in full: lengths and offsets of
// a damaged one can point anywhere.
func (r *arrowReader) read() (rec arrow.RecordBatch, err error) {
	defer recovered(&err)
	if r.file != nil {
		if r.batch >= r.file.NumRecords() {
			return nil, io.EOF
		}
		rec, err = r.file.RecordBatchAt(r.batch)
		r.batch++
	} else if rec, err = r.stream.Read(); err == nil {
		rec.Retain()
	}
	if err != nil {
		return nil, err
	}
	if err := array.ValidateRecordFull(rec); err != nil {
		rec.Release()
		return nil, err
	}
	return rec, nil
}

func (r *arrowReader) close() {
	var err error
	defer recovered(&err) // a damaged reader may not even close
	if r.file != nil {
		err = r.file.Close()
	}
	if r.stream != nil {
		r.stream.Release()
	}
	_ = err // nothing was written
}
