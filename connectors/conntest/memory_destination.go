package conntest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

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
	surveyOwns                     bool // a survey registers an epoch
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
	alive int                    // sessions that are not closed
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
	if (o.epoch > r.Epoch || o.epoch == r.Epoch && !r.Join) && !d.flaws.anyEpoch {
		return nil, &connectors.FencedError{Registered: messages.Token{Epoch: o.epoch}}
	}
	o.epoch, o.store = r.Epoch, r.Store
	o.alive++
	return &memorySession{dest: d, owner: o, epoch: r.Epoch, found: o.recovered()}, nil
}

// Survey implements connectors.Surveyor.
func (d *MemoryDestination) Survey(_ context.Context, p messages.PipelineID) (connectors.Surveyed, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	o := d.owners[p]
	if o == nil {
		return connectors.Surveyed{}, nil
	}
	if d.flaws.surveyOwns {
		o.epoch++
	}
	return connectors.Surveyed{Recovered: o.recovered(), Epoch: o.epoch, Store: o.store}, nil
}

// recovered copies what is recorded, sorted.
func (o *memoryOwner) recovered() connectors.Recovered {
	var r connectors.Recovered
	for _, l := range o.loads {
		status := l.plan.Status()
		status.Finished, status.History = l.finished, slices.Clone(l.plan.History)
		r.Loads = append(r.Loads, status)
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

// Changes implements connectors.Planner.
func (d *MemoryDestination) Changes(_ context.Context, loads []connectors.Load) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for _, l := range loads {
		if err := checkLoad(l); err != nil {
			return nil, err
		}
		for _, s := range l.Streams {
			if d.tables[s.Target] == nil {
				out = append(out, fmt.Sprintf("create table %q", s.Target))
			}
			if l.Mode == connectors.ModeReplace {
				out = append(out, fmt.Sprintf("create staging of %q", s.Target))
			}
		}
	}
	return out, nil
}

// Teardown implements connectors.Remover: it forgets receipts and staging. The
// tables stay.
func (d *MemoryDestination) Teardown(_ context.Context, p messages.PipelineID, dryRun bool) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	o := d.owners[p]
	if o == nil {
		return nil, nil
	}
	if o.alive > 0 {
		return nil, &connectors.Error{
			Op: "tear down pipeline " + string(p), Kind: connectors.KindConfig, Code: messages.CodeDestBusy,
			Err: fmt.Errorf("%d sessions of epoch %d or older are open", o.alive, o.epoch),
		}
	}
	var out []string
	for name, l := range o.loads {
		out = append(out, fmt.Sprintf("%d receipts of load %s", len(l.parts), name))
	}
	slices.Sort(out)
	if !dryRun {
		delete(d.owners, p)
	}
	return append(out, "owner of the pipeline"), nil
}
