package duckarrow

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"fmt"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/cdata"
	"github.com/duckdb/duckdb-go/v2/mapping"
)

// vectorRows is the size of DuckDB's vectors.
const vectorRows = 2048

// Appender writes Arrow batches to the end of a table, in the connection's
// transaction. It collects up to about 200,000 rows before it writes.
type Appender struct {
	conn      *Conn
	appender  mapping.Appender
	converted unsafe.Pointer
	array     *C.struct_ArrowArray
	closed    bool
}

// Table names a table.
type Table struct {
	Catalog, Schema, Name string // Catalog "" is the current one
}

// Appender opens an appender for the columns of schema, by name; other columns
// get their defaults. The types must be those of the table.
func (c *Conn) Appender(t Table, schema *arrow.Schema) (*Appender, error) {
	a := &Appender{conn: c}
	if mapping.AppenderCreateExt(c.conn, t.Catalog, t.Schema, t.Name, &a.appender) == mapping.StateError {
		return nil, a.fail()
	}
	for _, f := range schema.Fields() {
		if mapping.AppenderAddColumn(a.appender, f.Name) == mapping.StateError {
			return nil, a.fail()
		}
	}
	out := (*C.struct_ArrowSchema)(C.calloc(1, C.sizeof_struct_ArrowSchema))
	defer C.free(unsafe.Pointer(out))
	cdata.ExportArrowSchema(schema, (*cdata.CArrowSchema)(unsafe.Pointer(out)))
	defer cdata.ReleaseCArrowSchema((*cdata.CArrowSchema)(unsafe.Pointer(out)))
	if err := takeError(C.rb_converted(c.conn.Ptr, out, &a.converted)); err != nil { //nolint:gocritic // cgo's check
		a.Discard()
		return nil, fmt.Errorf("duckdb: types of %s: %w", t.Name, err)
	}
	a.array = (*C.struct_ArrowArray)(C.calloc(1, C.sizeof_struct_ArrowArray))
	return a, nil
}

// fail reads the error and frees the appender.
func (a *Appender) fail() error {
	err := a.complaint()
	a.Discard()
	return err
}

// complaint reads the appender's error, whose message does not name its class.
func (a *Appender) complaint() error {
	data := mapping.AppenderErrorData(a.appender)
	defer mapping.DestroyErrorData(&data)
	err := newError(mapping.ErrorDataMessage(data))
	if class, ok := classes[mapping.ErrorDataErrorType(data)]; ok {
		err.Class = class
	}
	return err
}

// Append borrows rec.
func (a *Appender) Append(ctx context.Context, rec arrow.RecordBatch) error {
	return a.conn.running(ctx, func() error {
		for at := int64(0); at < rec.NumRows(); at += vectorRows {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := a.append(rec, at, min(at+vectorRows, rec.NumRows())); err != nil {
				return err
			}
		}
		return nil
	})
}

func (a *Appender) append(rec arrow.RecordBatch, from, to int64) error {
	slice := rec.NewSlice(from, to)
	defer slice.Release()
	whole, err := rebase(slice)
	if err != nil {
		return err
	}
	defer whole.Release()
	cdata.ExportArrowRecordBatch(whole, (*cdata.CArrowArray)(unsafe.Pointer(a.array)), nil)
	var text *C.char
	state := C.rb_append(a.conn.conn.Ptr, a.appender.Ptr, a.converted, a.array, &text) //nolint:gocritic // cgo's check
	cdata.ReleaseCArrowArray((*cdata.CArrowArray)(unsafe.Pointer(a.array)))
	if state == 2 {
		return a.complaint()
	}
	return takeError(text)
}

// Flush writes what was collected. The appender can be used on.
func (a *Appender) Flush(ctx context.Context) error {
	return a.conn.running(ctx, func() error {
		if mapping.AppenderFlush(a.appender) == mapping.StateError {
			return a.complaint()
		}
		return nil
	})
}

// Discard frees the appender and drops what was not flushed. Idempotent.
func (a *Appender) Discard() {
	if a.closed {
		return
	}
	a.closed = true
	mapping.AppenderClear(a.appender)
	mapping.AppenderDestroy(&a.appender)
	if a.converted != nil {
		C.rb_destroy_converted(a.converted)
	}
	C.free(unsafe.Pointer(a.array))
}
