package conntest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

var small = connectors.Limits{BatchRows: 4, BatchBytes: 1 << 20, RowBytes: 1 << 20}

func TestDriveMovesEveryRow(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	source, d := NewMemorySource(Numbers("orders", 25), Numbers("empty", 0)), &MemoryDestination{}
	out, err := Drive(t.Context(), Run{
		Source: source, Destination: d, Streams: Specs(connectors.SyncFullRefresh, connectors.ModeReplace, "orders", "empty"),
		Splits: 3, Every: 4, Limits: small, Mem: mem, Target: func(s messages.StreamID) string { return "raw." + string(s) },
	})
	require.NoError(t, err)
	require.ElementsMatch(t, source.Rows("orders"), d.Rows("raw.orders"))
	require.Empty(t, d.Rows("raw.empty"))
	require.Equal(t, []messages.LoadID{{Name: "orders", Number: 1}, {Name: "empty", Number: 1}}, out.Finished)
	require.Len(t, out.Receipts, 4)
	var read int64
	for _, r := range out.Receipts {
		require.True(t, r.Final)
		read += r.Rows.Read
	}
	require.Equal(t, int64(25), read)
	require.Equal(t, out.Receipts, d.Receipts("drive"))
	require.True(t, d.Finished("drive", messages.LoadID{Name: "orders", Number: 1}))
}

func TestDriveStopsAnywhereAndGoesOn(t *testing.T) {
	for stop := 1; stop < 14; stop++ {
		t.Run(fmt.Sprint(stop), func(t *testing.T) {
			mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
			defer mem.AssertSize(t, 0)
			source, d := NewMemorySource(Numbers("orders", 25)), &MemoryDestination{}
			run := Run{
				Source: source, Destination: d, Streams: Specs(connectors.SyncIncremental, connectors.ModeAppend, "orders"),
				Transforms: []connectors.Transform{&evens{}, &evens{late: true}}, Every: 4, Limits: small, StopAfter: stop, Mem: mem,
			}
			out, err := Drive(t.Context(), run)
			require.ErrorIs(t, err, ErrStopped)
			require.Equal(t, stop, out.Items)
			run.StopAfter, run.Epoch = 0, 2
			_, err = Drive(t.Context(), run)
			require.NoError(t, err)
			require.Len(t, d.Rows("orders"), 12, "even rows")
			require.Len(t, d.Rejected("orders"), 13, "odd rows, as dead letters")
			r := d.Receipts("drive")["orders/0"].Rows
			require.Equal(t, messages.Counts{Read: 25, Arrived: 25, Applied: 12, Rejected: 13}, r)
		})
	}
}

func TestDriveDrainsAtCommittedPositions(t *testing.T) {
	source, d := NewMemorySource(Numbers("orders", 25)), &MemoryDestination{}
	run := Run{
		Source: source, Destination: d, Streams: Specs(connectors.SyncFullRefresh, connectors.ModeAppend, "orders"),
		Splits: 2, Limits: small, DrainAt: 2,
	}
	out, err := Drive(t.Context(), run)
	require.NoError(t, err)
	require.True(t, out.Drained)
	require.Equal(t, source.Rows("orders")[:len(d.Rows("orders"))], d.Rows("orders"))
	require.Less(t, len(d.Rows("orders")), 25)
	run.DrainAt, run.Epoch = 0, 2
	out, err = Drive(t.Context(), run)
	require.NoError(t, err)
	require.False(t, out.Drained)
	require.ElementsMatch(t, source.Rows("orders"), d.Rows("orders"))
}

// A load that cannot be continued exactly is begun anew, and an unfinished load
// leaves what came since to a further scan.
func TestDriveScansAgain(t *testing.T) {
	source, d := NewMemorySource(Numbers("orders", 20)), &MemoryDestination{}
	run := Run{
		Source: source, Destination: d, Streams: Specs(connectors.SyncIncremental, connectors.ModeAppend, "orders"),
		Every: 4, Limits: small, StopAfter: 4,
	}
	_, err := Drive(t.Context(), run)
	require.ErrorIs(t, err, ErrStopped)
	source.Append("orders", NumberRows(21, 5)...)
	run.StopAfter, run.Epoch = 0, 2
	out, err := Drive(t.Context(), run)
	require.NoError(t, err)
	require.Len(t, out.Finished, 2, "the unfinished load, then one with what came since")
	require.ElementsMatch(t, source.Rows("orders"), d.Rows("orders"))

	replaced := &MemoryDestination{}
	run = Run{Source: source, Destination: replaced, Streams: Specs(connectors.SyncFullRefresh, connectors.ModeReplace, "orders"), Limits: small, StopAfter: 3}
	_, err = Drive(t.Context(), run)
	require.ErrorIs(t, err, ErrStopped)
	run.Source = &spoiledSource{Source: source, planFn: func(p *connectors.Plan) {
		for i := range p.Loads {
			if p.Loads[i].Continuity != "" {
				p.Loads[i].Continuity = connectors.ContinueLost
			}
		}
	}}
	run.StopAfter, run.Epoch = 0, 2
	out, err = Drive(t.Context(), run)
	require.NoError(t, err)
	require.Equal(t, []messages.LoadID{{Name: "orders", Number: 2}}, out.Finished)
	require.ElementsMatch(t, source.Rows("orders"), replaced.Rows("orders"))
}

func TestDriveReturnsTheFirstCause(t *testing.T) {
	boom := errors.New("boom")
	for name, spoil := range map[string]func(s *MemorySource, d *MemoryDestination){
		"scan":        func(s *MemorySource, _ *MemoryDestination) { s.ScanFn = Fail(boom) },
		"open":        func(s *MemorySource, _ *MemoryDestination) { s.OpenFn = Fail(boom) },
		"read":        func(s *MemorySource, _ *MemoryDestination) { s.ReadFn = FailNth(2, boom) },
		"barrier":     func(s *MemorySource, _ *MemoryDestination) { s.BeforeFn = Fail(boom) },
		"session":     func(_ *MemorySource, d *MemoryDestination) { d.OpenFn = Fail(boom) },
		"begin":       func(_ *MemorySource, d *MemoryDestination) { d.BeginFn = Fail(boom) },
		"open writer": func(_ *MemorySource, d *MemoryDestination) { d.OpenWriterFn = Fail(boom) },
		"write": func(_ *MemorySource, d *MemoryDestination) {
			d.WriteFn = FailNth(2, boom)
			d.CloseFn = Fail(errors.New("later"))
		},
		"commit":     func(_ *MemorySource, d *MemoryDestination) { d.CommitFn = Fail(boom) },
		"lost reply": func(_ *MemorySource, d *MemoryDestination) { d.CommittedFn = Fail(boom) },
		"finish":     func(_ *MemorySource, d *MemoryDestination) { d.FinishFn = Fail(boom) },
		"close":      func(_ *MemorySource, d *MemoryDestination) { d.CloseFn = Fail(boom) },
	} {
		t.Run(name, func(t *testing.T) {
			mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
			defer mem.AssertSize(t, 0)
			source, d := NewMemorySource(Numbers("orders", 10)), &MemoryDestination{}
			spoil(source, d)
			_, err := Drive(t.Context(), Run{
				Source: source, Destination: d, Streams: Specs(connectors.SyncFullRefresh, connectors.ModeAppend, "orders"), Limits: small, Mem: mem,
			})
			require.ErrorIs(t, err, boom)
		})
	}
}

func TestDriveReportsASourceThatAlwaysHasMore(t *testing.T) {
	source := &spoiledSource{Source: NewMemorySource(Numbers("orders", 1)), planFn: func(p *connectors.Plan) { p.More = true }}
	_, err := Drive(t.Context(), Run{Source: source, Destination: &MemoryDestination{}, Streams: Specs(connectors.SyncIncremental, connectors.ModeAppend, "orders")})
	require.ErrorContains(t, err, "still has more")
}

func TestEmitterReturnsItsErrorForEver(t *testing.T) {
	down := errors.New("down")
	e := &Emitter{Sink: func(_ context.Context, it messages.Item) error {
		if d, ok := it.(messages.Data); ok {
			Release(d)
		}
		return down
	}}
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	for range 3 {
		rec, err := Build(mem, Numbers("orders", 0).Schema, NumberRows(1, 2))
		require.NoError(t, err)
		require.Same(t, down, e.Emit(t.Context(), messages.Batch{Stream: "orders", Rows: messages.ArrowRows{Record: rec}}))
	}
	require.Same(t, down, e.Barrier(t.Context(), messages.BarrierEnd, messages.Position{}))
	require.Equal(t, int64(2), e.Total(), "only the first one reached the sink")
}

func TestEmitterDrains(t *testing.T) {
	var kinds []messages.BarrierKind
	e := &Emitter{Sink: func(_ context.Context, it messages.Item) error {
		if b, ok := it.(messages.Barrier); ok {
			kinds = append(kinds, b.Kind)
		}
		return nil
	}}
	require.False(t, e.Due())
	require.Error(t, e.Finished())
	e.Drain()
	require.True(t, e.Due())
	require.NoError(t, e.Barrier(t.Context(), messages.BarrierPeriodic, messages.Position{}))
	require.NoError(t, e.Finished())
	require.NoError(t, e.Barrier(t.Context(), messages.BarrierEnd, messages.Position{}), "left to the next attempt")
	require.ErrorIs(t, e.Emit(t.Context(), messages.Truncate{}), connectors.ErrDraining)
	require.Equal(t, []messages.BarrierKind{messages.BarrierDrain}, kinds)
	require.Empty(t, e.Broken())
}

func TestDifferenceCountsRows(t *testing.T) {
	missing, extra := Difference([]string{"a", "a", "b"}, []string{"c", "a", "c", "b", "b"})
	require.Equal(t, []string{"a"}, missing)
	require.Equal(t, []string{"b", "c", "c"}, extra)
}
