package generator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// Destination is the blackhole. It is safe for concurrent use.
type Destination struct {
	writeDelay, commitDelay time.Duration

	mu     sync.Mutex
	owners map[messages.PipelineID]*owner
	rows   int64 // committed, over all pipelines
	bytes  int64
}

// owner is what is known of a pipeline; it is forgotten with the value.
type owner struct {
	epoch messages.Epoch
	store string
	loads map[string]*load // the current one of each name
}

// load is a begun load.
type load struct {
	plan     connectors.Load
	finished bool
	parts    map[messages.PartID]*part
}

// part is a receipt and who may change it.
type part struct {
	plan    connectors.Part
	receipt messages.Receipt
	fence   messages.Token
	writer  *writer
}

// NewDestination returns a blackhole.
func NewDestination(cfg DestinationConfig) (*Destination, error) {
	if problems := cfg.Problems(); len(problems) > 0 {
		return nil, &connectors.Error{
			Op: "configure blackhole", Kind: connectors.KindConfig, Code: messages.CodeDocValue,
			Place: messages.Place{Field: problems[0].Path}, Err: errors.New(problems[0].Message),
		}
	}
	d := &Destination{owners: make(map[messages.PipelineID]*owner)}
	d.writeDelay, _ = delay(cfg.WriteDelay)
	d.commitDelay, _ = delay(cfg.CommitDelay)
	return d, nil
}

// Forgets implements connectors.Forgetful.
func (d *Destination) Forgets() bool { return true }

// Totals returns the rows and Arrow bytes that were committed.
func (d *Destination) Totals() (rows, bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rows, d.bytes
}

// Check implements connectors.Destination.
func (d *Destination) Check(_ context.Context, loads []connectors.Load) ([]connectors.Finding, error) {
	var out []connectors.Finding
	for _, l := range loads {
		if err := checkLoad(l); err != nil {
			out = append(out, connectors.Finding{Severity: connectors.SeverityError, Code: err.Code, Message: err.Error(), Where: err.Place})
		}
	}
	return out, nil
}

// checkLoad refuses what another destination would refuse for the same document.
func checkLoad(l connectors.Load) *connectors.Error {
	refuse := func(s messages.StreamID, code messages.Code, format string, args ...any) *connectors.Error {
		return &connectors.Error{
			Op: "begin load " + l.ID.Name, Kind: connectors.KindConfig, Code: code,
			Place: messages.Place{Stream: s}, Err: fmt.Errorf(format, args...),
		}
	}
	for _, s := range l.Streams {
		switch l.Mode {
		case connectors.ModeAppend, connectors.ModeReplace:
		case connectors.ModeUpsert:
			if len(s.Key) == 0 {
				return refuse(s.Stream, messages.CodeDocMissing, "an upsert needs a primary key")
			}
		default:
			return refuse(s.Stream, messages.CodeDocValue, "unknown write mode %q", l.Mode)
		}
	}
	return nil
}

// Open implements connectors.Destination.
func (d *Destination) Open(ctx context.Context, r connectors.SessionRequest) (connectors.Session, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	o := d.owners[r.Pipeline]
	if o == nil {
		o = &owner{store: r.Store, loads: make(map[string]*load)}
		d.owners[r.Pipeline] = o
	}
	if o.store != r.Store && !r.Adopt {
		return nil, &connectors.Error{
			Op: "open blackhole", Kind: connectors.KindConfig, Code: messages.CodeDestForeign,
			Err: fmt.Errorf("pipeline %s belongs to state store %q, this is %q", r.Pipeline, o.store, r.Store),
		}
	}
	if o.epoch > r.Epoch || o.epoch == r.Epoch && !r.Join {
		return nil, &connectors.FencedError{Registered: messages.Token{Epoch: o.epoch}}
	}
	o.epoch, o.store = r.Epoch, r.Store
	return &session{dest: d, owner: o, epoch: r.Epoch, found: o.recovered()}, nil
}

// recovered copies what is known, sorted.
func (o *owner) recovered() (r connectors.Recovered) {
	for _, l := range o.loads {
		status := l.plan.Status()
		status.Finished = l.finished
		r.Loads = append(r.Loads, status)
		for _, p := range l.parts {
			r.Parts = append(r.Parts, p.plan)
			r.Receipts = append(r.Receipts, p.receipt)
		}
	}
	slices.SortFunc(r.Loads, func(a, b connectors.LoadStatus) int { return cmp.Compare(a.ID.Name, b.ID.Name) })
	slices.SortFunc(r.Parts, func(a, b connectors.Part) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(r.Receipts, func(a, b messages.Receipt) int { return cmp.Compare(a.Part, b.Part) })
	return r
}

// session is one owner's access.
type session struct {
	dest  *Destination
	owner *owner
	epoch messages.Epoch
	found connectors.Recovered
}

// enter locks the destination for a change, if the epoch may still make one and
// ctx has not ended. The caller unlocks when err is nil.
func (s *session) enter(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.dest.mu.Lock()
	if s.owner.epoch > s.epoch {
		registered := messages.Token{Epoch: s.owner.epoch}
		s.dest.mu.Unlock()
		return &connectors.FencedError{Registered: registered}
	}
	return nil
}

// Recovered implements connectors.Session.
func (s *session) Recovered() connectors.Recovered { return s.found }

// Close implements connectors.Session.
func (s *session) Close(context.Context) error { return nil }

func internal(op string, format string, args ...any) error {
	return &connectors.Error{Op: op, Kind: connectors.KindInternal, Err: fmt.Errorf(format, args...)}
}

// Begin implements connectors.Session.
func (s *session) Begin(ctx context.Context, l connectors.Load) error {
	if err := checkLoad(l); err != nil {
		return err
	}
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.dest.mu.Unlock()
	if old := s.owner.loads[l.ID.Name]; old != nil && old.plan.ID.Number >= l.ID.Number {
		if old.plan.ID == l.ID {
			return nil
		}
		return internal("begin load "+l.ID.Name, "load %d is already there, this is %d", old.plan.ID.Number, l.ID.Number)
	}
	begun := &load{plan: l, parts: make(map[messages.PartID]*part)}
	for _, p := range l.Parts {
		p.Load = l.ID
		begun.parts[p.ID] = &part{plan: p, receipt: messages.Receipt{
			Part: p.ID, Load: l.ID.Name, Version: messages.Version{Load: l.ID.Number}, Token: messages.Token{Epoch: s.epoch},
		}}
	}
	s.owner.loads[l.ID.Name] = begun
	return nil
}

// OpenWriter implements connectors.Session.
func (s *session) OpenWriter(ctx context.Context, p connectors.Part, t messages.Token) (connectors.Writer, messages.Receipt, error) {
	if err := s.enter(ctx); err != nil {
		return nil, messages.Receipt{}, err
	}
	defer s.dest.mu.Unlock()
	l := s.owner.loads[p.Load.Name]
	switch {
	case l != nil && l.plan.ID.Number > p.Load.Number:
		return nil, messages.Receipt{}, &connectors.FencedError{Registered: messages.Token{Epoch: s.owner.epoch}}
	case l == nil || l.plan.ID != p.Load || l.parts[p.ID] == nil:
		return nil, messages.Receipt{}, internal("open writer of "+string(p.ID), "its load was not begun")
	}
	target := l.parts[p.ID]
	if t.Compare(target.fence) < 0 {
		return nil, messages.Receipt{}, &connectors.FencedError{Registered: target.fence}
	}
	w := &writer{session: s, load: l, part: target, token: t}
	target.fence, target.writer = t, w
	return w, target.receipt, nil
}

// Finish implements connectors.Session.
func (s *session) Finish(ctx context.Context, id messages.LoadID) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.dest.mu.Unlock()
	l := s.owner.loads[id.Name]
	if l == nil || l.plan.ID != id {
		return internal("finish load "+id.Name, "load %d is not the current one", id.Number)
	}
	for _, p := range l.parts {
		if !p.receipt.Final {
			return internal("finish load "+id.Name, "part %s is not final", p.plan.ID)
		}
	}
	l.finished = true
	return nil
}

// writer counts the rows of one part.
type writer struct {
	session *session
	load    *load
	part    *part
	token   messages.Token

	counts messages.Counts // since the last barrier
	bytes  int64
	failed error // after an error only Close is called
}

// Write implements connectors.Writer.
func (w *writer) Write(ctx context.Context, d messages.Data) error {
	defer release(d)
	if w.failed == nil {
		if w.failed = pause(ctx, w.session.dest.writeDelay); w.failed == nil && ctx.Err() != nil {
			w.failed = context.Cause(ctx)
		}
	}
	if w.failed == nil {
		w.failed = w.count(d)
	}
	return w.failed
}

// count adds d to what the next commit acknowledges.
func (w *writer) count(d messages.Data) error {
	switch d := d.(type) {
	case messages.Batch:
		if !slices.ContainsFunc(w.load.plan.Streams, func(s connectors.StreamPlan) bool { return s.Stream == d.Stream }) {
			return internal("write batch", "the load does not have stream %s", d.Stream)
		}
		w.counts.Arrived += d.Rows.Len()
		w.counts.Applied += d.Rows.Len()
		w.bytes += d.Rows.Bytes()
	case messages.Rejected:
		w.counts.Arrived += d.Rows.Len()
		w.counts.Rejected += d.Rows.Len()
	case messages.SchemaChange, messages.Truncate:
	}
	return nil
}

func release(d messages.Data) {
	switch d := d.(type) {
	case messages.Batch:
		d.Rows.Release()
	case messages.Rejected:
		d.Rows.Release()
	case messages.SchemaChange, messages.Truncate:
	}
}

// Commit implements connectors.Writer.
func (w *writer) Commit(ctx context.Context, b messages.Barrier) (messages.Receipt, error) {
	if w.failed == nil {
		w.failed = pause(ctx, w.session.dest.commitDelay)
	}
	if w.failed != nil {
		return messages.Receipt{}, w.failed
	}
	r, err := w.commit(ctx, b)
	w.failed = err
	return r, err
}

func (w *writer) commit(ctx context.Context, b messages.Barrier) (messages.Receipt, error) {
	s := w.session
	if err := s.enter(ctx); err != nil {
		return messages.Receipt{}, err
	}
	defer s.dest.mu.Unlock()
	if s.owner.loads[w.load.plan.ID.Name] != w.load || w.part.writer != w {
		return messages.Receipt{}, &connectors.FencedError{Registered: w.part.fence}
	}
	r := w.part.receipt
	r.Version.Commit++
	r.Token, r.Position, r.Final = w.token, b.Position, b.Kind == messages.BarrierEnd
	r.Rows.Read += b.Rows
	r.Rows.Arrived += w.counts.Arrived
	r.Rows.Applied += w.counts.Applied
	r.Rows.Rejected += w.counts.Rejected
	w.part.receipt = r
	s.dest.rows += w.counts.Applied
	s.dest.bytes += w.bytes
	w.counts, w.bytes = messages.Counts{}, 0
	return r, nil
}

// Close implements connectors.Writer.
func (w *writer) Close(context.Context) error {
	w.failed = errors.New("the writer is closed")
	return nil
}
