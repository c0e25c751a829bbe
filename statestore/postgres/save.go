package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
	"rapidbyte.io/node/statestore"
)

// Save implements statestore.Store. It is one transaction of two round trips: what u
// concerns is read under a lock on the pipeline's row, then what it changes is written.
// An update that changes nothing costs no sync.
func (s *Store) Save(ctx context.Context, p messages.PipelineID, e messages.Epoch, u statestore.Update) error {
	err := u.Check(p)
	if err == nil {
		err = s.save(ctx, p, e, u)
	}
	if err == nil {
		err = failpoint.Hit(failpoint.StateAfter)
	}
	if err != nil {
		return statestore.SaveError(s.path, p, u, s.explain(err))
	}
	return nil
}

func (s *Store) save(ctx context.Context, p messages.PipelineID, e messages.Epoch, u statestore.Update) error {
	ctx, done, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer done()
	c := newChange(p)
	return s.transact(ctx, func(conn *pgxpool.Conn) error {
		if err := c.read(ctx, conn, e, u); err != nil {
			return err
		}
		if s.clock != nil {
			c.now = s.clock()
		}
		c.now = utc(c.now)
		c.apply(u)
		b := &pgx.Batch{}
		if err := c.write(b, &s.hints); err != nil {
			return err
		}
		if err := failpoint.Hit(failpoint.StateMid); err != nil {
			return err
		}
		if b.Len() == 0 {
			rollback(ctx, conn)
			return nil
		}
		if err := commit(ctx, conn, b); err != nil {
			return err
		}
		s.hints.add(c.now, c.hinted())
		return nil
	})
}

// sheet is the part of a table that an update concerns.
type sheet[T any] struct {
	form    form[T]
	was     map[string]cell
	now     map[string]T
	touched map[string]bool
}

func newSheet[T any](f form[T]) sheet[T] {
	return sheet[T]{form: f, was: map[string]cell{}, now: map[string]T{}, touched: map[string]bool{}}
}

// fill takes over what is stored.
func (s *sheet[T]) fill(pipeline string, rows []cell) error {
	for _, c := range rows {
		a, v, err := s.form.open(pipeline, c)
		if err != nil {
			return statestore.About("", partOf(a), err)
		}
		s.was[a.key], s.now[a.key] = c, v
	}
	return nil
}

func (s *sheet[T]) put(v T) {
	key := s.form.key(v)
	s.now[key], s.touched[key] = v, true
}

// drop removes what which says.
func (s *sheet[T]) drop(which func(T) bool) {
	for key, v := range s.now {
		if which(v) {
			delete(s.now, key)
			s.touched[key] = true
		}
	}
}

// flush queues what differs from the table and keeps sum true.
func (s *sheet[T]) flush(b *pgx.Batch, pipeline string, sum *digest) error {
	var gone, ids [][]byte
	var values []string
	var sums []int64
	for _, key := range slices.Sorted(maps.Keys(s.touched)) {
		a := address{pipeline, s.form.kind, key}
		was, old := s.was[key]
		v, young := s.now[key]
		var c cell
		if young {
			var err error
			if a, c, err = s.form.seal(pipeline, v); err != nil {
				return statestore.About("", partOf(a), err)
			}
			if old && was.value == c.value {
				continue
			}
			sum.add(a, c.value)
			ids, values, sums = append(ids, c.row), append(values, c.value), append(sums, c.sum)
		}
		if old {
			sum.remove(a, was.value)
			if !young {
				gone = append(gone, was.row)
			}
		}
	}
	table := "_rapidbyte_state." + string(s.form.kind)
	if len(gone) > 0 {
		b.Queue("DELETE FROM "+table+" WHERE pipeline = $1 AND id = ANY($2)", rowOf(pipeline), gone)
	}
	if len(ids) > 0 {
		b.Queue("INSERT INTO "+table+` AS t (pipeline, id, value, sum)
			SELECT $1, u.id, u.value, u.sum FROM unnest($2::bytea[], $3::text[], $4::bigint[]) AS u (id, value, sum)
			ON CONFLICT (pipeline, id) DO UPDATE SET value = excluded.value, sum = excluded.sum`, rowOf(pipeline), ids, values, sums)
	}
	return nil
}

// change is one Save under way.
type change struct {
	pipeline string
	record   pipelineRecord
	stored   pipelineRecord
	now      time.Time // of the server

	receipts sheet[messages.Receipt]
	loads    sheet[loadRecord]
	runs     sheet[statestore.Run]
	orders   sheet[orderRecord]

	forgotten []string
	kept      map[string]keptRecord
	begun     map[string]uint64 // names that reached a new number: smaller receipts go
}

func newChange(p messages.PipelineID) *change {
	return &change{
		pipeline: string(p), receipts: newSheet(receipts), loads: newSheet(loads), runs: newSheet(runs), orders: newSheet(orders),
		kept: map[string]keptRecord{}, begun: map[string]uint64{},
	}
}

// read locks the pipeline, proves that e owns it and reads what u concerns.
func (c *change) read(ctx context.Context, conn *pgxpool.Conn, e messages.Epoch, u statestore.Update) error {
	id := rowOf(c.pipeline)
	parts, names := concerned(u)
	var pipeline, receiptRows, loadRows, runRows, orderRows []cell
	b := &pgx.Batch{}
	begin(b)
	cells(b, &pipeline, pipelineSQL+" FOR UPDATE", id)
	b.Queue("SELECT clock_timestamp()").QueryRow(func(row pgx.Row) error { return row.Scan(&c.now) })
	if len(u.Forget) > 0 {
		cells(b, &receiptRows, receiptsSQL, id)
	} else if len(parts) > 0 {
		cells(b, &receiptRows, receiptsSQL+" AND id = ANY($2)", id, parts)
	}
	if len(names) > 0 {
		cells(b, &loadRows, loadsSQL+" AND id = ANY($2)", id, names)
	}
	if u.Run != nil {
		cells(b, &runRows, runsSQL, id)
	}
	if len(u.Forget)+len(u.Revoke)+len(u.Orders) > 0 {
		cells(b, &orderRows, ordersSQL, id)
	}
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	if err := c.own(pipeline, e); err != nil {
		return err
	}
	for _, err := range []error{
		c.receipts.fill(c.pipeline, receiptRows), c.loads.fill(c.pipeline, loadRows),
		c.runs.fill(c.pipeline, runRows), c.orders.fill(c.pipeline, orderRows),
	} {
		if err != nil {
			return err
		}
	}
	if len(u.Forget) > 0 || !slices.ContainsFunc(u.Receipts, func(r messages.Receipt) bool { return r.Version.Load > c.loads.now[r.Load].Current }) {
		return nil
	}
	// A load begins: the receipts of those before it go. All are read, but only then.
	receiptRows = nil
	b = &pgx.Batch{}
	cells(b, &receiptRows, receiptsSQL, id)
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	return c.receipts.fill(c.pipeline, receiptRows)
}

// concerned returns the rows of the parts and loads that u speaks of.
func concerned(u statestore.Update) (parts, names [][]byte) {
	for _, r := range u.Receipts {
		parts, names = append(parts, rowOf(string(r.Part))), append(names, rowOf(r.Load))
	}
	for _, l := range u.Finished {
		names = append(names, rowOf(l.Name))
	}
	for _, name := range u.Forget {
		names = append(names, rowOf(name))
	}
	return parts, names
}

// own checks that e is the epoch of the pipeline (I4).
func (c *change) own(rows []cell, e messages.Epoch) (err error) {
	if len(rows) > 0 {
		_, c.stored, err = pipelines.open(c.pipeline, rows[0])
	}
	if c.record = c.stored; err == nil && (c.stored.Epoch == 0 || c.stored.Epoch != e) {
		err = fmt.Errorf("%w: epoch %d was presented, the pipeline has %d", statestore.ErrFenced, e, c.stored.Epoch)
	}
	return err
}

func (c *change) apply(u statestore.Update) {
	c.forgotten = u.Forget
	forgotten := func(name string) bool { return slices.Contains(u.Forget, name) }
	c.loads.drop(func(l loadRecord) bool { return forgotten(l.Name) })
	c.receipts.drop(func(r messages.Receipt) bool { return forgotten(r.Load) })
	for _, r := range u.Receipts {
		c.receipt(r)
	}
	for _, id := range u.Finished {
		if l := c.load(id.Name); id.Number > l.Finished {
			l.Finished = id.Number
			c.loads.put(l)
		}
	}
	if len(c.begun) > 0 {
		c.receipts.drop(func(r messages.Receipt) bool { return r.Version.Load < c.begun[r.Load] })
	}
	c.orders.drop(func(o orderRecord) bool { return forgotten(o.Load.Name) || slices.Contains(u.Revoke, o.Load.Name) })
	for _, o := range u.Orders {
		o.Given = utc(o.Given)
		c.orders.put(orderRecord(o))
	}
	if u.Run != nil {
		c.run(*u.Run)
	}
}

func (c *change) load(name string) loadRecord {
	l := c.loads.now[name]
	l.Name = name
	return l
}

// receipt stores r unless it is behind what is stored (I1: never lower a version).
func (c *change) receipt(r messages.Receipt) {
	l := c.load(r.Load)
	stored, ok := c.receipts.now[string(r.Part)]
	if r.Version.Load < l.reached() || ok && r.Version.Compare(stored.Version) <= 0 {
		return
	}
	c.receipts.put(r)
	k := keptRecord{Receipt: r, Saved: c.now}
	c.kept[k.key()] = k
	if r.Version.Load > l.Current {
		l.Current = r.Version.Load
		c.begun[r.Load] = l.Current
		c.loads.put(l)
	}
}

// run stores r and drops the oldest runs.
func (c *change) run(r statestore.Run) {
	r.Started, r.Ended = utc(r.Started), utc(r.Ended)
	if stored, ok := c.runs.now[r.ID]; ok && !r.Replaces(stored) {
		return
	}
	c.runs.put(r)
	all := slices.SortedFunc(maps.Values(c.runs.now), statestore.Run.Compare)
	for _, old := range all[min(len(all), statestore.RunsKept):] {
		c.runs.drop(func(r statestore.Run) bool { return r.ID == old.ID })
	}
}

// write queues everything that changes.
func (c *change) write(b *pgx.Batch, h *hints) error {
	sum := &c.record.Digest
	for _, flush := range []func(*pgx.Batch, string, *digest) error{c.receipts.flush, c.loads.flush, c.runs.flush, c.orders.flush} {
		if err := flush(b, c.pipeline, sum); err != nil {
			return err
		}
	}
	if err := c.writeHistory(b, h); err != nil {
		return err
	}
	if c.record == c.stored {
		return nil
	}
	_, row, err := pipelines.seal(c.pipeline, c.record)
	b.Queue("UPDATE _rapidbyte_state.pipeline SET value = $2, sum = $3 WHERE id = $1", row.row, row.value, row.sum)
	return err
}

// writeHistory queues what changes in the list of checkpoints, which the digest does not
// sum up: nothing depends on it but the choice of an operator.
func (c *change) writeHistory(b *pgx.Batch, h *hints) error {
	id := rowOf(c.pipeline)
	if len(c.forgotten) > 0 && len(c.receipts.touched)+len(c.loads.touched) > 0 {
		var names [][]byte
		for _, name := range c.forgotten {
			names = append(names, rowOf(name))
		}
		b.Queue("DELETE FROM _rapidbyte_state.history WHERE pipeline = $1 AND load = ANY($2)", id, names)
	}
	var parts, ids, names, crowded [][]byte
	var values, numbers, commits, epochs, attempts []string
	var sums []int64
	for _, key := range slices.Sorted(maps.Keys(c.kept)) {
		k := c.kept[key]
		_, cell, err := history.seal(c.pipeline, k)
		if err != nil {
			return statestore.About(k.Receipt.Load, k.Receipt.Part, err)
		}
		r, part := k.Receipt, rowOf(string(k.Receipt.Part))
		parts, ids, names = append(parts, part), append(ids, cell.row), append(names, rowOf(r.Load))
		values, sums = append(values, cell.value), append(sums, cell.sum)
		numbers, commits = append(numbers, decimal(r.Version.Load)), append(commits, decimal(r.Version.Commit))
		epochs, attempts = append(epochs, decimal(uint64(r.Token.Epoch))), append(attempts, decimal(uint64(r.Token.Attempt)))
		if !h.has(c.now, c.hint(key)) {
			crowded = append(crowded, part)
		}
	}
	if len(ids) > 0 {
		b.Queue(keepSQL, id, parts, ids, names, numbers, commits, epochs, attempts, values, sums)
	}
	if len(crowded) > 0 {
		b.Queue(trimSQL, id, crowded, statestore.HistoryKept)
	}
	for _, name := range slices.Sorted(maps.Keys(c.begun)) {
		b.Queue("DELETE FROM _rapidbyte_state.history WHERE pipeline = $1 AND load = $2 AND number < $3::text::numeric", id, rowOf(name), decimal(c.begun[name]))
	}
	return nil
}

const (
	keepSQL = `INSERT INTO _rapidbyte_state.history (pipeline, part, id, load, number, commit, epoch, attempt, value, sum)
		SELECT $1, u.part, u.id, u.load, u.number::numeric, u.commit::numeric, u.epoch::numeric, u.attempt::numeric, u.value, u.sum
		FROM unnest($2::bytea[], $3::bytea[], $4::bytea[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::bigint[])
			AS u (part, id, load, number, commit, epoch, attempt, value, sum)
		ON CONFLICT (pipeline, part, id) DO UPDATE SET commit = excluded.commit, attempt = excluded.attempt, value = excluded.value, sum = excluded.sum`
	trimSQL = `DELETE FROM _rapidbyte_state.history AS h USING (
			SELECT part, id, row_number() OVER (PARTITION BY part ORDER BY number DESC, commit DESC, epoch DESC, attempt DESC) AS rank
			FROM _rapidbyte_state.history WHERE pipeline = $1 AND part = ANY($2)
		) AS old WHERE old.rank > $3::bigint AND h.pipeline = $1 AND h.part = old.part AND h.id = old.id`
)

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }

// hint names a row of the history.
func (c *change) hint(key string) string { return string(appendTexts(nil, c.pipeline, key)) }

// hinted are the rows that the history has now.
func (c *change) hinted() []string {
	var keys []string
	for key := range c.kept {
		keys = append(keys, c.hint(key))
	}
	return keys
}
