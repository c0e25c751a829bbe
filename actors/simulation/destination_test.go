package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// warehouse is the simulated destination system, with the rules of the one of
// PostgreSQL: every change checks the epoch in its own transaction, a writer is its
// token, a commit moves a part from one number to the next.
type warehouse struct {
	w      *world
	epoch  messages.Epoch
	opened int // of all draws
	store  string
	loads  map[string]*begun
	tables map[string]*table
	flying []*transaction // COMMIT was sent, and nobody waits for the reply
}

// begun is the current load of a name.
type begun struct {
	status connectors.LoadStatus
	parts  map[messages.PartID]*entry
	staged map[row]int // of a replace
}

// entry is a receipt and the part as planned.
type entry struct {
	part    connectors.Part
	receipt messages.Receipt
	doubt   string // how a commit has ended whose reply was lost
}

// table is what readers see.
type table struct {
	rows    map[row]int   // of an append or replace: how often
	keys    map[int64]row // of an upsert
	letters map[row]int
	whole   []split // the loads that are finished, of an append
	version int64   // of a replace
}

func newWarehouse(w *world) *warehouse {
	return &warehouse{w: w, loads: map[string]*begun{}, tables: map[string]*table{}}
}

// backup copies everything.
func (d *warehouse) backup() *warehouse {
	c := &warehouse{w: d.w, epoch: d.epoch, store: d.store, loads: map[string]*begun{}, tables: map[string]*table{}}
	for name, l := range d.loads {
		o := &begun{status: l.status, parts: map[messages.PartID]*entry{}, staged: maps.Clone(l.staged)}
		for id, e := range l.parts {
			copied := *e
			o.parts[id] = &copied
		}
		c.loads[name] = o
	}
	for name, t := range d.tables {
		c.tables[name] = &table{
			rows: maps.Clone(t.rows), keys: maps.Clone(t.keys), letters: maps.Clone(t.letters), whole: slices.Clone(t.whole), version: t.version,
		}
	}
	return c
}

// entry returns what is recorded of a part, nil if nothing.
func (d *warehouse) entry(r messages.PartID, load string) *entry {
	if l := d.loads[load]; l != nil {
		return l.parts[r]
	}
	return nil
}

// destination is a node's way to the warehouse. It implements connectors.Destination.
type destination struct {
	n *node
}

// Check implements connectors.Destination.
func (d destination) Check(context.Context, []connectors.Load) ([]connectors.Finding, error) {
	return nil, nil
}

func (d destination) house() *warehouse { return d.n.w.house }

// simple is a call that happens or not; its reply may be lost either way.
func (d destination) simple(ctx context.Context, name string, do func() error) error {
	lost := []fate{fateFails, fateLost, fatePanic}
	return d.n.call(ctx, &op{name: name, fates: lost, gone: func() {
		if d.n.w.s.chance(0.5) {
			_ = do()
		}
	}, run: func(f fate) error {
		if f == fateFails {
			return failure(f, name)
		}
		if err := do(); err != nil {
			return err
		}
		return failure(f, name)
	}})
}

// Open implements connectors.Destination.
func (d destination) Open(ctx context.Context, r connectors.SessionRequest) (connectors.Session, error) {
	s := &session{destination: d, epoch: r.Epoch}
	err := d.simple(ctx, fmt.Sprintf("open destination, epoch %d", r.Epoch), func() error { return s.open(r) })
	if err != nil {
		return nil, err
	}
	return s, nil
}

// session implements connectors.Session.
type session struct {
	destination

	epoch     messages.Epoch
	recovered connectors.Recovered
	ahead     bool // the state store is, and the run must not go on
}

func (s *session) open(r connectors.SessionRequest) error {
	d := s.house()
	d.landAll(func(*transaction) bool { return true }) // their locks are waited for, or their sessions ended
	switch {
	case d.store == "":
	case d.store != r.Store && !r.Adopt:
		s.n.foreign = true
		return &connectors.Error{Op: "open", Kind: connectors.KindConfig, Code: messages.CodeDestForeign, Commit: connectors.CommitNone, Err: errSimulated}
	case d.epoch >= r.Epoch:
		return d.fenced(s.n, messages.Token{Epoch: d.epoch})
	}
	if d.epoch > r.Epoch {
		d.w.fail("I4: epoch %d follows %d", r.Epoch, d.epoch)
	}
	d.w.s.draws++
	d.epoch, d.store, d.opened = r.Epoch, r.Store, d.w.s.draws
	s.recovered = d.recovered()
	s.ahead = s.n.file.ahead(d)
	s.n.ahead = s.n.ahead || s.ahead
	s.n.opened(s.recovered)
	return nil
}

func (d *warehouse) recovered() connectors.Recovered {
	var r connectors.Recovered
	for _, name := range slices.Sorted(maps.Keys(d.loads)) {
		l := d.loads[name]
		r.Loads = append(r.Loads, l.status)
		for _, id := range slices.Sorted(maps.Keys(l.parts)) {
			r.Parts = append(r.Parts, l.parts[id].part)
			r.Receipts = append(r.Receipts, l.parts[id].receipt)
		}
	}
	return r
}

func (d *warehouse) fenced(n *node, by messages.Token) error {
	if n.epoch() < by.Epoch {
		d.w.note("fenced zombie refused")
	}
	return &connectors.FencedError{Registered: by}
}

// Recovered implements connectors.Session.
func (s *session) Recovered() connectors.Recovered { return s.recovered }

// check is the fence of every change, in its transaction.
func (s *session) check() error {
	d := s.house()
	if d.epoch != s.epoch {
		return d.fenced(s.n, messages.Token{Epoch: d.epoch})
	}
	if s.ahead {
		d.w.fail("I1: the state store is ahead of the destination, and the run goes on")
	}
	return nil
}

func (s *session) bug(op string, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	s.n.w.fail("the engine broke the contract: %s: %v", op, err)
	return &connectors.Error{Op: op, Kind: connectors.KindInternal, Commit: connectors.CommitNone, Err: err}
}

// Begin implements connectors.Session.
func (s *session) Begin(ctx context.Context, l connectors.Load) error {
	return s.simple(ctx, fmt.Sprintf("begin %s load %d", l.ID.Name, l.ID.Number), func() error { return s.begin(l) })
}

// BeginAll implements connectors.Beginner.
func (s *session) BeginAll(ctx context.Context, loads []connectors.Load) error {
	return s.simple(ctx, fmt.Sprintf("begin %d loads", len(loads)), func() error {
		for _, l := range loads {
			if err := s.begin(l); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *session) begin(l connectors.Load) error {
	d := s.house()
	if err := s.check(); err != nil {
		return err
	}
	d.landAll(func(t *transaction) bool { return t.load.Name == l.ID.Name })
	if old := d.loads[l.ID.Name]; old != nil {
		switch {
		case old.status.ID == l.ID:
			return nil
		case old.status.ID.Number > l.ID.Number:
			return s.bug("begin", "load %d is older than %d", l.ID.Number, old.status.ID.Number)
		}
		s.n.w.checkBegin(old, l)
		if !old.status.Finished {
			s.n.w.note("load begun again")
		}
	}
	if d.tables[l.ID.Name] == nil {
		d.tables[l.ID.Name] = &table{rows: map[row]int{}, keys: map[int64]row{}, letters: map[row]int{}}
	}
	b := &begun{status: l.Status(), parts: map[messages.PartID]*entry{}, staged: map[row]int{}}
	for _, p := range l.Parts {
		b.parts[p.ID] = &entry{part: p, receipt: messages.Receipt{Part: p.ID, Load: l.ID.Name, Version: messages.Version{Load: l.ID.Number}}}
	}
	d.loads[l.ID.Name] = b
	return nil
}

// OpenWriter implements connectors.Session.
func (s *session) OpenWriter(ctx context.Context, p connectors.Part, t messages.Token) (connectors.Writer, messages.Receipt, error) {
	w := &writer{session: s, part: p, token: t}
	err := s.simple(ctx, fmt.Sprintf("open writer %s %v", p.ID, t), func() error { return w.open() })
	if err != nil {
		return nil, messages.Receipt{}, err
	}
	s.n.enter(&s.n.writers, p.ID, "writers")
	return w, w.receipt, nil
}

// Finish implements connectors.Session.
func (s *session) Finish(ctx context.Context, id messages.LoadID) error {
	return s.simple(ctx, fmt.Sprintf("finish %s load %d", id.Name, id.Number), func() error { return s.finish(id) })
}

// FinishAll implements connectors.Finisher.
func (s *session) FinishAll(ctx context.Context, ids []messages.LoadID) error {
	return s.simple(ctx, fmt.Sprintf("finish %d loads", len(ids)), func() error {
		for _, id := range ids {
			if err := s.finish(id); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *session) finish(id messages.LoadID) error {
	d := s.house()
	if err := s.check(); err != nil {
		return err
	}
	l := d.loads[id.Name]
	if l == nil || l.status.ID != id {
		return s.bug("finish", "load %d of %s was not begun", id.Number, id.Name)
	}
	if l.status.Finished {
		d.w.note("swap redone after a crash behind it")
		return nil
	}
	for _, p := range slices.Sorted(maps.Keys(l.parts)) {
		r := l.parts[p].receipt
		if !r.Final {
			return s.bug("finish", "part %s of load %d is not final", p, id.Number)
		}
		if k := s.n.file.receipts[p]; k.Version != r.Version {
			return s.bug("finish", "the final receipt of %s is not in the state store", p)
		}
	}
	d.swap(l)
	l.status.Finished = true
	return nil
}

// swap makes a load visible as a whole.
func (d *warehouse) swap(l *begun) {
	st, t := d.w.origin.stream(messages.StreamID(l.status.ID.Name)), d.tables[l.status.ID.Name]
	var whole split
	for i, p := range slices.Sorted(maps.Keys(l.parts)) {
		sp := splitOf(l.parts[p].part)
		if i == 0 {
			whole = sp
		}
		whole.From, whole.To = min(whole.From, sp.From), max(whole.To, sp.To)
	}
	switch st.mode {
	case connectors.ModeReplace:
		if whole.Version < t.version {
			d.w.fail("I5: %s goes back from version %d to %d", st.id, t.version, whole.Version)
		}
		t.rows, t.version = l.staged, whole.Version
		kept, _ := d.w.sieved(whole.span(0, st.sizes[whole.Version]))
		d.w.same("I5: "+string(st.id), t.rows, kept)
	case connectors.ModeAppend:
		t.whole = append(t.whole, whole)
		d.w.checkAppend(st, t)
	case connectors.ModeUpsert:
	}
}

// Close implements connectors.Session.
func (s *session) Close(ctx context.Context) error {
	return s.n.call(ctx, &op{name: fmt.Sprintf("close destination, epoch %d", s.epoch), fates: []fate{fateFails}, run: func(f fate) error {
		return failure(f, "close destination")
	}})
}

// writer implements connectors.Writer.
type writer struct {
	*session

	part     connectors.Part
	token    messages.Token
	receipt  messages.Receipt
	kept     []row // since the last barrier
	rejected []row
	hole     error
	closed   bool
}

func (w *writer) open() error {
	d := w.house()
	if err := w.check(); err != nil {
		return err
	}
	d.landAll(func(t *transaction) bool { return t.receipt.Part == w.part.ID })
	e := d.entry(w.part.ID, w.part.Load.Name)
	if e == nil {
		return w.bug("open writer", "part %s was not begun", w.part.ID)
	}
	if e.receipt.LoadID() != w.part.Load || e.receipt.Token.Compare(w.token) > 0 || w.token.Epoch != w.epoch {
		return d.fenced(w.n, e.receipt.Token)
	}
	if e.doubt != "" {
		d.w.note("unknown commit resolved as " + e.doubt)
		e.doubt = ""
	}
	e.receipt.Token = w.token
	w.receipt = e.receipt
	return nil
}

// Write implements connectors.Writer.
func (w *writer) Write(ctx context.Context, data messages.Data) error {
	defer release(data)
	if w.hole != nil || w.closed {
		return w.bug("write", "the writer of %s has failed or is closed: %v", w.part.ID, w.hole)
	}
	w.hole = errors.New("the call did not come to its end")
	w.hole = w.n.call(ctx, &op{name: fmt.Sprintf("write %s %v", w.part.ID, w.token), fates: []fate{fateFails, fatePanic}, run: func(f fate) error {
		if err := failure(f, "write"); err != nil {
			return err
		}
		if err := w.check(); err != nil {
			return err
		}
		switch m := data.(type) {
		case messages.Batch:
			w.kept = append(w.kept, idsOf(m.Rows)...)
		case messages.Rejected:
			w.rejected = append(w.rejected, idsOf(m.Rows)...)
		case messages.SchemaChange, messages.Truncate:
		}
		return nil
	}})
	return w.hole
}

// transaction is a commit on its way.
type transaction struct {
	node     *node
	epoch    messages.Epoch
	load     messages.LoadID
	before   uint64 // the number that the receipt must have
	receipt  messages.Receipt
	kept     []row
	rejected []row
}

// Commit implements connectors.Writer.
func (w *writer) Commit(ctx context.Context, b messages.Barrier) (messages.Receipt, error) {
	if w.hole != nil || w.closed {
		return messages.Receipt{}, w.bug("commit", "the writer of %s has failed or is closed: %v", w.part.ID, w.hole)
	}
	next := w.receipt
	next.Version.Commit++
	next.Position, next.Final = b.Position, b.Kind == messages.BarrierEnd
	arrived, rejected := int64(len(w.kept)+len(w.rejected)), int64(len(w.rejected))
	next.Rows.Read += b.Rows
	next.Rows.Arrived += arrived
	next.Rows.Rejected += rejected
	next.Rows.Applied += arrived - rejected
	t := &transaction{
		node: w.n, epoch: w.epoch, load: w.part.Load, before: w.receipt.Version.Commit, receipt: next, kept: w.kept, rejected: w.rejected,
	}
	d := w.house()
	w.hole = errors.New("the commit did not come to its end")
	w.hole = w.n.call(ctx, &op{
		name: fmt.Sprintf("commit %s %v to %s", w.part.ID, w.token, next.Position.At.Value), fates: []fate{fateFails, fateLost, fateNever, fateLate, fatePanic},
		gone: func() { d.send(t) },
		run:  func(f fate) error { return w.commit(t, f) },
	})
	if w.hole != nil {
		return messages.Receipt{}, w.hole
	}
	w.receipt, w.kept, w.rejected = next, nil, nil
	return next, nil
}

func (w *writer) commit(t *transaction, f fate) error {
	d := w.house()
	if err := w.check(); err != nil {
		return err
	}
	switch f {
	case fateNever:
		d.doubt(t, "not committed")
	case fateLate:
		d.flying = append(d.flying, t)
	case fateLost:
		if err := d.commit(t); err != nil {
			return err
		}
		d.doubt(t, "committed")
	case fateDone:
		if err := d.commit(t); err != nil {
			return err
		}
	case fateFails, fatePanic:
	}
	return failure(f, "commit")
}

// send puts a commit on its way that nobody waits for, or not.
func (d *warehouse) send(t *transaction) {
	if d.w.s.chance(0.5) {
		d.flying = append(d.flying, t)
	} else {
		d.doubt(t, "not committed")
	}
}

// landAll decides the fate of transactions whose locks somebody waits for.
func (d *warehouse) landAll(which func(*transaction) bool) {
	rest := d.flying
	d.flying = nil
	for _, t := range rest {
		if which(t) {
			d.land(t)
		} else {
			d.flying = append(d.flying, t)
		}
	}
}

func (d *warehouse) land(t *transaction) {
	how := "not committed"
	if d.w.s.chance(0.5) && d.commit(t) == nil {
		how = "committed"
	}
	d.w.s.mark("destination", fmt.Sprintf("commit of %s %v lands: %s", t.receipt.Part, t.receipt.Token, how))
	d.doubt(t, how)
}

func (d *warehouse) doubt(t *transaction, how string) {
	if e := d.entry(t.receipt.Part, t.load.Name); e != nil && e.receipt.LoadID() == t.load {
		e.doubt = how
	}
}

// commit is the transaction: it checks epoch, attempt and number, and changes rows and
// receipt together.
func (d *warehouse) commit(t *transaction) error {
	if d.epoch != t.epoch {
		return d.fenced(t.node, messages.Token{Epoch: d.epoch})
	}
	e := d.entry(t.receipt.Part, t.load.Name)
	if e == nil || e.receipt.LoadID() != t.load || e.receipt.Token != t.receipt.Token || e.receipt.Version.Commit != t.before {
		return d.fenced(t.node, messages.Token{Epoch: d.epoch, Attempt: t.receipt.Token.Attempt + 1})
	}
	d.w.checkCommit(e, t)
	d.apply(t)
	e.receipt = t.receipt
	d.w.proofs[proof{t.receipt.Part, t.receipt.Version}] = t.receipt
	return nil
}

func (d *warehouse) apply(t *transaction) {
	st, tb := d.w.origin.stream(messages.StreamID(t.load.Name)), d.tables[t.load.Name]
	for _, r := range t.rejected {
		tb.letters[r]++
	}
	for _, r := range t.kept {
		switch st.mode {
		case connectors.ModeAppend:
			tb.rows[r]++
		case connectors.ModeReplace:
			d.loads[t.load.Name].staged[r]++
		case connectors.ModeUpsert:
			if old, ok := tb.keys[r.id()]; ok && old.version() > r.version() {
				d.w.fail("%s: version %d of key %d is written over version %d", st.id, r.version(), r.id(), old.version())
			}
			tb.keys[r.id()] = r
		}
	}
}

// Close implements connectors.Writer.
func (w *writer) Close(ctx context.Context) error {
	if w.closed {
		return nil
	}
	w.closed = true
	defer w.n.leave(&w.n.writers, w.part.ID)
	return w.n.call(ctx, &op{name: fmt.Sprintf("close writer %s %v", w.part.ID, w.token), fates: []fate{fateFails}, run: func(f fate) error {
		return failure(f, "close writer")
	}})
}

// proof names a commit.
type proof struct {
	part    messages.PartID
	version messages.Version
}
