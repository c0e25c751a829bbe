package source_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/asynkron/protoactor-go/actor"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rapidbyte.io/node/actors/actortest"
	"rapidbyte.io/node/actors/flow"
	"rapidbyte.io/node/actors/source"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a source actor between probes; nothing flows before demand.
type rig struct {
	t           *testing.T
	sys         *actor.ActorSystem
	mem         *memory.CheckedAllocator
	down, owner *actortest.Probe
	pid         *actor.PID
	task        flow.Task
	reg         *flow.Register
	src         *conntest.MemorySource
}

// plan is what a test changes before the source starts.
type plan struct {
	rows     int
	wrap     func(connectors.Source) connectors.Source
	hooks    func(s *conntest.MemorySource)
	interval source.Interval
	limits   connectors.Limits
}

func bubble(t *testing.T, p plan, fn func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, sys: actortest.System(t), mem: memory.NewCheckedAllocator(memory.DefaultAllocator), reg: flow.NewRegister()}
		r.src = conntest.NewMemorySource(conntest.Numbers("orders", p.rows))
		if p.hooks != nil {
			p.hooks(r.src)
		}
		scan, err := r.src.Scan(t.Context(), connectors.ScanRequest{Streams: conntest.Specs(connectors.SyncFullRefresh, connectors.ModeAppend, "orders"), Splits: 1})
		require.NoError(t, err)
		r.task = flow.Task{Pipeline: "p", Token: messages.Token{Epoch: 1, Attempt: 1}, Part: scan.Plan().Loads[0].Parts[0]}
		if p.limits == (connectors.Limits{}) {
			p.limits = connectors.Limits{BatchRows: 10, BatchBytes: 1 << 20, RowBytes: 1 << 20}
		}
		var src connectors.Source = r.src
		if p.wrap != nil {
			src = p.wrap(src)
		}
		r.down, r.owner = actortest.Spawn(t, r.sys), actortest.Spawn(t, r.sys)
		r.pid = r.owner.Child(source.New(source.Config{
			Task: r.task, Source: src, Limits: p.limits, Mem: r.mem, Interval: p.interval, Register: r.reg,
		}))
		r.sys.Root.Send(r.pid, flow.Wire{Down: r.down.PID, Owner: r.owner.PID})
		fn(r)
		require.NoError(t, r.sys.Root.StopFuture(r.pid).Wait())
		r.reg.ReleaseAll()
		r.mem.AssertSize(t, 0)
	})
}

func (r *rig) resume() {
	r.sys.Root.Send(r.pid, messages.Resume{Part: r.task.Part.ID, Token: r.task.Token})
}

func (r *rig) demand(batches int, bytes int64) {
	r.sys.Root.Send(r.pid, messages.Demand{Part: r.task.Part.ID, Token: r.task.Token, Batches: batches, Bytes: bytes})
}

// arrived returns what came out, as kinds of barriers and rows of batches, and
// releases it. It asserts that the items are numbered without a gap.
func (r *rig) arrived(seq *messages.Seq) (out []any) {
	r.t.Helper()
	for _, m := range r.down.Take() {
		item, ok := m.(messages.Item)
		require.True(r.t, ok)
		*seq++
		s := flow.StampOf(item)
		require.Equal(r.t, messages.Stamp{Part: r.task.Part.ID, Token: r.task.Token, Seq: *seq}, s)
		switch m := item.(type) {
		case messages.Batch:
			require.True(r.t, r.reg.Take(0, s.Seq))
			out = append(out, m.Rows.Len())
			m.Rows.Release()
		case messages.Barrier:
			out = append(out, m.Kind)
		case messages.Rejected, messages.SchemaChange, messages.Truncate:
		}
	}
	return out
}

func (r *rig) failures() []messages.StageFailed {
	return actortest.Of[messages.StageFailed](r.owner.Take())
}

// parted notes with which part a source is opened.
type parted struct {
	connectors.Source
	part *connectors.Part
}

func (s parted) Open(ctx context.Context, r connectors.ReadRequest) (connectors.Reader, error) {
	*s.part = r.Part
	return s.Source.Open(ctx, r)
}

// A reader sends what its writer has taken, whatever the plan has offered.
func TestAReaderIsToldTheLane(t *testing.T) {
	for _, agreed := range []string{"", "fmt/1"} {
		var part connectors.Part
		bubble(t, plan{rows: 1, wrap: func(s connectors.Source) connectors.Source { return parted{s, &part} }}, func(r *rig) {
			r.sys.Root.Send(r.pid, messages.Resume{Part: r.task.Part.ID, Token: r.task.Token, Raw: agreed})
			synctest.Wait()
			require.Equal(t, r.task.Part.ID, part.ID)
			require.Equal(t, agreed, part.Raw)
		})
	}
}

func TestNothingIsReadBeforeResume(t *testing.T) {
	opened := 0
	bubble(t, plan{rows: 10, hooks: func(s *conntest.MemorySource) {
		s.OpenFn = func(context.Context, conntest.Call) error { opened++; return nil }
	}}, func(r *rig) {
		var seq messages.Seq
		r.demand(9, 1<<20)
		r.sys.Root.Send(r.pid, messages.Resume{Part: r.task.Part.ID, Token: messages.Token{Epoch: 1, Attempt: 2}})
		require.Empty(t, r.arrived(&seq))
		require.Zero(t, opened)
		r.resume()
		r.resume() // twice is once
		require.Equal(t, []any{int64(10), messages.BarrierEnd}, r.arrived(&seq))
		require.Equal(t, 1, opened)
	})
}

func TestSourceSpendsOnlyItsCredit(t *testing.T) {
	bubble(t, plan{rows: 100}, func(r *rig) {
		var seq messages.Seq
		r.resume()
		require.Empty(t, r.arrived(&seq))
		require.Equal(t, 1, r.reg.Len(), "I6: one read is outstanding, whatever the origin has")
		r.demand(3, 1<<20)
		require.Equal(t, []any{int64(10), int64(10), int64(10)}, r.arrived(&seq))
		require.Equal(t, 1, r.reg.Len())
		r.demand(5, 1)
		require.Equal(t, []any{int64(10), int64(10), int64(10), int64(10), int64(10)}, r.arrived(&seq), "bytes are left of the first grant")
		r.demand(5, -1<<20)
		require.Empty(t, r.arrived(&seq), "batches, but no bytes")
		r.sys.Root.Send(r.pid, messages.Inspect{})
		status := actortest.Of[messages.StageStatus](r.owner.Take())
		require.Equal(t, "waiting for credit", status[len(status)-1].Doing)
		require.EqualValues(t, 80, status[len(status)-1].Rows)
	})
}

func TestCreditOfAnotherAttemptIsNone(t *testing.T) {
	bubble(t, plan{rows: 10}, func(r *rig) {
		var seq messages.Seq
		r.resume()
		r.sys.Root.Send(r.pid, messages.Demand{Part: r.task.Part.ID, Token: messages.Token{Epoch: 1, Attempt: 2}, Batches: 9, Bytes: 9})
		require.Empty(t, r.arrived(&seq))
	})
}

func TestBarriersComeAtTheInterval(t *testing.T) {
	bubble(t, plan{rows: 50, interval: source.Interval{Rows: 20}}, func(r *rig) {
		var seq messages.Seq
		r.resume()
		r.demand(99, 1<<20)
		ten, periodic := int64(10), messages.BarrierPeriodic
		require.Equal(t, []any{ten, ten, periodic, ten, ten, periodic, ten, messages.BarrierEnd}, r.arrived(&seq))
	})
}

func TestDrainMakesTheNextBarrierTheLastItem(t *testing.T) {
	bubble(t, plan{rows: 1000, interval: source.Interval{Rows: 20}}, func(r *rig) {
		var seq messages.Seq
		r.resume()
		r.demand(3, 1<<20)
		require.Len(t, r.arrived(&seq), 4)
		r.sys.Root.Send(r.pid, messages.Drain{})
		r.sys.Root.Send(r.pid, messages.Drain{}) // twice is once
		require.Empty(t, r.arrived(&seq), "the batch that waits for credit is covered by the barrier")
		r.demand(99, 1<<20)
		require.Equal(t, []any{int64(10), messages.BarrierDrain}, r.arrived(&seq))
		r.demand(99, 1<<20)
		require.Empty(t, r.arrived(&seq), "nothing follows")
		require.Empty(t, r.failures())
	})
}

func TestDrainBeforeResumeReadsNothing(t *testing.T) {
	bubble(t, plan{rows: 100}, func(r *rig) {
		var seq messages.Seq
		r.sys.Root.Send(r.pid, messages.Drain{})
		r.resume()
		r.demand(9, 1<<20)
		require.Equal(t, []any{messages.BarrierDrain}, r.arrived(&seq))
	})
}

// I3: only what is persisted, and only of this attempt.
func TestOriginForgetsOnlyWhatIsPersisted(t *testing.T) {
	bubble(t, plan{rows: 50, interval: source.Interval{Rows: 20}}, func(r *rig) {
		var seq messages.Seq
		r.resume()
		r.demand(99, 1<<20)
		r.arrived(&seq)
		_, told := r.src.Confirmed(r.task.Part.ID)
		require.False(t, told, "emitted, not persisted")
		m := messages.CheckpointCommitted{Part: r.task.Part.ID, Token: messages.Token{Epoch: 1, Attempt: 9}, Seq: 3, Position: messages.Position{At: messages.Int64Cursor(40)}}
		r.sys.Root.Send(r.pid, m)
		synctest.Wait()
		_, told = r.src.Confirmed(r.task.Part.ID)
		require.False(t, told, "of another attempt")
		m.Token, m.Position.At = r.task.Token, messages.Int64Cursor(20)
		r.sys.Root.Send(r.pid, m)
		synctest.Wait()
		at, told := r.src.Confirmed(r.task.Part.ID)
		require.True(t, told, "also after the last barrier went out")
		require.Equal(t, messages.Int64Cursor(20), at.At)
	})
}

func TestFailureIsToldOnce(t *testing.T) {
	down := &connectors.Error{Op: "read", Kind: connectors.KindTransient, RetryAfter: time.Minute, Err: errors.New("connection reset")}
	bubble(t, plan{rows: 50, hooks: func(s *conntest.MemorySource) { s.ReadFn = conntest.FailNth(3, down) }}, func(r *rig) {
		var seq messages.Seq
		r.resume()
		r.demand(99, 1<<20)
		require.Len(t, r.arrived(&seq), 2)
		got := r.failures()
		require.Len(t, got, 1)
		require.Equal(t, connectors.StageSource, got[0].Stage)
		require.Equal(t, string(connectors.KindTransient), got[0].Failure.Kind)
		require.EqualValues(t, time.Minute, got[0].RetryAfter)
	})
}

func TestRowAboveTheLimitIsNamed(t *testing.T) {
	limits := connectors.Limits{BatchRows: 10, BatchBytes: 1 << 20, RowBytes: 8}
	bubble(t, plan{rows: 5, limits: limits}, func(r *rig) {
		r.resume()
		got := r.failures()
		require.Len(t, got, 1)
		require.Equal(t, messages.CodeRowTooLarge, got[0].Failure.Code)
		require.EqualValues(t, 1, got[0].Failure.Where.Row)
	})
}

func TestStopWhileItWaitsForCreditLeavesNothing(t *testing.T) {
	bubble(t, plan{rows: 100}, func(r *rig) {
		r.resume()
		synctest.Wait()
		require.Equal(t, 1, r.reg.Len())
		require.NoError(t, r.sys.Root.StopFuture(r.pid).Wait())
		require.Empty(t, r.failures(), "whoever stops it knows why")
	})
}

// custom is a source whose reader is the test's.
type custom struct {
	connectors.Source
	ReadFn func(ctx context.Context, out connectors.Emitter) error
}

func (c custom) Open(context.Context, connectors.ReadRequest) (connectors.Reader, error) {
	return c, nil
}

func (c custom) Read(ctx context.Context, out connectors.Emitter) error { return c.ReadFn(ctx, out) }
func (c custom) Close(context.Context) error                            { return nil }

func reading(fn func(ctx context.Context, out connectors.Emitter) error) plan {
	return plan{rows: 1, wrap: func(s connectors.Source) connectors.Source { return custom{s, fn} }}
}

func TestReaderThatReturnsWithoutALastBarrierIsABug(t *testing.T) {
	bubble(t, reading(func(context.Context, connectors.Emitter) error { return nil }), func(r *rig) {
		r.resume()
		got := r.failures()
		require.Len(t, got, 1)
		require.Equal(t, string(connectors.KindInternal), got[0].Failure.Kind)
		require.Contains(t, got[0].Failure.Why, "without a final barrier")
	})
}

func TestNothingFollowsTheLastBarrier(t *testing.T) {
	bubble(t, reading(func(ctx context.Context, out connectors.Emitter) error {
		if err := out.Barrier(ctx, messages.BarrierEnd, messages.Position{}); err != nil {
			return err
		}
		if err := out.Emit(ctx, messages.Truncate{}); !errors.Is(err, connectors.ErrDraining) {
			return errors.New("emitted behind the end")
		}
		return out.Barrier(ctx, messages.BarrierEnd, messages.Position{})
	}), func(r *rig) {
		var seq messages.Seq
		r.resume()
		require.Equal(t, []any{messages.BarrierEnd}, r.arrived(&seq))
		require.Empty(t, r.failures())
	})
}

func TestPanickingReaderFailsItsAttempt(t *testing.T) {
	bubble(t, reading(func(context.Context, connectors.Emitter) error { panic("boom") }), func(r *rig) {
		r.resume()
		got := r.failures()
		require.Len(t, got, 1)
		require.Equal(t, messages.CodePanic, got[0].Failure.Code)
	})
}

// What a reader makes of the emitter's error does not hide it.
func TestFirstCauseWinsOverWhatTheReaderMakesOfIt(t *testing.T) {
	limits := connectors.Limits{BatchRows: 10, BatchBytes: 1 << 20, RowBytes: 1}
	p := reading(func(ctx context.Context, out connectors.Emitter) error {
		rec, err := conntest.Build(memory.DefaultAllocator, conntest.Numbers("orders", 1).Schema, conntest.NumberRows(1, 1))
		if err != nil {
			return err
		}
		_ = out.Emit(ctx, messages.Batch{Stream: "orders", Rows: messages.ArrowRows{Record: rec}})
		return errors.New("use of closed file")
	})
	p.limits = limits
	bubble(t, p, func(r *rig) {
		r.resume()
		got := r.failures()
		require.Len(t, got, 1)
		require.Equal(t, messages.CodeRowTooLarge, got[0].Failure.Code)
	})
}
