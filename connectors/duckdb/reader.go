package duckdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/internal/duckarrow"
	"rapidbyte.io/node/messages"
)

// Reader implements connectors.Reader.
type Reader struct {
	source  *Source
	request connectors.ReadRequest
	split   split
	schema  *arrow.Schema
	from    int64 // first rowid

	reading sync.Mutex // held by Read, and by Close to free
	db      *session   // nil once closed

	state  sync.Mutex
	closed bool
	cancel context.CancelCauseFunc // of the running Read; nil: none
}

// Open prepares one part. The file must be the one that was planned.
func (s *Source) Open(ctx context.Context, r connectors.ReadRequest) (connectors.Reader, error) {
	out := &Reader{source: s, request: r}
	if err := json.Unmarshal(r.Part.Split, &out.split); err != nil || len(r.Part.Streams) != 1 {
		return nil, s.fail("open the part", connectors.KindInternal, messages.CodeInternal, fmt.Errorf("the split is not one of a DuckDB source: %w", err))
	}
	var err error
	if out.schema, err = decodeSchema(out.split.Arrow); err != nil {
		return nil, s.fail("open the part", connectors.KindInternal, messages.CodeInternal, err)
	}
	at, err := r.From.At.Int64()
	if err != nil {
		return nil, s.fail("open the part", connectors.KindInternal, messages.CodeInternal, fmt.Errorf("the position: %w", err))
	}
	out.from = max(at, out.split.From)
	if out.db, err = s.open(ctx); err != nil {
		return nil, err
	}
	file, err := fingerprintOf(resolve(s.cfg.Path))
	if err == nil && file != out.split.File {
		err = s.fail("open the part", connectors.KindScanLost, messages.CodeSourceChanged, errors.New("the file has changed since it was planned"))
	}
	if err != nil {
		out.db.close()
		return nil, s.classify(ctx, "open the part", err)
	}
	return out, nil
}

// Close frees everything, and ends a Read that still runs. Idempotent.
func (r *Reader) Close(context.Context) error {
	r.state.Lock()
	r.closed = true
	if r.cancel != nil {
		r.cancel(errReaderClosed)
	}
	r.state.Unlock()
	r.reading.Lock()
	defer r.reading.Unlock()
	if r.db != nil {
		r.db.close()
		r.db = nil
	}
	return nil
}

var errReaderClosed = errors.New("the reader was closed")

// Read emits the rows of the part in the order of their rowids.
func (r *Reader) Read(ctx context.Context, out connectors.Emitter) error {
	r.reading.Lock()
	defer r.reading.Unlock()
	caller := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.state.Lock()
	closed := r.closed
	r.cancel = cancel
	r.state.Unlock()
	if closed || r.db == nil {
		if caller.Err() != nil {
			return context.Cause(caller)
		}
		return errReaderClosed
	}
	p := &pass{reader: r, out: out, next: r.from}
	err := p.run(ctx)
	switch {
	case p.emitted != nil && errors.Is(p.emitted, connectors.ErrDraining):
		return nil
	case caller.Err() != nil && (errors.Is(p.emitted, errReaderClosed) || errors.Is(err, errReaderClosed)):
		return context.Cause(caller) // Close answered the cancellation before it got here
	case p.emitted != nil:
		return p.emitted
	}
	return r.failure(ctx, err)
}

// failure types what went wrong while reading.
func (r *Reader) failure(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	s := r.source
	place := func(e *connectors.Error) error {
		e.Place.Stream, e.Place.Part = r.request.Part.Streams[0], r.request.Part.ID
		return e
	}
	if errors.Is(err, duckarrow.ErrRowTooLarge) {
		return place(s.fail("read the table", connectors.KindData, messages.CodeRowTooLarge, err))
	}
	err = s.classify(ctx, "read the table", err)
	e, ok := errors.AsType[*connectors.Error](err)
	if !ok {
		return err
	}
	if e.Kind == connectors.KindData {
		e.Code = messages.CodeRowBroken
	}
	return place(e)
}

// pass is one run of Read.
type pass struct {
	reader  *Reader
	out     connectors.Emitter
	next    int64 // rowid behind the last row that was emitted
	rows    int64
	emitted error // what the emitter returned last
}

// run streams the query. The rowid travels as the last column of each batch: so
// the position behind a batch is known wherever it is cut.
func (p *pass) run(ctx context.Context) error {
	r := p.reader
	if p.out.Due() && r.split.Rowids {
		if err := p.barrier(ctx, messages.BarrierPeriodic); err != nil {
			return err
		}
	}
	stmt, err := r.db.conn.Prepare(ctx, r.split.query())
	if err != nil {
		return err
	}
	defer stmt.Close()
	fields, args := r.schema.Fields(), []any(nil)
	if r.split.Rowids {
		fields = append(fields, arrow.Field{Name: rowidColumn, Type: arrow.PrimitiveTypes.Int64})
		args = []any{r.from, r.split.To}
	}
	res, err := stmt.Stream(ctx, args...)
	if err != nil {
		return err
	}
	defer res.Close()
	limits := r.request.Limits
	err = res.Drain(ctx, &duckarrow.Collector{
		Mem: r.request.Mem, Schema: arrow.NewSchema(fields, nil), RowsMax: limits.BatchRows, BytesMax: limits.BatchBytes,
		RowBytesMax: limits.RowBytes, Emit: p.emit,
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if r.split.Rowids {
		p.next = max(p.next, r.split.To)
	}
	return p.barrier(ctx, messages.BarrierEnd)
}

// errEnough ends a preview.
var errEnough = errors.New("enough rows")

// emit moves one batch downstream, and a barrier behind it if one is due.
func (p *pass) emit(ctx context.Context, rec arrow.RecordBatch) error {
	defer rec.Release()
	r := p.reader
	n := rec.NumRows()
	if limit := r.request.Limit; limit > 0 {
		n = min(n, limit-p.rows)
	}
	cols := rec.Columns()
	if r.split.Rowids {
		ids, ok := cols[len(cols)-1].(*array.Int64)
		if !ok || ids.Value(0) < p.next || ids.Value(ids.Len()-1) < ids.Value(0) {
			return fmt.Errorf("rowids of %s are out of order at %d", r.request.Part.ID, p.next)
		}
		p.next = ids.Value(int(n)-1) + 1
		cols = cols[:len(cols)-1]
	}
	all := array.NewRecordBatch(r.schema, cols, rec.NumRows())
	slice := all.NewSlice(0, n)
	all.Release()
	p.emitted = p.out.Emit(ctx, messages.Batch{Stream: r.request.Part.Streams[0], Version: 1, Rows: messages.ArrowRows{Record: slice}})
	if p.emitted != nil {
		return p.emitted
	}
	p.rows += n
	if r.request.Limit > 0 && p.rows >= r.request.Limit {
		return errEnough
	}
	if !r.split.Rowids || !p.out.Due() {
		return nil
	}
	return p.barrier(ctx, messages.BarrierPeriodic)
}

func (p *pass) barrier(ctx context.Context, kind messages.BarrierKind) error {
	position := messages.Position{}
	if p.reader.split.Rowids {
		position.At = messages.Int64Cursor(p.next)
	}
	p.emitted = p.out.Barrier(ctx, kind, position)
	return p.emitted
}
