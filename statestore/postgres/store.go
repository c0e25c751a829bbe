package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// Store is a state store in a database. Open makes it; Close ends it.
type Store struct {
	*target
	config Config
	id     string // of the store
	aside  string // schema that a rebuild has set aside; empty: none
	here   owner  // of the leases of this Store
	me     string // its text
	pool   *pgxpool.Pool
	leases *leases

	hints hints
	clock func() time.Time // of checkpoints; nil: the server's

	using  sync.RWMutex // read-locked by every call; guards closed
	closed bool
}

var (
	_ statestore.Store  = (*Store)(nil)
	_ statestore.Leaser = (*Store)(nil)
)

// Identity implements statestore.Store.
func (s *Store) Identity() string { return s.id }

// Aside returns the schema to which Open moved a damaged store because of
// Config.Rebuild; empty when it found nothing to move. What Acquire sets aside is in the
// table aside.
func (s *Store) Aside() string { return s.aside }

const (
	storeSQL    = `SELECT ''::bytea, value, sum FROM _rapidbyte_state.store`
	countSQL    = `SELECT count(*) FROM _rapidbyte_state.pipeline`
	pipelineSQL = `SELECT id, value, sum FROM _rapidbyte_state.pipeline WHERE id = $1`
	receiptsSQL = `SELECT id, value, sum FROM _rapidbyte_state.receipt WHERE pipeline = $1`
	loadsSQL    = `SELECT id, value, sum FROM _rapidbyte_state.load WHERE pipeline = $1`
	runsSQL     = `SELECT id, value, sum FROM _rapidbyte_state.run WHERE pipeline = $1`
	ordersSQL   = `SELECT id, value, sum FROM _rapidbyte_state.orders WHERE pipeline = $1`
)

// image is everything that is stored of a pipeline but its history.
type image struct {
	store, pipeline, receipts, loads, runs, orders []cell
	pipelines                                      uint64 // in the table
}

// queue reads it.
func (i *image) queue(b *pgx.Batch, p messages.PipelineID) {
	id := rowOf(string(p))
	b.Queue(countSQL).QueryRow(func(row pgx.Row) error { return row.Scan(&i.pipelines) })
	store(b, &i.store)
	cells(b, &i.pipeline, pipelineSQL, id)
	cells(b, &i.receipts, receiptsSQL, id)
	cells(b, &i.loads, loadsSQL, id)
	cells(b, &i.runs, runsSQL, id)
	cells(b, &i.orders, ordersSQL, id)
}

// store queues the row that says which store this is.
func store(b *pgx.Batch, into *[]cell) { cells(b, into, storeSQL) }

// openStore reads it.
func openStore(rows []cell) (storeRecord, error) {
	if len(rows) != 1 {
		return storeRecord{}, damaged("the table store has %d rows", len(rows))
	}
	rows[0].row = rowOf("")
	_, r, err := stores.open("", rows[0])
	return r, err
}

// decoded is an image that has been proven.
type decoded struct {
	record   pipelineRecord // zero: the store does not know the pipeline
	receipts []messages.Receipt
	loads    map[string]loadRecord
	runs     []statestore.Run
	orders   []orderRecord
}

// open proves an image: each value is what was written, and they are all there.
func (i *image) open(p messages.PipelineID) (d decoded, err error) {
	if len(i.pipeline) == 0 {
		st, err := openStore(i.store)
		if err != nil {
			return d, err
		}
		if i.pipelines != st.Pipelines {
			return d, damaged("it holds %d pipelines and should hold %d", i.pipelines, st.Pipelines)
		}
		if n := len(i.receipts) + len(i.loads) + len(i.runs) + len(i.orders); n > 0 {
			return d, damaged("it holds %d values of a pipeline that it does not know", n)
		}
		return d, nil
	}
	if _, d.record, err = pipelines.open(string(p), i.pipeline[0]); err != nil {
		return d, err
	}
	var sum digest
	d.loads = map[string]loadRecord{}
	err = errors.Join(
		each(receipts, p, i.receipts, &sum, func(r messages.Receipt) { d.receipts = append(d.receipts, r) }),
		each(loads, p, i.loads, &sum, func(l loadRecord) { d.loads[l.Name] = l }),
		each(runs, p, i.runs, &sum, func(r statestore.Run) { d.runs = append(d.runs, r) }),
		each(orders, p, i.orders, &sum, func(o orderRecord) { d.orders = append(d.orders, o) }),
	)
	if want := d.record.Digest; err == nil && sum != want {
		err = damaged("it holds %d values of the pipeline and should hold %d, or one of them is an old one", sum.Count, want.Count)
	}
	slices.SortFunc(d.receipts, func(a, b messages.Receipt) int { return cmp.Compare(a.Part, b.Part) })
	slices.SortFunc(d.runs, statestore.Run.Compare)
	return d, err
}

// each opens all values of one kind and adds them to sum. It returns the first error.
func each[T any](f form[T], p messages.PipelineID, rows []cell, sum *digest, fn func(T)) error {
	for _, c := range rows {
		a, v, err := f.open(string(p), c)
		if err != nil {
			return statestore.About("", partOf(a), err)
		}
		sum.add(a, c.value)
		fn(v)
	}
	return nil
}

// partOf returns the part that a value is about.
func partOf(a address) messages.PartID {
	if a.kind == kindReceipt {
		return messages.PartID(a.key)
	}
	return ""
}

func (d decoded) state() statestore.State {
	st := statestore.State{Epoch: d.record.Epoch, Receipts: d.receipts}
	for _, l := range d.loads {
		if l.Finished > 0 {
			st.Finished = append(st.Finished, messages.LoadID{Name: l.Name, Number: l.Finished})
		}
	}
	slices.SortFunc(st.Finished, func(a, b messages.LoadID) int { return cmp.Compare(a.Name, b.Name) })
	if len(d.runs) > 0 && d.runs[0].Ended.IsZero() {
		st.Run = d.runs[0]
	}
	versions := map[messages.PartID]messages.Version{}
	for _, r := range d.receipts {
		versions[r.Part] = r.Version
	}
	for _, r := range d.orders {
		if o := statestore.Order(r); !o.Void(d.loads[o.Load.Name].reached(), versions[o.Part]) {
			st.Orders = append(st.Orders, o)
		}
	}
	slices.SortFunc(st.Orders, statestore.Order.Compare)
	return st
}

// Load implements statestore.Store. With Config.Rebuild a pipeline that is damaged reads
// as empty: that is what Acquire makes of it.
func (s *Store) Load(ctx context.Context, p messages.PipelineID) (statestore.State, error) {
	var i image
	err := s.read(ctx, func(b *pgx.Batch) { i.queue(b, p) })
	var d decoded
	if err == nil {
		d, err = i.open(p)
		if errors.Is(err, statestore.ErrDamaged) && s.config.Rebuild {
			return statestore.State{}, nil
		}
	}
	if err != nil {
		return statestore.State{}, s.fail("load state", p, err)
	}
	return d.state(), nil
}

// Runs implements statestore.Store.
func (s *Store) Runs(ctx context.Context, p messages.PipelineID, limit int) ([]statestore.Run, error) {
	var rows []cell
	var out []statestore.Run
	err := s.read(ctx, func(b *pgx.Batch) { cells(b, &rows, runsSQL, rowOf(string(p))) })
	if err == nil {
		err = each(runs, p, rows, &digest{}, func(r statestore.Run) { out = append(out, r) })
	}
	if err != nil {
		return nil, s.fail("list runs", p, err)
	}
	slices.SortFunc(out, statestore.Run.Compare)
	return out[:min(len(out), max(0, limit))], nil
}

// History implements statestore.Store.
func (s *Store) History(ctx context.Context, p messages.PipelineID, part messages.PartID) ([]statestore.Kept, error) {
	var rows []cell
	var out []statestore.Kept
	err := s.read(ctx, func(b *pgx.Batch) {
		cells(b, &rows, `SELECT id, value, sum FROM _rapidbyte_state.history WHERE pipeline = $1 AND part = $2`, rowOf(string(p)), rowOf(string(part)))
	})
	if err == nil {
		err = each(history, p, rows, &digest{}, func(k keptRecord) { out = append(out, statestore.Kept(k)) })
	}
	if i := slices.IndexFunc(out, func(k statestore.Kept) bool { return k.Receipt.Part != part }); err == nil && i >= 0 {
		err = damaged("a checkpoint of the task %q stands in the place of another", out[i].Receipt.Part)
	}
	if err != nil {
		return nil, s.fail("list checkpoints", p, statestore.About("", part, err))
	}
	slices.SortFunc(out, statestore.Kept.Compare)
	return out, nil
}

// Pipelines implements statestore.Store.
func (s *Store) Pipelines(ctx context.Context) ([]messages.PipelineID, error) {
	var identity, rows []cell
	err := s.read(ctx, func(b *pgx.Batch) {
		store(b, &identity)
		cells(b, &rows, `SELECT id, value, sum FROM _rapidbyte_state.pipeline`)
	})
	var ids []messages.PipelineID
	var st storeRecord
	if err == nil {
		st, err = openStore(identity)
	}
	for _, c := range rows {
		if err != nil {
			break
		}
		var p messages.PipelineID
		if p, err = nameOf(c); err == nil {
			ids = append(ids, p)
		}
	}
	if n := uint64(len(rows)); err == nil && n != st.Pipelines {
		err = damaged("it holds %d pipelines and should hold %d", n, st.Pipelines)
	}
	if err != nil {
		return nil, s.fail("list pipelines", "", err)
	}
	slices.Sort(ids)
	return ids, nil
}

// nameOf returns the pipeline that a row is of.
func nameOf(c cell) (messages.PipelineID, error) {
	var r pipelineRecord
	if err := json.Unmarshal([]byte(c.value), &r); err != nil {
		return "", damaged("decode a pipeline: %v", err)
	}
	name, err := unescape(r.Name)
	if err != nil {
		return "", damaged("decode a pipeline: %v", err)
	}
	_, _, err = pipelines.open(name, c)
	return messages.PipelineID(name), err
}

// Close implements statestore.Store. It waits for the calls that are under way, and gives
// the leases back.
func (s *Store) Close() error {
	s.using.Lock()
	defer s.using.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	err := s.leases.close()
	s.pool.Close()
	if err != nil {
		return s.fail("close state store", "", fmt.Errorf("%w; leases run out by themselves within %s", s.explain(err), s.config.TTL.Round(time.Second)))
	}
	return nil
}
