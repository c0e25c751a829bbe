package duckdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/internal/duckarrow"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
	"rapidbyte.io/node/runtime/mutant"
)

// Writer implements connectors.Writer.
type Writer struct {
	session *Session
	token   messages.Token
	load    storedLoad
	receipt messages.Receipt // the newest; nobody else changes it

	// call is held while a method runs, and by whoever ends the writer.
	call  sync.Mutex
	conn  *duckarrow.Conn // nil once closed
	inTx  bool
	sinks map[messages.StreamID]*sink
	rows  messages.Counts // since the last commit
	dead  int64           // ordinal of the next dead letter of this commit

	state  sync.Mutex
	cancel context.CancelCauseFunc // of the running call; nil: none
	cause  *connectors.FencedError // set when the writer is fenced
}

// open connects and registers the writer with file and session.
func (w *Writer) open(ctx context.Context, p connectors.Part) error {
	s := w.session
	w.sinks = map[messages.StreamID]*sink{}
	for _, st := range w.load.streams {
		plan, err := st.plan()
		if err != nil {
			return s.damaged(ctx, err)
		}
		sh, err := newShape(s.cfg.Path, s.cfg.Schema, w.load.status.Mode, plan)
		if err != nil {
			return err
		}
		w.sinks[st.Stream] = newSink(sh, st.Stage, len(w.sinks))
	}
	conn, err := s.file.connect(ctx)
	if err != nil {
		return err
	}
	w.conn = conn
	if err := s.file.lock(ctx); err != nil {
		conn.Close()
		return err
	}
	defer s.file.unlock()
	if err := s.fenced(); err != nil {
		conn.Close()
		return err
	}
	key := writerKey{s.pipeline, p.ID}
	if other := s.file.writers[key]; other != nil && other.token.Compare(w.token) > 0 {
		conn.Close() // a younger writer came between
		return &connectors.FencedError{Registered: other.token}
	}
	s.file.writers[key] = w
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writers = append(s.writers, w)
	return nil
}

// running guards a call: one at a time, ended by ctx and by fence.
func (w *Writer) running(ctx context.Context, op string, do func(context.Context) error) error {
	w.call.Lock()
	defer w.call.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w.state.Lock()
	fenced := w.cause
	w.cancel = cancel
	w.state.Unlock()
	defer w.ended()
	if fenced != nil {
		return fenced
	}
	if w.conn == nil {
		return destError(op, connectors.KindInternal, messages.CodeInternal, w.session.cfg.Path, errors.New("the writer is closed"))
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := do(ctx)
	w.state.Lock()
	defer w.state.Unlock()
	if err != nil && w.cause != nil {
		return w.cause // the first cause wins over "interrupted"
	}
	return classify(ctx, op, w.session.cfg.Path, err)
}

func (w *Writer) ended() {
	w.state.Lock()
	w.cancel = nil
	w.state.Unlock()
}

// fence ends the writer from another goroutine and rolls its transaction back.
func (w *Writer) fence(cause *connectors.FencedError) {
	w.state.Lock()
	w.cause = cause
	if w.cancel != nil {
		w.cancel(cause)
	}
	w.state.Unlock()
	w.call.Lock()
	defer w.call.Unlock()
	w.disconnect()
}

// errClosed ends a call that runs while its session is closed.
var errClosed = errors.New("the session was closed")

// end interrupts the running call and closes the writer.
func (w *Writer) end(ctx context.Context) {
	w.state.Lock()
	if w.cancel != nil {
		w.cancel(errClosed)
	}
	w.state.Unlock()
	_ = w.Close(ctx) // never fails
}

// Close drops what is not committed. Idempotent; it never fails.
func (w *Writer) Close(ctx context.Context) error {
	w.call.Lock()
	w.disconnect()
	w.call.Unlock()
	f := w.session.file
	if f.lock(context.WithoutCancel(ctx)) == nil {
		key := writerKey{w.session.pipeline, w.receipt.Part}
		if f.writers[key] == w {
			delete(f.writers, key)
		}
		f.unlock()
	}
	return nil
}

// disconnect rolls back and frees everything. The caller holds call.
func (w *Writer) disconnect() {
	for _, s := range w.sinks {
		s.discard()
	}
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
	w.inTx = false
}

// Write takes the next item into the open transaction.
func (w *Writer) Write(ctx context.Context, d messages.Data) error {
	switch d := d.(type) {
	case messages.Batch:
		defer d.Rows.Release()
		return w.running(ctx, "write a batch", func(ctx context.Context) error { return w.batch(ctx, d) })
	case messages.Rejected:
		defer d.Rows.Release()
		return w.running(ctx, "write dead letters", func(ctx context.Context) error { return w.rejected(ctx, d) })
	case messages.SchemaChange:
		return w.running(ctx, "change the schema", func(ctx context.Context) error { return w.schemaChange(ctx, d) })
	case messages.Truncate:
		return w.running(ctx, "truncate", func(ctx context.Context) error { return w.truncate(ctx, d) })
	}
	panic("duckdb: unknown item")
}

func (w *Writer) sink(stream messages.StreamID) (*sink, error) {
	s := w.sinks[stream]
	if s == nil {
		return nil, w.fail(stream, connectors.KindInternal, messages.CodeInternal, fmt.Errorf("stream %s is not in the load", stream))
	}
	return s, nil
}

func (w *Writer) fail(stream messages.StreamID, kind connectors.Kind, code messages.Code, err error) *connectors.Error {
	e := destError("write", kind, code, w.session.cfg.Path, err)
	e.Place.Stream, e.Place.Part = stream, w.receipt.Part
	return e
}

func (w *Writer) batch(ctx context.Context, b messages.Batch) error {
	s, err := w.sink(b.Stream)
	if err != nil {
		return err
	}
	rows, ok := b.Rows.(messages.ArrowRows)
	if !ok {
		return w.fail(b.Stream, connectors.KindInternal, messages.CodeInternal, fmt.Errorf("rows are %T, want Arrow", b.Rows))
	}
	if rows.Record.Schema().HasField(messages.ColumnOp) {
		return w.fail(b.Stream, connectors.KindConfig, messages.CodeNotAvailable, errors.New("a DuckDB destination does not take change rows"))
	}
	if err := s.matches(rows.Record); err != nil {
		return w.fail(b.Stream, connectors.KindInternal, messages.CodeInternal, err)
	}
	if err := w.begin(ctx); err != nil {
		return err
	}
	if err := s.append(ctx, w.conn, rows); err != nil {
		return w.place(ctx, s, err)
	}
	w.rows.Arrived += rows.Len()
	w.rows.Applied += rows.Len()
	return nil
}

// place adds the stream to a complaint of DuckDB.
func (w *Writer) place(ctx context.Context, s *sink, err error) error {
	err = classify(ctx, fmt.Sprintf("write into the table %q", s.shape.target), w.session.cfg.Path, err)
	if e, ok := errors.AsType[*connectors.Error](err); ok {
		e.Place.Stream, e.Place.Part = s.shape.stream.Stream, w.receipt.Part
	}
	return err
}

// begin opens the transaction of append and replace at the first row. An upsert
// collects outside of one, so that its transaction sees what others committed.
func (w *Writer) begin(ctx context.Context) error {
	if w.inTx || w.load.status.Mode == connectors.ModeUpsert {
		return nil
	}
	return w.transact(ctx)
}

func (w *Writer) transact(ctx context.Context) error {
	if _, err := w.conn.Exec(ctx, "BEGIN TRANSACTION"); err != nil {
		return err
	}
	w.inTx = true
	return failpoint.Hit(failpoint.DestBegin)
}

func (w *Writer) schemaChange(ctx context.Context, d messages.SchemaChange) error {
	old, err := w.sink(d.Stream)
	if err != nil {
		return err
	}
	plan := old.shape.stream
	plan.Schema = d.Schema
	sh, err := newShape(w.session.cfg.Path, w.session.cfg.Schema, w.load.status.Mode, plan)
	if err != nil {
		return err
	}
	if err := w.begin(ctx); err != nil {
		return err
	}
	if err := old.flush(ctx); err != nil {
		return w.place(ctx, old, err)
	}
	if w.load.status.Mode == connectors.ModeUpsert {
		release, err := w.lockTables(ctx)
		if err != nil {
			return err
		}
		defer release()
	}
	if err := old.reshape(ctx, w.conn, sh); err != nil {
		return w.place(ctx, old, err)
	}
	return nil
}

func (w *Writer) truncate(ctx context.Context, d messages.Truncate) error {
	if err := w.begin(ctx); err != nil {
		return err
	}
	for _, stream := range d.Streams {
		s, err := w.sink(stream)
		if err != nil {
			return err
		}
		if err := s.truncate(ctx, w.conn); err != nil {
			return w.place(ctx, s, err)
		}
	}
	return nil
}

// rejected keeps rows as dead letters of the commit that covers them.
func (w *Writer) rejected(ctx context.Context, d messages.Rejected) error {
	rows, ok := d.Rows.(messages.ArrowRows)
	if !ok {
		return w.fail(d.Stream, connectors.KindInternal, messages.CodeInternal, fmt.Errorf("rows are %T, want Arrow", d.Rows))
	}
	if err := w.begin(ctx); err != nil {
		return err
	}
	if w.dead == 0 && w.load.status.Mode == connectors.ModeUpsert {
		if _, err := w.conn.Exec(ctx, "CREATE OR REPLACE TEMPORARY TABLE dead AS FROM _rapidbyte.dlq LIMIT 0"); err != nil {
			return err
		}
	}
	insert, err := w.conn.Prepare(ctx, "INSERT INTO "+w.deadLetters()+" VALUES (?, ?, ?, ?, ?, ?, ?, ?, now())")
	if err != nil {
		return err
	}
	defer insert.Close()
	for i := range int(rows.Len()) {
		payload, err := rowJSON(rows.Record, i)
		if err != nil {
			return w.fail(d.Stream, connectors.KindInternal, messages.CodeInternal, err)
		}
		w.dead++
		if _, err := insert.Exec(ctx, string(w.session.pipeline), string(d.Stream), string(w.receipt.Part), int64(w.receipt.Version.Load), //nolint:gosec // counters
			int64(w.receipt.Version.Commit+1), w.dead, d.Reason, payload); err != nil { //nolint:gosec // counters
			return err
		}
	}
	w.rows.Arrived += rows.Len()
	w.rows.Rejected += rows.Len()
	return failpoint.Hit(failpoint.DeadLettered)
}

// deadLetters is where dead letters of this commit go: an upsert collects them
// like its rows.
func (w *Writer) deadLetters() string {
	if w.load.status.Mode == connectors.ModeUpsert {
		return "temp.main.dead"
	}
	return "_rapidbyte.dlq"
}

func rowJSON(rec arrow.RecordBatch, i int) (string, error) {
	out := map[string]any{}
	for c, col := range rec.Columns() {
		out[rec.ColumnName(c)] = col.GetOneForMarshal(i)
	}
	text, err := json.Marshal(out)
	if err != nil { // NaN and infinities have no JSON
		for c, col := range rec.Columns() {
			out[rec.ColumnName(c)] = col.ValueStr(i)
			if col.IsNull(i) {
				out[rec.ColumnName(c)] = nil
			}
		}
		text, err = json.Marshal(out)
	}
	return string(text), err
}

// Commit makes everything since the last barrier visible together with the receipt.
func (w *Writer) Commit(ctx context.Context, b messages.Barrier) (messages.Receipt, error) {
	var next messages.Receipt
	err := w.running(ctx, "commit", func(ctx context.Context) error {
		next = w.receipt
		next.Version.Commit++
		next.Position, next.Final = b.Position, b.Kind == messages.BarrierEnd
		next.Rows.Read += b.Rows
		next.Rows.Arrived += w.rows.Arrived
		next.Rows.Applied += w.rows.Applied
		next.Rows.Rejected += w.rows.Rejected
		return w.commit(ctx, next)
	})
	if err != nil {
		return messages.Receipt{}, err
	}
	return next, nil
}

// commit applies what was collected and commits it with the receipt next.
func (w *Writer) commit(ctx context.Context, next messages.Receipt) error {
	for _, s := range w.sinks {
		if err := s.flush(ctx); err != nil {
			return w.place(ctx, s, err)
		}
	}
	if w.load.status.Mode == connectors.ModeUpsert {
		release, err := w.lockTables(ctx)
		if err != nil {
			return err
		}
		defer release()
	}
	if !w.inTx { // an upsert, or a commit without rows
		if err := w.transact(ctx); err != nil {
			return err
		}
	}
	for _, s := range w.sinks {
		if err := s.apply(ctx, w.conn); err != nil {
			return w.place(ctx, s, err)
		}
	}
	if w.dead > 0 && w.load.status.Mode == connectors.ModeUpsert {
		if _, err := w.conn.Exec(ctx, "INSERT INTO _rapidbyte.dlq FROM temp.main.dead"); err != nil {
			return err
		}
	}
	if err := failpoint.Hit(failpoint.DestCopyAfter); err != nil {
		return err
	}
	if mutant.On(mutant.ReceiptOutside) {
		if _, err := w.conn.Exec(ctx, "COMMIT; BEGIN TRANSACTION"); err != nil {
			return err
		}
	}
	if err := w.seal(ctx, next); err != nil {
		return err
	}
	w.inTx = false
	w.receipt, w.rows, w.dead = next, messages.Counts{}, 0
	for _, s := range w.sinks {
		s.committed()
	}
	return nil
}

// lockTables takes the locks of the upsert targets that this commit changes.
func (w *Writer) lockTables(ctx context.Context) (release func(), err error) {
	var held []func()
	release = func() {
		for _, r := range held {
			r()
		}
	}
	for _, name := range sortedTargets(w.sinks) {
		r, err := w.session.file.tables.lock(ctx, name)
		if err != nil {
			release()
			return nil, err
		}
		held = append(held, r)
	}
	return release, nil
}

// seal checks the fence, writes the receipt and commits, under control of the file.
func (w *Writer) seal(ctx context.Context, next messages.Receipt) error {
	position, err := json.Marshal(next.Position)
	if err != nil {
		return err
	}
	s := w.session
	if err := s.file.lock(ctx); err != nil {
		return err
	}
	defer s.file.unlock()
	if err := s.fenced(); err != nil {
		return err
	}
	//nolint:gosec // counters
	changed, err := w.conn.Do(ctx, `UPDATE _rapidbyte.receipt SET commit_no = ?, position = ?, final = ?,
			rows_read = ?, rows_arrived = ?, rows_applied = ?, rows_rejected = ?, updated_at = now()
		WHERE pipeline = ? AND part = ? AND load = ? AND load_no = ? AND epoch = ? AND attempt = ? AND commit_no = ?
			AND EXISTS (SELECT 1 FROM _rapidbyte.owner WHERE pipeline = ? AND epoch = ?)`,
		int64(next.Version.Commit), string(position), next.Final, next.Rows.Read, next.Rows.Arrived, next.Rows.Applied, next.Rows.Rejected,
		string(s.pipeline), string(next.Part), next.Load, int64(next.Version.Load), int64(w.token.Epoch), int64(w.token.Attempt), int64(next.Version.Commit-1),
		string(s.pipeline), int64(s.epoch))
	if err != nil {
		return err
	}
	if changed != 1 {
		return w.fencedBy(ctx)
	}
	if err := failpoint.Hit(failpoint.DestReceipt); err != nil {
		return err
	}
	// Never interrupted: whether an interrupted COMMIT happened would be a guess.
	_, err = w.conn.Exec(context.WithoutCancel(ctx), "COMMIT")
	if err == nil {
		err = failpoint.Hit(failpoint.DestCommitted)
	}
	if err != nil {
		return w.commitError(ctx, err)
	}
	return nil
}

// fencedBy reads who owns the part.
func (w *Writer) fencedBy(ctx context.Context) error {
	s := w.session
	o, ok, err := readOwner(ctx, s.conn, s.pipeline)
	if err != nil {
		return err
	}
	receipts, _, err := readReceipts(ctx, s.conn, s.pipeline, w.receipt.Part)
	if err != nil {
		return s.damaged(ctx, err)
	}
	registered := messages.Token{Epoch: o.epoch}
	if len(receipts) == 1 {
		registered = younger(receipts[0].Token, registered)
	}
	if !ok || registered.Compare(w.token) == 0 {
		return destError("commit", connectors.KindConfig, messages.CodeDestDamaged, s.cfg.Path,
			fmt.Errorf("the receipt of part %s is not the one that this writer wrote last", w.receipt.Part))
	}
	return &connectors.FencedError{Registered: registered}
}

// commitError says what a failed COMMIT leaves behind: nothing, where DuckDB
// found a conflict before it wrote; otherwise nobody knows.
func (w *Writer) commitError(ctx context.Context, err error) error {
	typed := classify(ctx, "commit", w.session.cfg.Path, err)
	e, ok := errors.AsType[*connectors.Error](typed)
	if !ok {
		return typed
	}
	d, isDuck := errors.AsType[*duckarrow.Error](err)
	if isDuck && isConflict(d) {
		e.Kind, e.Code = connectors.KindTransient, messages.CodeDest
		return e
	}
	e.Commit = connectors.CommitUnknown
	if e.Kind == connectors.KindInternal {
		e.Kind, e.Code = connectors.KindTransient, messages.CodeDest
	}
	return e
}

// isConflict reports whether DuckDB refused a COMMIT before it wrote anything.
func isConflict(e *duckarrow.Error) bool {
	return strings.Contains(e.Text, "conflict") || strings.Contains(e.Text, "Conflict") ||
		strings.Contains(e.Text, "constraint violation") || strings.Contains(e.Text, "has been altered")
}
