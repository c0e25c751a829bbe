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

// capped refuses absurd allocations by a panic, which every decoder call recovers.
type capped struct{ memory.Allocator }

func (c capped) Allocate(size int) []byte {
	checkAllocation(size)
	return c.Allocator.Allocate(size)
}

func (c capped) Reallocate(size int, b []byte) []byte {
	checkAllocation(size)
	return c.Allocator.Reallocate(size, b)
}

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
		a, err := plain(cols[i], mem)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
		if !arrow.TypeEqual(a.DataType(), f.Type) {
			return nil, schemaError("read the file", messages.CodeSchemaType, messages.Place{File: path, Field: f.Name},
				fmt.Errorf("the column is %s, %s was planned", a.DataType(), f.Type))
		}
		if row := firstBadText(a); row >= 0 {
			return nil, rowError(path, before+int64(row)+1, f.Name, "", errors.New("the text is not valid UTF-8"))
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

// firstBadText returns the first row of a text column that is not UTF-8, or -1.
func firstBadText(a arrow.Array) int {
	s, ok := a.(*array.String)
	if !ok || isASCII(s.ValueBytes()) {
		return -1
	}
	for i := range s.Len() {
		if s.IsValid(i) && !utf8.ValidString(s.Value(i)) {
			return i
		}
	}
	return -1
}
