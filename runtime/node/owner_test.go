package node_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/actors/checkpoint"
	"rapidbyte.io/node/actors/run"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/node"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/storetest"
)

// within fails the test when fn does not return: nothing waits for ever.
func within(t *testing.T, d time.Duration, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); fn() }()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		panic("I10: it does not return")
	}
}

// An owner that slept through a take-over must not take the pipeline back: it would
// load everything a second time.
func TestOwnerThatLostThePipelineDoesNotTakeItBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 200))
		gate := conntest.NewGate()
		w.dst.OpenFn = conntest.Nth(1, gate.Hook())
		n := node.Start(node.Options{})
		done := make(chan messages.RunResult, 1)
		go func() { done <- n.Run(context.Background(), w.spec, w.store) }()
		<-gate.Arrived()
		require.Nil(t, w.run(t, nil).Failure)
		w.requireSame(t)
		gate.Open()
		first := <-done
		require.NotNil(t, first.Failure)
		require.Equal(t, messages.CodeFenced, first.Failure.Code)
		n.Stop()
		time.Sleep(2 * time.Second)
		w.requireSame(t)
	})
}

// The same when it failed for another reason and wants another go.
func TestOwnerThatLostThePipelineDoesNotGoAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 200))
		gate := conntest.NewGate()
		w.src.ScanFn = conntest.Nth(1, func(ctx context.Context, c conntest.Call) error {
			_ = gate.Hook()(ctx, c)
			return transient("network is gone")
		})
		n := node.Start(node.Options{})
		done := make(chan messages.RunResult, 1)
		go func() { done <- n.Run(context.Background(), w.spec, w.store) }()
		<-gate.Arrived()
		require.Nil(t, w.run(t, nil).Failure)
		gate.Open()
		first := <-done
		require.Equal(t, messages.CodeFenced, first.Failure.Code)
		n.Stop()
		time.Sleep(2 * time.Second)
		w.requireSame(t)
	})
}

// A drain that comes while the run before a backoff is being stopped ends the wait.
func TestDrainEndsABackoffThatIsAboutToBegin(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 100))
		w.spec.Resources.Retries = 50
		w.src.ScanFn = conntest.Fail(&connectors.Error{Op: "scan", Kind: connectors.KindTransient, Err: errors.New("down")})
		var drain func()
		var retries int
		var at time.Time
		observe := func(e messages.Event) {
			if e.Kind == messages.EventRunRetry {
				if retries++; retries == 12 {
					drain()
					time.Sleep(time.Second) // the drain overtakes the end of the run actor
					at = time.Now()
				}
			}
		}
		n := node.Start(node.Options{Observe: observe})
		drain = func() { n.Drain("test") }
		r := n.Run(context.Background(), w.spec, w.store)
		require.Equal(t, messages.RunDrained, r.State)
		require.Less(t, time.Since(at), time.Second)
		n.Stop()
		time.Sleep(2 * time.Second)
	})
}

// A second Run of a pipeline that is running is refused, and does not end the first.
func TestRefusedSecondRunDoesNotStopTheFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 400))
		w.dst.WriteFn = conntest.Delay(time.Second)
		r := w.run(t, func(n *node.Node) {
			time.Sleep(2 * time.Second)
			second := n.Run(context.Background(), w.spec, w.store)
			require.Equal(t, messages.RunFailed, second.State)
			require.Equal(t, messages.CodeUsage, second.Failure.Code)
		})
		require.Equal(t, messages.RunCompleted, r.State)
		w.requireSame(t)
	})
}

// One node runs a pipeline again as soon as Run has returned.
func TestNodeRunsAPipelineAgainAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeReplace, conntest.Numbers("orders", 100))
		n := node.Start(node.Options{})
		for range 3 {
			require.Nil(t, n.Run(context.Background(), w.spec, w.store).Failure)
		}
		n.Stop()
		time.Sleep(2 * time.Second)
		w.requireSame(t)
	})
}

// A panic anywhere in the observer of events is not the pipeline's.
func TestPanickingObserverDoesNotDisturbTheRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 100))
		n := node.Start(node.Options{Observe: func(messages.Event) { panic("terminal is gone") }})
		var r messages.RunResult
		within(t, time.Hour, func() { r = n.Run(context.Background(), w.spec, w.store) })
		require.Nil(t, r.Failure)
		n.Stop()
		time.Sleep(2 * time.Second)
		w.requireSame(t)
	})
}

// unknown makes the checkpoint actor panic: a bug.
var unknown = checkpoint.Started{Token: messages.Token{Epoch: 1, Attempt: 99}, Receipt: messages.Receipt{Part: "nobody's"}}

// runPath returns the run actor of the first go.
func (w *world) runPath() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Kind == messages.EventRunStarted {
			return "/pipeline-p-1/run-" + e.Run + "-1"
		}
	}
	return ""
}

// A crash of the checkpoint actor costs a go of the run, never more.
func TestPanicOfTheCheckpointActorIsSurvived(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 2_000))
		w.dst.WriteFn = conntest.Delay(time.Second)
		var r messages.RunResult
		within(t, time.Hour, func() {
			r = w.run(t, func(n *node.Node) {
				time.Sleep(5 * time.Second)
				n.Tell(w.runPath()+"/checkpoint", unknown)
			})
		})
		require.Nil(t, r.Failure)
		require.Contains(t, w.kinds(), messages.EventRunRetry)
		w.requireSame(t)
	})
}

// Without another go the run is reported, although nobody can close its record.
func TestPanicOfTheCheckpointActorIsReported(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 2_000))
		w.spec.Resources.Retries = 0
		w.dst.WriteFn = conntest.Delay(time.Second)
		var r messages.RunResult
		within(t, time.Hour, func() {
			r = w.run(t, func(n *node.Node) {
				time.Sleep(5 * time.Second)
				n.Tell(w.runPath()+"/checkpoint", unknown)
			})
		})
		require.Equal(t, messages.RunFailed, r.State)
		require.Equal(t, messages.CodePanic, r.Failure.Code)
		require.Contains(t, r.Failure.Why, "onStarted", "the stack is that of the panic")
	})
}

// The same while the record is being closed: all rows are there, and nobody knows whether the record is.
func TestPanicOfTheCheckpointActorWhileConcluding(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 200))
		concluding := make(chan struct{})
		w.store.SaveFn = func(_ context.Context, _ messages.PipelineID, _ messages.Epoch, u statestore.Update) storetest.Fate {
			if u.Run != nil && !u.Run.Ended.IsZero() {
				close(concluding)
				time.Sleep(10 * time.Second)
			}
			return storetest.Fate{}
		}
		var r messages.RunResult
		within(t, time.Hour, func() {
			r = w.run(t, func(n *node.Node) {
				<-concluding
				n.Tell(w.runPath()+"/checkpoint", unknown)
			})
		})
		require.Equal(t, messages.RunFailed, r.State)
		require.Contains(t, r.Failure.Why, "could not be recorded")
		w.requireSame(t)
	})
}

// forgetful panics on the run actor's own turn, with a session open.
type forgetful struct{ *closing }

func (forgetful) Forgets() bool { panic("boom") }

func TestPanicOfTheRunActorIsReportedAndLeavesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 200))
		d := &closing{MemoryDestination: w.dst}
		w.spec.Destination = forgetful{d}
		var r messages.RunResult
		within(t, time.Hour, func() { r = w.run(t, nil) })
		require.Equal(t, messages.RunFailed, r.State)
		require.Equal(t, messages.CodePanic, r.Failure.Code)
		require.Contains(t, r.Failure.Why, "boom")
		require.Zero(t, d.open.Load(), "the session was closed")
	})
}

func TestPanicOfThePipelineActorIsReportedOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 200))
		var acquired int
		w.store.AcquireFn = func(context.Context, messages.PipelineID, statestore.Claim) storetest.Fate {
			acquired++
			time.Sleep(time.Minute)
			return storetest.Fate{}
		}
		var r messages.RunResult
		within(t, time.Hour, func() {
			r = w.run(t, func(n *node.Node) {
				time.Sleep(time.Second)
				n.Tell("/pipeline-p-1", run.Ended{State: messages.RunFailed}) // of a run that it does not have: a bug
			})
		})
		require.Equal(t, messages.RunFailed, r.State)
		require.Equal(t, messages.CodePanic, r.Failure.Code)
		require.Equal(t, 1, acquired, "it was not restarted in place")
	})
}
