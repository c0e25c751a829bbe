package storetest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// Fate says what becomes of one call. The zero Fate: it is done, and says so.
type Fate struct {
	Err  error // what the caller is told
	Done bool  // with Err: it was done all the same, as when the answer got lost
}

// Memory is a correct statestore.Store that forgets everything with the process.
// It is the model that other stores are compared with, and a fake for their
// callers. The XFn fields are set before the first call.
type Memory struct {
	// AcquireFn, LoadFn and SaveFn, when set, decide the fate of a call. They are
	// called before it takes effect and outside of all locks: they may block.
	AcquireFn func(ctx context.Context, p messages.PipelineID, c statestore.Claim) Fate
	LoadFn    func(ctx context.Context, p messages.PipelineID) error
	SaveFn    func(ctx context.Context, p messages.PipelineID, e messages.Epoch, u statestore.Update) Fate
	Now       func() time.Time // the clock; nil: time.Now

	identity string

	mu        sync.Mutex // guards what follows
	pipelines map[messages.PipelineID]*pipeline
	closed    bool
}

type pipeline struct {
	epoch    messages.Epoch
	receipts map[messages.PartID]messages.Receipt
	current  map[string]uint64 // highest number of a receipt, by load name
	finished map[string]uint64
	runs     []statestore.Run // newest first
	history  map[messages.PartID][]statestore.Kept
	orders   []statestore.Order // sorted
}

func newPipeline() *pipeline {
	return &pipeline{
		receipts: map[messages.PartID]messages.Receipt{}, current: map[string]uint64{}, finished: map[string]uint64{},
		history: map[messages.PartID][]statestore.Kept{},
	}
}

// where is the path that errors name.
const where = "memory"

var _ statestore.Store = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory(identity string) *Memory {
	return &Memory{identity: identity, pipelines: map[messages.PipelineID]*pipeline{}}
}

// Copy returns an open store with the same identity, content and clock and
// without XFns: a backup, or what is there after a restart.
func (m *Memory) Copy() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := NewMemory(m.identity)
	c.Now = m.Now
	for id, p := range m.pipelines {
		c.pipelines[id] = &pipeline{
			epoch: p.epoch, receipts: maps.Clone(p.receipts),
			current: maps.Clone(p.current), finished: maps.Clone(p.finished), runs: slices.Clone(p.runs),
			history: map[messages.PartID][]statestore.Kept{}, orders: slices.Clone(p.orders),
		}
		for part, kept := range p.history {
			c.pipelines[id].history[part] = slices.Clone(kept)
		}
	}
	return c
}

// Identity implements statestore.Store.
func (m *Memory) Identity() string { return m.identity }

// Acquire implements statestore.Store.
func (m *Memory) Acquire(ctx context.Context, id messages.PipelineID, c statestore.Claim) (messages.Epoch, error) {
	var fate Fate
	if m.AcquireFn != nil {
		fate = m.AcquireFn(ctx, id, c)
	}
	var epoch messages.Epoch
	err := m.apply(ctx, fate, func() error {
		if err := statestore.CheckName("pipeline", string(id)); err != nil {
			return err
		}
		p := m.pipelines[id]
		if p == nil {
			p = newPipeline()
		}
		if c.Mine > 0 && p.epoch > c.Mine {
			return fmt.Errorf("%w: epoch %d was drawn, %d was presented", statestore.ErrFenced, p.epoch, c.Mine)
		}
		highest := max(p.epoch, c.Floor, c.Mine)
		if highest == math.MaxUint64 {
			return fmt.Errorf("%w: there is no epoch above %d", statestore.ErrInvalid, highest)
		}
		p.epoch, epoch = highest+1, highest+1
		m.pipelines[id] = p
		return nil
	})
	if err != nil {
		return 0, statestore.Wrap(statestore.Error{Op: "acquire epoch", Path: where, Pipeline: id, Err: err})
	}
	return epoch, nil
}

// apply runs fn under the lock, unless fate or ctx is against it.
func (m *Memory) apply(ctx context.Context, fate Fate, fn func() error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if fate.Err != nil && !fate.Done {
		return fate.Err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fmt.Errorf("the store: %w", os.ErrClosed)
	}
	return cmp.Or(fn(), fate.Err)
}

// Load implements statestore.Store.
func (m *Memory) Load(ctx context.Context, id messages.PipelineID) (statestore.State, error) {
	var fate Fate
	if m.LoadFn != nil {
		fate.Err = m.LoadFn(ctx, id)
	}
	var st statestore.State
	err := m.apply(ctx, fate, func() error {
		p := m.pipelines[id]
		if p == nil {
			return nil
		}
		st.Epoch = p.epoch
		for _, part := range slices.Sorted(maps.Keys(p.receipts)) {
			st.Receipts = append(st.Receipts, cloneReceipt(p.receipts[part]))
		}
		for _, name := range slices.Sorted(maps.Keys(p.finished)) {
			st.Finished = append(st.Finished, messages.LoadID{Name: name, Number: p.finished[name]})
		}
		if len(p.runs) > 0 && p.runs[0].Ended.IsZero() {
			st.Run = p.runs[0]
		}
		for _, o := range p.orders {
			if !o.Void(p.reached(o.Load.Name), p.receipts[o.Part].Version) {
				o.To = clonePosition(o.To)
				st.Orders = append(st.Orders, o)
			}
		}
		return nil
	})
	if err != nil {
		return statestore.State{}, statestore.Wrap(statestore.Error{Op: "load state", Path: where, Pipeline: id, Err: err})
	}
	return st, nil
}

// Save implements statestore.Store.
func (m *Memory) Save(ctx context.Context, id messages.PipelineID, e messages.Epoch, u statestore.Update) error {
	var fate Fate
	if m.SaveFn != nil {
		fate = m.SaveFn(ctx, id, e, u)
	}
	err := m.apply(ctx, fate, func() error {
		if err := u.Check(id); err != nil {
			return err
		}
		p := m.pipelines[id]
		if p == nil || p.epoch != e {
			return fmt.Errorf("%w: epoch %d was presented", statestore.ErrFenced, e)
		}
		p.save(u, m.now())
		return nil
	})
	if err != nil {
		return statestore.SaveError(where, id, u, err)
	}
	return nil
}

func (m *Memory) now() time.Time {
	if m.Now == nil {
		return utc(time.Now())
	}
	return utc(m.Now())
}

// reached is the highest number of a load name.
func (p *pipeline) reached(load string) uint64 { return max(p.current[load], p.finished[load]) }

// save is the meaning of statestore.Store.Save, as plainly as it can be said.
func (p *pipeline) save(u statestore.Update, now time.Time) {
	for _, name := range u.Forget {
		delete(p.current, name)
		delete(p.finished, name)
		p.drop(func(r messages.Receipt) bool { return r.Load == name })
	}
	for _, r := range u.Receipts {
		if r.Version.Load < p.reached(r.Load) {
			continue
		}
		if stored, ok := p.receipts[r.Part]; ok && r.Version.Compare(stored.Version) <= 0 {
			continue
		}
		p.receipts[r.Part] = cloneReceipt(r)
		p.current[r.Load] = max(p.current[r.Load], r.Version.Load)
		p.keep(statestore.Kept{Receipt: cloneReceipt(r), Saved: now})
	}
	for _, id := range u.Finished {
		p.finished[id.Name] = max(p.finished[id.Name], id.Number)
	}
	p.drop(func(r messages.Receipt) bool { return r.Version.Load < p.current[r.Load] })
	p.orders = slices.DeleteFunc(p.orders, func(o statestore.Order) bool {
		return slices.Contains(u.Forget, o.Load.Name) || slices.Contains(u.Revoke, o.Load.Name)
	})
	for _, o := range u.Orders {
		p.order(o)
	}
	if u.Run != nil {
		p.run(*u.Run)
	}
}

// drop removes receipts, of today and before.
func (p *pipeline) drop(which func(messages.Receipt) bool) {
	maps.DeleteFunc(p.receipts, func(_ messages.PartID, r messages.Receipt) bool { return which(r) })
	for part, kept := range p.history {
		p.history[part] = slices.DeleteFunc(kept, func(k statestore.Kept) bool { return which(k.Receipt) })
	}
}

func (p *pipeline) keep(k statestore.Kept) {
	kept := append(slices.DeleteFunc(p.history[k.Receipt.Part], k.Supersedes), k)
	slices.SortFunc(kept, statestore.Kept.Compare)
	p.history[k.Receipt.Part] = kept[:min(len(kept), statestore.HistoryKept)]
}

func (p *pipeline) order(o statestore.Order) {
	o.Given, o.To = utc(o.Given), clonePosition(o.To)
	p.orders = append(slices.DeleteFunc(p.orders, func(old statestore.Order) bool { return old.Compare(o) == 0 }), o)
	slices.SortFunc(p.orders, statestore.Order.Compare)
}

func (p *pipeline) run(run statestore.Run) {
	run.Started, run.Ended = utc(run.Started), utc(run.Ended)
	if i := slices.IndexFunc(p.runs, func(r statestore.Run) bool { return r.ID == run.ID }); i < 0 {
		p.runs = append(p.runs, run)
	} else if run.Replaces(p.runs[i]) {
		p.runs[i] = run
	}
	slices.SortFunc(p.runs, statestore.Run.Compare)
	p.runs = p.runs[:min(len(p.runs), statestore.RunsKept)]
}

func utc(t time.Time) time.Time { return t.Round(0).UTC() }

// cloneReceipt returns a receipt that shares no slice with r; empty ones are nil.
func cloneReceipt(r messages.Receipt) messages.Receipt {
	r.Position = clonePosition(r.Position)
	return r
}

func clonePosition(p messages.Position) messages.Position {
	c := messages.Position{At: cloneCursor(p.At)}
	for _, s := range p.Streams {
		s.At = cloneCursor(s.At)
		c.Streams = append(c.Streams, s)
	}
	return c
}

func cloneCursor(c messages.Cursor) messages.Cursor {
	parts := c.Parts
	c.Parts = nil
	for _, p := range parts {
		c.Parts = append(c.Parts, cloneCursor(p))
	}
	return c
}

// History implements statestore.Store.
func (m *Memory) History(ctx context.Context, id messages.PipelineID, part messages.PartID) ([]statestore.Kept, error) {
	var kept []statestore.Kept
	err := m.apply(ctx, Fate{}, func() error {
		if p := m.pipelines[id]; p != nil {
			for _, k := range p.history[part] {
				kept = append(kept, statestore.Kept{Receipt: cloneReceipt(k.Receipt), Saved: k.Saved})
			}
		}
		return nil
	})
	if err != nil {
		return nil, statestore.Wrap(statestore.Error{Op: "list checkpoints", Path: where, Pipeline: id, Part: part, Err: err})
	}
	return kept, nil
}

// Pipelines implements statestore.Store.
func (m *Memory) Pipelines(ctx context.Context) ([]messages.PipelineID, error) {
	var ids []messages.PipelineID
	err := m.apply(ctx, Fate{}, func() error {
		ids = slices.Sorted(maps.Keys(m.pipelines))
		return nil
	})
	if err != nil {
		return nil, statestore.Wrap(statestore.Error{Op: "list pipelines", Path: where, Err: err})
	}
	return ids, nil
}

// Runs implements statestore.Store.
func (m *Memory) Runs(ctx context.Context, id messages.PipelineID, limit int) ([]statestore.Run, error) {
	var runs []statestore.Run
	err := m.apply(ctx, Fate{}, func() error {
		if p := m.pipelines[id]; p != nil {
			runs = slices.Clone(p.runs[:min(len(p.runs), max(0, limit))])
		}
		return nil
	})
	if err != nil {
		return nil, statestore.Wrap(statestore.Error{Op: "list runs", Path: where, Pipeline: id, Err: err})
	}
	return runs, nil
}

// Close implements statestore.Store.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}
