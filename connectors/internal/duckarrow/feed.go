package duckarrow

/*
#include "shim.h"
*/
import "C"

import (
	"fmt"
	"slices"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/cdata"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// Feed is a view whose rows are those of the batch that was put into it last.
// Each run of a statement reads the batch once; a run without one reads no rows.
type Feed struct {
	feed   *C.rb_feed
	schema *arrow.Schema
}

// Feed creates the view name over batches of schema, replacing an older view of
// that name. Close it after everything that was prepared over it.
func (c *Conn) Feed(name string, schema *arrow.Schema) (*Feed, error) {
	f := &Feed{feed: C.rb_feed_new(), schema: schema}
	if f.feed == nil {
		return nil, fmt.Errorf("duckdb: no memory for feed %s", name)
	}
	cdata.ExportArrowSchema(schema, (*cdata.CArrowSchema)(unsafe.Pointer(&f.feed.schema)))
	cName := C.CString(name)
	defer C.free(unsafe.Pointer(cName))
	if C.rb_feed_register(c.conn.Ptr, cName, f.feed) != 0 {
		C.rb_feed_free(f.feed)
		return nil, fmt.Errorf("duckdb: a column type of %s cannot be read", name)
	}
	return f, nil
}

// Put borrows rec, whose columns must have the types of the feed's schema. What
// was put before and not read is dropped.
func (f *Feed) Put(rec arrow.RecordBatch) error {
	C.rb_feed_clear(f.feed)
	rec, err := rebase(rec)
	if err != nil {
		return err
	}
	defer rec.Release()
	cdata.ExportArrowRecordBatch(rec, (*cdata.CArrowArray)(unsafe.Pointer(&f.feed.array)), nil)
	return nil
}

// rebase returns rec with copies of those nested columns that are slices, owned:
// DuckDB misreads the children of a list or struct that begins at an offset.
func rebase(rec arrow.RecordBatch) (arrow.RecordBatch, error) {
	cols := slices.Clone(rec.Columns())
	changed := false
	for i, c := range cols {
		if !shifted(c.Data()) {
			continue
		}
		whole, err := array.Concatenate([]arrow.Array{c}, memory.DefaultAllocator)
		if err != nil {
			return nil, fmt.Errorf("copy column %s: %w", rec.ColumnName(i), err)
		}
		defer whole.Release()
		cols[i], changed = whole, true
	}
	if !changed {
		rec.Retain()
		return rec, nil
	}
	return array.NewRecordBatch(rec.Schema(), cols, rec.NumRows()), nil
}

// shifted reports whether a nested array, or anything in it, begins at an offset.
func shifted(d arrow.ArrayData) bool {
	if d.DataType().ID() == arrow.DICTIONARY {
		return d.Offset() > 0
	}
	for _, c := range d.Children() {
		if d.Offset() > 0 || c.Offset() > 0 || shifted(c) {
			return true
		}
	}
	return false
}

// Clear drops what was not read.
func (f *Feed) Clear() { C.rb_feed_clear(f.feed) }

// Close frees the feed. Idempotent.
func (f *Feed) Close() {
	if f.feed == nil {
		return
	}
	C.rb_feed_free(f.feed)
	f.feed = nil
}
