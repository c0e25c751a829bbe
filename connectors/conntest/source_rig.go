package conntest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

var (
	large = connectors.Limits{BatchRows: 1 << 20, BatchBytes: 1 << 26, RowBytes: 1 << 26}
	tiny  = connectors.Limits{BatchRows: 1, BatchBytes: 1 << 20, RowBytes: 1 << 20}
)

// sourceRig plays the engine against one origin.
type sourceRig struct {
	Origin
	t   T
	f   SourceFactory
	mem *memory.CheckedAllocator
}

func newSourceRig(t T, f SourceFactory) *sourceRig {
	r := &sourceRig{t: t, f: f, mem: checked(t)}
	r.Origin = f.New(t)
	return r
}

// other returns the source as another node has it.
func (r *sourceRig) other() connectors.Source {
	if r.Reopen == nil {
		return r.Source
	}
	return r.Reopen(r.t)
}

func (r *sourceRig) request(splits int) connectors.ScanRequest {
	return connectors.ScanRequest{Pipeline: pipeline, Epoch: 1, Streams: r.Streams, Splits: splits}
}

// scan scans with src; the scan is closed when the check ends.
func (r *sourceRig) scan(src connectors.Source, request connectors.ScanRequest) connectors.Plan {
	r.t.Helper()
	scan, err := src.Scan(r.t.Context(), request)
	require.NoError(r.t, err, "scan")
	r.t.Cleanup(func() { _ = scan.Close(context.WithoutCancel(r.t.Context())) })
	return scan.Plan()
}

// attempt is what one reader gave.
type attempt struct {
	rows     map[messages.StreamID][]string
	barriers []mark
	kind     messages.BarrierKind
	items    int
}

// mark is a barrier and how many rows of each stream went before it.
type mark struct {
	barrier messages.Barrier
	before  map[messages.StreamID]int
}

// reading is how one part is read.
type reading struct {
	part   connectors.Part
	plan   connectors.Load
	from   messages.Position
	limits connectors.Limits
	rows   int64 // ReadRequest.Limit
	every  int64 // a barrier is due after so many rows

	onItem func(it messages.Item, e *Emitter) error // may end the attempt; may be nil
}

// read makes one attempt and requires that it ends in order.
func (r *sourceRig) read(g reading) attempt {
	r.t.Helper()
	a, err := r.try(r.t.Context(), g)
	require.NoError(r.t, err, "read part %s from %+v", g.part.ID, g.from)
	return a
}

// try makes one attempt. What the reader does against the contract is reported.
func (r *sourceRig) try(ctx context.Context, g reading) (attempt, error) {
	r.t.Helper()
	a := attempt{rows: make(map[messages.StreamID][]string)}
	reader, err := r.Source.Open(ctx, r.readRequest(g))
	if err != nil {
		return a, err
	}
	defer func() { _ = reader.Close(context.WithoutCancel(ctx)) }()
	shape := newShape(g.plan, g.limits)
	shape.raw = g.part.Raw
	e := &Emitter{Part: g.part.ID, Token: messages.Token{Epoch: 1, Attempt: 1}, Every: g.every}
	e.Sink = func(_ context.Context, it messages.Item) error {
		a.items++
		if err := a.take(r.t, shape, it); err != nil {
			return err
		}
		if g.onItem != nil {
			return g.onItem(it, e)
		}
		return nil
	}
	err = reader.Read(ctx, e)
	for _, b := range e.Broken() {
		r.t.Errorf("part %s: the reader %s", g.part.ID, b)
	}
	if err == nil {
		if err := e.Finished(); err != nil {
			r.t.Errorf("part %s: %v", g.part.ID, err)
		}
	}
	a.kind, _ = e.Ended()
	return a, err
}

func (r *sourceRig) readRequest(g reading) connectors.ReadRequest {
	return connectors.ReadRequest{
		Part: throughJSON(r.t, g.part), Token: messages.Token{Epoch: 1, Attempt: 1}, From: throughJSON(r.t, g.from),
		Limits: g.limits, Mem: r.mem, Limit: g.rows,
	}
}

// throughJSON is how parts and positions come back from a destination.
func throughJSON[V any](t T, v V) V {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	var back V
	require.NoError(t, json.Unmarshal(text, &back))
	return back
}

// take releases it after keeping its rows.
func (a *attempt) take(t T, s *shape, it messages.Item) error {
	switch it := it.(type) {
	case messages.Batch:
		defer it.Rows.Release()
		if s.raw != "" {
			a.rows[it.Stream] = append(a.rows[it.Stream], s.checkRaw(t, it)...)
			return nil
		}
		rec, err := record(it.Rows)
		if err != nil {
			return err
		}
		s.check(t, it, rec)
		a.rows[it.Stream] = append(a.rows[it.Stream], RowTexts(rec)...)
	case messages.Rejected:
		it.Rows.Release()
		t.Errorf("a source emitted rejected rows of %s", it.Stream)
	case messages.SchemaChange:
		s.schemas[it.Stream], s.versions[it.Stream] = it.Schema, it.Version
	case messages.Truncate:
		for _, stream := range it.Streams {
			a.rows[stream] = nil
		}
	case messages.Barrier:
		before := make(map[messages.StreamID]int)
		for stream, rows := range a.rows {
			before[stream] = len(rows)
		}
		a.barriers = append(a.barriers, mark{it, before})
	}
	return nil
}

// shape is what batches of a load must look like.
type shape struct {
	limits   connectors.Limits
	schemas  map[messages.StreamID]*arrow.Schema
	versions map[messages.StreamID]uint64
	raw      string // the format that was agreed on; empty: Arrow
}

func newShape(l connectors.Load, limits connectors.Limits) *shape {
	s := &shape{limits: limits, schemas: make(map[messages.StreamID]*arrow.Schema), versions: make(map[messages.StreamID]uint64)}
	for _, st := range l.Streams {
		s.schemas[st.Stream], s.versions[st.Stream] = st.Schema, 1
	}
	return s
}

func (s *shape) check(t T, b messages.Batch, rec arrow.RecordBatch) {
	t.Helper()
	want := s.schemas[b.Stream]
	switch {
	case want == nil:
		t.Errorf("a batch of stream %q, which the load does not have", b.Stream)
	case !rec.Schema().Equal(want):
		t.Errorf("a batch of %s has another schema than planned:\n%s\nplanned:\n%s", b.Stream, rec.Schema(), want)
	case b.Version != s.versions[b.Stream]:
		t.Errorf("a batch of %s has schema version %d, want %d", b.Stream, b.Version, s.versions[b.Stream])
	}
	s.checkSize(t, b)
}

// checkRaw returns a text for each of the rows, which nobody can read.
func (s *shape) checkRaw(t T, b messages.Batch) []string {
	t.Helper()
	rows, ok := b.Rows.(messages.RawRows)
	switch {
	case !ok:
		t.Errorf("a batch of %s holds %T, raw rows in %s were agreed on", b.Stream, b.Rows, s.raw)
	case rows.Format != s.raw:
		t.Errorf("a batch of %s is in %q, agreed on was %q", b.Stream, rows.Format, s.raw)
	}
	s.checkSize(t, b)
	return slices.Repeat([]string{"raw"}, int(b.Rows.Len()))
}

func (s *shape) checkSize(t T, b messages.Batch) {
	t.Helper()
	n, size := b.Rows.Len(), b.Rows.Bytes()
	if s.limits.BatchRows > 0 && n > s.limits.BatchRows {
		t.Errorf("a batch of %s has %d rows, more than the limit of %d", b.Stream, n, s.limits.BatchRows)
	}
	if s.limits.BatchBytes > 0 && n > 1 && size > s.limits.BatchBytes {
		t.Errorf("a batch of %s has %d bytes in %d rows, more than the limit of %d", b.Stream, size, n, s.limits.BatchBytes)
	}
}

// readAll reads every part of a plan and returns the rows by stream.
func (r *sourceRig) readAll(p connectors.Plan, limits connectors.Limits) map[messages.StreamID][]string {
	r.t.Helper()
	all := make(map[messages.StreamID][]string)
	for _, l := range p.Loads {
		for _, part := range l.Parts {
			for stream, rows := range r.read(reading{part: part, plan: l, limits: limits}).rows {
				all[stream] = append(all[stream], rows...)
			}
		}
	}
	return all
}

// same requires that got holds exactly the rows of want, of every stream.
func (r *sourceRig) same(want, got map[messages.StreamID][]string, what string) {
	r.t.Helper()
	for stream, rows := range want {
		sameRows(r.t, rows, got[stream], fmt.Sprintf("%s: stream %s", what, stream))
	}
	for stream, rows := range got {
		if _, known := want[stream]; !known && len(rows) > 0 {
			r.t.Errorf("%s: %d rows of stream %s, which nobody expects", what, len(rows), stream)
		}
	}
}

// biggest returns the part with the most rows, and its load.
func (r *sourceRig) biggest(p connectors.Plan) (part connectors.Part, load connectors.Load, rows int) {
	r.t.Helper()
	for _, l := range p.Loads {
		for _, q := range l.Parts {
			n := 0
			for _, rows := range r.read(reading{part: q, plan: l, limits: large}).rows {
				n += len(rows)
			}
			if n > rows {
				part, load, rows = q, l, n
			}
		}
	}
	require.GreaterOrEqual(r.t, rows, 10, "the origin must have a part with at least 10 rows")
	return part, load, rows
}

// recoveredOf returns what a destination knows of the loads of p: finished, or with
// each part at the position in at.
func recoveredOf(p connectors.Plan, finished bool, at map[messages.PartID]messages.Position) connectors.Recovered {
	var r connectors.Recovered
	for _, l := range p.Loads {
		r.Loads = append(r.Loads, connectors.LoadStatus{ID: l.ID, Finished: finished, Identity: p.Identity, History: l.History})
		for _, part := range l.Parts {
			r.Parts = append(r.Parts, part)
			r.Receipts = append(r.Receipts, messages.Receipt{
				Part: part.ID, Load: l.ID.Name, Version: messages.Version{Load: l.ID.Number, Commit: 1},
				Token: messages.Token{Epoch: 1, Attempt: 1}, Position: at[part.ID], Final: finished,
			})
		}
	}
	return r
}

// holder keeps one reference of each batch, to see a second release.
type holder struct {
	mu   sync.Mutex
	held []messages.Rows
}

func (h *holder) keep(rows messages.Rows) {
	h.mu.Lock()
	defer h.mu.Unlock()
	rows.Retain()
	h.held = append(h.held, rows)
}

// freed reports whether somebody else gave up the references that are kept here.
func (h *holder) freed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.held, freed)
}

// freed reports whether the memory of rows is gone.
func freed(rows messages.Rows) bool {
	rec, err := record(rows)
	return err == nil && len(rec.Columns()) == 0
}

// release gives up what is kept.
func (h *holder) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, rows := range h.held {
		rows.Release()
	}
	h.held = nil
}

// spread returns at most n of marks, evenly, always the first and the last.
func spread(marks []mark, n int) []mark {
	if len(marks) <= n {
		return marks
	}
	out := make([]mark, 0, n)
	for i := range n {
		out = append(out, marks[i*(len(marks)-1)/(n-1)])
	}
	return slices.Clip(out)
}
