package sqltransform

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/internal/duckarrow"
	"rapidbyte.io/node/messages"
)

// Stage implements connectors.Stage. It holds no rows between calls.
type Stage struct {
	transform *Transform
	part      messages.PartID
	limits    connectors.Limits
	mem       memory.Allocator
	programs  map[messages.StreamID]*program
}

// program is the query prepared over one schema of one stream.
type program struct {
	in      *arrow.Schema // of the batches
	fed     *arrow.Schema // of what the query reads of them
	plan    *plan
	session *session
	feed    *duckarrow.Feed
	stmt    *duckarrow.Stmt
	rows    int64 // seen in this attempt
}

// Apply runs the query over a batch; a new schema prepares it anew. Everything
// else passes.
func (st *Stage) Apply(ctx context.Context, d messages.Data, out connectors.Outlet) error {
	switch d := d.(type) {
	case messages.Batch:
		return st.batch(ctx, d, out)
	case messages.SchemaChange:
		if err := st.announce(ctx, d.Stream, d.Schema); err != nil {
			return err
		}
		d.Schema = st.programs[d.Stream].plan.out
		return out(ctx, d)
	case messages.Truncate:
		return out(ctx, d)
	case messages.Rejected:
		return out(ctx, d)
	}
	panic("sqltransform: unknown item")
}

// Flush does nothing: no row waits.
func (st *Stage) Flush(context.Context, connectors.Outlet) error { return nil }

// Close frees the prepared queries. Idempotent.
func (st *Stage) Close(ctx context.Context) error {
	for _, p := range st.programs {
		p.close(ctx)
	}
	clear(st.programs)
	return nil
}

// announce prepares the query for a schema of a stream.
func (st *Stage) announce(ctx context.Context, stream messages.StreamID, in *arrow.Schema) error {
	old := st.programs[stream]
	if old != nil && old.in.Equal(in) {
		return nil
	}
	pl, err := st.transform.plan(stream, in)
	if err != nil {
		return err
	}
	p, err := st.transform.prepare(ctx, stream, in, pl)
	if err != nil {
		st.transform.noteInternal(err)
		return st.transform.engineError(stream, err)
	}
	if old != nil {
		p.rows = old.rows
		old.close(ctx)
	}
	st.programs[stream] = p
	return nil
}

// prepare prepares the query over the columns that it reads.
func (t *Transform) prepare(ctx context.Context, stream messages.StreamID, in *arrow.Schema, pl *plan) (*program, error) {
	p, err := t.prepareOver(ctx, stream, in, pl, pl.reads)
	if err == nil || len(pl.reads) == in.NumFields() {
		return p, err
	}
	// "SELECT * EXCLUDE (x)" needs the name x although it does not read it: give all
	// names, and text for what cannot be read. It is never filled.
	return t.prepareOver(ctx, stream, in, pl, nil)
}

// prepareOver prepares the query over some columns; nil stands for all.
func (t *Transform) prepareOver(ctx context.Context, stream messages.StreamID, in *arrow.Schema, pl *plan, columns []int) (*program, error) {
	s, err := t.dbs.session(ctx, false)
	if err != nil {
		return nil, err
	}
	p := &program{in: in, plan: pl, session: s}
	fields := standIns(in).Fields()
	if columns != nil {
		for i, c := range columns {
			fields[i] = fields[c]
		}
		fields = fields[:len(columns)]
	}
	p.fed = arrow.NewSchema(fields, nil)
	if err := p.open(ctx, stream, t.cfg.Query); err != nil {
		p.close(ctx)
		return nil, err
	}
	return p, nil
}

func (p *program) open(ctx context.Context, stream messages.StreamID, query string) error {
	var err error
	if p.feed, err = p.session.offer(ctx, stream, p.fed); err != nil {
		return err
	}
	if p.stmt, err = p.session.conn.Prepare(ctx, query); err != nil {
		return err
	}
	names := make([]string, 0, p.plan.out.NumFields())
	for _, c := range p.stmt.Columns() {
		names = append(names, c.Name)
	}
	if !slices.EqualFunc(names, p.plan.out.Fields(), func(n string, f arrow.Field) bool { return n == f.Name }) {
		return fmt.Errorf("the query returns the columns %q, planned were %s", names, p.plan.out)
	}
	plans, err := p.session.explain(ctx, query)
	if err != nil {
		return err
	}
	// A feed yields all rows and all columns in order, whatever the scan asks for.
	all := make([]string, p.fed.NumFields())
	for i, f := range p.fed.Fields() {
		all[i] = f.Name
	}
	plans.physical.walk(func(n node) {
		wants := n.texts("Projections")
		if n.Name == scanOperator && (len(n.texts("Filters")) > 0 || len(wants) > 0 && !slices.Equal(wants, all)) {
			err = fmt.Errorf("the scan asks for the columns %q where %q", wants, n.texts("Filters"))
		}
	})
	return err
}

func (p *program) close(ctx context.Context) {
	if p.stmt != nil {
		p.stmt.Close()
	}
	p.session.close(ctx)
}

// batch runs the query over b.
func (st *Stage) batch(ctx context.Context, b messages.Batch, out connectors.Outlet) error {
	defer b.Rows.Release()
	rows, ok := b.Rows.(messages.ArrowRows)
	if !ok {
		return st.internal(b.Stream, fmt.Errorf("rows are %T, want Arrow", b.Rows))
	}
	if rows.Len() == 0 {
		return nil
	}
	p := st.programs[b.Stream]
	if p == nil {
		if err := st.announce(ctx, b.Stream, rows.Record.Schema()); err != nil {
			return err
		}
		p = st.programs[b.Stream]
	}
	if rows.Record.Schema().HasField(messages.ColumnOp) {
		return &connectors.Error{
			Op: "run the query over change rows", Kind: connectors.KindConfig, Code: messages.CodeNotAvailable,
			Place: messages.Place{Stream: b.Stream, Stage: connectors.StageTransform}, Err: errors.New("a SQL transform cannot be applied to a change stream"),
		}
	}
	fed, err := p.pick(rows.Record)
	if err != nil {
		return st.internal(b.Stream, err)
	}
	defer fed.Release()
	emit := func(ctx context.Context, rec arrow.RecordBatch) error {
		return out(ctx, messages.Batch{Stamp: b.Stamp, Stream: b.Stream, Version: b.Version, Rows: messages.ArrowRows{Record: rec}})
	}
	var downstream error
	err = st.run(ctx, p, fed, func(ctx context.Context, rec arrow.RecordBatch) error {
		downstream = emit(ctx, rec)
		return downstream
	})
	if downstream != nil {
		return downstream
	}
	if err != nil {
		return st.transform.runError(ctx, b.Stream, st.locate(ctx, p, fed, err), err)
	}
	p.rows += rows.Len()
	return nil
}

// run executes the query over fed, which it borrows.
func (st *Stage) run(ctx context.Context, p *program, fed arrow.RecordBatch, emit func(context.Context, arrow.RecordBatch) error) error {
	if err := p.feed.Put(fed); err != nil {
		return err
	}
	defer p.feed.Clear()
	r, err := p.stmt.Stream(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	return r.Drain(ctx, &duckarrow.Collector{
		Mem: st.mem, Schema: p.plan.out, RowsMax: st.limits.BatchRows, BytesMax: st.limits.BatchBytes,
		RowBytesMax: st.limits.RowBytes, Emit: emit,
	})
}

// locate finds the first row for which the query fails and describes it. The
// query is row-wise, so halving is exact.
func (st *Stage) locate(ctx context.Context, p *program, fed arrow.RecordBatch, cause error) string {
	first, last := p.rows+1, p.rows+fed.NumRows()
	whole := fmt.Sprintf("rows %d to %d of this attempt", first, last)
	e, ok := errors.AsType[*duckarrow.Error](cause)
	if !ok || e.Class == duckarrow.ClassMemory || e.Class == duckarrow.ClassInternal || e.Class == duckarrow.ClassFatal {
		return whole
	}
	drop := func(_ context.Context, rec arrow.RecordBatch) error {
		rec.Release()
		return nil
	}
	lo, hi := int64(0), fed.NumRows() // the first bad row is in [lo, hi)
	for hi-lo > 1 {
		mid := (lo + hi) / 2
		half := fed.NewSlice(lo, mid)
		err := st.run(ctx, p, half, drop)
		half.Release()
		if ctx.Err() != nil {
			return whole
		}
		if err != nil {
			hi = mid
		} else {
			lo = mid
		}
	}
	return fmt.Sprintf("%s: row %d", whole, first+lo)
}

func (st *Stage) internal(stream messages.StreamID, err error) error {
	return &connectors.Error{
		Op: "run the query", Kind: connectors.KindInternal, Code: messages.CodeInternal,
		Place: messages.Place{Stream: stream, Part: st.part, Stage: connectors.StageTransform}, Err: err,
	}
}

// pick returns the columns that the query reads, owned.
func (p *program) pick(rec arrow.RecordBatch) (arrow.RecordBatch, error) {
	if rec.NumCols() != int64(p.in.NumFields()) {
		return nil, fmt.Errorf("a batch has %d columns, announced were %d", rec.NumCols(), p.in.NumFields())
	}
	for i, f := range p.in.Fields() {
		if rec.ColumnName(i) != f.Name || !arrow.TypeEqual(rec.Column(i).DataType(), f.Type) {
			return nil, fmt.Errorf("column %d of a batch is %s %s, announced was %s %s",
				i+1, rec.ColumnName(i), rec.Column(i).DataType(), f.Name, f.Type)
		}
	}
	cols := make([]arrow.Array, p.fed.NumFields())
	for i, f := range p.fed.Fields() {
		at := indexOf(p.in, f.Name)
		cols[i] = rec.Column(at)
		if duckarrow.Refuses(p.in.Field(at).Type) != "" { // a stand-in, never read
			empty := array.MakeArrayOfNull(memory.DefaultAllocator, arrow.BinaryTypes.String, int(rec.NumRows()))
			defer empty.Release()
			cols[i] = empty
		}
	}
	return array.NewRecordBatch(p.fed, cols, rec.NumRows()), nil
}
