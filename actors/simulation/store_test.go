package simulation_test

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// file is a simulated state store: what is on the disk. It has one pipeline.
type file struct {
	w        *world
	identity string
	epoch    messages.Epoch
	drawnAt  int // of all draws
	receipts map[messages.PartID]messages.Receipt
	current  map[string]uint64
	finished map[string]uint64
	runs     []statestore.Run // in the order in which they came
}

func newFile(w *world, identity string) *file {
	return &file{w: w, identity: identity, receipts: map[messages.PartID]messages.Receipt{}, current: map[string]uint64{}, finished: map[string]uint64{}}
}

// backup copies everything.
func (f *file) backup() *file {
	return &file{
		w: f.w, identity: f.identity, epoch: f.epoch, receipts: maps.Clone(f.receipts),
		current: maps.Clone(f.current), finished: maps.Clone(f.finished), runs: slices.Clone(f.runs),
	}
}

// ahead reports whether the store calls something confirmed that the destination does
// not have.
func (f *file) ahead(d *warehouse) bool {
	for _, k := range f.receipts {
		l := d.loads[k.Load]
		if l != nil && l.status.ID.Number > k.Version.Load {
			continue
		}
		e := d.entry(k.Part, k.Load)
		if e == nil || k.Version.Compare(e.receipt.Version) > 0 {
			return true
		}
	}
	for name, number := range f.finished {
		l := d.loads[name]
		if l == nil || l.status.ID.Number < number || l.status.ID.Number == number && !l.status.Finished {
			return true
		}
	}
	return false
}

// store is a node's way to a file. It implements statestore.Store.
type store struct {
	n *node
	f *file
}

// Identity implements statestore.Store.
func (s store) Identity() string { return s.f.identity }

// Acquire implements statestore.Store.
func (s store) Acquire(ctx context.Context, p messages.PipelineID, c statestore.Claim) (messages.Epoch, error) {
	var epoch messages.Epoch
	err := s.n.call(ctx, s.op(fmt.Sprintf("acquire above %d, owner of %d", c.Floor, c.Mine), func() error {
		if c.Mine > 0 && s.f.epoch > c.Mine {
			return fmt.Errorf("%w: epoch %d was drawn", statestore.ErrFenced, s.f.epoch)
		}
		s.f.epoch = max(s.f.epoch, c.Floor, c.Mine) + 1
		epoch = s.f.epoch
		s.n.drew(epoch, c.Floor)
		return nil
	}))
	if err != nil {
		return 0, &statestore.Error{Op: "acquire epoch", Pipeline: p, Err: err}
	}
	return epoch, nil
}

// op is a transaction: what was not answered is there, or not.
func (s store) op(name string, do func() error) *op {
	return &op{name: name, store: true, fates: []fate{fateFails, fateLost, fatePanic}, gone: func() {
		if s.n.w.s.chance(0.5) {
			_ = do()
		}
	}, run: func(f fate) error {
		if f == fateFails {
			return s.n.w.storeError()
		}
		if err := do(); err != nil {
			return err
		}
		if f == fateLost {
			return errSimulated
		}
		return nil
	}}
}

// Load implements statestore.Store.
func (s store) Load(ctx context.Context, p messages.PipelineID) (statestore.State, error) {
	var st statestore.State
	err := s.n.call(ctx, &op{name: "load state", fates: []fate{fateFails}, run: func(f fate) error {
		if f == fateFails {
			return s.n.w.storeError()
		}
		st.Epoch = s.f.epoch
		for _, id := range slices.Sorted(maps.Keys(s.f.receipts)) {
			st.Receipts = append(st.Receipts, s.f.receipts[id])
		}
		for _, name := range slices.Sorted(maps.Keys(s.f.finished)) {
			st.Finished = append(st.Finished, messages.LoadID{Name: name, Number: s.f.finished[name]})
		}
		if runs := slices.SortedStableFunc(slices.Values(s.f.runs), statestore.Run.Compare); len(runs) > 0 && runs[0].Ended.IsZero() {
			st.Run = runs[0]
		}
		return nil
	}})
	if err != nil {
		return statestore.State{}, &statestore.Error{Op: "load state", Pipeline: p, Err: err}
	}
	return st, nil
}

// Save implements statestore.Store.
func (s store) Save(ctx context.Context, p messages.PipelineID, e messages.Epoch, u statestore.Update) error {
	err := s.n.call(ctx, s.op(fmt.Sprintf("save %s, epoch %d", describe(u), e), func() error {
		if err := u.Check(p); err != nil {
			s.n.w.fail("an update is refused: %v", err)
			return err
		}
		if s.f.epoch != e {
			s.n.w.note("fenced zombie refused")
			return fmt.Errorf("%w: epoch %d", statestore.ErrFenced, e)
		}
		s.n.w.checkSave(s.f, e, u)
		s.f.save(u)
		return nil
	}))
	if err != nil {
		return &statestore.Error{Op: "save checkpoint", Pipeline: p, Err: err}
	}
	return nil
}

func describe(u statestore.Update) string {
	text := ""
	for _, r := range u.Receipts {
		text += fmt.Sprintf("%s@%d.%d ", r.Part, r.Version.Load, r.Version.Commit)
	}
	for _, l := range u.Finished {
		text += fmt.Sprintf("%s finished %d ", l.Name, l.Number)
	}
	if u.Run != nil {
		text += fmt.Sprintf("run %s %s", u.Run.ID, u.Run.State)
	}
	return text
}

// save applies an update.
func (f *file) save(u statestore.Update) {
	for _, name := range u.Forget {
		delete(f.current, name)
		delete(f.finished, name)
		maps.DeleteFunc(f.receipts, func(_ messages.PartID, r messages.Receipt) bool { return r.Load == name })
	}
	for _, r := range u.Receipts {
		k, known := f.receipts[r.Part]
		if r.Version.Load < max(f.current[r.Load], f.finished[r.Load]) || known && r.Version.Compare(k.Version) <= 0 {
			continue
		}
		f.receipts[r.Part], f.current[r.Load] = r, max(f.current[r.Load], r.Version.Load)
	}
	for _, l := range u.Finished {
		f.finished[l.Name] = max(f.finished[l.Name], l.Number)
	}
	maps.DeleteFunc(f.receipts, func(_ messages.PartID, r messages.Receipt) bool { return r.Version.Load < f.current[r.Load] })
	if u.Run == nil {
		return
	}
	i := slices.IndexFunc(f.runs, func(r statestore.Run) bool { return r.ID == u.Run.ID })
	switch {
	case i < 0:
		f.runs = append(f.runs, *u.Run)
	case u.Run.Replaces(f.runs[i]):
		f.runs[i] = *u.Run
	}
}

// History implements statestore.Store.
func (s store) History(context.Context, messages.PipelineID, messages.PartID) ([]statestore.Kept, error) {
	return nil, nil
}

// Pipelines implements statestore.Store.
func (s store) Pipelines(context.Context) ([]messages.PipelineID, error) { return nil, nil }

// Runs implements statestore.Store.
func (s store) Runs(context.Context, messages.PipelineID, int) ([]statestore.Run, error) {
	return nil, nil
}

// Close implements statestore.Store.
func (s store) Close() error { return nil }
