package flow

import (
	"fmt"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// Split cuts rows into pieces within l. It moves rows; the caller owns the pieces.
// A single row above l.BatchBytes is a piece of its own; one above l.RowBytes is an
// error that names it, counting from first.
func Split(rows messages.Rows, l connectors.Limits, first int64) ([]messages.Rows, error) {
	bytes := rows.Bytes()
	if rows.Len() <= l.BatchRows && bytes <= l.BatchBytes && bytes <= l.RowBytes {
		return []messages.Rows{rows}, nil
	}
	a, ok := rows.(messages.ArrowRows)
	if !ok {
		return []messages.Rows{rows}, nil // raw rows are cut by their reader
	}
	defer a.Release()
	var out []messages.Rows
	err := cut(a, l, 0, a.Len(), func(from, to, size int64) error {
		if to-from == 1 && size > l.RowBytes {
			return rowTooLarge(first+from, size, l.RowBytes)
		}
		out = append(out, a.Slice(from, to))
		return nil
	})
	if err != nil {
		for _, p := range out {
			p.Release()
		}
		return nil, err
	}
	return out, nil
}

// cut halves [from, to) until each piece is within l or a single row.
func cut(a messages.ArrowRows, l connectors.Limits, from, to int64, emit func(from, to, size int64) error) error {
	s := a.Slice(from, to)
	size := s.Bytes()
	s.Release()
	if to-from <= 1 || to-from <= l.BatchRows && size <= l.BatchBytes && size <= l.RowBytes {
		return emit(from, to, size)
	}
	half := from + (to-from)/2
	if n := l.BatchRows; to-from > n && size <= l.BatchBytes {
		half = from + n // rows only: full batches, one rest
	}
	if err := cut(a, l, from, half, emit); err != nil {
		return err
	}
	return cut(a, l, half, to, emit)
}

func rowTooLarge(row, size, limit int64) error {
	return &connectors.Error{
		Op: "read row", Kind: connectors.KindData, Commit: connectors.CommitNone, Code: messages.CodeRowTooLarge,
		Place: messages.Place{Row: row},
		Err:   fmt.Errorf("the row has %d bytes, max_row_bytes is %d", size, limit),
	}
}
