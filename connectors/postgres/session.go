package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/connectors/postgres/internal/wire"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
	"rapidbyte.io/node/runtime/mutant"
)

// lane is a control connection, for one user at a time.
type lane struct {
	turn chan struct{} // holds one token: whoever takes it may use conn
	conn *pgx.Conn     // nil until first used, and after it broke
}

func newLane() *lane {
	l := &lane{turn: make(chan struct{}, 1)}
	l.turn <- struct{}{}
	return l
}

// close ends the connection when nobody uses it any more.
func (l *lane) close(ctx context.Context) error {
	select {
	case <-l.turn:
	default: // whoever has it ends with its context
		select {
		case <-l.turn:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if l.conn != nil {
		closeConn(l.conn)
	}
	l.turn <- struct{}{} // whoever waits finds the session closed
	return nil
}

// Session implements connectors.Session. A control connection does the bookkeeping, a
// second one finishes loads, which may take long and must not hold up others; each
// writer has a data connection from a pool.
type Session struct {
	d        *Destination
	dial     *dialer // with the application name of pipeline and epoch
	pipeline messages.PipelineID
	id       uuid.UUID
	epoch    messages.Epoch
	run      string

	book      *lane
	finishing *lane
	recovered connectors.Recovered
	dead      tally

	mu      sync.Mutex
	closed  bool
	idle    []*wire.Conn
	writers map[messages.PartID]*Writer
}

func newSession(d *Destination, r connectors.SessionRequest) *Session {
	return &Session{
		d: d, dial: d.dial.named(applicationName(r.Pipeline, r.Epoch)), pipeline: r.Pipeline, id: pipelineUUID(r.Pipeline), epoch: r.Epoch, run: r.Run,
		book: newLane(), finishing: newLane(), writers: map[messages.PartID]*Writer{}, dead: tally{policy: d.policy},
	}
}

// control runs do with the connection of the bookkeeping.
func (s *Session) control(ctx context.Context, do func(*pgx.Conn) error) error {
	return s.using(ctx, s.book, do)
}

// using runs do with the connection of a lane, which nobody else uses meanwhile. A broken
// one is replaced: every change checks the epoch anew.
func (s *Session) using(ctx context.Context, l *lane, do func(*pgx.Conn) error) error {
	select {
	case <-l.turn:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() {
		if l.conn != nil && s.isClosed() { // Close may not have waited
			closeConn(l.conn)
		}
		l.turn <- struct{}{}
	}()
	if s.isClosed() {
		return destError("use the session", connectors.KindInternal, messages.CodeInternal, errors.New("the session is closed"))
	}
	if l.conn == nil || l.conn.IsClosed() {
		conn, err := s.dial.control(ctx)
		if err != nil {
			return err
		}
		l.conn = conn
	}
	w := s.watch(l.conn.PgConn().PID())
	err := s.dial.tend(l.conn, func() error { return do(l.conn) })
	held := w.stop()
	if err != nil && stateOf(err) == lockNotAvailable {
		err = blockedError(ctx, "wait for a lock", held, err)
	}
	return err
}

func (s *Session) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// takeOver registers the epoch, ends older sessions and reads what is there.
func (s *Session) takeOver(ctx context.Context, r connectors.SessionRequest) error {
	err := s.control(ctx, func(conn *pgx.Conn) error { return ensureBook(ctx, conn) })
	if err != nil {
		return err
	}
	if err := s.control(ctx, func(conn *pgx.Conn) error { return s.register(ctx, conn, r) }); err != nil {
		return err
	}
	if !r.Join {
		if err := s.control(ctx, func(conn *pgx.Conn) error { return endOlder(ctx, conn, r.Pipeline, r.Epoch) }); err != nil {
			return err
		}
	}
	if r.Adopt && !r.Join {
		if err := s.changing(ctx, s.book, "open the destination", func(tx pgx.Tx) error { return s.adoptTables(ctx, tx.Conn()) }); err != nil {
			return err
		}
	}
	return s.control(ctx, func(conn *pgx.Conn) error { return s.readBack(ctx, conn) })
}

// register writes the epoch, or refuses. A zombie may hold the row while its
// connection is frozen: only ending its session frees it. Who is alive gives the row up
// within a commit, and is waited for briefly.
func (s *Session) register(ctx context.Context, conn *pgx.Conn, r connectors.SessionRequest) error {
	o, ok, err := readOwner(ctx, conn, s.id, "")
	if err != nil {
		return err
	}
	if err := s.mayOwn(o, ok, r); err != nil || ok && r.Join {
		return err
	}
	limit := s.d.cfg.lockTimeout()
	err = s.writeOwner(ctx, conn, r, min(limit, ownerPatience))
	if stateOf(err) != lockNotAvailable {
		return err
	}
	if err := endOlder(ctx, conn, r.Pipeline, r.Epoch); err != nil {
		return err
	}
	return s.writeOwner(ctx, conn, r, limit)
}

// ownerPatience is how long the row of an owner that is to be taken over is waited for
// before its sessions are ended.
const ownerPatience = time.Second

// mayOwn decides whether r may own what o has registered.
func (s *Session) mayOwn(o owner, ok bool, r connectors.SessionRequest) error {
	switch {
	case !ok && r.Join:
		return damaged(errors.New("the pipeline's row in _rapidbyte.owner is gone"))
	case !ok:
		return nil
	case o.store != r.Store && !r.Adopt:
		return destError("open the destination", connectors.KindConfig, messages.CodeDestForeign,
			fmt.Errorf("pipeline %s was run from the state store %q, this is %q", r.Pipeline, o.store, r.Store))
	case mutant.On(mutant.EpochOfStore):
		return nil
	case o.epoch > r.Epoch || o.epoch == r.Epoch && !r.Join, r.Join && o.epoch != r.Epoch:
		return &connectors.FencedError{Registered: messages.Token{Epoch: o.epoch}}
	}
	return nil
}

// writeOwner decides again under the lock of the row (I4), for which it waits no longer
// than patience.
func (s *Session) writeOwner(ctx context.Context, conn *pgx.Conn, r connectors.SessionRequest, patience time.Duration) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT set_config('lock_timeout', $1, true)", milliseconds(max(patience, time.Millisecond))); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO _rapidbyte.owner (pipeline_id, pipeline, epoch, store_identity) VALUES ($1, $2, 0, $3)
			ON CONFLICT (pipeline_id) DO NOTHING`, s.id, string(r.Pipeline), r.Store); err != nil {
			return err
		}
		o, ok, err := readOwner(ctx, conn, s.id, " FOR UPDATE")
		if err != nil {
			return err
		}
		if err := s.mayOwn(o, ok, r); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "UPDATE _rapidbyte.owner SET epoch = $2, store_identity = $3, updated_at = now() WHERE pipeline_id = $1",
			s.id, int64(r.Epoch), r.Store) //nolint:gosec // checked by Open
		return err
	})
}

// readBack reads what Open returns.
func (s *Session) readBack(ctx context.Context, conn *pgx.Conn) (err error) {
	if s.recovered, err = readRecovered(ctx, conn, s.id); err != nil {
		return err
	}
	open := map[messages.LoadID]bool{}
	for _, l := range s.recovered.Loads {
		open[l.ID] = !l.Finished
	}
	for _, r := range s.recovered.Receipts {
		if open[r.LoadID()] {
			s.dead.set(r)
		}
	}
	return nil
}

// Recovered returns what Open found.
func (s *Session) Recovered() connectors.Recovered { return s.recovered }

// changing runs do as one transaction, if the epoch still is ours: the owner row is
// locked against a take-over until the transaction ends.
func (s *Session) changing(ctx context.Context, l *lane, op string, do func(pgx.Tx) error) error {
	err := s.using(ctx, l, func(conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			o, ok, err := readOwner(ctx, conn, s.id, " FOR SHARE")
			switch {
			case err != nil:
				return err
			case !ok:
				return damaged(errors.New("the pipeline's row in _rapidbyte.owner is gone"))
			case o.epoch != s.epoch:
				return &connectors.FencedError{Registered: messages.Token{Epoch: o.epoch}}
			}
			return do(tx)
		})
	})
	return s.superseded(ctx, s.d.classify(ctx, op, err))
}

// supersededWithin bounds finding out why a connection was lost.
const supersededWithin = 5 * time.Second

// superseded tells a connection that was lost from one that a new owner has ended: the
// second is no reason to try again.
func (s *Session) superseded(ctx context.Context, err error) error {
	if err == nil || connectors.KindOf(err) != connectors.KindTransient || ctx.Err() != nil || s.isClosed() {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, supersededWithin)
	defer cancel()
	conn, dialErr := s.dial.control(ctx)
	if dialErr != nil {
		return err // the server is gone: that is what it was
	}
	defer closeConn(conn)
	if o, ok, readErr := readOwner(ctx, conn, s.id, ""); readErr == nil && ok && o.epoch > s.epoch {
		return &connectors.FencedError{Registered: messages.Token{Epoch: o.epoch}}
	}
	return err
}

// Begin makes l the current load of its name.
func (s *Session) Begin(ctx context.Context, l connectors.Load) error {
	switch l.Mode {
	case connectors.ModeAppend, connectors.ModeUpsert, connectors.ModeReplace:
	default:
		return destError("begin load "+l.ID.Name, connectors.KindConfig, messages.CodeDocValue, fmt.Errorf("write_mode %q is unknown", l.Mode))
	}
	op := "begin load " + l.ID.Name
	forgotten := false
	err := s.changing(ctx, s.book, op, func(tx pgx.Tx) error {
		known, err := readLoads(ctx, tx.Conn(), s.id, l.ID.Name)
		if err != nil {
			return err
		}
		if len(known) > 0 {
			old := known[0]
			if old.status.ID.Number == l.ID.Number {
				return s.evolve(ctx, tx, old, l)
			}
			if old.status.ID.Number > l.ID.Number {
				return destError(op, connectors.KindInternal, messages.CodeInternal,
					fmt.Errorf("load %d is older than load %d, which was begun", l.ID.Number, old.status.ID.Number))
			}
			if l.Adds && old.status.Mode != connectors.ModeReplace {
				if err := s.intact(ctx, tx.Conn(), old); err != nil {
					return err
				}
			}
			if err := s.forget(ctx, tx, old); err != nil {
				return err
			}
			forgotten = true
		}
		stored, err := s.prepare(ctx, tx, l)
		if err != nil {
			return err
		}
		return s.record(ctx, tx, l, stored)
	})
	if err == nil && forgotten {
		s.dead.forget(l.ID.Name)
	}
	return err
}

// forget removes an older load: its writers, staging and receipts, and the dead letters of
// a version that nobody will see.
func (s *Session) forget(ctx context.Context, tx pgx.Tx, old storedLoad) error {
	s.mu.Lock()
	var stale []*Writer
	for _, w := range s.writers {
		if w.load.status.ID.Name == old.status.ID.Name {
			stale = append(stale, w)
		}
	}
	s.mu.Unlock()
	for _, w := range stale {
		w.end(&connectors.FencedError{Registered: messages.Token{Epoch: s.epoch}})
	}
	for _, st := range old.streams {
		if st.Stage == "" {
			continue
		}
		if _, err := tx.Exec(ctx, "DROP TABLE IF EXISTS "+query.Qualified(s.d.cfg.Schema, st.Stage)); err != nil {
			return err
		}
	}
	if old.status.Mode == connectors.ModeReplace && !old.status.Finished { // their rows are read again
		if _, err := tx.Exec(ctx, "DELETE FROM _rapidbyte.dlq WHERE pipeline_id = $1 AND load = $2 AND load_no = $3",
			s.id, old.status.ID.Name, int64(old.status.ID.Number)); err != nil { //nolint:gosec // counts passes
			return err
		}
	}
	if _, err := tx.Exec(ctx, "DELETE FROM _rapidbyte.receipt WHERE pipeline_id = $1 AND load = $2", s.id, old.status.ID.Name); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "DELETE FROM _rapidbyte.load WHERE pipeline_id = $1 AND name = $2", s.id, old.status.ID.Name)
	return err
}

// evolve brings a begun load to the shape that its streams have now: columns are added,
// by policy. A load that has its shape is left alone.
func (s *Session) evolve(ctx context.Context, tx pgx.Tx, old storedLoad, l connectors.Load) error {
	if err := s.intact(ctx, tx.Conn(), old); err != nil || old.status.Shape == l.Shape {
		return err
	}
	for _, sp := range l.Streams {
		st, ok := old.stream(sp.Stream)
		if !ok || st.Target != sp.Target || old.status.Mode != l.Mode || l.Mode == connectors.ModeUpsert && !slices.Equal(st.Key, sp.Key) {
			e := destError("continue load "+l.ID.Name, connectors.KindConfig, messages.CodeDocConflict, errors.New("the load was begun with another target, key or write_mode"))
			e.Place.Stream = sp.Stream
			e.Next = "Set back what was changed, or start over with `--full-refresh`."
			return e
		}
	}
	stored, err := s.prepare(ctx, tx, l)
	if err != nil {
		return err
	}
	for i, st := range stored {
		if was, _ := old.stream(st.Stream); was.OID == st.OID {
			continue
		}
		if r, err := s.committed(ctx, tx.Conn(), old, st.Stream); err != nil {
			return err
		} else if r != nil {
			was, _ := old.stream(st.Stream)
			return lostTarget(st.Stream, *r, qname{s.d.cfg.Schema, l.Streams[i].Target}.String(), was.OID, st.OID)
		}
	}
	streams, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	changed := l.Status()
	changed.Parts = old.status.Parts
	status, err := json.Marshal(changed)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "UPDATE _rapidbyte.load SET status = $3::text::json, streams = $4::text::json, updated_at = now() WHERE pipeline_id = $1 AND name = $2",
		s.id, l.ID.Name, string(status), string(streams))
	return err
}

// prepare makes the targets or the staging of l.
func (s *Session) prepare(ctx context.Context, tx pgx.Tx, l connectors.Load) ([]storedStream, error) {
	book, err := bookOID(ctx, tx.Conn())
	if err != nil {
		return nil, err
	}
	var out []storedStream
	for _, sp := range l.Streams {
		g := s.d.goal(s.pipeline, l.Mode, sp, l.ID.Number)
		p, err := g.prepare(ctx, tx)
		if err != nil {
			return nil, err
		}
		lay, err := g.layout(ctx, tx.Conn(), p.stage)
		if err != nil {
			return nil, err
		}
		schema, err := encodeSchema(sp.Schema)
		if err != nil {
			return nil, err
		}
		out = append(out, storedStream{Stream: sp.Stream, Target: sp.Target, Key: sp.Key, Stage: p.stage, OID: lay.oid, Book: book, Schema: schema})
	}
	return out, nil
}

// record writes the load and a receipt at commit 0 for each part.
func (s *Session) record(ctx context.Context, tx pgx.Tx, l connectors.Load, stored []storedStream) error {
	streams, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	status, err := json.Marshal(l.Status())
	if err != nil {
		return err
	}
	number := int64(l.ID.Number) //nolint:gosec // counts passes
	if _, err := tx.Exec(ctx, "INSERT INTO _rapidbyte.load (pipeline_id, name, load_no, finished, status, streams) VALUES ($1, $2, $3, false, $4::text::json, $5::text::json)",
		s.id, l.ID.Name, number, string(status), string(streams)); err != nil {
		return err
	}
	names, plans := make([]string, len(l.Parts)), make([]string, len(l.Parts))
	for i, p := range l.Parts {
		planned, err := json.Marshal(p)
		if err != nil {
			return err
		}
		names[i], plans[i] = string(p.ID), string(planned)
	}
	if _, err := tx.Exec(ctx, "DELETE FROM _rapidbyte.receipt WHERE pipeline_id = $1 AND (part = ANY($2) OR load = $3)", s.id, names, l.ID.Name); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO _rapidbyte.receipt (pipeline_id, part, load, load_no, commit_no, epoch, attempt, position, final, plan, source_identity,
			rows_read, rows_arrived, rows_applied, rows_rejected)
		SELECT $1, p.name, $2, $3, 0, 0, 0, '{}', false, p.plan::json, $4, 0, 0, 0, 0 FROM unnest($5::text[], $6::text[]) AS p(name, plan)`,
		s.id, l.ID.Name, number, l.Identity, names, plans)
	return err
}

// OpenWriter fences every other writer of the part and returns the receipt. Waiting for
// the lock of its row is waiting for the fate of an older writer's last transaction.
func (s *Session) OpenWriter(ctx context.Context, p connectors.Part, t messages.Token) (connectors.Writer, messages.Receipt, error) {
	op := "open a writer of " + string(p.ID)
	s.endWriter(p.ID, t)
	var w *Writer
	err := s.changing(ctx, s.book, op, func(tx pgx.Tx) error {
		found, err := readReceipts(ctx, tx.Conn(), s.id, p.ID, " FOR UPDATE")
		if err != nil {
			return err
		}
		if len(found.all) != 1 {
			return destError(op, connectors.KindInternal, messages.CodeInternal, fmt.Errorf("the part has %d receipts, want 1: it was not begun", len(found.all)))
		}
		r := found.all[0]
		if r.LoadID() != p.Load || r.Token.Compare(t) > 0 || t.Epoch != s.epoch {
			return &connectors.FencedError{Registered: younger(r.Token, messages.Token{Epoch: s.epoch})}
		}
		loads, err := readLoads(ctx, tx.Conn(), s.id, r.Load)
		if err != nil {
			return err
		}
		if len(loads) != 1 || loads[0].status.ID != r.LoadID() {
			return damaged(errors.New("the part's load is not in _rapidbyte.load"))
		}
		r.Token = t
		if w, err = s.writer(ctx, tx.Conn(), loads[0], p, r); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "UPDATE _rapidbyte.receipt SET epoch = $3, attempt = $4 WHERE pipeline_id = $1 AND part = $2",
			s.id, string(p.ID), int64(t.Epoch), int64(t.Attempt)) //nolint:gosec // counters
		return err
	})
	if err != nil {
		return nil, messages.Receipt{}, err
	}
	if err := w.open(ctx); err != nil {
		return nil, messages.Receipt{}, s.d.classify(ctx, op, err)
	}
	s.dead.set(w.receipt)
	return w, w.receipt, nil
}

// endWriter ends this session's older writer of a part.
func (s *Session) endWriter(p messages.PartID, t messages.Token) {
	s.mu.Lock()
	old := s.writers[p]
	s.mu.Unlock()
	if old != nil && old.token.Compare(t) < 0 {
		old.end(&connectors.FencedError{Registered: t})
	}
}

// Finish swaps the staging of a replace in and marks the load, in one transaction.
func (s *Session) Finish(ctx context.Context, id messages.LoadID) error {
	op := "finish load " + id.Name
	swapped := false
	err := s.changing(ctx, s.finishing, op, func(tx pgx.Tx) error {
		loads, err := readLoads(ctx, tx.Conn(), s.id, id.Name)
		if err != nil {
			return err
		}
		if len(loads) != 1 || loads[0].status.ID != id {
			return destError(op, connectors.KindInternal, messages.CodeInternal, fmt.Errorf("load %d was not begun", id.Number))
		}
		l := loads[0]
		if l.status.Finished {
			return nil
		}
		var open int
		if err := tx.QueryRow(ctx, "SELECT count(*) FROM _rapidbyte.receipt WHERE pipeline_id = $1 AND load = $2 AND NOT final", s.id, id.Name).Scan(&open); err != nil {
			return err
		}
		if open > 0 {
			return destError(op, connectors.KindInternal, messages.CodeInternal, fmt.Errorf("%d parts are not final", open))
		}
		if err := s.swapAll(ctx, tx, l); err != nil {
			return err
		}
		if swapped = l.status.Mode == connectors.ModeReplace; swapped {
			if err := failpoint.Hit(failpoint.SwapBefore); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, "UPDATE _rapidbyte.load SET finished = true, updated_at = now() WHERE pipeline_id = $1 AND name = $2", s.id, id.Name)
		return err
	})
	if err != nil || !swapped {
		return err
	}
	return failpoint.Hit(failpoint.SwapAfter)
}

// swapAll puts the staging tables of a load in the place of their targets. What takes long
// comes first, for all of them: no target is locked while indexes are built.
func (s *Session) swapAll(ctx context.Context, tx pgx.Tx, l storedLoad) error {
	var built []*swapper
	for _, st := range l.streams {
		if st.Stage == "" {
			continue
		}
		sp, err := st.plan()
		if err != nil {
			return err
		}
		b, err := s.d.goal(s.pipeline, l.status.Mode, sp, l.status.ID.Number).build(ctx, tx, st.Stage)
		if err != nil {
			return err
		}
		built = append(built, b)
	}
	for _, b := range built {
		if err := b.exchange(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the session's writers and connections. Idempotent.
func (s *Session) Close(ctx context.Context) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	idle, writers := s.idle, s.writers
	s.idle, s.writers = nil, map[messages.PartID]*Writer{}
	s.mu.Unlock()
	for _, w := range writers {
		w.end(nil)
	}
	for _, c := range idle {
		_ = c.Close() // nothing of it is used any more
	}
	return errors.Join(s.book.close(ctx), s.finishing.close(ctx))
}

// take returns a data connection: an idle one, or a new one.
func (s *Session) take(ctx context.Context) (*wire.Conn, error) {
	s.mu.Lock()
	if n := len(s.idle); n > 0 {
		c := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		return c, nil
	}
	s.mu.Unlock()
	return s.dial.data(ctx)
}

// give takes a data connection back, if it is as it was when it was new.
func (s *Session) give(c *wire.Conn) {
	s.mu.Lock()
	if !s.closed && !c.Broken() && c.TxStatus() == 'I' {
		s.idle = append(s.idle, c)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	_ = c.Close() // nothing of it is used any more
}

// adopt makes w the writer of its part; false: the session has been closed.
func (s *Session) adopt(w *Writer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.writers[w.part.ID] = w
	}
	return !s.closed
}

// drop forgets w.
func (s *Session) drop(w *Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writers[w.part.ID] == w {
		delete(s.writers, w.part.ID)
	}
}

func younger(a, b messages.Token) messages.Token {
	return slices.MaxFunc([]messages.Token{a, b}, messages.Token.Compare)
}
