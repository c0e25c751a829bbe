package duckarrow

import (
	"context"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// Rows runs one statement and returns its rows as Go values: nil, bool, int64,
// string or []byte. It is meant for catalogues and bookkeeping.
func (c *Conn) Rows(ctx context.Context, query string, args ...any) ([][]any, error) {
	s, err := c.Prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	r, err := s.Query(ctx, args...)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var rows [][]any
	for {
		rec, err := r.Next(ctx)
		if err != nil {
			return nil, err
		}
		if rec == nil {
			return rows, nil
		}
		rows, err = appendRows(rows, rec)
		rec.Release()
		if err != nil {
			return nil, err
		}
	}
}

// Do runs one statement with parameters and returns the rows it changed.
func (c *Conn) Do(ctx context.Context, query string, args ...any) (int64, error) {
	s, err := c.Prepare(ctx, query)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	return s.Exec(ctx, args...)
}

func appendRows(rows [][]any, rec arrow.RecordBatch) ([][]any, error) {
	at := len(rows)
	for range rec.NumRows() {
		rows = append(rows, make([]any, rec.NumCols()))
	}
	for i, col := range rec.Columns() {
		for j := range col.Len() {
			if col.IsNull(j) {
				continue
			}
			v, err := goValue(col, j)
			if err != nil {
				return nil, err
			}
			rows[at+j][i] = v
		}
	}
	return rows, nil
}

func goValue(a arrow.Array, i int) (any, error) {
	switch a := a.(type) {
	case *array.Boolean:
		return a.Value(i), nil
	case *array.Int8:
		return int64(a.Value(i)), nil
	case *array.Int16:
		return int64(a.Value(i)), nil
	case *array.Int32:
		return int64(a.Value(i)), nil
	case *array.Int64:
		return a.Value(i), nil
	case *array.Uint64:
		return int64(a.Value(i)), nil //nolint:gosec // counts and sizes
	case *array.String:
		return string([]byte(a.Value(i))), nil // the array's memory is DuckDB's
	case *array.Binary:
		return append([]byte{}, a.Value(i)...), nil
	}
	return nil, fmt.Errorf("duckdb: no Go value for %s", a.DataType())
}
