package conntest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// ErrStopped is what Drive returns when it stopped as StopAfter asked.
var ErrStopped = errors.New("stopped as if the process had died")

const passesMax = 100 // scans of one Drive; a source that always has more is a bug

// Run says what Drive runs.
type Run struct {
	Source      connectors.Source
	Transforms  []connectors.Transform
	Destination connectors.Destination
	Streams     []connectors.StreamSpec

	Pipeline messages.PipelineID              // empty: "drive"
	Store    string                           // empty: "drive-store"
	Epoch    messages.Epoch                   // 0: 1. A run after a crash must have a higher one
	Target   func(s messages.StreamID) string // nil: the stream's name
	Splits   int                              // 0: 1
	Limits   connectors.Limits                // zero: 1000 rows, 1 MiB
	Mem      memory.Allocator                 // nil: the Go allocator

	Every     int64 // rows after which a barrier is due, 0 never
	StopAfter int   // items given to writers before everything is dropped, 0 never
	DrainAt   int   // items given to writers before a drain is asked for, 0 never
}

// Outcome says what Drive did.
type Outcome struct {
	Items    int // data and barriers given to writers
	Commits  int
	Receipts map[messages.PartID]messages.Receipt
	Finished []messages.LoadID
	Drained  bool // stopped by DrainAt, at committed positions
	Warnings []connectors.Finding
}

// Drive runs a pipeline to its end as the engine does, one part after the other:
// open, scan, begin, read and commit every part from its receipt, finish, and scan
// again while the source says that there is more. A load that cannot be continued
// exactly is begun anew. After an error or ErrStopped, drive again with a higher
// epoch: the rows must then be exact.
func Drive(ctx context.Context, r Run) (Outcome, error) {
	r = r.withDefaults()
	d := &driver{run: r, out: Outcome{Receipts: make(map[messages.PartID]messages.Receipt)}}
	for range passesMax {
		more, err := d.pass(ctx)
		if err != nil || !more || d.out.Drained {
			return d.out, err
		}
	}
	return d.out, fmt.Errorf("the source still has more after %d scans", passesMax)
}

func (r Run) withDefaults() Run {
	r.Pipeline = cmp.Or(r.Pipeline, "drive")
	r.Store = cmp.Or(r.Store, "drive-store")
	r.Epoch, r.Splits = max(r.Epoch, 1), max(r.Splits, 1)
	if r.Target == nil {
		r.Target = func(s messages.StreamID) string { return string(s) }
	}
	if r.Limits == (connectors.Limits{}) {
		r.Limits = connectors.Limits{BatchRows: 1000, BatchBytes: 1 << 20, RowBytes: 1 << 20}
	}
	if r.Mem == nil {
		r.Mem = goAllocator
	}
	return r
}

// driver is one Drive.
type driver struct {
	run     Run
	attempt messages.Attempt
	passes  int
	out     Outcome
}

// pass makes one scan and reads what it plans.
func (d *driver) pass(ctx context.Context) (more bool, err error) {
	session, err := d.run.Destination.Open(ctx, connectors.SessionRequest{
		Pipeline: d.run.Pipeline, Epoch: d.run.Epoch, Store: d.run.Store, Join: d.passes > 0,
	})
	d.passes++
	if err != nil {
		return false, err
	}
	defer func() { err = cmp.Or(err, session.Close(context.WithoutCancel(ctx))) }()
	scan, err := d.scan(ctx, session.Recovered())
	if err != nil {
		return false, err
	}
	defer func() { err = cmp.Or(err, scan.Close(context.WithoutCancel(ctx))) }()
	plan := scan.Plan()
	d.out.Warnings = append(d.out.Warnings, plan.Warnings...)
	for _, load := range plan.Loads {
		load.Identity = plan.Identity
		if err := d.load(ctx, session, load); err != nil {
			return false, err
		}
		if d.out.Drained {
			return false, nil
		}
	}
	return plan.More, nil
}

// scan plans, a second time with Fresh for streams whose load cannot go on.
func (d *driver) scan(ctx context.Context, found connectors.Recovered) (connectors.Scan, error) {
	request := connectors.ScanRequest{
		Pipeline: d.run.Pipeline, Epoch: d.run.Epoch, Streams: slices.Clone(d.run.Streams),
		Previous: found, Splits: d.run.Splits,
	}
	scan, err := d.run.Source.Scan(ctx, request)
	if err != nil {
		return nil, err
	}
	again := false
	for _, load := range scan.Plan().Loads {
		lost := load.Continuity == connectors.ContinueLost
		drift := load.Continuity == connectors.ContinueDrift && d.spec(load).Mode == connectors.ModeReplace
		for i, spec := range request.Streams {
			if (lost || drift) && covers(load, spec.Stream) {
				request.Streams[i].Fresh, again = true, true
			}
		}
	}
	if !again {
		return scan, nil
	}
	if err := scan.Close(ctx); err != nil {
		return nil, err
	}
	return d.run.Source.Scan(ctx, request)
}

func covers(l connectors.Load, s messages.StreamID) bool {
	return slices.ContainsFunc(l.Streams, func(p connectors.StreamPlan) bool { return p.Stream == s })
}

// spec returns what was asked for the first stream of a load.
func (d *driver) spec(l connectors.Load) connectors.StreamSpec {
	for _, spec := range d.run.Streams {
		if covers(l, spec.Stream) {
			return spec
		}
	}
	return connectors.StreamSpec{}
}

// load begins one load, reads its parts and finishes it.
func (d *driver) load(ctx context.Context, session connectors.Session, l connectors.Load) error {
	spec := d.spec(l)
	l.Mode = cmp.Or(spec.Mode, connectors.ModeAppend)
	source := slices.Clone(l.Streams)
	for i := range l.Streams {
		s := &l.Streams[i]
		if len(spec.Key) > 0 {
			s.Key = spec.Key
		}
		s.Target = d.run.Target(s.Stream)
		out, err := d.transformed(s.Stream, s.Schema)
		if err != nil {
			return err
		}
		s.Schema = out
	}
	if err := session.Begin(ctx, l); err != nil {
		return err
	}
	done := make(map[messages.PartID]bool)
	for len(done) < len(l.Parts) {
		at := slices.IndexFunc(l.Parts, func(p connectors.Part) bool {
			return !done[p.ID] && !slices.ContainsFunc(p.After, func(q messages.PartID) bool { return !done[q] })
		})
		if at < 0 {
			return fmt.Errorf("load %s: its parts wait for each other", l.ID.Name)
		}
		final, err := d.part(ctx, session, source, l.Parts[at])
		if err != nil {
			return err
		}
		if d.out.Drained = !final; d.out.Drained {
			return nil
		}
		done[l.Parts[at].ID] = true
	}
	if err := session.Finish(ctx, l.ID); err != nil {
		return err
	}
	d.out.Finished = append(d.out.Finished, l.ID)
	return nil
}

func (d *driver) transformed(s messages.StreamID, schema *arrow.Schema) (*arrow.Schema, error) {
	for _, t := range d.run.Transforms {
		out, err := t.Schema(s, schema)
		if err != nil {
			return nil, err
		}
		schema = out
	}
	return schema, nil
}

// part makes one attempt of a part, from its receipt.
func (d *driver) part(ctx context.Context, session connectors.Session, streams []connectors.StreamPlan, p connectors.Part) (final bool, err error) {
	d.attempt++
	token := messages.Token{Epoch: d.run.Epoch, Attempt: d.attempt}
	w, receipt, err := session.OpenWriter(ctx, p, token)
	if err != nil {
		return false, err
	}
	defer func() { err = cmp.Or(err, w.Close(context.WithoutCancel(ctx))) }()
	d.out.Receipts[p.ID] = receipt
	if receipt.Final {
		return true, nil
	}
	chain, err := d.openChain(ctx, w, streams, p)
	defer func() { err = cmp.Or(err, chain.close(context.WithoutCancel(ctx))) }()
	if err != nil {
		return false, err
	}
	reader, err := d.run.Source.Open(ctx, connectors.ReadRequest{
		Part: p, Token: token, From: receipt.Position, Limits: d.run.Limits, Mem: d.run.Mem,
	})
	if err != nil {
		return false, err
	}
	defer func() { err = cmp.Or(err, reader.Close(context.WithoutCancel(ctx))) }()
	out := &Emitter{Part: p.ID, Token: token, Every: d.run.Every}
	out.Sink = func(ctx context.Context, it messages.Item) error {
		if d.run.DrainAt > 0 && d.out.Items+1 >= d.run.DrainAt {
			out.Drain()
		}
		return chain.item(ctx, it)
	}
	if d.run.DrainAt > 0 && d.out.Items >= d.run.DrainAt {
		out.Drain()
	}
	if err := reader.Read(ctx, out); err != nil {
		return false, err
	}
	if broken := out.Broken(); len(broken) > 0 {
		return false, fmt.Errorf("part %s: the reader %s", p.ID, broken[0])
	}
	if err := out.Finished(); err != nil {
		return false, fmt.Errorf("part %s: %w", p.ID, err)
	}
	return d.out.Receipts[p.ID].Final, nil
}

// chain is the stages and the writer of one attempt.
type chain struct {
	driver *driver
	stages []connectors.Stage
	writer connectors.Writer
	part   messages.PartID
}

func (d *driver) openChain(ctx context.Context, w connectors.Writer, streams []connectors.StreamPlan, p connectors.Part) (*chain, error) {
	c := &chain{driver: d, writer: w, part: p.ID}
	streams = slices.Clone(streams)
	for _, t := range d.run.Transforms {
		stage, err := t.Open(ctx, connectors.StageRequest{Part: p, Streams: slices.Clone(streams), Limits: d.run.Limits, Mem: d.run.Mem})
		if err != nil {
			return c, err
		}
		c.stages = append(c.stages, stage)
		for i, s := range streams {
			if streams[i].Schema, err = t.Schema(s.Stream, s.Schema); err != nil {
				return c, err
			}
		}
	}
	return c, nil
}

// item sends it through the stages to the writer.
func (c *chain) item(ctx context.Context, it messages.Item) error {
	switch it := it.(type) {
	case messages.Barrier:
		for i, stage := range c.stages {
			if err := stage.Flush(ctx, c.outlet(i+1)); err != nil {
				return err
			}
		}
		return c.commit(ctx, it)
	case messages.Batch:
		return c.outlet(0)(ctx, it)
	case messages.SchemaChange:
		return c.outlet(0)(ctx, it)
	case messages.Truncate:
		return c.outlet(0)(ctx, it)
	case messages.Rejected:
		return c.outlet(0)(ctx, it)
	}
	return fmt.Errorf("no item: %T", it)
}

// outlet leads to stage i, or to the writer behind the last one.
func (c *chain) outlet(i int) connectors.Outlet {
	return func(ctx context.Context, d messages.Data) error {
		if i < len(c.stages) {
			return c.stages[i].Apply(ctx, d, c.outlet(i+1))
		}
		if err := c.count(); err != nil {
			Release(d)
			return err
		}
		return c.writer.Write(ctx, d)
	}
}

func (c *chain) commit(ctx context.Context, b messages.Barrier) error {
	if err := c.count(); err != nil {
		return err
	}
	r, err := c.writer.Commit(ctx, b)
	if err != nil {
		return err
	}
	c.driver.out.Commits++
	c.driver.out.Receipts[c.part] = r
	return nil
}

// count stops the run at the asked place.
func (c *chain) count() error {
	out := &c.driver.out
	if c.driver.run.StopAfter > 0 && out.Items >= c.driver.run.StopAfter {
		return ErrStopped
	}
	out.Items++
	return nil
}

func (c *chain) close(ctx context.Context) (err error) {
	for _, stage := range c.stages {
		err = cmp.Or(err, stage.Close(ctx))
	}
	return err
}

// Specs returns one spec per stream, in the given modes.
func Specs(sync connectors.SyncMode, mode connectors.WriteMode, streams ...messages.StreamID) []connectors.StreamSpec {
	specs := make([]connectors.StreamSpec, len(streams))
	for i, s := range streams {
		specs[i] = connectors.StreamSpec{Stream: s, Sync: sync, Mode: mode}
	}
	return specs
}

// Difference compares two multisets of rows: what want has and got has not, and
// the reverse. Both empty: they are equal.
func Difference(want, got []string) (missing, extra []string) {
	count := make(map[string]int)
	for _, r := range want {
		count[r]++
	}
	for _, r := range got {
		count[r]--
	}
	for _, r := range slices.Sorted(maps.Keys(count)) {
		for n := count[r]; n > 0; n-- {
			missing = append(missing, r)
		}
		for n := count[r]; n < 0; n++ {
			extra = append(extra, r)
		}
	}
	return missing, extra
}

// sameRows fails t unless got holds exactly the rows of want.
func sameRows(t T, want, got []string, what string) {
	t.Helper()
	missing, extra := Difference(want, got)
	if len(missing)+len(extra) == 0 {
		return
	}
	t.Errorf("%s: %d rows, want %d\nlost rows: %d %q\nadded or doubled rows: %d %q",
		what, len(got), len(want), len(missing), first(missing), len(extra), first(extra))
}

func first(rows []string) []string { return rows[:min(len(rows), 5)] }
