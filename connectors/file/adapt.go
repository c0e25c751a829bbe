package file

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"rapidbyte.io/node/messages"
)

// allocationMax bounds one allocation of a decoder: a damaged file can claim any
// size for a buffer.
const allocationMax = 512 << 20

// scratchBytes is the size up to which buffers are left to the garbage collector:
// the decoders of Parquet's delta encodings forget theirs, a few bytes per page.
const scratchBytes = 64

// capped refuses absurd allocations by a panic, which every decoder call recovers.
type capped struct{ memory.Allocator }

// of returns the allocator of a buffer of this size.
func (c capped) of(size int) memory.Allocator {
	checkAllocation(size)
	if size <= scratchBytes {
		return memory.DefaultAllocator
	}
	return c.Allocator
}

// Allocate implements memory.Allocator.
func (c capped) Allocate(size int) []byte { return c.of(size).Allocate(size) }

// Reallocate implements memory.Allocator.
func (c capped) Reallocate(size int, b []byte) []byte {
	if (size <= scratchBytes) == (len(b) <= scratchBytes) {
		return c.of(size).Reallocate(size, b)
	}
	grown := c.of(size).Allocate(size)
	copy(grown, b)
	c.Free(b)
	return grown
}

// Free implements memory.Allocator.
func (c capped) Free(b []byte) { c.of(len(b)).Free(b) }

func checkAllocation(size int) {
	if size < 0 || size > allocationMax {
		panic(fmt.Sprintf("it claims a buffer of %d bytes", size))
	}
}

// plainSchema is a file's schema as it is read: dictionaries of top-level columns
// are decoded.
func plainSchema(s *arrow.Schema) *arrow.Schema {
	fields := s.Fields()
	for i, f := range fields {
		if d, ok := f.Type.(*arrow.DictionaryType); ok {
			fields[i].Type = d.ValueType
		}
	}
	return arrow.NewSchema(fields, nil)
}

// adapt makes a batch of the stream's schema from the columns of a file, which it
// borrows: by name, with nulls for columns that the file lacks.
func adapt(path string, schema *arrow.Schema, names map[string]int, cols []arrow.Array, rows, before int64, mem memory.Allocator) (rec arrow.RecordBatch, err error) {
	out := make([]arrow.Array, 0, schema.NumFields())
	defer func() {
		for _, a := range out {
			a.Release()
		}
	}()
	for _, f := range schema.Fields() {
		i, ok := names[f.Name]
		if !ok {
			out = append(out, array.MakeArrayOfNull(mem, f.Type, int(rows)))
			continue
		}
		if err := checkColumn(path, f.Name, cols[i], before); err != nil {
			return nil, err
		}
		a, err := plain(cols[i], mem)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
		if !arrow.TypeEqual(a.DataType(), f.Type) {
			return nil, schemaError("read the file", messages.CodeSchemaType, messages.Place{File: path, Field: f.Name},
				fmt.Errorf("the column is %s, %s was planned", a.DataType(), f.Type))
		}
	}
	return array.NewRecordBatch(schema, out, rows), nil
}

// plain decodes a dictionary; the caller owns what it returns.
func plain(a arrow.Array, mem memory.Allocator) (arrow.Array, error) {
	d, ok := a.(*array.Dictionary)
	if !ok {
		a.Retain()
		return a, nil
	}
	ctx := compute.WithAllocator(context.Background(), mem)
	return compute.TakeArray(ctx, d.Dictionary(), d.Indices())
}

// checkColumn checks an array in full: the lengths and offsets of a damaged file can
// point anywhere, also behind what Arrow's own readers check.
func checkColumn(path, name string, a arrow.Array, before int64) error {
	err := array.ValidateFull(a)
	if err == nil {
		return nil
	}
	if s, ok := a.(*array.String); ok && validOffsets(s) {
		for i := range s.Len() {
			if s.IsValid(i) && !utf8.ValidString(s.Value(i)) {
				return rowError(path, before+int64(i)+1, name, "", errors.New("the text is not valid UTF-8"))
			}
		}
	}
	return fmt.Errorf("column %s: %w", name, err)
}

// validOffsets reports whether nothing but the text can be wrong with s.
func validOffsets(s *array.String) bool {
	d := s.Data()
	data := array.NewData(arrow.BinaryTypes.Binary, d.Len(), d.Buffers(), nil, d.NullN(), d.Offset())
	defer data.Release()
	b := array.NewBinaryData(data)
	defer b.Release()
	return array.ValidateFull(b) == nil
}
