package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/connectors/postgres/internal/wire"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
	"rapidbyte.io/node/runtime/mutant"
)

// Writer implements connectors.Writer: one data connection, one transaction per commit.
type Writer struct {
	session *Session
	token   messages.Token
	part    connectors.Part
	load    storedLoad
	receipt messages.Receipt // the newest; nobody else changes it
	version int              // major, of the server

	call  sync.Mutex // held while a method runs
	conn  *wire.Conn
	inTx  bool
	sinks []*sink
	rows  messages.Counts // since the last commit
	temp  bool            // temporary tables were made
	hole  error           // of a call that has failed

	state  sync.Mutex
	closed bool
	cause  error // why it was ended from outside
}

// writer makes the writer of a part from what is stored, and checks that the tables are
// still those that were begun with. known are their layouts, as far as they still hold.
func (s *Session) writer(ctx context.Context, conn *pgx.Conn, l storedLoad, p connectors.Part, r messages.Receipt, known layouts) (*Writer, error) {
	w := &Writer{session: s, token: r.Token, part: p, load: l, receipt: r, version: serverVersion(conn)}
	for _, id := range p.Streams {
		st, ok := l.stream(id)
		if !ok {
			return nil, destError("open a writer", connectors.KindInternal, messages.CodeInternal, fmt.Errorf("the load has no stream %q", id))
		}
		sp, err := st.plan()
		if err != nil {
			return nil, err
		}
		g := s.d.goal(s.pipeline, l.status.Mode, sp, l.status.ID.Number)
		lay := known.of(id)
		if lay == nil {
			if lay, err = g.layout(ctx, conn, st.Stage); err != nil {
				return nil, err
			}
		}
		if lay.oid != st.OID {
			if err := s.accept(ctx, conn, l, id, lay); err != nil {
				return nil, err
			}
		}
		k, err := newSink(w, g, lay)
		if err != nil {
			return nil, err
		}
		w.sinks = append(w.sinks, k)
	}
	return w, nil
}

// open takes a connection and registers the writer with its session.
func (w *Writer) open(ctx context.Context) error {
	conn, err := w.session.take(ctx)
	if err != nil {
		return err
	}
	w.conn = conn
	if !w.session.adopt(w) {
		_ = conn.Close() // nothing was done with it
		return destError("open a writer", connectors.KindInternal, messages.CodeInternal, errors.New("the session is closed"))
	}
	for _, k := range w.sinks {
		if sql := k.createTemp(); sql != "" {
			w.temp = true
			vigil := w.session.dial.attendData(conn)
			_, err := conn.Exec(ctx, sql)
			if err = vigil.stop(err); err != nil {
				w.end(nil)
				return err
			}
		}
	}
	return nil
}

// Explain tells how rows are written, and why so.
func (w *Writer) Explain() []string {
	out := make([]string, len(w.sinks))
	for i, k := range w.sinks {
		out[i] = k.explain()
	}
	return out
}

// end closes the writer from outside: a running call fails, with cause if there is one.
func (w *Writer) end(cause error) {
	w.state.Lock()
	if !w.closed {
		w.closed, w.cause = true, cause
		if w.conn != nil {
			_ = w.conn.Close() // the server rolls back what is open
		}
	}
	w.state.Unlock()
	w.session.drop(w)
}

// begin starts a method; the caller unlocks call.
func (w *Writer) begin(op string) error {
	w.state.Lock()
	defer w.state.Unlock()
	if w.cause != nil {
		return w.cause
	}
	if w.closed {
		return destError(op, connectors.KindInternal, messages.CodeInternal, errors.New("the writer is closed"))
	}
	return nil
}

// failed classifies err; who ended the writer from outside is the first cause.
func (w *Writer) failed(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	w.state.Lock()
	cause := w.cause
	w.state.Unlock()
	if cause != nil {
		return cause
	}
	return w.session.superseded(ctx, w.session.d.classify(ctx, op, err))
}

// Write takes the next item into the open transaction.
func (w *Writer) Write(ctx context.Context, d messages.Data) error {
	w.call.Lock()
	defer w.call.Unlock()
	switch m := d.(type) {
	case messages.Batch:
		defer m.Rows.Release()
		return w.guard(ctx, "write to "+string(m.Stream), func() error {
			k, err := w.target(m.Stream, m.Rows)
			if err != nil {
				return err
			}
			if err := w.transact(ctx); err != nil {
				return err
			}
			at := w.rows.Arrived
			w.rows.Arrived += m.Rows.Len()
			return k.put(ctx, m.Rows, at)
		})
	case messages.Rejected:
		defer m.Rows.Release()
		return w.guard(ctx, "set rows of "+string(m.Stream)+" aside", func() error { return w.rejectAll(ctx, m) })
	case messages.SchemaChange:
		return destError("change the schema of "+string(m.Stream), connectors.KindSchema, messages.CodeSchemaType, errors.New("the stream changed its columns while it was read"))
	case messages.Truncate:
		return destError("truncate", connectors.KindSchema, messages.CodeSchemaType, errors.New("a truncation can only be applied to a change stream"))
	}
	return nil
}

// guard runs do as part of a method. A writer that has failed is of no further use: it
// would commit over a hole.
func (w *Writer) guard(ctx context.Context, op string, do func() error) error {
	if err := w.begin(op); err != nil {
		return err
	}
	if w.hole != nil {
		return destError(op, connectors.KindInternal, messages.CodeInternal, fmt.Errorf("the writer has failed before: %w", w.hole))
	}
	watch := w.session.watch(w.conn.PID())
	vigil := w.session.dial.attendData(w.conn)
	err := vigil.stop(do())
	held := watch.stop()
	if stateOf(err) == lockNotAvailable {
		err = blockedError(ctx, op, held, err)
	}
	w.hole = w.failed(ctx, op, err)
	return w.hole
}

// transact begins the transaction of the next commit. Constraints that are deferred
// would fail at COMMIT, when nobody can name the row any more.
func (w *Writer) transact(ctx context.Context) error {
	if w.inTx {
		return nil
	}
	if _, err := w.conn.Exec(ctx, "BEGIN; SET CONSTRAINTS ALL IMMEDIATE"); err != nil {
		return err
	}
	w.inTx = true
	if err := failpoint.Hit(failpoint.DestBegin); err != nil {
		return err
	}
	now := time.Now()
	for _, k := range w.sinks {
		if err := k.start(now); err != nil {
			return err
		}
	}
	return nil
}

// Commit makes everything since the last barrier visible with its receipt, or nothing.
func (w *Writer) Commit(ctx context.Context, b messages.Barrier) (messages.Receipt, error) {
	w.call.Lock()
	defer w.call.Unlock()
	var next messages.Receipt
	unknown := false
	err := w.guard(ctx, "commit", func() error {
		if err := w.transact(ctx); err != nil {
			return err
		}
		for _, k := range w.sinks {
			if err := k.finish(ctx); err != nil {
				return err
			}
		}
		if err := failpoint.Hit(failpoint.DestCopyAfter); err != nil {
			return err
		}
		next = w.next(b)
		if mutant.On(mutant.ReceiptOutside) {
			if _, err := w.conn.Exec(ctx, "COMMIT; BEGIN"); err != nil {
				return err
			}
		}
		if err := w.writeReceipt(ctx, next); err != nil {
			return err
		}
		if err := failpoint.Hit(failpoint.DestReceipt); err != nil {
			return err
		}
		if err := w.session.dead.reserve(w.receipt, next); err != nil {
			return err
		}
		unknown = true
		results, err := w.conn.Commit(ctx)
		if mutant.On(mutant.CommitAgain) && w.conn.Broken() {
			results, err = w.commitAgain(ctx)
		}
		if stateOf(err) != "" && !w.conn.Broken() {
			unknown = false // the server said that it did not
		}
		if err != nil {
			w.session.dead.set(w.receipt) // the next writer knows better
			return err
		}
		if tag := results[len(results)-1].Tag; tag != "COMMIT" {
			unknown = false
			w.session.dead.set(w.receipt)
			return fmt.Errorf("the server answered COMMIT with %s", tag)
		}
		return failpoint.Hit(failpoint.DestCommitted)
	})
	if err != nil {
		return messages.Receipt{}, withCommit(err, unknown)
	}
	w.inTx, w.receipt, w.rows = false, next, messages.Counts{}
	return next, nil
}

// commitAgain is the planted fault that a COMMIT without a reply is repeated.
func (w *Writer) commitAgain(ctx context.Context) ([]wire.Result, error) {
	conn, err := w.session.dial.data(ctx)
	if err != nil {
		return nil, err
	}
	w.conn = conn
	return conn.Commit(ctx)
}

// withCommit says what is known of a commit that failed.
func withCommit(err error, unknown bool) error {
	e, ok := errors.AsType[*connectors.Error](err)
	switch {
	case !ok && unknown && connectors.KindOf(err) != connectors.KindFenced: // its context ended
		return &connectors.Error{
			Op: "commit", Kind: connectors.KindTransient, Commit: connectors.CommitUnknown,
			Place: messages.Place{Stage: connectors.StageDestination}, Err: err,
		}
	case !ok:
		return err
	}
	out := *e
	out.Commit = connectors.CommitNone
	if unknown {
		out.Commit = connectors.CommitUnknown
	}
	return &out
}

// next is the receipt of the commit at b.
func (w *Writer) next(b messages.Barrier) messages.Receipt {
	r := w.receipt
	r.Version.Commit++
	r.Position, r.Final = b.Position, b.Kind == messages.BarrierEnd
	r.Rows.Read += b.Rows
	r.Rows.Arrived += w.rows.Arrived
	r.Rows.Rejected += w.rows.Rejected
	r.Rows.Applied += w.rows.Arrived - w.rows.Rejected
	return r
}

// writeReceipt checks the fence and the tables and stores the receipt, in the data's
// transaction: the owner's row is locked against a take-over until COMMIT (I4).
func (w *Writer) writeReceipt(ctx context.Context, r messages.Receipt) error {
	position, err := json.Marshal(r.Position)
	if err != nil {
		return err
	}
	id := w.session.id.String()
	var b strings.Builder
	fmt.Fprintf(&b, "SELECT FROM _rapidbyte.owner WHERE pipeline_id = '%s' AND epoch = %d FOR SHARE; ", id, w.session.epoch)
	fmt.Fprintf(&b, "UPDATE _rapidbyte.receipt SET commit_no = %d, position = %s, final = %t, target_oid = %d, rows_read = %d, rows_arrived = %d, "+
		"rows_applied = %d, rows_rejected = %d, updated_at = now() WHERE pipeline_id = '%s' AND part = %s AND load_no = %d AND epoch = %d AND attempt = %d AND commit_no = %d",
		r.Version.Commit, query.Literal(string(position)), r.Final, w.sinks[0].lay.oid, r.Rows.Read, r.Rows.Arrived, r.Rows.Applied, r.Rows.Rejected,
		id, query.Literal(string(r.Part)), r.Version.Load, w.token.Epoch, w.token.Attempt, w.receipt.Version.Commit)
	sql := b.String()
	if mutant.On(mutant.NoEpoch) {
		sql = regexp.MustCompile(` AND (epoch|attempt) = \d+`).ReplaceAllString(sql, "")
	}
	results, err := w.conn.Exec(ctx, sql+"; "+w.sameTables())
	if err != nil {
		return err
	}
	if len(results) == 3 && results[0].Tag == "SELECT 1" && results[1].Tag == "UPDATE 1" {
		return w.moved(results[2].Rows[0])
	}
	if _, err := w.conn.Exec(ctx, "ROLLBACK"); err != nil {
		return err
	}
	w.inTx = false
	return w.session.fencedBy(ctx, w)
}

// fencedBy finds out who changed the fence of w.
func (s *Session) fencedBy(ctx context.Context, w *Writer) error {
	var out error
	err := s.control(ctx, func(conn *pgx.Conn) error {
		o, ok, err := readOwner(ctx, conn, s.id, "")
		if err != nil {
			return err
		}
		if !ok {
			out = damaged(errors.New("the pipeline's row in _rapidbyte.owner is gone"))
			return nil
		}
		if o.epoch != s.epoch {
			out = &connectors.FencedError{Registered: messages.Token{Epoch: o.epoch}}
			return nil
		}
		found, err := readReceipts(ctx, conn, s.id, w.part.ID)
		if err != nil {
			return err
		}
		switch {
		case len(found.all) == 0:
			out = damaged(fmt.Errorf("the receipt of part %s is gone from _rapidbyte.receipt", w.part.ID))
		case found.all[0].Token != w.token || found.all[0].LoadID() != w.receipt.LoadID():
			out = &connectors.FencedError{Registered: younger(found.all[0].Token, w.token)}
		default:
			out = damaged(fmt.Errorf("somebody has changed the receipt of part %s: it is at commit %d, this writer is at %d",
				w.part.ID, found.all[0].Version.Commit, w.receipt.Version.Commit))
		}
		return nil
	})
	return errors.Join(out, err)
}

// Close gives up what is not committed. A connection that is as it was goes back to the
// session. Idempotent.
func (w *Writer) Close(ctx context.Context) error {
	w.state.Lock()
	if w.closed {
		w.state.Unlock()
		return nil
	}
	w.closed = true
	w.state.Unlock()
	defer w.session.drop(w)
	if !w.call.TryLock() { // a call is running: it fails
		return w.conn.Close()
	}
	defer w.call.Unlock()
	if w.inTx {
		return w.conn.Close()
	}
	if w.temp && !w.conn.Broken() {
		if _, err := w.conn.Exec(ctx, "DISCARD TEMP"); err != nil {
			return w.conn.Close()
		}
	}
	w.session.give(w.conn)
	return nil
}
