package node_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/actors/run"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/node"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/storetest"
)

// leased is a world whose pipeline is leased to one of two owners.
type leased struct {
	*world
	leases   *storetest.Leases
	one, two *storetest.Owner
	commits  atomic.Int64 // begun
}

func newLeased(rows int) *leased {
	w := &leased{world: newWorld(connectors.ModeAppend, conntest.Numbers("orders", rows))}
	w.leases = storetest.NewLeases(w.store)
	w.one, w.two = w.leases.Owner("one"), w.leases.Owner("two")
	w.dst.CommitFn = func(context.Context, conntest.Call) error {
		w.commits.Add(1)
		return nil
	}
	return w
}

// as runs the pipeline once as an owner; during runs beside it.
func (w *leased) as(t *testing.T, o statestore.Store, during func(n *node.Node, stop context.CancelFunc)) messages.RunResult {
	t.Helper()
	n := node.Start(node.Options{Observe: w.observe})
	defer time.Sleep(2 * time.Second) // as in world.run
	defer n.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan messages.RunResult, 1)
	go func() { done <- n.Run(ctx, w.spec, o) }()
	if during != nil {
		during(n, cancel)
	}
	return <-done
}

func requireFenced(t *testing.T, r messages.RunResult) {
	t.Helper()
	require.Equal(t, messages.RunFailed, r.State)
	require.NotNil(t, r.Failure)
	require.Equal(t, messages.CodeFenced, r.Failure.Code)
	require.Equal(t, string(connectors.KindFenced), r.Failure.Kind)
}

func TestLostLeaseEndsTheRunAtOnceAndNothingIsCommittedAfterIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newLeased(10_000)
		w.dst.WriteFn = func(ctx context.Context, c conntest.Call) error {
			if c.N < 20 {
				return nil
			}
			return conntest.Delay(time.Hour)(ctx, c) // nobody asks for the lease before the next commit
		}
		var before int64
		var at time.Time
		r := w.as(t, w.one, func(*node.Node, context.CancelFunc) {
			time.Sleep(3 * time.Second)
			before, at = w.commits.Load(), time.Now()
			w.leases.Expire("p")
		})
		require.Less(t, time.Since(at), 3*time.Second, "two of them are the test's own")
		requireFenced(t, r)
		require.Positive(t, before)
		require.LessOrEqual(t, w.commits.Load(), before, "no commit has begun since")
		require.Equal(t, 1, w.one.Releases())

		w.dst.WriteFn = nil
		r = w.as(t, w.two, nil)
		require.Nil(t, r.Failure)
		require.EqualValues(t, 2, r.Epoch)
		w.requireSame(t)
	})
}

// A frozen process hears of nothing: when it wakes the next thing it would do is commit.
func TestFrozenWorkerWhoseLeaseHasRunOutBeginsNoCommit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newLeased(1000)
		gate := conntest.NewGate()
		w.dst.WriteFn = conntest.Nth(5, gate.Hook())
		var late atomic.Bool
		w.one.HoldFn = func() error {
			if late.Load() {
				return statestore.ErrFenced
			}
			return nil
		}
		var before int64
		r := w.as(t, w.one, func(*node.Node, context.CancelFunc) {
			<-gate.Arrived()
			before = w.commits.Load()
			late.Store(true) // Lost stays open: nobody had the time to close it
			gate.Open()
		})
		requireFenced(t, r)
		require.Equal(t, before, w.commits.Load())
		require.Equal(t, 1, w.one.Releases())
		w.dst.WriteFn = nil
		require.Nil(t, w.as(t, w.two, nil).Failure)
		w.requireSame(t)
	})
}

func TestLoadIsNotFinishedWithoutTheLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newLeased(100)
		w.spec.Resources.Tasks = 1 // one part: its end is the end of all commits
		var late atomic.Bool
		w.one.HoldFn = func() error {
			if late.Load() {
				return statestore.ErrFenced
			}
			return nil
		}
		w.dst.CommittedFn = func(_ context.Context, c conntest.Call) error {
			if c.Barrier.Kind == messages.BarrierEnd {
				late.Store(true)
			}
			return nil
		}
		var finished atomic.Int64
		w.dst.FinishFn = func(context.Context, conntest.Call) error {
			finished.Add(1)
			return nil
		}
		requireFenced(t, w.as(t, w.one, nil))
		require.Len(t, w.dst.Rows("orders"), 100, "all is committed")
		require.Zero(t, finished.Load())
		r := w.as(t, w.two, nil)
		require.Nil(t, r.Failure)
		require.EqualValues(t, 1, finished.Load())
		w.requireSame(t)
	})
}

// Whatever becomes of a run, the lease is given back once, when nothing of the run is left.
func TestLeaseIsGivenBackOnceAtTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		plant  func(w *leased)
		during func(n *node.Node, stop context.CancelFunc)
		state  messages.RunState
	}{
		"completed": {state: messages.RunCompleted},
		"drained": {
			during: func(n *node.Node, _ context.CancelFunc) { time.Sleep(2 * time.Second); n.Drain("test") },
			state:  messages.RunDrained,
		},
		"stopped at once": {
			during: func(_ *node.Node, stop context.CancelFunc) { time.Sleep(2 * time.Second); stop() },
			state:  messages.RunDrained,
		},
		"failed": {
			plant: func(w *leased) { w.dst.CommitFn = conntest.FailNth(3, errors.New("a bug")) },
			state: messages.RunFailed,
		},
		"failed for good before any task": {
			plant: func(w *leased) { w.src.ScanFn = conntest.Fail(transient("down")) },
			state: messages.RunFailed,
		},
		"drained in a backoff": {
			plant: func(w *leased) {
				w.spec.Resources.Retries = 1000
				w.src.ScanFn = conntest.Fail(transient("down"))
			},
			during: func(n *node.Node, _ context.CancelFunc) { time.Sleep(time.Minute); n.Drain("test") },
			state:  messages.RunDrained,
		},
		"the state could not be loaded": {
			plant: func(w *leased) {
				w.store.LoadFn = func(context.Context, messages.PipelineID) error { return errors.New("disk") }
			},
			state: messages.RunFailed,
		},
		"stopped while the state was loaded": {
			plant:  slowLoad,
			during: func(_ *node.Node, stop context.CancelFunc) { time.Sleep(time.Second); stop() },
			state:  messages.RunDrained,
		},
		"the pipeline actor panicked": {
			plant: slowLoad,
			during: func(n *node.Node, _ context.CancelFunc) {
				time.Sleep(time.Second)
				n.Tell("/pipeline-p-1", run.Ended{State: messages.RunFailed}) // of a run that it does not have: a bug
			},
			state: messages.RunFailed,
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newLeased(2000)
				w.dst.WriteFn = conntest.Delay(100 * time.Millisecond)
				if c.plant != nil {
					c.plant(w)
				}
				var committing atomic.Int64
				before := w.dst.CommitFn
				w.dst.CommitFn = func(ctx context.Context, call conntest.Call) error {
					committing.Add(1)
					defer committing.Add(-1)
					return errors.Join(conntest.Delay(50*time.Millisecond)(ctx, call), before(ctx, call))
				}
				w.one.ReleaseFn = func(context.Context) error {
					require.Zero(t, committing.Load(), "a commit is under way")
					return nil
				}
				r := w.as(t, w.one, c.during)
				require.Equal(t, c.state, r.State)
				require.Equal(t, 1, w.one.Releases())
				require.Empty(t, w.leases.Holder("p"))
			})
		})
	}
}

// slowLoad lets the state be loaded, under an epoch that was drawn, for a while.
func slowLoad(w *leased) {
	w.store.LoadFn = func(context.Context, messages.PipelineID) error {
		time.Sleep(time.Minute)
		return nil
	}
}

func TestPipelineThatAnotherOwnerHasLeasedIsNotRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newLeased(200)
		_, err := w.two.Acquire(t.Context(), "p", statestore.Claim{})
		require.NoError(t, err)
		r := w.as(t, w.one, nil)
		require.Equal(t, messages.CodeStateHeld, r.Failure.Code)
		require.ErrorContains(t, r.Failure, "two has a lease")
		require.Zero(t, w.one.Releases(), "it never had one")
		require.Equal(t, "two", w.leases.Holder("p"))
	})
}

// A store that is gone cannot take a lease back: that delays the next owner, not us.
func TestLeaseThatCannotBeGivenBackIsAWarning(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newLeased(200)
		w.one.ReleaseFn = func(ctx context.Context) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		start := time.Now()
		r := w.as(t, w.one, nil)
		require.Less(t, time.Since(start), 10*time.Second)
		require.Equal(t, messages.RunCompleted, r.State)
		require.Len(t, r.Warnings, 1)
		require.Contains(t, r.Warnings[0], "the lease could not be given back")
	})
}

// A lease that is longer than a claim takes is waited for.
func TestLeaseOfASilentOwnerIsWaitedFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newLeased(10)
		w.one.PatienceIs = time.Minute
		w.store.AcquireFn = func(ctx context.Context, _ messages.PipelineID, _ statestore.Claim) storetest.Fate {
			timer := time.NewTimer(time.Minute)
			defer timer.Stop()
			select {
			case <-timer.C:
				return storetest.Fate{}
			case <-ctx.Done():
				return storetest.Fate{Err: context.Cause(ctx)}
			}
		}
		require.Equal(t, messages.RunCompleted, w.as(t, w.one, nil).State)
	})
}
