package conntest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

var goAllocator = memory.NewGoAllocator()

// MemoryDestination is a correct destination whose tables live in memory, as the
// texts of their values. Append, upsert and replace; dead letters are counted and
// kept per target; a Truncate empties the target at its place in the order. The
// zero value is ready; it must not be copied.
type MemoryDestination struct {
	CheckFn      Hook
	OpenFn       Hook
	BeginFn      Hook
	OpenWriterFn Hook
	WriteFn      Hook // with Data
	CommitFn     Hook // before the transaction, with Barrier
	CommittedFn  Hook // behind it: its error is a reply that was lost, CommitUnknown
	FinishFn     Hook
	FinishedFn   Hook // behind it: a reply that was lost
	CloseFn      Hook // closing a writer; the writer is closed whatever it returns

	flaws flaws // none, but in tests of the suite

	calls    counter
	mu       sync.Mutex
	owners   map[messages.PipelineID]*memoryOwner
	tables   map[string]*memoryTable
	rejected map[string][]string
}

// flaws switch off one rule each, to see that a check notices.
type flaws struct {
	anyEpoch, anyAttempt, anyStore bool // nobody is fenced or refused
	finishEarly                    bool // parts need not be final
	noStaging                      bool // a replace writes where readers look
	keepReceipts                   bool // a new load takes over the receipts of the old one
}

// memoryOwner is what is recorded of a pipeline.
type memoryOwner struct {
	epoch messages.Epoch
	store string
	loads map[string]*memoryLoad // the current one of each name
}

// memoryLoad is a begun load.
type memoryLoad struct {
	plan     connectors.Load
	finished bool
	staging  map[string]*memoryTable // by target, of a replace
	parts    map[messages.PartID]*memoryPart
}

// memoryPart is a receipt and who may change it.
type memoryPart struct {
	part    connectors.Part
	receipt messages.Receipt
	fence   messages.Token
	writer  *memoryWriter // the only one that may commit
}

// Rows returns the rows that a reader of target sees, as RowText, in the order in
// which they arrived.
func (d *MemoryDestination) Rows(target string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.tables[target]; t != nil {
		return t.texts()
	}
	return nil
}

// Rejected returns the dead letters of target, as RowText.
func (d *MemoryDestination) Rejected(target string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.rejected[target])
}

// Receipts returns the receipts of a pipeline, by part.
func (d *MemoryDestination) Receipts(p messages.PipelineID) map[messages.PartID]messages.Receipt {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make(map[messages.PartID]messages.Receipt)
	if o := d.owners[p]; o != nil {
		for _, l := range o.loads {
			for id, part := range l.parts {
				out[id] = part.receipt
			}
		}
	}
	return out
}

// Finished reports whether l is the current load of its name and finished.
func (d *MemoryDestination) Finished(p messages.PipelineID, l messages.LoadID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	o := d.owners[p]
	return o != nil && o.loads[l.Name] != nil && o.loads[l.Name].plan.ID == l && o.loads[l.Name].finished
}

// Check implements connectors.Destination.
func (d *MemoryDestination) Check(ctx context.Context, loads []connectors.Load) ([]connectors.Finding, error) {
	if err := d.CheckFn.do(ctx, Call{N: d.calls.next("check")}); err != nil {
		return nil, err
	}
	var found []connectors.Finding
	for _, l := range loads {
		if err := checkLoad(l); err != nil {
			found = append(found, connectors.Finding{Severity: connectors.SeverityError, Code: err.Code, Message: err.Error()})
		}
	}
	return found, nil
}

// Open implements connectors.Destination.
func (d *MemoryDestination) Open(ctx context.Context, r connectors.SessionRequest) (connectors.Session, error) {
	c := Call{N: d.calls.next("open"), Token: messages.Token{Epoch: r.Epoch}}
	if err := d.OpenFn.do(ctx, c); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owners == nil {
		d.owners, d.tables = make(map[messages.PipelineID]*memoryOwner), make(map[string]*memoryTable)
		d.rejected = make(map[string][]string)
	}
	o := d.owners[r.Pipeline]
	if o == nil {
		o = &memoryOwner{store: r.Store, loads: make(map[string]*memoryLoad)}
		d.owners[r.Pipeline] = o
	}
	if o.store != r.Store && !r.Adopt && !d.flaws.anyStore {
		return nil, &connectors.Error{
			Op: "open destination", Kind: connectors.KindConfig, Code: messages.CodeDestForeign,
			Err: fmt.Errorf("pipeline %s belongs to state store %q, this is %q", r.Pipeline, o.store, r.Store),
		}
	}
	if o.epoch > r.Epoch && !d.flaws.anyEpoch {
		return nil, &connectors.FencedError{Registered: messages.Token{Epoch: o.epoch}}
	}
	o.epoch, o.store = r.Epoch, r.Store
	return &memorySession{dest: d, owner: o, epoch: r.Epoch, found: o.recovered()}, nil
}

// recovered copies what is recorded, sorted.
func (o *memoryOwner) recovered() connectors.Recovered {
	var r connectors.Recovered
	for _, l := range o.loads {
		r.Loads = append(r.Loads, connectors.LoadStatus{
			ID: l.plan.ID, Finished: l.finished, Identity: l.plan.Identity, History: slices.Clone(l.plan.History),
		})
		for _, p := range l.parts {
			r.Parts = append(r.Parts, p.part)
			r.Receipts = append(r.Receipts, p.receipt)
		}
	}
	slices.SortFunc(r.Loads, func(a, b connectors.LoadStatus) int { return cmp.Compare(a.ID.Name, b.ID.Name) })
	slices.SortFunc(r.Parts, func(a, b connectors.Part) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(r.Receipts, func(a, b messages.Receipt) int { return cmp.Compare(a.Part, b.Part) })
	return r
}

// memorySession is one owner's access.
type memorySession struct {
	dest  *MemoryDestination
	owner *memoryOwner
	epoch messages.Epoch
	found connectors.Recovered
}

// fenced reports a younger owner. The destination is locked.
func (s *memorySession) fenced() error {
	if s.owner.epoch > s.epoch && !s.dest.flaws.anyEpoch {
		return &connectors.FencedError{Registered: messages.Token{Epoch: s.owner.epoch}}
	}
	return nil
}

// Recovered implements connectors.Session.
func (s *memorySession) Recovered() connectors.Recovered { return s.found }

// Close implements connectors.Session. Open writers stay; each is closed by who
// has it.
func (s *memorySession) Close(context.Context) error { return nil }

// checkLoad looks for what cannot be begun.
func checkLoad(l connectors.Load) *connectors.Error {
	fail := func(kind connectors.Kind, code messages.Code, s connectors.StreamPlan, field, format string, args ...any) *connectors.Error {
		return &connectors.Error{
			Op: "begin load " + l.ID.Name, Kind: kind, Code: code,
			Place: messages.Place{Stream: s.Stream, Field: field}, Err: fmt.Errorf(format, args...),
		}
	}
	for _, s := range l.Streams {
		switch l.Mode {
		case connectors.ModeAppend, connectors.ModeReplace:
		case connectors.ModeUpsert:
			if len(s.Key) == 0 {
				return fail(connectors.KindConfig, messages.CodeDocMissing, s, "", "an upsert needs a primary key")
			}
		default:
			return fail(connectors.KindConfig, messages.CodeDocValue, s, "", "unknown write mode %q", l.Mode)
		}
		for _, k := range s.Key {
			if !s.Schema.HasField(k) {
				return fail(connectors.KindSchema, messages.CodeSchemaColumn, s, k, "there is no key column %q", k)
			}
		}
		for _, f := range s.Schema.Fields() {
			if _, odd := f.Type.(arrow.UnionType); odd {
				return fail(connectors.KindSchema, messages.CodeSchemaType, s, f.Name, "column %q is a union", f.Name)
			}
		}
	}
	return nil
}

// Begin implements connectors.Session.
func (s *memorySession) Begin(ctx context.Context, l connectors.Load) error {
	c := Call{N: s.dest.calls.next("begin"), Load: l.ID, Token: messages.Token{Epoch: s.epoch}}
	if err := s.dest.BeginFn.do(ctx, c); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := checkLoad(l); err != nil {
		return err
	}
	s.dest.mu.Lock()
	defer s.dest.mu.Unlock()
	if err := s.fenced(); err != nil {
		return err
	}
	if old := s.owner.loads[l.ID.Name]; old != nil {
		if old.plan.ID == l.ID {
			return nil
		}
		if old.plan.ID.Number > l.ID.Number {
			return &connectors.Error{Op: "begin load " + l.ID.Name, Kind: connectors.KindInternal, Err: fmt.Errorf("load %d is already there, this is %d", old.plan.ID.Number, l.ID.Number)}
		}
	}
	load := &memoryLoad{plan: l, staging: make(map[string]*memoryTable), parts: make(map[messages.PartID]*memoryPart)}
	for _, st := range l.Streams {
		if s.dest.tables[st.Target] == nil {
			s.dest.tables[st.Target] = newMemoryTable()
		}
		load.staging[st.Target] = newMemoryTable()
	}
	for _, p := range l.Parts {
		p.Load = l.ID
		load.parts[p.ID] = &memoryPart{part: p, receipt: messages.Receipt{
			Part: p.ID, Load: l.ID.Name, Version: messages.Version{Load: l.ID.Number}, Token: messages.Token{Epoch: s.epoch},
		}}
	}
	if old := s.owner.loads[l.ID.Name]; old != nil && s.dest.flaws.keepReceipts {
		load.parts = old.parts
	}
	s.owner.loads[l.ID.Name] = load
	return nil
}

// OpenWriter implements connectors.Session. A commit is atomic here, so the fate
// of the last one is always known.
func (s *memorySession) OpenWriter(ctx context.Context, p connectors.Part, t messages.Token) (connectors.Writer, messages.Receipt, error) {
	c := Call{N: s.dest.calls.next("open writer"), Load: p.Load, Part: p.ID, Token: t}
	if err := s.dest.OpenWriterFn.do(ctx, c); err != nil {
		return nil, messages.Receipt{}, err
	}
	if ctx.Err() != nil {
		return nil, messages.Receipt{}, context.Cause(ctx)
	}
	s.dest.mu.Lock()
	defer s.dest.mu.Unlock()
	if err := s.fenced(); err != nil {
		return nil, messages.Receipt{}, err
	}
	load := s.owner.loads[p.Load.Name]
	if load == nil || load.plan.ID.Number < p.Load.Number || load.plan.ID == p.Load && load.parts[p.ID] == nil {
		return nil, messages.Receipt{}, &connectors.Error{Op: "open writer of " + string(p.ID), Kind: connectors.KindInternal, Err: errors.New("its load was not begun")}
	}
	if load.plan.ID != p.Load {
		return nil, messages.Receipt{}, &connectors.FencedError{Registered: messages.Token{Epoch: s.owner.epoch}}
	}
	part := load.parts[p.ID]
	if t.Compare(part.fence) < 0 || t.Epoch < s.owner.epoch {
		return nil, messages.Receipt{}, &connectors.FencedError{Registered: part.fence}
	}
	w := &memoryWriter{session: s, load: load, part: part, token: t}
	part.fence, part.writer = t, w
	return w, part.receipt, nil
}

// Finish implements connectors.Session.
func (s *memorySession) Finish(ctx context.Context, id messages.LoadID) error {
	c := Call{N: s.dest.calls.next("finish"), Load: id, Token: messages.Token{Epoch: s.epoch}}
	if err := s.dest.FinishFn.do(ctx, c); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := s.finish(id); err != nil {
		return err
	}
	return s.dest.FinishedFn.do(ctx, c)
}

func (s *memorySession) finish(id messages.LoadID) error {
	s.dest.mu.Lock()
	defer s.dest.mu.Unlock()
	if err := s.fenced(); err != nil {
		return err
	}
	refuse := func(format string, args ...any) error {
		return &connectors.Error{Op: "finish load " + id.Name, Kind: connectors.KindInternal, Err: fmt.Errorf(format, args...)}
	}
	load := s.owner.loads[id.Name]
	if load == nil || load.plan.ID != id {
		return refuse("load %d is not the current one", id.Number)
	}
	if load.finished {
		return nil
	}
	for _, p := range load.parts {
		if !p.receipt.Final && !s.dest.flaws.finishEarly {
			return refuse("part %s is not final", p.part.ID)
		}
	}
	if load.plan.Mode == connectors.ModeReplace && !s.dest.flaws.noStaging {
		maps.Copy(s.dest.tables, load.staging)
	}
	load.finished, load.staging = true, nil
	return nil
}
