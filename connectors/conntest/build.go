package conntest

import (
	"fmt"
	"strconv"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"rapidbyte.io/node/messages"
)

// Build returns a record of rows that the caller owns. A value is nil, a bool, an
// int, an int64, a float64, a string, a []byte, a time.Time (timestamps), or, for any
// other column type, the text that the builder of the type reads.
func Build(mem memory.Allocator, schema *arrow.Schema, rows [][]any) (arrow.RecordBatch, error) {
	b := array.NewRecordBuilder(mem, schema)
	defer b.Release()
	for i, row := range rows {
		if len(row) != schema.NumFields() {
			return nil, fmt.Errorf("build row %d: %d values for %d columns", i, len(row), schema.NumFields())
		}
		for c, v := range row {
			if err := appendValue(b.Field(c), v); err != nil {
				return nil, fmt.Errorf("build row %d, column %s: %w", i, schema.Field(c).Name, err)
			}
		}
	}
	return b.NewRecordBatch(), nil
}

// appendValue appends v to b.
func appendValue(b array.Builder, v any) error {
	switch v := v.(type) {
	case nil:
		b.AppendNull()
		return nil
	case int:
		return appendInt(b, int64(v))
	case int64:
		return appendInt(b, v)
	case string:
		if s, ok := b.(*array.StringBuilder); ok {
			s.Append(v)
			return nil
		}
		return b.AppendValueFromString(v)
	case []byte:
		if s, ok := b.(array.BinaryLikeBuilder); ok {
			s.Append(v)
			return nil
		}
	case bool:
		if s, ok := b.(*array.BooleanBuilder); ok {
			s.Append(v)
			return nil
		}
	case float64:
		if s, ok := b.(*array.Float64Builder); ok {
			s.Append(v)
			return nil
		}
		return b.AppendValueFromString(strconv.FormatFloat(v, 'g', -1, 64))
	case time.Time:
		if s, ok := b.(*array.TimestampBuilder); ok {
			s.AppendTime(v)
			return nil
		}
	}
	return fmt.Errorf("no %T fits a column of %s", v, b.Type())
}

func appendInt(b array.Builder, v int64) error {
	if s, ok := b.(*array.Int64Builder); ok {
		s.Append(v)
		return nil
	}
	return b.AppendValueFromString(strconv.FormatInt(v, 10))
}

// Release gives up the rows that d holds, if any.
func Release(d messages.Data) {
	switch d := d.(type) {
	case messages.Batch:
		d.Rows.Release()
	case messages.Rejected:
		d.Rows.Release()
	case messages.SchemaChange, messages.Truncate:
	}
}

// record returns the Arrow rows of r.
func record(r messages.Rows) (arrow.RecordBatch, error) {
	switch r := r.(type) {
	case messages.ArrowRows:
		return r.Record, nil
	case messages.RawRows:
		return nil, fmt.Errorf("raw rows in %s were not agreed on", r.Format)
	}
	return nil, fmt.Errorf("no rows: %T", r)
}
