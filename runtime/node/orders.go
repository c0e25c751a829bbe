package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// Change is what becomes of one load.
type Change struct {
	Moment time.Time            `json:"-"`    // of a rewind: when the checkpoint was saved
	Name   string               `json:"name"` // the stream
	Number uint64               `json:"number"`
	Mode   connectors.WriteMode `json:"write_mode,omitempty"`
	Target string               `json:"target,omitempty"`
	// Rows is how many are read again, by the receipts' counts; of a load that is started
	// over, how many it has read.
	Rows int64 `json:"rows_read_again"`
	// Doubled says that they will be in the target twice, unless it is emptied.
	Doubled bool `json:"doubled,omitempty"`
	// Forgotten says that the document has no such stream: its state is only dropped.
	Forgotten bool         `json:"forgotten,omitempty"`
	Tasks     []TaskChange `json:"tasks,omitempty"` // of a rewind
}

// TaskChange is how far a part is rewound.
type TaskChange struct {
	Task messages.PartID   `json:"task"`
	From messages.Receipt  `json:"from"`
	To   messages.Position `json:"to"`
	Rows int64             `json:"rows_read_again"`
}

// Moment is a kept checkpoint of a load: how far each of its parts was.
type Moment struct {
	Number int                `json:"number"` // from 1, the newest
	Saved  time.Time          `json:"saved"`
	Epoch  messages.Epoch     `json:"epoch"` // of the owner who saved it
	Tasks  []messages.Receipt `json:"tasks"` // a part that is not there had not begun
	Rows   int64              `json:"rows_read_again"`
}

// ready refuses what needs a state store or a look at the destination, without one.
func (l *Ledger) ready() error {
	if l.blind != nil {
		return *l.blind
	}
	if l.store == nil {
		return l.refuse("", "the pipeline has no state yet", "Run it first.")
	}
	return nil
}

// Reset says what starting streams over means; none stands for all. Nothing is changed.
func (l *Ledger) Reset(ctx context.Context, streams []string) ([]Change, error) {
	if err := l.ready(); err != nil {
		return nil, err
	}
	names, err := l.choose(streams)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, l.refuse("", "the pipeline has no state yet", "There is nothing to reset.")
	}
	var out []Change
	for _, name := range names {
		r, err := l.load(ctx, name)
		if err != nil {
			return nil, err
		}
		c := l.change(r)
		c.Rows = r.Rows.Read
		c.Doubled = c.Mode == connectors.ModeAppend && !c.Forgotten
		out = append(out, c)
	}
	return out, nil
}

// change begins the description of what becomes of a load.
func (l *Ledger) change(r LoadReport) Change {
	c := Change{Name: r.Name, Number: r.Number, Mode: r.Mode}
	id := messages.StreamID(r.Name)
	c.Target = l.doc.Target(id)
	c.Forgotten = c.Target == "" && !l.selects(id)
	if c.Target == "" && !c.Forgotten {
		c.Target = r.Name
	}
	return c
}

// selects reports whether a pattern of the document means a stream.
func (l *Ledger) selects(id messages.StreamID) bool {
	if _, ok := l.doc.Stream(id); ok {
		return true
	}
	if !l.doc.Patterns() {
		return false
	}
	names, err := l.doc.Choose([]messages.StreamID{id})
	return err == nil && slices.Contains(names, id)
}

// ApplyReset gives the order that the next run starts streams over, under an epoch of its
// own. It returns what Reset would, as it is by then.
func (l *Ledger) ApplyReset(ctx context.Context, streams []string) ([]Change, error) {
	if err := l.ready(); err != nil {
		return nil, err
	}
	if err := l.take(ctx); err != nil {
		return nil, err
	}
	changes, err := l.Reset(ctx, streams)
	if err != nil {
		return nil, err
	}
	var u statestore.Update
	for _, c := range changes {
		if c.Forgotten {
			u.Forget = append(u.Forget, c.Name)
			continue
		}
		u.Revoke = append(u.Revoke, c.Name)
		u.Orders = append(u.Orders, statestore.Order{Load: messages.LoadID{Name: c.Name, Number: c.Number}, Given: l.now().UTC()})
	}
	return changes, l.save(ctx, u)
}

// take makes us the owner and reads again what another one may have changed before.
func (l *Ledger) take(ctx context.Context) error {
	if err := l.own(ctx, 0); err != nil {
		return err
	}
	if err := l.read(ctx, false); err != nil {
		return err
	}
	return l.ready()
}

// rewindable returns the one load that stream means, if it can be rewound.
func (l *Ledger) rewindable(ctx context.Context, stream string) (LoadReport, error) {
	if err := l.ready(); err != nil {
		return LoadReport{}, err
	}
	names, err := l.choose([]string{stream})
	if err != nil {
		return LoadReport{}, err
	}
	r, err := l.load(ctx, names[0])
	if err != nil {
		return r, err
	}
	reset := "Start it over: " + messages.Command("state", "reset", messages.Document, "--stream", r.Name)
	switch {
	case r.Finished:
		return r, l.refuse(r.Name, fmt.Sprintf("load %d of %s is finished: there is nothing to read on from", r.Number, r.Name), reset)
	case r.Mode == connectors.ModeReplace:
		return r, l.refuse(r.Name, fmt.Sprintf("load %d of %s replaces its target as a whole: what is staged already cannot be read again in part", r.Number, r.Name), reset)
	case l.change(r).Forgotten:
		return r, l.refuse(r.Name, fmt.Sprintf("the document has no stream %s any more", r.Name), "Put it back, or forget its state: "+
			messages.Command("state", "reset", messages.Document, "--stream", r.Name))
	}
	for _, t := range r.Tasks {
		if t.Receipt().Final {
			return r, l.refuse(r.Name, fmt.Sprintf("task %s of load %d is complete and is not read again", t.Task, r.Number), reset)
		}
	}
	return r, nil
}

// Moments lists the kept checkpoints of a stream, newest first. The first is where the
// state store stands.
func (l *Ledger) Moments(ctx context.Context, stream string) (LoadReport, []Moment, error) {
	r, err := l.rewindable(ctx, stream)
	if err != nil {
		return r, nil, err
	}
	kept := map[messages.PartID][]statestore.Kept{}
	var out []Moment
	for _, t := range r.Tasks {
		found, err := l.store.History(ctx, l.doc.Pipeline, t.Task)
		if err != nil {
			return r, nil, l.storeFailure(err)
		}
		for _, k := range found {
			if k.Receipt.LoadID() != (messages.LoadID{Name: r.Name, Number: r.Number}) {
				continue
			}
			kept[t.Task] = append(kept[t.Task], k)
			if !slices.ContainsFunc(out, func(m Moment) bool { return m.Saved.Equal(k.Saved) }) {
				out = append(out, Moment{Saved: k.Saved, Epoch: k.Receipt.Token.Epoch})
			}
		}
	}
	slices.SortFunc(out, func(a, b Moment) int { return b.Saved.Compare(a.Saved) })
	for i := range out {
		m := &out[i]
		m.Number = i + 1
		for _, t := range r.Tasks {
			at := messages.Counts{}
			if k, ok := before(kept[t.Task], m.Saved); ok {
				m.Tasks, at = append(m.Tasks, k), k.Rows
			}
			m.Rows += t.Receipt().Rows.Read - at.Read
		}
	}
	return r, out, nil
}

// before returns the newest receipt that was saved by then.
func before(kept []statestore.Kept, then time.Time) (messages.Receipt, bool) {
	for _, k := range kept {
		if !k.Saved.After(then) {
			return k.Receipt, true
		}
	}
	return messages.Receipt{}, false
}

// Rewind says what reading on from a moment means. Nothing is changed.
func (l *Ledger) Rewind(ctx context.Context, stream string, number int) (Change, error) {
	r, moments, err := l.Moments(ctx, stream)
	if err != nil {
		return Change{}, err
	}
	c := l.change(r)
	list := "List them: " + messages.Command("state", "rewind", messages.Document, "--stream", r.Name)
	if number < 1 || number > len(moments) {
		return c, l.refuse(r.Name, fmt.Sprintf("there is no kept checkpoint %d; there are %d", number, len(moments)), list)
	}
	c.Moment = moments[number-1].Saved
	for _, t := range r.Tasks {
		from, to := t.Receipt(), messages.Receipt{}
		for _, k := range moments[number-1].Tasks {
			if k.Part == t.Task {
				to = k
			}
		}
		if to.Position.Equal(from.Position) {
			continue // it stands there already
		}
		one := TaskChange{Task: t.Task, From: from, To: to.Position, Rows: from.Rows.Read - to.Rows.Read}
		c.Rows += one.Rows
		c.Tasks = append(c.Tasks, one)
	}
	if len(c.Tasks) == 0 {
		return c, l.refuse(r.Name, fmt.Sprintf("the stream stands at kept checkpoint %d already", number), list)
	}
	c.Doubled = c.Mode == connectors.ModeAppend && c.Rows > 0
	return c, nil
}

// ApplyRewind gives the order that the next run reads a stream on from a moment, under an
// epoch of its own. saved is when the moment was saved, as the operator has seen it: the
// numbers may have moved on since.
func (l *Ledger) ApplyRewind(ctx context.Context, stream string, saved time.Time) (Change, error) {
	if err := l.ready(); err != nil {
		return Change{}, err
	}
	if err := l.take(ctx); err != nil {
		return Change{}, err
	}
	_, moments, err := l.Moments(ctx, stream)
	if err != nil {
		return Change{}, err
	}
	number := 1 + slices.IndexFunc(moments, func(m Moment) bool { return m.Saved.Equal(saved) })
	c, err := l.Rewind(ctx, stream, number)
	if err != nil {
		return c, err
	}
	u := statestore.Update{Revoke: []string{c.Name}}
	for _, t := range c.Tasks {
		u.Orders = append(u.Orders, statestore.Order{
			Load: messages.LoadID{Name: c.Name, Number: c.Number}, Part: t.Task, From: t.From.Version, To: t.To, Given: l.now().UTC(),
		})
	}
	return c, l.save(ctx, u)
}
