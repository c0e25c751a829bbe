package file

import (
	"bufio"
	"bytes"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
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
	stream *ipc.Reader
}

const arrowReadBuffer = 256 << 10

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
	return plainSchema(r.stream.Schema()), 0, nil
}

// openArrow reads both formats as a stream: the file format is one, with a footer
// that counts its batches.
func openArrow(path string, in *input, mem memory.Allocator) (r *arrowReader, err error) {
	defer recovered(&err)
	r = &arrowReader{path: path, mem: capped{mem}, names: make(map[string]int)}
	f := &frames{want: -1, left: -1}
	if in.unzip == nil {
		section, err := in.readerAt(path)
		if err != nil {
			return nil, err
		}
		f.left = section.Size()
		if hasPrefix(section, magicArrow) {
			if f.want, f.left, err = footer(section); err != nil {
				return nil, err
			}
			section = io.NewSectionReader(section, int64(len(magicArrow)), f.left)
		}
		f.r = bufio.NewReaderSize(section, arrowReadBuffer)
	} else {
		f.r = bufio.NewReaderSize(in.r, arrowReadBuffer)
		if head, err := f.r.Peek(len(magicArrow)); err == nil && bytes.Equal(head, magicArrow) {
			if _, err := f.r.Discard(len(magicArrow)); err != nil {
				return nil, err
			}
		}
	}
	opts := []ipc.Option{ipc.WithAllocator(r.mem), ipc.WithBodySizeLimit(allocationMax), ipc.WithMetadataSizeLimit(frameMetaMax)}
	if r.stream, err = ipc.NewReaderFromMessageReader(ipc.NewMessageReader(f, opts...), opts...); err != nil {
		return nil, err
	}
	for i, f := range r.stream.Schema().Fields() {
		r.names[f.Name] = i
	}
	return r, nil
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
		if rows := rec.NumRows(); rows <= r.skip {
			r.skip -= rows
			r.rows += rows
			rec.Release()
			continue
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
	out, err = adapt(r.path, r.schema, r.names, rec.Columns(), rec.NumRows(), r.rows, r.mem)
	if err != nil || r.skip == 0 {
		return out, err
	}
	defer out.Release()
	rest := out.NewSlice(r.skip, out.NumRows())
	r.rows, r.skip = r.rows+r.skip, 0
	return rest, nil
}

// read returns the next batch of the file, unchecked.
func (r *arrowReader) read() (rec arrow.RecordBatch, err error) {
	defer recovered(&err)
	if rec, err = r.stream.Read(); err != nil {
		return nil, err
	}
	rec.Retain()
	return rec, nil
}

func (r *arrowReader) close() {
	var err error
	defer recovered(&err) // a damaged reader may not even close
	r.stream.Release()
}
