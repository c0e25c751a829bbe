package conntest

import (
	"context"
	"errors"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// stageRig plays the engine around one stage.
type stageRig struct {
	t     T
	f     TransformFactory
	tr    connectors.Transform
	mem   *memory.CheckedAllocator
	stage connectors.Stage

	shape    *shape // of what comes out
	rows     []string
	rejected int64
	passed   []messages.Data // what is neither rows nor rejected
	failAt   int             // item at which the outlet fails; 0 never
	items    int
}

var errOutlet = errors.New("the writer gave up")

func newStageRig(t T, f TransformFactory) *stageRig {
	r := &stageRig{t: t, f: f, tr: f.New(t), mem: checked(t)}
	out, err := r.tr.Schema(f.Stream, f.Schema)
	require.NoError(t, err, "schema")
	plan := connectors.Load{Streams: []connectors.StreamPlan{{Stream: f.Stream, Schema: out}}}
	r.shape = newShape(plan, large)
	stage, err := r.tr.Open(t.Context(), connectors.StageRequest{
		Part:    connectors.Part{ID: "orders/0", Streams: []messages.StreamID{f.Stream}},
		Streams: []connectors.StreamPlan{{Stream: f.Stream, Schema: f.Schema}}, Limits: large, Mem: r.mem,
	})
	require.NoError(t, err, "open")
	r.stage = stage
	t.Cleanup(func() { _ = stage.Close(context.WithoutCancel(t.Context())) })
	return r
}

// outlet takes what comes out.
func (r *stageRig) outlet(_ context.Context, d messages.Data) error {
	defer Release(d)
	if r.items++; r.items == r.failAt {
		return errOutlet
	}
	switch d := d.(type) {
	case messages.Batch:
		rec, err := record(d.Rows)
		if err != nil {
			return err
		}
		r.shape.check(r.t, d, rec)
		r.rows = append(r.rows, RowTexts(rec)...)
	case messages.Rejected:
		r.rejected += d.Rows.Len()
		if d.Reason == "" {
			r.t.Errorf("rejected rows have no reason")
		}
	case messages.SchemaChange:
		r.shape.schemas[d.Stream], r.shape.versions[d.Stream] = d.Schema, d.Version
		r.passed = append(r.passed, d)
	case messages.Truncate:
		r.passed = append(r.passed, d)
	}
	return nil
}

// batch returns rows of the input.
func (r *stageRig) batch(rows [][]any) messages.Batch {
	r.t.Helper()
	rec, err := Build(r.mem, r.f.Schema, rows)
	require.NoError(r.t, err)
	return messages.Batch{Stream: r.f.Stream, Version: 1, Rows: messages.ArrowRows{Record: rec}}
}

// apply sends the input in batches of n rows, and a barrier after each flushAfter.
func (r *stageRig) apply(ctx context.Context, n, flushAfter int) error {
	for i, batches := 0, 1; i < len(r.f.Rows); i, batches = i+n, batches+1 {
		if err := r.stage.Apply(ctx, r.batch(r.f.Rows[i:min(i+n, len(r.f.Rows))]), r.outlet); err != nil {
			return err
		}
		if batches%flushAfter == 0 {
			if err := r.stage.Flush(ctx, r.outlet); err != nil {
				return err
			}
		}
	}
	return r.stage.Flush(ctx, r.outlet)
}

// schemaIsPure: the same question, the same answer, also by another value.
func schemaIsPure(t T, f TransformFactory) {
	first, second := f.New(t), f.New(t)
	want, err := first.Schema(f.Stream, f.Schema)
	require.NoError(t, err)
	for _, tr := range []connectors.Transform{first, second} {
		got, err := tr.Schema(f.Stream, f.Schema)
		require.NoError(t, err)
		require.True(t, want.Equal(got), "schema of the output:\n%s\nthen:\n%s", want, got)
	}
}

// outputIsExact: rows, rejected rows and schema are as promised.
func outputIsExact(t T, f TransformFactory) {
	r := newStageRig(t, f)
	require.NoError(t, r.apply(t.Context(), len(f.Rows), 1))
	require.Equal(t, f.Want, r.rows)
	require.Equal(t, f.Rejected, r.rejected)
}

// outputIgnoresCuts: where batches end and barriers fall changes nothing.
func outputIgnoresCuts(t T, f TransformFactory) {
	for _, n := range []int{1, 2, len(f.Rows)} {
		r := newStageRig(t, f)
		require.NoError(t, r.apply(t.Context(), n, 2))
		if !f.Whole {
			require.Equal(t, f.Want, r.rows, "batches of %d rows", n)
			require.Equal(t, f.Rejected, r.rejected, "batches of %d rows", n)
		}
	}
}

// flushLeavesNothing: after a flush the stage holds no row.
func flushLeavesNothing(t T, f TransformFactory) {
	r := newStageRig(t, f)
	require.NoError(t, r.apply(t.Context(), 2, 1))
	items := r.items
	require.NoError(t, r.stage.Flush(t.Context(), r.outlet))
	require.Equal(t, items, r.items, "a second flush pushed something")
	require.NoError(t, r.stage.Close(t.Context()))
	require.Zero(t, r.mem.CurrentAlloc(), "bytes that stay after close")
}

// othersPassThrough: an item that the stage does not care about goes on.
func othersPassThrough(t T, f TransformFactory) {
	r := newStageRig(t, f)
	require.NoError(t, r.stage.Apply(t.Context(), messages.Truncate{Streams: []messages.StreamID{f.Stream}}, r.outlet))
	bad := messages.Rejected{Stream: f.Stream, Reason: "earlier", Rows: r.batch(f.Rows[:1]).Rows}
	require.NoError(t, r.stage.Apply(t.Context(), bad, r.outlet))
	require.NoError(t, r.stage.Flush(t.Context(), r.outlet))
	require.Len(t, r.passed, 1, "a truncate goes on")
	require.Equal(t, int64(1), r.rejected, "rejected rows go on")
	require.Empty(t, r.rows)
}

// outletErrorComesBack: it ends Apply or Flush as it is.
func outletErrorComesBack(t T, f TransformFactory) {
	r := newStageRig(t, f)
	r.failAt = 1
	err := r.apply(t.Context(), 1, 1)
	if len(f.Want) == 0 && f.Rejected == 0 {
		require.NoError(t, err)
		return
	}
	require.ErrorIs(t, err, errOutlet)
}

// stageReleasesOnce: batches that went in are released once on every path.
func stageReleasesOnce(t T, f TransformFactory) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, ctx := range map[string]context.Context{"success": t.Context(), "outlet error": t.Context(), "cancelled": cancelled} {
		r := newStageRig(t, f)
		if name == "outlet error" {
			r.failAt = 1
		}
		b := r.batch(f.Rows)
		b.Rows.Retain() // ours, to see a second release
		err := r.stage.Apply(ctx, b, r.outlet)
		if err == nil {
			err = r.stage.Flush(ctx, r.outlet)
		}
		if err != nil && name == "success" {
			t.Errorf("apply: %v", err)
		}
		require.NoError(t, r.stage.Close(t.Context()))
		require.NoError(t, r.stage.Close(t.Context()), "close again")
		if freed(b.Rows) {
			t.Errorf("path %s: the batch was released twice", name)
			return
		}
		b.Rows.Release()
		if n := r.mem.CurrentAlloc(); n != 0 {
			t.Errorf("path %s: leaked batch of %d bytes", name, n)
			return
		}
	}
}

// stagesAreApart: two parts of one transform share no state.
func stagesAreApart(t T, f TransformFactory) {
	a, b := newStageRig(t, f), newStageRig(t, f)

	for i, row := range f.Rows {
		for name, r := range map[string]*stageRig{"a": a, "b": b} {
			require.NoError(t, r.stage.Apply(t.Context(), r.batch([][]any{row}), r.outlet), "row %d, stage %s", i, name)
		}
	}
	for _, r := range []*stageRig{a, b} {
		require.NoError(t, r.stage.Flush(t.Context(), r.outlet))
		if !f.Whole {
			require.Equal(t, f.Want, r.rows)
		}
	}
}
