package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"rapidbyte.io/node/actors/checkpoint"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
	"rapidbyte.io/node/runtime/plugin"
	"rapidbyte.io/node/statestore"
)

// Ledger is the state of one pipeline, looked at and changed outside of a run. Its errors
// are messages.Failure. Not safe for concurrent use.
type Ledger struct {
	doc   *config.Document
	dst   connectors.Destination
	store statestore.Store     // nil: there never was one
	state statestore.State     // as read last
	found *connectors.Surveyed // nil: the destination was not looked at
	blind *messages.Failure    // why not, if it was wanted
	epoch messages.Epoch       // that we drew; 0: none
	now   func() time.Time
}

// LedgerOptions say what a ledger is opened for.
type LedgerOptions struct {
	Offline bool // do not look at the destination
	Create  bool // a state store that never was is created; else there is nothing in it
	Rebuild bool // a damaged one is set aside
}

// OpenLedger opens the document's state store and looks at its destination, without
// taking the pipeline over.
func OpenLedger(ctx context.Context, doc *config.Document, o LedgerOptions) (*Ledger, error) {
	l := &Ledger{doc: doc, now: time.Now}
	var err error
	if l.dst, err = plugin.Destination(doc.Destination.Stage, writePolicy(doc)); err != nil {
		return nil, place(doc, "destination", err)
	}
	if o.Create || storeExists(doc) {
		if l.store, err = OpenStore(ctx, doc, o.Rebuild); err != nil {
			return nil, err
		}
	}
	if err := l.read(ctx, o.Offline); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// storeExists reports whether the state store may be there. One in a file is created by
// the first run.
func storeExists(doc *config.Document) bool {
	path := doc.State.Path()
	if path == "" {
		return true
	}
	for _, name := range []string{path, path + ".id"} {
		if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
			return true
		}
	}
	return false
}

// read loads the state and looks at the destination.
func (l *Ledger) read(ctx context.Context, offline bool) (err error) {
	if l.store != nil {
		if l.state, err = l.store.Load(ctx, l.doc.Pipeline); err != nil {
			return l.storeFailure(err)
		}
	}
	d, ok := l.dst.(connectors.Surveyor)
	if offline || !ok {
		return nil
	}
	found, err := d.Survey(ctx, l.doc.Pipeline)
	if err != nil {
		f := connectors.FailureOf(err, messages.Place{Pipeline: l.doc.Pipeline, Stage: connectors.StageDestination})
		l.blind = &f
		return nil
	}
	l.found = &found
	return nil
}

// Close gives the pipeline and the store back.
func (l *Ledger) Close() error {
	if l.store == nil {
		return nil
	}
	err := release(l.store, l.doc.Pipeline, l.epoch)
	return errors.Join(err, l.store.Close())
}

// release gives a lease back, if the store has leases.
func release(s statestore.Store, p messages.PipelineID, e messages.Epoch) error {
	leaser, ok := s.(statestore.Leaser)
	if !ok || e == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	return leaser.Release(ctx, p, e)
}

const releaseTimeout = 5 * time.Second

func (l *Ledger) storeFailure(err error) error { return checkpoint.StoreFailure(l.doc.Pipeline, err) }

func (l *Ledger) refuse(stream, what, next string) error {
	return messages.Failure{
		Code: messages.CodeUsage, Kind: string(connectors.KindConfig), What: what, Next: next,
		Where: messages.Place{Pipeline: l.doc.Pipeline, Stream: messages.StreamID(stream)},
	}
}

// own makes the caller the owner of the pipeline: whoever runs it is fenced, or the call
// is refused.
func (l *Ledger) own(ctx context.Context, floor messages.Epoch) error {
	if l.found != nil {
		floor = max(floor, l.found.Epoch)
	}
	e, err := l.store.Acquire(ctx, l.doc.Pipeline, statestore.Claim{Floor: floor, Mine: l.epoch})
	if err != nil {
		return l.storeFailure(err)
	}
	l.epoch = e
	return nil
}

func (l *Ledger) save(ctx context.Context, u statestore.Update) error {
	if err := l.store.Save(ctx, l.doc.Pipeline, l.epoch, u); err != nil {
		return l.storeFailure(err)
	}
	return nil
}

// StateReport is what is known of a pipeline.
type StateReport struct {
	Pipeline    messages.PipelineID `json:"pipeline"`
	Store       StoreReport         `json:"state_store"`
	Destination *DestinationReport  `json:"destination,omitempty"` // absent: it was not looked at
	Loads       []LoadReport        `json:"loads"`
}

// StoreReport is what the state store says of itself.
type StoreReport struct {
	Identity string          `json:"identity,omitempty"` // empty: there is none yet
	Epoch    messages.Epoch  `json:"epoch"`
	Run      *statestore.Run `json:"unfinished_run,omitempty"`
}

// DestinationReport is whom the destination has registered.
type DestinationReport struct {
	Epoch messages.Epoch `json:"epoch"`
	Store string         `json:"state_store"` // identity of the owner's
	Ours  bool           `json:"ours"`        // it is this one
}

// LoadReport is the state of one load.
type LoadReport struct {
	Name     string               `json:"name"` // the stream
	Number   uint64               `json:"number"`
	Mode     connectors.WriteMode `json:"write_mode,omitempty"`
	Finished bool                 `json:"finished"`
	Order    *statestore.Order    `json:"starts_over,omitempty"` // the next run does
	Rows     messages.Counts      `json:"rows"`
	Tasks    []TaskReport         `json:"tasks"`
}

// TaskReport is the state of one part of a load.
type TaskReport struct {
	Task        messages.PartID   `json:"task"`
	Store       *messages.Receipt `json:"state_store,omitempty"`
	Destination *messages.Receipt `json:"destination,omitempty"`
	Behind      *int64            `json:"behind,omitempty"` // commits that the store is behind the destination; negative: ahead; absent: nothing to compare
	Kept        int               `json:"kept_checkpoints"`
	Order       *statestore.Order `json:"rewinds,omitempty"` // the next run does
}

// Receipt returns the one of both that is further.
func (t TaskReport) Receipt() messages.Receipt {
	switch {
	case t.Destination == nil && t.Store == nil:
		return messages.Receipt{Part: t.Task}
	case t.Destination == nil:
		return *t.Store
	case t.Store == nil || t.Destination.Version.Compare(t.Store.Version) >= 0:
		return *t.Destination
	}
	return *t.Store
}

// Report returns the state of the streams that are asked for; none stands for all. The
// error says why the destination could not be looked at; the report is complete but for
// that.
func (l *Ledger) Report(ctx context.Context, streams []string) (StateReport, error) {
	r := StateReport{Pipeline: l.doc.Pipeline, Store: StoreReport{Epoch: l.state.Epoch}, Loads: []LoadReport{}}
	if l.store != nil {
		r.Store.Identity = l.store.Identity()
	}
	if l.state.Run.ID != "" {
		run := l.state.Run
		r.Store.Run = &run
	}
	if l.found != nil && l.found.Store != "" {
		r.Destination = &DestinationReport{Epoch: l.found.Epoch, Store: l.found.Store, Ours: l.found.Store == r.Store.Identity}
	}
	names, err := l.choose(streams)
	if err != nil {
		return r, err
	}
	for _, name := range names {
		one, err := l.load(ctx, name)
		if err != nil {
			return r, err
		}
		r.Loads = append(r.Loads, one)
	}
	if l.blind != nil {
		return r, *l.blind
	}
	return r, nil
}

// known lists the names of the loads of store and destination, sorted.
func (l *Ledger) known() []string {
	var names []string
	for _, r := range l.state.Receipts {
		names = append(names, r.Load)
	}
	for _, id := range l.state.Finished {
		names = append(names, id.Name)
	}
	if l.found != nil {
		for _, s := range l.found.Loads {
			names = append(names, s.ID.Name)
		}
		for _, r := range l.found.Receipts {
			names = append(names, r.Load)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// choose returns the loads that streams mean; none stands for all.
func (l *Ledger) choose(streams []string) ([]string, error) {
	known := l.known()
	if len(streams) == 0 {
		return known, nil
	}
	var out []string
	for _, s := range streams {
		before := len(out)
		for _, name := range known {
			if (s == name || l.doc.Names(s, messages.StreamID(name))) && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
		if len(out) > before || slices.Contains(out, s) {
			continue
		}
		next := "Nothing has been loaded yet."
		if len(known) > 0 {
			next = "There is state of: " + strings.Join(known, ", ")
		}
		return nil, messages.Failure{
			Code: messages.CodeStreamUnknown, Kind: string(connectors.KindConfig), What: fmt.Sprintf("there is no state of stream %q", s),
			Where: messages.Place{Pipeline: l.doc.Pipeline, Stream: messages.StreamID(s)}, Next: next,
		}
	}
	slices.Sort(out)
	return out, nil
}

// load reports one load: the highest number of its name.
func (l *Ledger) load(ctx context.Context, name string) (LoadReport, error) {
	r := LoadReport{Name: name, Tasks: []TaskReport{}}
	raise := func(id messages.LoadID, finished bool) {
		if id.Name == name && id.Number > r.Number {
			r.Number, r.Finished = id.Number, false
		}
		r.Finished = r.Finished || finished && id.Name == name && id.Number == r.Number
	}
	for _, k := range l.state.Receipts {
		raise(k.LoadID(), false)
	}
	for _, id := range l.state.Finished {
		raise(id, true)
	}
	tasks := map[messages.PartID]*TaskReport{}
	task := func(id messages.PartID) *TaskReport {
		if tasks[id] == nil {
			tasks[id] = &TaskReport{Task: id}
		}
		return tasks[id]
	}
	if l.found != nil {
		for _, s := range l.found.Loads {
			raise(s.ID, s.Finished)
			if s.ID.Name == name {
				r.Mode = s.Mode
			}
		}
		for _, d := range l.found.Receipts {
			if d.Load == name {
				task(d.Part).Destination = &d
			}
		}
	}
	if st, ok := l.doc.Stream(messages.StreamID(name)); ok && r.Mode == "" {
		r.Mode = cmp.Or(st.WriteMode, l.doc.Destination.WriteMode)
	}
	for _, k := range l.state.Receipts {
		if k.Load == name {
			task(k.Part).Store = &k
		}
	}
	for _, o := range l.state.Orders {
		switch {
		case o.Load.Name != name:
		case o.Part == "":
			r.Order = &o
		default:
			task(o.Part).Order = &o
		}
	}
	for _, t := range tasks {
		if l.store != nil {
			kept, err := l.store.History(ctx, l.doc.Pipeline, t.Task)
			if err != nil {
				return r, l.storeFailure(err)
			}
			t.Kept = len(kept)
		}
		if t.Store != nil && t.Destination != nil && t.Store.Version.Load == t.Destination.Version.Load {
			behind := int64(t.Destination.Version.Commit) - int64(t.Store.Version.Commit) //nolint:gosec // counts commits
			t.Behind = &behind
		}
		rows := t.Receipt().Rows
		r.Rows.Read += rows.Read
		r.Rows.Arrived += rows.Arrived
		r.Rows.Applied += rows.Applied
		r.Rows.Rejected += rows.Rejected
		r.Tasks = append(r.Tasks, *t)
	}
	slices.SortFunc(r.Tasks, func(a, b TaskReport) int { return cmp.Compare(a.Task, b.Task) })
	return r, nil
}

// Runs lists the runs of the pipeline, newest first, at most limit.
func (l *Ledger) Runs(ctx context.Context, limit int) ([]statestore.Run, error) {
	if l.store == nil {
		return []statestore.Run{}, nil
	}
	found, err := l.store.Runs(ctx, l.doc.Pipeline, limit)
	if err != nil {
		return nil, l.storeFailure(err)
	}
	return append([]statestore.Run{}, found...), nil
}
