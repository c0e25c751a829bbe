package flow_test

import (
	"testing"
	"testing/synctest"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/actors/actortest"
	"rapidbyte.io/node/actors/flow"
	"rapidbyte.io/node/messages"
)

// clumsy panics over every message of one type, and has a child.
type clumsy struct{ over func(any) bool }

func (a *clumsy) Receive(c actor.Context) {
	if _, started := c.Message().(*actor.Started); started {
		c.Spawn(actor.PropsFromFunc(func(actor.Context) {}))
	}
	if a.over(c.Message()) {
		panic("boom")
	}
}

// A parent waits for its child's end, whatever the child does on its way out.
func TestPanicWhileStoppingDoesNotKeepTheParent(t *testing.T) {
	for name, over := range map[string]func(any) bool{
		"stopping": func(m any) bool { _, ok := m.(*actor.Stopping); return ok },
		"stopped":  func(m any) bool { _, ok := m.(*actor.Stopped); return ok },
		"child":    func(m any) bool { _, ok := m.(*actor.Terminated); return ok },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sys := actortest.System(t)
				parent := actortest.Spawn(t, sys)
				pid := parent.Child(flow.Props(func() actor.Actor { return &clumsy{over} }))
				sys.Root.Stop(pid)
				require.Equal(t, []any{actortest.Gone{}}, parent.Take())
			})
		})
	}
}

func TestPanicReachesTheSupervisorWithItsStack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sys := actortest.System(t)
		parent := actortest.Spawn(t, sys)
		pid := parent.Child(flow.Props(func() actor.Actor {
			return &clumsy{func(m any) bool { return m == "trip" }}
		}))
		sys.Root.Send(pid, "trip")
		got := parent.Take()
		require.Len(t, got, 2)
		p, ok := got[0].(actortest.Panicked)
		require.True(t, ok)
		err, ok := p.Reason.(error)
		require.True(t, ok)
		require.ErrorContains(t, err, "boom")
		require.ErrorContains(t, err, "clumsy")
		require.Same(t, err, flow.PanicError(err), "wrapped once")
	})
}

func barrier(seq messages.Seq, kind messages.BarrierKind) messages.Barrier {
	return messages.Barrier{Stamp: messages.Stamp{Seq: seq}, Kind: kind, Rows: int64(seq)}
}

func TestEnqueueMergesPeriodicBarriersOnly(t *testing.T) {
	var q []messages.Item
	for _, it := range []messages.Item{
		barrier(1, messages.BarrierPeriodic), barrier(2, messages.BarrierPeriodic),
		messages.Truncate{},
		barrier(4, messages.BarrierPeriodic), barrier(5, messages.BarrierDrain), barrier(6, messages.BarrierEnd),
	} {
		q = flow.Enqueue(q, it)
	}
	first := barrier(2, messages.BarrierPeriodic)
	first.Rows = 1 + 2
	drain := barrier(5, messages.BarrierDrain)
	drain.Rows = 4 + 5
	require.Equal(t, []messages.Item{first, messages.Truncate{}, drain, barrier(6, messages.BarrierEnd)}, q)
}
