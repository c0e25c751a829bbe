package conntest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// memoryTable holds rows as the texts of their values, in the order of columns.
type memoryTable struct {
	columns []string
	rows    [][]string
	byKey   map[string]int // of an upsert: key to index of rows
}

func newMemoryTable() *memoryTable { return &memoryTable{byKey: make(map[string]int)} }

// texts returns the rows; one that is older than a column has none there.
func (t *memoryTable) texts() []string {
	out := make([]string, len(t.rows))
	for i, r := range t.rows {
		for len(r) < len(t.columns) {
			r = append(slices.Clip(r), Null)
		}
		out[i] = Join(r...)
	}
	return out
}

// add appends a row, or replaces the one with its key. names and values have the
// same order.
func (t *memoryTable) add(names, values, key []string) {
	row := slices.Repeat([]string{Null}, len(t.columns))
	for i, name := range names {
		at := slices.Index(t.columns, name)
		if at < 0 {
			t.columns = append(t.columns, name)
			row = append(row, values[i])
			continue
		}
		row[at] = values[i]
	}
	if len(key) == 0 {
		t.rows = append(t.rows, row)
		return
	}
	var id strings.Builder
	for _, k := range key {
		id.WriteString(row[slices.Index(t.columns, k)] + "|")
	}
	if at, known := t.byKey[id.String()]; known {
		t.rows[at] = row
		return
	}
	t.byKey[id.String()] = len(t.rows)
	t.rows = append(t.rows, row)
}

// clear drops the rows.
func (t *memoryTable) clear() {
	t.rows = nil
	clear(t.byKey)
}

// change is one thing that a commit does.
type change struct {
	stream   connectors.StreamPlan
	names    []string
	rows     [][]string // to add
	rejected []string   // to set aside
	truncate bool
}

// memoryWriter collects the changes of one commit.
type memoryWriter struct {
	session *memorySession
	load    *memoryLoad
	part    *memoryPart
	token   messages.Token
	pending []change
	arrived int64 // since the last barrier, rejected included
	refused int64 // of these, rejected
	failed  error // after an error only Close is called
}

func (w *memoryWriter) call(op string) Call {
	return Call{N: w.session.dest.calls.next(op), Load: w.load.plan.ID, Part: w.part.part.ID, Token: w.token}
}

// Write implements connectors.Writer.
func (w *memoryWriter) Write(ctx context.Context, d messages.Data) error {
	defer Release(d)
	if w.failed != nil {
		return &connectors.Error{Op: "write to a failed writer", Kind: connectors.KindInternal, Err: w.failed}
	}
	c := w.call("write")
	c.Data = d
	err := w.session.dest.WriteFn.do(ctx, c)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = w.take(d)
	}
	w.failed = err
	return err
}

// take turns d into changes.
func (w *memoryWriter) take(d messages.Data) error {
	switch d := d.(type) {
	case messages.Batch:
		return w.takeRows(d.Stream, d.Rows, false)
	case messages.Rejected:
		return w.takeRows(d.Stream, d.Rows, true)
	case messages.Truncate:
		for _, id := range d.Streams {
			s, err := w.stream(id)
			if err != nil {
				return err
			}
			w.pending = append(w.pending, change{stream: s, truncate: true})
		}
	case messages.SchemaChange: // columns are found by name
	}
	return nil
}

func (w *memoryWriter) takeRows(id messages.StreamID, rows messages.Rows, rejected bool) error {
	s, err := w.stream(id)
	if err != nil {
		return err
	}
	rec, err := record(rows)
	if err != nil {
		return &connectors.Error{Op: "write batch", Kind: connectors.KindInternal, Err: err}
	}
	w.arrived += rec.NumRows()
	if rejected {
		w.refused += rec.NumRows()
		w.pending = append(w.pending, change{stream: s, rejected: RowTexts(rec)})
		return nil
	}
	c := change{stream: s, rows: make([][]string, rec.NumRows())}
	for _, f := range rec.Schema().Fields() {
		if f.Name == messages.ColumnOp {
			return &connectors.Error{Op: "write batch", Kind: connectors.KindConfig, Code: messages.CodeNotAvailable, Place: messages.Place{Stream: id}, Err: errors.New("the memory destination takes no change batches")}
		}
		c.names = append(c.names, f.Name)
	}
	for _, k := range s.Key {
		if w.load.plan.Mode == connectors.ModeUpsert && !slices.Contains(c.names, k) {
			return &connectors.Error{Op: "write batch", Kind: connectors.KindSchema, Code: messages.CodeSchemaColumn, Place: messages.Place{Stream: id, Field: k}, Err: fmt.Errorf("key column %q is missing", k)}
		}
	}
	for i := range c.rows {
		c.rows[i] = make([]string, rec.NumCols())
		for col, a := range rec.Columns() {
			c.rows[i][col] = ValueText(a, i)
		}
	}
	w.pending = append(w.pending, c)
	return nil
}

// stream returns the plan of a stream of this load.
func (w *memoryWriter) stream(id messages.StreamID) (connectors.StreamPlan, error) {
	for _, s := range w.load.plan.Streams {
		if s.Stream == id {
			return s, nil
		}
	}
	return connectors.StreamPlan{}, &connectors.Error{
		Op: "write batch", Kind: connectors.KindInternal, Place: messages.Place{Stream: id}, Err: errors.New("the load does not have this stream"),
	}
}

// Commit implements connectors.Writer.
func (w *memoryWriter) Commit(ctx context.Context, b messages.Barrier) (messages.Receipt, error) {
	if w.failed != nil {
		return messages.Receipt{}, &connectors.Error{Op: "commit with a failed writer", Kind: connectors.KindInternal, Err: w.failed}
	}
	c := w.call("commit")
	c.Barrier = b
	err := w.session.dest.CommitFn.do(ctx, c)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	var r messages.Receipt
	if err == nil {
		r, err = w.commit(b)
	}
	if err == nil {
		if err = w.session.dest.CommittedFn.do(ctx, c); err != nil {
			err = &connectors.Error{Op: "commit", Kind: connectors.KindTransient, Commit: connectors.CommitUnknown, Err: err}
		}
	}
	if w.failed = err; err != nil {
		return messages.Receipt{}, err
	}
	return r, nil
}

// commit is the transaction.
func (w *memoryWriter) commit(b messages.Barrier) (messages.Receipt, error) {
	d := w.session.dest
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := w.session.fenced(); err != nil {
		return messages.Receipt{}, err
	}
	current := w.session.owner.loads[w.load.plan.ID.Name] == w.load && w.part.writer == w
	if !current && !d.flaws.anyAttempt {
		return messages.Receipt{}, &connectors.FencedError{Registered: w.part.fence}
	}
	r := w.part.receipt
	if r.Final {
		return messages.Receipt{}, &connectors.Error{Op: "commit", Kind: connectors.KindInternal, Err: fmt.Errorf("part %s is final", r.Part)}
	}
	for _, c := range w.pending {
		w.apply(c)
	}
	r.Version.Commit++
	r.Token, r.Position, r.Final = w.token, b.Position, b.Kind == messages.BarrierEnd
	r.Rows.Read += b.Rows
	r.Rows.Arrived += w.arrived
	r.Rows.Rejected += w.refused
	r.Rows.Applied += w.arrived - w.refused
	w.part.receipt = r
	w.pending, w.arrived, w.refused = nil, 0, 0
	return r, nil
}

// apply makes one change visible, or part of the staging. The destination is locked.
func (w *memoryWriter) apply(c change) {
	d := w.session.dest
	t := d.tables[c.stream.Target]
	var key []string
	switch w.load.plan.Mode {
	case connectors.ModeReplace:
		if !d.flaws.noStaging {
			t = w.load.staging[c.stream.Target]
		}
	case connectors.ModeUpsert:
		key = c.stream.Key
	case connectors.ModeAppend:
	}
	if c.truncate {
		t.clear()
	}
	for _, row := range c.rows {
		t.add(c.names, row, key)
	}
	d.rejected[c.stream.Target] = append(d.rejected[c.stream.Target], c.rejected...)
}

// Close implements connectors.Writer.
func (w *memoryWriter) Close(ctx context.Context) error {
	w.pending, w.failed = nil, errors.New("the writer is closed")
	return w.session.dest.CloseFn.do(ctx, w.call("close"))
}
