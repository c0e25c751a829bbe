package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rapidbyte.io/node/connectors"
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
	begun   map[string]connectors.WriteMode // loads, by name
	laid    map[messages.StreamID]laid
	columns int // of the layouts in laid
}

func newSession(d *Destination, r connectors.SessionRequest) *Session {
	return &Session{
		d: d, dial: d.dial.named(applicationName(r.Pipeline, r.Epoch)), pipeline: r.Pipeline, id: pipelineUUID(r.Pipeline), epoch: r.Epoch, run: r.Run,
		book: newLane(), finishing: newLane(), writers: map[messages.PartID]*Writer{}, dead: tally{policy: d.policy},
		begun: map[string]connectors.WriteMode{}, laid: map[messages.StreamID]laid{},
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
			if err := s.owns(tx.QueryRow(ctx, ownerLockedSQL, s.id)); err != nil {
				return err
			}
			return do(tx)
		})
	})
	return s.superseded(ctx, s.d.classify(ctx, op, err))
}

// brief is changing in two round trips: queries are sent behind BEGIN and the look at the
// owner, what then returns goes out with COMMIT. read takes the results of queries.
func (s *Session) brief(ctx context.Context, l *lane, op string, queries []*pgx.QueuedQuery, read func(pgx.BatchResults) error, then func(*pgx.Conn) ([]*pgx.QueuedQuery, error)) error {
	err := s.using(ctx, l, func(conn *pgx.Conn) (err error) {
		defer func() {
			if err != nil && !conn.IsClosed() && conn.PgConn().TxStatus() != 'I' {
				if _, e := conn.Exec(ctx, "rollback"); e != nil {
					closeConn(conn)
				}
			}
		}()
		first := append([]*pgx.QueuedQuery{{SQL: "begin"}, {SQL: ownerLockedSQL, Arguments: []any{s.id}}}, queries...)
		results := conn.SendBatch(ctx, &pgx.Batch{QueuedQueries: first})
		if _, err = results.Exec(); err == nil {
			err = s.owns(results.QueryRow())
		}
		if err == nil {
			err = read(results)
		}
		if closing := results.Close(); err == nil {
			err = closing
		}
		if err != nil {
			return err
		}
		last, err := then(conn)
		if err != nil {
			return err
		}
		return commitWith(ctx, conn, last)
	})
	return s.superseded(ctx, s.d.classify(ctx, op, err))
}

// commitWith runs statements and COMMIT in one round trip.
func commitWith(ctx context.Context, conn *pgx.Conn, last []*pgx.QueuedQuery) error {
	results := conn.SendBatch(ctx, &pgx.Batch{QueuedQueries: append(last, &pgx.QueuedQuery{SQL: "commit"})})
	var err error
	var tag pgconn.CommandTag
	for range len(last) + 1 {
		if err == nil {
			tag, err = results.Exec()
		}
	}
	if closing := results.Close(); err == nil {
		err = closing
	}
	if err == nil && tag.String() != "COMMIT" {
		err = fmt.Errorf("the server answered COMMIT with %s", tag)
	}
	return err
}

// owns checks that the registered owner is this session.
func (s *Session) owns(row pgx.Row) error {
	o, ok, err := scanOwner(row)
	switch {
	case err != nil:
		return err
	case !ok:
		return damaged(errors.New("the pipeline's row in _rapidbyte.owner is gone"))
	case o.epoch != s.epoch:
		return &connectors.FencedError{Registered: messages.Token{Epoch: o.epoch}}
	}
	return nil
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

// OpenWriter fences every other writer of the part and returns the receipt. Waiting for
// the lock of its row is waiting for the fate of an older writer's last transaction.
func (s *Session) OpenWriter(ctx context.Context, p connectors.Part, t messages.Token) (connectors.Writer, messages.Receipt, error) {
	op := "open a writer of " + string(p.ID)
	s.endWriter(p.ID, t)
	var w *Writer
	var found receipts
	var loads []storedLoad
	known := s.laidFor(p)
	queries := append([]*pgx.QueuedQuery{
		{SQL: receiptLockedSQL, Arguments: []any{s.id, string(p.ID), int64(s.epoch)}}, //nolint:gosec // checked by Open
		{SQL: loadsNamedSQL, Arguments: []any{s.id, []string{p.Load.Name}}},
	}, known.query()...)
	read := func(got pgx.BatchResults) (err error) {
		if found, err = next(got, collectReceipts); err != nil {
			return err
		}
		if loads, err = next(got, collectLoads); err != nil {
			return err
		}
		return known.check(got)
	}
	err := s.brief(ctx, s.book, op, queries, read, func(conn *pgx.Conn) (_ []*pgx.QueuedQuery, err error) {
		if len(found.all) != 1 {
			return nil, destError(op, connectors.KindInternal, messages.CodeInternal, fmt.Errorf("the part has %d receipts, want 1: it was not begun", len(found.all)))
		}
		r := found.all[0]
		if r.LoadID() != p.Load || r.Token.Compare(t) > 0 || t.Epoch != s.epoch {
			return nil, &connectors.FencedError{Registered: younger(r.Token, messages.Token{Epoch: s.epoch})}
		}
		if len(loads) != 1 || loads[0].status.ID != r.LoadID() {
			return nil, damaged(errors.New("the part's load is not in _rapidbyte.load"))
		}
		r.Token = t
		if w, err = s.writer(ctx, conn, loads[0], p, r, known); err != nil {
			return nil, err
		}
		return []*pgx.QueuedQuery{{
			SQL:       "UPDATE _rapidbyte.receipt SET epoch = $3, attempt = $4 WHERE pipeline_id = $1 AND part = $2",
			Arguments: []any{s.id, string(p.ID), int64(t.Epoch), int64(t.Attempt)}, //nolint:gosec // counters
		}}, nil
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

// next collects the next result of a batch.
func next[T any](got pgx.BatchResults, collect func(pgx.Rows) (T, error)) (out T, err error) {
	rows, err := got.Query()
	if err != nil {
		return out, err
	}
	return collect(rows)
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
	return s.finish(ctx, []messages.LoadID{id})
}

// FinishAll implements connectors.Finisher.
func (s *Session) FinishAll(ctx context.Context, ids []messages.LoadID) error {
	return s.finish(ctx, ids)
}

// openSQL counts the parts that are not final, by load.
const openSQL = "SELECT load, count(*) FROM _rapidbyte.receipt WHERE pipeline_id = $1 AND load = ANY($2) AND NOT final GROUP BY load"

// finish finishes loads in one transaction.
func (s *Session) finish(ctx context.Context, ids []messages.LoadID) error {
	op := "finish load " + ids[0].Name
	if len(ids) > 1 {
		op = fmt.Sprintf("finish %d loads", len(ids))
	}
	f := &finishing{session: s, ids: ids, open: map[string]int{}}
	if s.marksOnly(ids) {
		err := s.brief(ctx, s.book, op, f.queries(), f.read, func(*pgx.Conn) ([]*pgx.QueuedQuery, error) { return f.marks() })
		if err == nil {
			s.unlayAll(f.loads)
		}
		if !errors.Is(err, errSwaps) {
			return err
		}
	}
	if err := s.changing(ctx, s.finishing, op, func(tx pgx.Tx) error { return f.carryOut(ctx, tx) }); err != nil {
		return err
	}
	s.unlayAll(f.loads)
	if !f.swapped {
		return nil
	}
	return failpoint.Hit(failpoint.SwapAfter)
}

// errSwaps says that a load has staging, whatever its mode is called.
var errSwaps = errors.New("a load has staging that must be swapped in")

// finishing is the end of loads.
type finishing struct {
	session *Session
	ids     []messages.LoadID
	loads   []storedLoad
	open    map[string]int // parts that are not final, by load
	swapped bool
}

func (f *finishing) queries() []*pgx.QueuedQuery {
	names := make([]string, len(f.ids))
	for i, id := range f.ids {
		names[i] = id.Name
	}
	return []*pgx.QueuedQuery{{SQL: loadsNamedSQL, Arguments: []any{f.session.id, names}}, {SQL: openSQL, Arguments: []any{f.session.id, names}}}
}

func (f *finishing) read(got pgx.BatchResults) (err error) {
	if f.loads, err = next(got, collectLoads); err != nil {
		return err
	}
	rows, err := got.Query()
	if err != nil {
		return err
	}
	var name string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&name, &n}, func() error { f.open[name] = n; return nil })
	return err
}

// due returns the loads that are complete and not yet finished.
func (f *finishing) due() ([]storedLoad, error) {
	var out []storedLoad
	for _, id := range f.ids {
		op := "finish load " + id.Name
		i := slices.IndexFunc(f.loads, func(l storedLoad) bool { return l.status.ID == id })
		switch {
		case i < 0:
			return nil, destError(op, connectors.KindInternal, messages.CodeInternal, fmt.Errorf("load %d was not begun", id.Number))
		case f.loads[i].status.Finished:
		case f.open[id.Name] > 0:
			return nil, destError(op, connectors.KindInternal, messages.CodeInternal, fmt.Errorf("%d parts are not final", f.open[id.Name]))
		default:
			out = append(out, f.loads[i])
		}
	}
	return out, nil
}

// marks returns the statement that marks the loads, for which nothing else is to be done.
func (f *finishing) marks() ([]*pgx.QueuedQuery, error) {
	due, err := f.due()
	if err != nil || len(due) == 0 {
		return nil, err
	}
	for _, l := range due {
		if slices.ContainsFunc(l.streams, func(st storedStream) bool { return st.Stage != "" }) {
			return nil, errSwaps
		}
	}
	return []*pgx.QueuedQuery{f.mark(due)}, nil
}

func (f *finishing) mark(due []storedLoad) *pgx.QueuedQuery {
	names := make([]string, len(due))
	for i, l := range due {
		names[i] = l.status.ID.Name
	}
	return &pgx.QueuedQuery{
		SQL:       "UPDATE _rapidbyte.load SET finished = true, updated_at = now() WHERE pipeline_id = $1 AND name = ANY($2)",
		Arguments: []any{f.session.id, names},
	}
}

// carryOut swaps what is staged and marks the loads, inside of a transaction.
func (f *finishing) carryOut(ctx context.Context, tx pgx.Tx) error {
	results := tx.SendBatch(ctx, &pgx.Batch{QueuedQueries: f.queries()})
	err := f.read(results)
	if closing := results.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	due, err := f.due()
	if err != nil || len(due) == 0 {
		return err
	}
	for _, l := range due {
		if err := f.session.swapAll(ctx, tx, l); err != nil {
			return err
		}
		f.swapped = f.swapped || l.status.Mode == connectors.ModeReplace
	}
	if f.swapped {
		if err := failpoint.Hit(failpoint.SwapBefore); err != nil {
			return err
		}
	}
	mark := f.mark(due)
	_, err = tx.Exec(ctx, mark.SQL, mark.Arguments...)
	return err
}

// marksOnly reports whether nothing but marks is to be set, which the connection of the
// bookkeeping does in no time.
func (s *Session) marksOnly(ids []messages.LoadID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(ids, func(id messages.LoadID) bool {
		mode, ok := s.begun[id.Name]
		return !ok || mode == connectors.ModeReplace
	})
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
