package transform_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/asynkron/protoactor-go/actor"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rapidbyte.io/node/actors/actortest"
	"rapidbyte.io/node/actors/flow"
	"rapidbyte.io/node/actors/transform"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stage is a connectors.Transform and its Stage; nil functions pass everything on.
type stage struct {
	OpenFn  func() error
	ApplyFn func(context.Context, messages.Data, connectors.Outlet) error
	FlushFn func(context.Context, connectors.Outlet) error
	CloseFn func()
}

func (s *stage) Schema(_ messages.StreamID, in *arrow.Schema) (*arrow.Schema, error) { return in, nil }

func (s *stage) Open(context.Context, connectors.StageRequest) (connectors.Stage, error) {
	if s.OpenFn != nil {
		return s, s.OpenFn()
	}
	return s, nil
}

func (s *stage) Apply(ctx context.Context, d messages.Data, out connectors.Outlet) error {
	if s.ApplyFn != nil {
		return s.ApplyFn(ctx, d, out)
	}
	return out(ctx, d)
}

func (s *stage) Flush(ctx context.Context, out connectors.Outlet) error {
	if s.FlushFn != nil {
		return s.FlushFn(ctx, out)
	}
	return nil
}

func (s *stage) Close(context.Context) error {
	if s.CloseFn != nil {
		s.CloseFn()
	}
	return nil
}

// drop filters everything out.
func drop(_ context.Context, d messages.Data, _ connectors.Outlet) error {
	flow.Release(d)
	return nil
}

// rig is a transform actor between probes.
type rig struct {
	t               *testing.T
	sys             *actor.ActorSystem
	mem             *memory.CheckedAllocator
	up, down, owner *actortest.Probe
	pid             *actor.PID
	task            flow.Task
	reg             *flow.Register
	seq             messages.Seq
}

func bubble(t *testing.T, s *stage, fn func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, sys: actortest.System(t), mem: memory.NewCheckedAllocator(memory.DefaultAllocator), reg: flow.NewRegister()}
		r.task = flow.Task{Pipeline: "p", Token: messages.Token{Epoch: 1, Attempt: 1}, Part: connectors.Part{ID: "orders/0", Streams: []messages.StreamID{"orders"}}}
		r.up, r.down, r.owner = actortest.Spawn(t, r.sys), actortest.Spawn(t, r.sys), actortest.Spawn(t, r.sys)
		closed := 0
		s.CloseFn = func() { closed++ }
		r.pid = r.owner.Child(transform.New(transform.Config{
			Task: r.task, Transform: s, Window: flow.Window{Batches: 2, Bytes: 1 << 20}, Register: r.reg,
			Request: connectors.StageRequest{Part: r.task.Part, Limits: connectors.Limits{BatchRows: 10, BatchBytes: 1 << 20, RowBytes: 1 << 20}, Mem: r.mem},
		}))
		r.sys.Root.Send(r.pid, flow.Wire{Up: r.up.PID, Down: r.down.PID, Owner: r.owner.PID})
		synctest.Wait()
		fn(r)
		require.NoError(t, r.sys.Root.StopFuture(r.pid).Wait())
		if s.OpenFn == nil {
			require.Equal(t, 1, closed)
		}
		r.reg.ReleaseAll()
		r.mem.AssertSize(t, 0)
	})
}

func (r *rig) stamp() messages.Stamp {
	r.seq++
	return messages.Stamp{Part: r.task.Part.ID, Token: r.task.Token, Seq: r.seq}
}

func (r *rig) batch(n int) {
	r.t.Helper()
	rec, err := conntest.Build(r.mem, conntest.Numbers("orders", 1).Schema, conntest.NumberRows(1, n))
	require.NoError(r.t, err)
	m := messages.Batch{Stamp: r.stamp(), Stream: "orders", Version: 1, Rows: messages.ArrowRows{Record: rec}}
	r.reg.Put(0, m.Seq, m.Rows)
	r.sys.Root.Send(r.pid, m)
}

func (r *rig) barrier(kind messages.BarrierKind) {
	r.sys.Root.Send(r.pid, messages.Barrier{Stamp: r.stamp(), Kind: kind})
}

// demand grants what the stage below does.
func (r *rig) demand(batches int) {
	r.sys.Root.Send(r.pid, messages.Demand{Part: r.task.Part.ID, Token: r.task.Token, Batches: batches, Bytes: 1 << 20})
}

// arrived returns what came out, as kinds and rows, and releases it.
func (r *rig) arrived() (out []any) {
	for _, m := range r.down.Take() {
		item, ok := m.(messages.Item)
		require.True(r.t, ok)
		switch m := item.(type) {
		case messages.Batch:
			require.True(r.t, r.reg.Take(1, m.Seq))
			out = append(out, m.Rows.Len())
			m.Rows.Release()
		case messages.Barrier:
			out = append(out, m.Kind)
		case messages.Rejected, messages.SchemaChange, messages.Truncate:
		}
	}
	return out
}

func (r *rig) grants() int { return len(actortest.Of[messages.Demand](r.up.Take())) }

func TestFilteredBatchLetsItsBarrierPass(t *testing.T) {
	bubble(t, &stage{ApplyFn: drop}, func(r *rig) {
		r.batch(5)
		r.batch(5)
		r.barrier(messages.BarrierEnd)
		require.Equal(t, []any{messages.BarrierEnd}, r.arrived(), "without any credit from below")
		require.Equal(t, 1+2, r.grants(), "the window, and what is filtered out is consumed")
	})
}

func TestStageIsFlushedBeforeABarrier(t *testing.T) {
	var held messages.Data
	s := &stage{
		ApplyFn: func(_ context.Context, d messages.Data, _ connectors.Outlet) error { held = d; return nil },
		FlushFn: func(ctx context.Context, out connectors.Outlet) error { return out(ctx, held) },
	}
	bubble(t, s, func(r *rig) {
		r.demand(2)
		r.batch(5)
		require.Empty(t, r.arrived())
		r.barrier(messages.BarrierPeriodic)
		require.Equal(t, []any{int64(5), messages.BarrierPeriodic}, r.arrived())
	})
}

func TestCreditGoesUpOnlyWhenTheOutputWasAccepted(t *testing.T) {
	bubble(t, &stage{}, func(r *rig) {
		require.Equal(t, 1, r.grants(), "the window")
		r.batch(1)
		r.batch(1)
		require.Empty(t, r.arrived())
		require.Zero(t, r.grants(), "nothing was accepted below")
		require.Equal(t, 2, r.reg.Len(), "one waits for credit, one for the worker")
		r.demand(1)
		require.Len(t, r.arrived(), 1)
		require.Equal(t, 1, r.grants())
	})
}

func TestOutputIsCutToTheLimits(t *testing.T) {
	bubble(t, &stage{}, func(r *rig) {
		r.demand(10)
		r.batch(25)
		require.Equal(t, []any{int64(10), int64(10), int64(5)}, r.arrived())
	})
}

func TestFailedStageLeavesTheRestToTheRegister(t *testing.T) {
	s := &stage{ApplyFn: func(_ context.Context, d messages.Data, _ connectors.Outlet) error {
		flow.Release(d)
		return errors.New("division by zero")
	}}
	bubble(t, s, func(r *rig) {
		r.demand(2)
		r.batch(1)
		r.batch(1)
		r.barrier(messages.BarrierEnd)
		got := actortest.Of[messages.StageFailed](r.owner.Take())
		require.Len(t, got, 1)
		require.Equal(t, connectors.StageTransform, got[0].Stage)
		require.Contains(t, got[0].Failure.Why, "division by zero")
		require.Empty(t, r.arrived(), "no barrier over a hole")
		require.Equal(t, 1, r.reg.Len())
	})
}

func TestPanickingStageFailsItsAttempt(t *testing.T) {
	s := &stage{ApplyFn: func(_ context.Context, d messages.Data, _ connectors.Outlet) error {
		flow.Release(d)
		panic("boom")
	}}
	bubble(t, s, func(r *rig) {
		r.batch(1)
		got := actortest.Of[messages.StageFailed](r.owner.Take())
		require.Len(t, got, 1)
		require.Equal(t, messages.CodePanic, got[0].Failure.Code)
	})
}

func TestStageThatDoesNotOpenFails(t *testing.T) {
	bubble(t, &stage{OpenFn: func() error { return errors.New("no such column") }}, func(r *rig) {
		require.Len(t, actortest.Of[messages.StageFailed](r.owner.Take()), 1)
	})
}

func TestItemsOfAnotherAttemptAreIgnored(t *testing.T) {
	bubble(t, &stage{}, func(r *rig) {
		r.sys.Root.Send(r.pid, messages.Barrier{Stamp: messages.Stamp{Part: "orders/0", Token: messages.Token{Epoch: 1, Attempt: 2}, Seq: 1}})
		r.sys.Root.Send(r.pid, messages.Demand{Part: "orders/0", Token: messages.Token{Epoch: 1, Attempt: 2}, Batches: 9, Bytes: 9})
		r.batch(1)
		require.Empty(t, r.arrived(), "credit of another attempt is none")
		r.demand(1)
		require.Len(t, r.arrived(), 1)
	})
}

func TestGapInTheSequenceStopsTheStage(t *testing.T) {
	bubble(t, &stage{}, func(r *rig) {
		r.seq++
		r.barrier(messages.BarrierEnd)
		require.Len(t, actortest.Of[actortest.Panicked](r.owner.Take()), 1)
		require.Empty(t, r.arrived())
	})
}

// A batch that is not in the register any more is a hole, never a batch without rows.
func TestMissingBatchIsAHole(t *testing.T) {
	bubble(t, &stage{}, func(r *rig) {
		r.sys.Root.Send(r.pid, messages.Batch{Stamp: r.stamp(), Stream: "orders", Rows: messages.ArrowRows{Record: empty(r)}})
		r.barrier(messages.BarrierEnd)
		require.Len(t, actortest.Of[messages.StageFailed](r.owner.Take()), 1)
		require.Empty(t, r.arrived())
	})
}

// empty returns a record whose memory nobody counts.
func empty(r *rig) arrow.RecordBatch {
	rec, err := conntest.Build(memory.DefaultAllocator, conntest.Numbers("orders", 1).Schema, conntest.NumberRows(1, 1))
	require.NoError(r.t, err)
	return rec
}
