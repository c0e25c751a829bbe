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
	AcquireFn func(ctx context.Context, p messages.PipelineID, floor messages.Epoch) Fate
	LoadFn    func(ctx context.Context, p messages.PipelineID) error
	SaveFn    func(ctx context.Context, p messages.PipelineID, e messages.Epoch, u statestore.Update) Fate

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
}

var _ statestore.Store = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory(identity string) *Memory {
	return &Memory{identity: identity, pipelines: map[messages.PipelineID]*pipeline{}}
}

// Copy returns an open store with the same identity and content and without
// XFns: a backup, or what is there after a restart.
func (m *Memory) Copy() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := NewMemory(m.identity)
	for id, p := range m.pipelines {
		c.pipelines[id] = &pipeline{
			epoch: p.epoch, receipts: maps.Clone(p.receipts),
			current: maps.Clone(p.current), finished: maps.Clone(p.finished), runs: slices.Clone(p.runs),
		}
	}
	return c
}

// Identity implements statestore.Store.
func (m *Memory) Identity() string { return m.identity }

// Acquire implements statestore.Store.
func (m *Memory) Acquire(ctx context.Context, id messages.PipelineID, floor messages.Epoch) (messages.Epoch, error) {
	var fate Fate
	if m.AcquireFn != nil {
		fate = m.AcquireFn(ctx, id, floor)
	}
	var epoch messages.Epoch
	err := m.apply(ctx, fate, func() error {
		if err := statestore.CheckName("pipeline", string(id)); err != nil {
			return err
		}
		p := m.pipelines[id]
		if p == nil {
			p = &pipeline{
				receipts: map[messages.PartID]messages.Receipt{},
				current:  map[string]uint64{}, finished: map[string]uint64{},
			}
		}
		highest := max(p.epoch, floor)
		if highest == math.MaxUint64 {
			return fmt.Errorf("%w: there is no epoch above %d", statestore.ErrInvalid, highest)
		}
		p.epoch, epoch = highest+1, highest+1
		m.pipelines[id] = p
		return nil
	})
	if err != nil {
		return 0, &statestore.Error{Op: "acquire epoch", Pipeline: id, Err: err}
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
		return nil
	})
	if err != nil {
		return statestore.State{}, &statestore.Error{Op: "load state", Pipeline: id, Err: err}
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
		p.save(u)
		return nil
	})
	if err != nil {
		return &statestore.Error{Op: "save checkpoint", Pipeline: id, Err: err}
	}
	return nil
}

// save is the meaning of statestore.Store.Save, as plainly as it can be said.
func (p *pipeline) save(u statestore.Update) {
	for _, name := range u.Forget {
		delete(p.current, name)
		delete(p.finished, name)
		maps.DeleteFunc(p.receipts, func(_ messages.PartID, r messages.Receipt) bool { return r.Load == name })
	}
	for _, r := range u.Receipts {
		if r.Version.Load < max(p.current[r.Load], p.finished[r.Load]) {
			continue
		}
		if stored, ok := p.receipts[r.Part]; ok && r.Version.Compare(stored.Version) <= 0 {
			continue
		}
		p.receipts[r.Part] = cloneReceipt(r)
		p.current[r.Load] = max(p.current[r.Load], r.Version.Load)
	}
	for _, id := range u.Finished {
		p.finished[id.Name] = max(p.finished[id.Name], id.Number)
	}
	maps.DeleteFunc(p.receipts, func(_ messages.PartID, r messages.Receipt) bool { return r.Version.Load < p.current[r.Load] })
	if u.Run == nil {
		return
	}
	run := *u.Run
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
	r.Position.At = cloneCursor(r.Position.At)
	streams := r.Position.Streams
	r.Position.Streams = nil
	for _, s := range streams {
		s.At = cloneCursor(s.At)
		r.Position.Streams = append(r.Position.Streams, s)
	}
	return r
}

func cloneCursor(c messages.Cursor) messages.Cursor {
	parts := c.Parts
	c.Parts = nil
	for _, p := range parts {
		c.Parts = append(c.Parts, cloneCursor(p))
	}
	return c
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
		return nil, &statestore.Error{Op: "list runs", Pipeline: id, Err: err}
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
