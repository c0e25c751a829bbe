package node_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/actors/run"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/node"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/storetest"
)

func kinded(k connectors.Kind, code messages.Code, text string) error {
	return &connectors.Error{Op: "test", Kind: k, Code: code, Err: errors.New(text)}
}

// always fails every call for one part.
func always(p messages.PartID, err error) conntest.Hook {
	return func(_ context.Context, c conntest.Call) error {
		if c.Part == p {
			return err
		}
		return nil
	}
}

func TestOneFailedStreamDoesNotStopTheOthers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("bad", 500), conntest.Numbers("good", 500))
		w.dst.WriteFn = always("bad/1", kinded(connectors.KindData, messages.CodeValueRange, "value out of range"))
		r := w.run(t, nil)
		require.Equal(t, messages.RunFailed, r.State)
		require.Equal(t, messages.CodeValueRange, r.Failure.Code)
		require.Equal(t, messages.PartID("bad/1"), r.Failure.Where.Part)
		require.Equal(t, messages.StreamID("bad"), r.Failure.Where.Stream)
		require.Equal(t, messages.RunFailed, r.Streams[0].State)
		require.Equal(t, messages.RunCompleted, r.Streams[1].State)
		require.Len(t, w.dst.Rows("good"), 500)
		require.Equal(t, []messages.LoadID{{Name: "good", Number: 1}}, w.state(t).Finished)

		w.dst.WriteFn = nil // mended: nothing is read twice
		r = w.run(t, nil)
		require.Nil(t, r.Failure)
		require.Len(t, w.dst.Rows("bad"), 500)
	})
}

func TestRetriesAreExhaustedWithTheFirstCause(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 500))
		w.dst.WriteFn = always("orders/0", transient("disk on fire"))
		start := time.Now()
		r := w.run(t, nil)
		require.Equal(t, messages.RunFailed, r.State)
		require.Equal(t, messages.CodeDest, r.Failure.Code)
		require.Contains(t, r.Failure.Why, "disk on fire")
		require.NotEmpty(t, r.Failure.Next)
		require.Equal(t, 3, r.Streams[0].Retries)
		require.Less(t, time.Since(start), time.Minute)
	})
}

// panicking lets stage code crash.
func panicking(n int64) conntest.Hook {
	var calls atomic.Int64
	return func(context.Context, conntest.Call) error {
		if calls.Add(1) == n {
			panic("boom")
		}
		return nil
	}
}

func TestPanicInAStageEndsItsAttemptOnly(t *testing.T) {
	for name, plant := range map[string]func(w *world){
		"source":       func(w *world) { w.src.ReadFn = panicking(3) },
		"source open":  func(w *world) { w.src.OpenFn = panicking(1) },
		"open writer":  func(w *world) { w.dst.OpenWriterFn = panicking(2) },
		"write":        func(w *world) { w.dst.WriteFn = panicking(4) },
		"commit":       func(w *world) { w.dst.CommitFn = panicking(2) },
		"behind it":    func(w *world) { w.dst.CommittedFn = panicking(2) },
		"finish":       func(w *world) { w.dst.FinishFn = panicking(1) },
		"begin":        func(w *world) { w.dst.BeginFn = panicking(1) },
		"scan":         func(w *world) { w.src.ScanFn = panicking(1) },
		"open session": func(w *world) { w.dst.OpenFn = panicking(1) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 500))
				plant(w)
				r := w.run(t, nil)
				require.Nil(t, r.Failure)
				require.Equal(t, messages.RunCompleted, r.State)
				w.requireSame(t)
			})
		})
	}
}

func TestUnclassifiedErrorIsABugAndStopsTheRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 500), conntest.Numbers("users", 50_000))
		w.dst.WriteFn = always("orders/0", errors.New("who knows"))
		r := w.run(t, nil)
		require.Equal(t, messages.CodeInternal, r.Failure.Code)
		require.Equal(t, messages.ExitInternal, r.Failure.Code.Exit())
		require.Zero(t, r.Streams[0].Retries)
	})
}

func TestDestinationLostItsRows(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 500))
		require.Nil(t, w.run(t, nil).Failure)
		fresh := &conntest.MemoryDestination{}
		w.spec.Destination, w.dst = fresh, fresh
		r := w.run(t, nil)
		require.Equal(t, messages.CodeStateAhead, r.Failure.Code)
		require.Contains(t, r.Failure.Next, "--full-refresh")
		require.Empty(t, fresh.Rows("orders"), "nothing was written")

		w.spec.Streams[0].Fresh = true // the operator starts over
		r = w.run(t, nil)
		require.Nil(t, r.Failure)
		w.requireSame(t)
	})
}

func TestLostStateStoreIsRebuiltFromReceipts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 5_000))
		w.dst.WriteFn = conntest.Delay(100 * time.Millisecond)
		r := w.run(t, func(n *node.Node) {
			time.Sleep(2 * time.Second)
			n.Drain("test")
		})
		require.Equal(t, messages.RunDrained, r.State)
		committed := len(w.dst.Rows("orders"))
		require.Positive(t, committed)

		w.dst.WriteFn = nil
		w.store = storetest.NewMemory("store-2")
		r = w.run(t, nil)
		require.Equal(t, messages.CodeDestForeign, r.Failure.Code, "another store is refused")
		require.Len(t, w.dst.Rows("orders"), committed)

		w.spec.Adopt = true // the operator says that the old one is gone
		r = w.run(t, nil)
		require.Nil(t, r.Failure)
		require.Greater(t, r.Epoch, messages.Epoch(1), "the epoch is above what the destination has seen")
		w.requireSame(t)
	})
}

func TestStateStoreOutageHoldsThenContinues(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 500))
		var saves atomic.Int64
		w.store.SaveFn = func(context.Context, messages.PipelineID, messages.Epoch, statestore.Update) storetest.Fate {
			switch n := saves.Add(1); {
			case n == 1: // the run's record
				return storetest.Fate{}
			case n%2 == 0:
				return storetest.Fate{Err: errors.New("disk hiccup"), Done: n%4 == 0}
			}
			return storetest.Fate{}
		}
		r := w.run(t, nil)
		require.Nil(t, r.Failure)
		require.NotEmpty(t, r.Warnings, "the trouble is told")
		w.requireSame(t)
	})
}

func TestStateStoreThatStaysDownFailsTheRunAndLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 500))
		full := fmt.Errorf("save: %w", statestore.ErrFull)
		var saves atomic.Int64
		w.store.SaveFn = func(context.Context, messages.PipelineID, messages.Epoch, statestore.Update) storetest.Fate {
			if saves.Add(1) == 1 {
				return storetest.Fate{}
			}
			return storetest.Fate{Err: full}
		}
		r := w.run(t, nil)
		require.Equal(t, messages.CodeStateFull, r.Failure.Code)
		require.Equal(t, messages.ExitState, r.Failure.Code.Exit())
		require.Empty(t, w.state(t).Finished)
		w.store.SaveFn = nil
		r = w.run(t, nil)
		require.Nil(t, r.Failure)
		w.requireSame(t)
	})
}

// upper is a transform that drops every row: the barriers must pass all the same.
type dropAll struct{}

func (dropAll) Schema(_ messages.StreamID, in *arrow.Schema) (*arrow.Schema, error) { return in, nil }

func (dropAll) Open(context.Context, connectors.StageRequest) (connectors.Stage, error) {
	return dropAll{}, nil
}

func (dropAll) Apply(_ context.Context, d messages.Data, _ connectors.Outlet) error {
	if b, ok := d.(messages.Batch); ok {
		b.Rows.Release()
	}
	return nil
}
func (dropAll) Flush(context.Context, connectors.Outlet) error { return nil }
func (dropAll) Close(context.Context) error                    { return nil }

func TestFullyFilteredBatchesDoNotStallTheCursor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 1000))
		w.spec.Transforms = []run.Transform{{Transform: dropAll{}, Name: "drop"}}
		r := w.run(t, nil)
		require.Nil(t, r.Failure)
		require.Empty(t, w.dst.Rows("orders"))
		require.EqualValues(t, 1000, r.Streams[0].RowsRead)
		require.Zero(t, r.Streams[0].RowsWritten)
		for _, k := range w.state(t).Receipts {
			require.True(t, k.Final)
			require.EqualValues(t, 500, k.Rows.Read)
		}
	})
}

func TestStallNamesWhatItWaitsFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 500))
		w.spec.Resources.Stall, w.spec.Resources.Retries = time.Minute, 1
		w.dst.CommitFn = conntest.Hang()
		r := w.run(t, nil)
		require.Equal(t, messages.CodeStalled, r.Failure.Code)
		require.Contains(t, r.Failure.Why, "destination: committing barrier")
	})
}

func TestStopAtOnceIsSafe(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeReplace, conntest.Numbers("orders", 20_000))
		w.dst.WriteFn = conntest.Delay(10 * time.Millisecond)
		n := node.Start(node.Options{Observe: w.observe})
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		r := n.Run(ctx, w.spec, w.store)
		require.Equal(t, messages.RunDrained, r.State)
		require.Empty(t, w.dst.Rows("orders"), "I5: a replace is not seen by half")
		n.Stop()
		time.Sleep(2 * time.Second)
		w.dst.WriteFn = nil
		r = w.run(t, nil)
		require.Nil(t, r.Failure)
		w.requireSame(t)
	})
}

func TestSecondFullRefreshReplaces(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeReplace, conntest.Numbers("orders", 100))
		require.Nil(t, w.run(t, nil).Failure)
		w.src.Append("orders", conntest.NumberRows(101, 50)...)
		r := w.run(t, nil)
		require.Nil(t, r.Failure)
		require.EqualValues(t, 150, r.Streams[0].RowsWritten)
		w.requireSame(t)
	})
}

func TestZombieOwnerIsFenced(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 2_000))
		gate := conntest.NewGate()
		w.dst.CommitFn = conntest.Nth(5, gate.Hook())
		n := node.Start(node.Options{})
		done := make(chan messages.RunResult, 1)
		go func() { done <- n.Run(context.Background(), w.spec, w.store) }()
		<-gate.Arrived() // the old owner stands still in the middle of a commit

		second := w.run(t, nil)
		require.Nil(t, second.Failure)
		w.requireSame(t)

		gate.Open() // it wakes up and must change nothing
		first := <-done
		require.Equal(t, messages.CodeFenced, first.Failure.Code)
		require.Equal(t, messages.ExitFenced, first.Failure.Code.Exit())
		n.Stop()
		time.Sleep(2 * time.Second)
		w.requireSame(t)
	})
}

func TestRunThatGoesOnDoesNotLoadAFinishedStreamAgain(t *testing.T) {
	for name, lose := range map[string]bool{"state kept": false, "state lost": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(connectors.ModeAppend, conntest.Numbers("bad", 500), conntest.Numbers("good", 500))
				w.dst.WriteFn = always("bad/1", kinded(connectors.KindData, messages.CodeValueRange, "value out of range"))
				first := w.run(t, nil)
				require.Equal(t, messages.RunFailed, first.State)
				w.dst.WriteFn = nil
				if lose {
					w.store = storetest.NewMemory("store-1")
				}
				r := w.run(t, nil)
				require.Nil(t, r.Failure)
				w.requireSame(t)
				require.Len(t, r.Streams, 1, "only the unfinished load is left")

				r = w.run(t, nil) // a new run loads everything, as asked
				require.Nil(t, r.Failure)
				require.Len(t, w.dst.Rows("good"), 1000)
			})
		})
	}
}

func TestCrashBehindTheLastMarkCompletesOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 500))
		w.store.SaveFn = func(_ context.Context, _ messages.PipelineID, _ messages.Epoch, u statestore.Update) storetest.Fate {
			if u.Run != nil && !u.Run.Ended.IsZero() {
				return storetest.Fate{Err: errors.New("killed before the mark")}
			}
			return storetest.Fate{}
		}
		r := w.run(t, nil)
		require.Equal(t, messages.RunFailed, r.State, "a success that nobody can look up is none")
		require.Equal(t, messages.ExitState, r.Failure.Code.Exit())
		require.Contains(t, r.Failure.Why, "the end of the run could not be recorded")
		w.store.SaveFn = nil
		r = w.run(t, nil)
		require.Equal(t, messages.RunCompleted, r.State)
		require.Empty(t, r.Streams, "C21: the run is over, nothing is read")
		w.requireSame(t)
	})
}

// The answer is lost each time: the run is recorded, and its owner cannot know. Whoever is told
// to run again as after any other failure would append every row a second time.
func TestAnEndThatMayBeRecordedIsLookedUpBeforeRunningAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 500))
		w.store.SaveFn = func(_ context.Context, _ messages.PipelineID, _ messages.Epoch, u statestore.Update) storetest.Fate {
			if u.Run != nil && !u.Run.Ended.IsZero() {
				return storetest.Fate{Err: errors.New("connection lost"), Done: true}
			}
			return storetest.Fate{}
		}
		r := w.run(t, nil)
		require.Equal(t, messages.RunFailed, r.State)
		require.Contains(t, r.Failure.Next, "`rapidbyte-node runs show DOCUMENT`")
		require.Contains(t, r.Failure.Next, "another run would load anew")
		w.requireSame(t)
	})
}

func TestTheEndOfARunIsRecordedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 500))
		failed := 0
		w.store.SaveFn = func(_ context.Context, _ messages.PipelineID, _ messages.Epoch, u statestore.Update) storetest.Fate {
			if u.Run != nil && !u.Run.Ended.IsZero() && failed < 4 {
				failed++
				return storetest.Fate{Err: errors.New("disk hiccup")}
			}
			return storetest.Fate{}
		}
		r := w.run(t, nil)
		require.Nil(t, r.Failure)
		require.Equal(t, 4, failed)
		runs, err := w.store.Runs(t.Context(), "p", 1)
		require.NoError(t, err)
		require.Equal(t, messages.RunCompleted, runs[0].State)
		require.False(t, runs[0].Ended.IsZero())
	})
}

// stubborn is a destination whose sessions do not close cleanly.
type stubborn struct{ *conntest.MemoryDestination }

type stubbornSession struct{ connectors.Session }

func (d stubborn) Open(ctx context.Context, r connectors.SessionRequest) (connectors.Session, error) {
	s, err := d.MemoryDestination.Open(ctx, r)
	return stubbornSession{s}, err
}

func (s stubbornSession) Close(ctx context.Context) error {
	return errors.Join(s.Session.Close(ctx), errors.New("the log could not be folded"))
}

func TestACloseThatFailsIsToldAndChangesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 100))
		w.spec.Destination = stubborn{w.dst}
		r := w.run(t, nil)
		require.Nil(t, r.Failure)
		require.Equal(t, messages.RunCompleted, r.State)
		require.Len(t, r.Warnings, 1)
		require.Contains(t, r.Warnings[0], "the log could not be folded")
		w.requireSame(t)
	})
}
