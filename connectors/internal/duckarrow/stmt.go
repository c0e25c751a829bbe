package duckarrow

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/cdata"
	"github.com/duckdb/duckdb-go/v2/mapping"
)

// ErrStatements is returned by Prepare for none or more than one statement. Tell
// the user to write exactly one.
var ErrStatements = errors.New("not exactly one statement")

// Stmt is a prepared statement.
type Stmt struct {
	conn   *Conn
	stmt   mapping.PreparedStatement
	closed bool
}

// Prepare prepares exactly one statement.
func (c *Conn) Prepare(ctx context.Context, query string) (*Stmt, error) {
	var stmts mapping.ExtractedStatements
	count := mapping.ExtractStatements(c.conn, query, &stmts)
	defer mapping.DestroyExtracted(&stmts)
	if text := mapping.ExtractStatementsError(stmts); count == 0 && text != "" {
		return nil, newError(text)
	}
	if count != 1 {
		return nil, fmt.Errorf("%w: found %d", ErrStatements, count)
	}
	return c.prepare(ctx, stmts, 0)
}

func (c *Conn) prepare(ctx context.Context, stmts mapping.ExtractedStatements, i mapping.IdxT) (*Stmt, error) {
	s := &Stmt{conn: c}
	err := c.running(ctx, func() error {
		if mapping.PrepareExtractedStatement(c.conn, stmts, i, &s.stmt) == mapping.StateError {
			return newError(mapping.PrepareError(s.stmt))
		}
		return nil
	})
	if err != nil {
		mapping.DestroyPrepare(&s.stmt)
		return nil, err
	}
	return s, nil
}

// Close frees the statement. Idempotent.
func (s *Stmt) Close() {
	if s.closed {
		return
	}
	s.closed = true
	mapping.DestroyPrepare(&s.stmt)
}

// Type returns what the statement does.
func (s *Stmt) Type() mapping.StatementType { return mapping.PreparedStatementType(s.stmt) }

// Params returns the number of parameters.
func (s *Stmt) Params() int { return int(mapping.NParams(s.stmt)) }

// Columns returns names and types of the result. The types are DuckDB's own
// names: "DECIMAL(18,3)", "VARCHAR[]".
func (s *Stmt) Columns() []Column {
	cols := make([]Column, mapping.PreparedStatementColumnCount(s.stmt))
	for i := range cols {
		t := mapping.PreparedStatementColumnLogicalType(s.stmt, mapping.IdxT(i))
		cols[i] = Column{
			Name: mapping.PreparedStatementColumnName(s.stmt, mapping.IdxT(i)),
			Type: typeOf(t),
		}
		mapping.DestroyLogicalType(&t)
	}
	return cols
}

// Column is one column of a result.
type Column struct {
	Name string
	Type Type
}

// Exec runs the statement and returns the rows it changed.
func (s *Stmt) Exec(ctx context.Context, args ...any) (int64, error) {
	r, err := s.run(ctx, false, args)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return int64(C.rb_changed(&r.res)), nil //nolint:gocritic // cgo's check
}

// Query runs the statement and returns its whole result.
func (s *Stmt) Query(ctx context.Context, args ...any) (*Result, error) {
	return s.run(ctx, false, args)
}

// Stream runs the statement; the result is computed while it is fetched, with
// bounded memory. Nothing else may run on the connection until it is closed.
func (s *Stmt) Stream(ctx context.Context, args ...any) (*Result, error) {
	return s.run(ctx, true, args)
}

func (s *Stmt) run(ctx context.Context, streaming bool, args []any) (*Result, error) {
	if err := s.bind(args); err != nil {
		return nil, err
	}
	r := &Result{conn: s.conn}
	err := s.conn.running(ctx, func() error {
		return takeError(C.rb_execute(s.stmt.Ptr, C.bool(streaming), &r.res)) //nolint:gocritic // cgo's check
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (s *Stmt) bind(args []any) error {
	for i, a := range args {
		at := mapping.IdxT(i + 1)
		var state mapping.State
		switch v := a.(type) {
		case nil:
			state = mapping.BindNull(s.stmt, at)
		case string:
			state = mapping.BindVarcharLength(s.stmt, at, v, mapping.IdxT(len(v)))
		case int64:
			state = mapping.BindInt64(s.stmt, at, v)
		case bool:
			state = mapping.BindBoolean(s.stmt, at, v)
		case []byte:
			state = mapping.BindBlob(s.stmt, at, v)
		default:
			return fmt.Errorf("duckdb: parameter %d has unsupported type %T", i+1, a)
		}
		if state == mapping.StateError {
			return fmt.Errorf("duckdb: parameter %d cannot be bound: %s", i+1, mapping.PrepareError(s.stmt))
		}
	}
	return nil
}

// Result holds the rows of one run.
type Result struct {
	conn    *Conn
	res     C.rb_result
	options unsafe.Pointer
	schema  *arrow.Schema
	closed  bool
}

// Schema returns the Arrow schema of Next's batches.
func (r *Result) Schema() (*arrow.Schema, error) {
	if r.schema != nil {
		return r.schema, nil
	}
	r.options = C.rb_arrow_options(&r.res) //nolint:gocritic // cgo's check
	out := (*C.struct_ArrowSchema)(C.calloc(1, C.sizeof_struct_ArrowSchema))
	defer C.free(unsafe.Pointer(out))
	if err := takeError(C.rb_arrow_schema(&r.res, r.options, out)); err != nil { //nolint:gocritic // cgo's check
		return nil, err
	}
	schema, err := cdata.ImportCArrowSchema((*cdata.CArrowSchema)(unsafe.Pointer(out)))
	if err != nil {
		return nil, fmt.Errorf("duckdb: result schema: %w", err)
	}
	r.schema = schema
	return schema, nil
}

// Next returns the next batch of at most 2048 rows, owned by the caller, or nil
// at the end.
func (r *Result) Next(ctx context.Context) (arrow.RecordBatch, error) {
	if _, err := r.Schema(); err != nil {
		return nil, err
	}
	out := (*C.struct_ArrowArray)(C.calloc(1, C.sizeof_struct_ArrowArray))
	defer C.free(unsafe.Pointer(out))
	more := false
	err := r.conn.running(ctx, func() error {
		var text *C.char
		more = bool(C.rb_next(&r.res, r.options, out, &text)) //nolint:gocritic // cgo's check
		return takeError(text)
	})
	if err != nil || !more {
		return nil, err
	}
	rec, err := cdata.ImportCRecordBatchWithSchema((*cdata.CArrowArray)(unsafe.Pointer(out)), r.schema)
	if err != nil {
		return nil, fmt.Errorf("duckdb: result batch: %w", err)
	}
	return rec, nil
}

// Close frees what was not fetched. Idempotent.
func (r *Result) Close() {
	if r.closed {
		return
	}
	r.closed = true
	if r.options != nil {
		C.rb_destroy_arrow_options(r.options)
	}
	C.rb_destroy_result(&r.res) //nolint:gocritic // cgo's check
}

func takeError(text *C.char) error {
	if text == nil {
		return nil
	}
	defer C.free(unsafe.Pointer(text))
	return newError(C.GoString(text))
}
