package node_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
	"rapidbyte.io/node/runtime/node"
	"rapidbyte.io/node/runtime/plugin"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/storetest"
)

// order gives an order, as the command does: as the owner of the pipeline.
func (w *world) order(t *testing.T, o statestore.Order) {
	t.Helper()
	e, err := w.store.Acquire(t.Context(), "p", statestore.Claim{})
	require.NoError(t, err)
	require.NoError(t, w.store.Save(t.Context(), "p", e, statestore.Update{Orders: []statestore.Order{o}}))
	require.Len(t, w.state(t).Orders, 1)
}

// crash runs the pipeline until it meets what plant has planted, and stops it there: as
// after a crash, what is on its way is lost, and nothing is said to the state store any more.
func (w *world) crash(t *testing.T, plant func(fall conntest.Hook)) {
	t.Helper()
	fell := make(chan struct{}, 100) // more than hooks are called
	dead := &w.dead
	defer dead.Store(false)
	plant(func(ctx context.Context, c conntest.Call) error {
		dead.Store(true)
		fell <- struct{}{}
		return conntest.Hang()(ctx, c)
	})
	w.store.SaveFn = func(context.Context, messages.PipelineID, messages.Epoch, statestore.Update) storetest.Fate {
		if dead.Load() {
			return storetest.Fate{Err: context.Canceled}
		}
		return storetest.Fate{}
	}
	n := node.Start(node.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan messages.RunResult, 1)
	go func() { done <- n.Run(ctx, w.spec, w.store) }()
	<-fell
	cancel()
	<-done
	n.Stop()
	time.Sleep(2 * time.Second)
	w.store.SaveFn = nil
	plant(nil)
}

// requireTwice asserts that rows [from, to) of a stream are at the destination twice, and
// the others once.
func (w *world) requireTwice(t *testing.T, from, to int64) {
	t.Helper()
	rows := w.src.Rows("orders")
	missing, extra := conntest.Difference(append(append([]string{}, rows...), rows[from:to]...), w.dst.Rows("orders"))
	require.Empty(t, missing, "lost")
	require.Empty(t, extra, "doubled once too often")
}

// halfway returns a world whose load of one part has stopped, and the receipt.
func halfway(t *testing.T) (*world, messages.Receipt) {
	t.Helper()
	w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 2000))
	w.spec.Resources.Tasks = 1
	w.dst.WriteFn = conntest.Delay(100 * time.Millisecond)
	r := w.run(t, func(n *node.Node) { time.Sleep(2 * time.Second); n.Drain("test") })
	require.Equal(t, messages.RunDrained, r.State)
	w.dst.WriteFn = nil
	k := w.state(t).Receipts[0]
	at, err := k.Position.At.Int64()
	require.NoError(t, err)
	require.Greater(t, at, int64(200))
	return w, k
}

func rewind(k messages.Receipt, to int64) statestore.Order {
	return statestore.Order{Load: k.LoadID(), Part: k.Part, From: k.Version, To: messages.Position{At: messages.Int64Cursor(to)}}
}

func TestRewindIsFollowedOnceWhateverCrashes(t *testing.T) {
	for name, crashes := range map[string]func(w *world) []func(conntest.Hook){
		"no crash": func(*world) []func(conntest.Hook) { return nil },
		"before anything is read": func(w *world) []func(conntest.Hook) {
			return []func(conntest.Hook){func(h conntest.Hook) { w.src.ScanFn = h }, func(h conntest.Hook) { w.src.OpenFn = h }}
		},
		"before the first commit": func(w *world) []func(conntest.Hook) {
			return []func(conntest.Hook){func(h conntest.Hook) { w.dst.CommitFn = h }}
		},
		"behind the first commit": func(w *world) []func(conntest.Hook) {
			return []func(conntest.Hook){func(h conntest.Hook) { w.dst.CommittedFn = h }}
		},
		"before and behind, again and again": func(w *world) []func(conntest.Hook) {
			before, behind := func(h conntest.Hook) { w.dst.CommitFn = h }, func(h conntest.Hook) { w.dst.CommittedFn = h }
			return []func(conntest.Hook){before, before, behind, behind, before}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w, k := halfway(t)
				at, err := k.Position.At.Int64()
				require.NoError(t, err)
				w.order(t, rewind(k, at-130))
				for _, plant := range crashes(w) {
					w.crash(t, plant)
				}
				r := w.run(t, nil)
				require.Nil(t, r.Failure)
				require.Equal(t, messages.RunCompleted, r.State)
				w.requireTwice(t, at-130, at)
				require.Empty(t, w.state(t).Orders, "it is void")
			})
		})
	}
}

func TestRewindSaysSoAndOthersReadOnWhereTheyWere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, k := halfway(t)
		at, err := k.Position.At.Int64()
		require.NoError(t, err)
		w.order(t, rewind(k, 7))
		r := w.run(t, nil)
		require.Nil(t, r.Failure)
		require.Len(t, r.Warnings, 1)
		require.Contains(t, r.Warnings[0], "stream orders: reading on from 7 as ordered, rows behind it are read and written again")
		require.Contains(t, r.Warnings[0], k.Reached())
		w.requireTwice(t, 7, at)

		w, k = halfway(t)
		other := rewind(k, 7)
		other.From.Commit++ // given for a receipt that is not the one
		w.order(t, other)
		r = w.run(t, nil)
		require.Nil(t, r.Failure)
		require.Empty(t, r.Warnings)
		w.requireSame(t)
	})
}

// What a part has read to its end is not opened any more: the order cannot be followed,
// and the operator hears of it.
func TestRewindOfACompletePartIsRefusedByName(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 400))
		w.dst.FinishFn = conntest.Fail(kinded(connectors.KindConfig, messages.CodeDestDenied, "no"))
		require.Equal(t, messages.RunFailed, w.run(t, nil).State)
		w.dst.FinishFn = nil
		k := w.state(t).Receipts[1]
		require.True(t, k.Final)
		w.order(t, rewind(k, 300))
		r := w.run(t, nil)
		require.Nil(t, r.Failure)
		require.Len(t, r.Warnings, 1)
		require.Contains(t, r.Warnings[0], "cannot be followed")
		w.requireSame(t)
	})
}

func startOver(name string, number uint64) statestore.Order {
	return statestore.Order{Load: messages.LoadID{Name: name, Number: number}}
}

func TestLoadIsStartedOverOnceWhateverCrashes(t *testing.T) {
	for name, crashes := range map[string]func(w *world) []func(conntest.Hook){
		"no crash": func(*world) []func(conntest.Hook) { return nil },
		"behind what is forgotten": func(w *world) []func(conntest.Hook) {
			return []func(conntest.Hook){func(h conntest.Hook) { w.src.ScanFn = h }, func(h conntest.Hook) { w.dst.BeginFn = h }}
		},
		"before the state store hears of the new load": func(w *world) []func(conntest.Hook) {
			return []func(conntest.Hook){func(h conntest.Hook) {
				w.dst.OpenWriterFn, w.dst.BeginFn = h, nil
				if h != nil {
					w.dst.BeginFn = func(context.Context, conntest.Call) error { w.dead.Store(true); return nil }
				}
			}}
		},
		"in the new load": func(w *world) []func(conntest.Hook) {
			before, behind := func(h conntest.Hook) { w.dst.CommitFn = h }, func(h conntest.Hook) { w.dst.CommittedFn = h }
			return []func(conntest.Hook){before, behind, func(h conntest.Hook) { w.dst.FinishFn = h }}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 400), conntest.Numbers("users", 30))
				for i := range w.spec.Streams {
					w.spec.Streams[i].Sync = connectors.SyncIncremental
				}
				require.Nil(t, w.run(t, nil).Failure)
				w.order(t, startOver("orders", 1))
				for _, plant := range crashes(w) {
					w.crash(t, plant)
				}
				require.Nil(t, w.run(t, nil).Failure)
				w.requireTwice(t, 0, 400)
				require.Len(t, w.dst.Rows("users"), 30, "only that one")
				require.True(t, w.dst.Finished("p", messages.LoadID{Name: "orders", Number: 2}))
				require.Empty(t, w.state(t).Orders, "it is void")

				require.Nil(t, w.run(t, nil).Failure)
				w.requireTwice(t, 0, 400)
			})
		})
	}
}

// The destination was made anew: it counts loads from 1, which would leave the order of a
// later one in force for ever.
func TestLoadIsStartedOverOnceAtADestinationThatKnowsNone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 400))
		w.spec.Streams[0].Sync = connectors.SyncIncremental
		w.order(t, startOver("orders", 5))
		r := w.run(t, nil)
		require.Nil(t, r.Failure)
		require.Len(t, r.Warnings, 1)
		require.Contains(t, r.Warnings[0], "stream orders: started over as ordered")
		require.Equal(t, []messages.LoadID{{Name: "orders", Number: 6}}, w.state(t).Finished)
		w.requireSame(t)
		r = w.run(t, nil)
		require.Empty(t, r.Warnings)
		w.requireSame(t)
	})
}

// The order resolves a state store that is ahead, also in a run of another stream.
func TestLoadThatIsToBeStartedOverIsNotCompared(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 400), conntest.Numbers("users", 30))
		require.Nil(t, w.run(t, nil).Failure)
		w.dst = &conntest.MemoryDestination{} // lost
		w.spec.Destination = w.dst
		require.Equal(t, messages.CodeStateAhead, w.run(t, nil).Failure.Code)
		w.order(t, startOver("orders", 1))
		require.Equal(t, messages.CodeStateAhead, w.run(t, nil).Failure.Code, "users, too")
		e, err := w.store.Acquire(t.Context(), "p", statestore.Claim{})
		require.NoError(t, err)
		require.NoError(t, w.store.Save(t.Context(), "p", e, statestore.Update{Orders: []statestore.Order{startOver("users", 1)}}))

		restore := w.only("users")
		require.Nil(t, w.run(t, nil).Failure)
		restore()
		require.Len(t, w.state(t).Orders, 1, "of the stream that was not read")
		r := w.run(t, nil)
		require.Nil(t, r.Failure)
		require.Len(t, r.Warnings, 1)
		require.Contains(t, r.Warnings[0], "stream orders")
		missing, extra := conntest.Difference(w.src.Rows("orders"), w.dst.Rows("orders"))
		require.Empty(t, missing)
		require.Empty(t, extra)
		require.Empty(t, w.state(t).Orders)
	})
}

// What a replace has staged cannot be taken back in part: rows that are read again would be
// in the new version twice.
func TestRewindOfAReplaceDoublesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeReplace, conntest.Numbers("orders", 2000))
		w.spec.Resources.Tasks = 1
		w.dst.WriteFn = conntest.Delay(100 * time.Millisecond)
		r := w.run(t, func(n *node.Node) { time.Sleep(2 * time.Second); n.Drain("test") })
		require.Equal(t, messages.RunDrained, r.State)
		w.dst.WriteFn = nil
		w.order(t, rewind(w.state(t).Receipts[0], 7))
		r = w.run(t, nil)
		require.Nil(t, r.Failure)
		require.Len(t, r.Warnings, 1)
		require.Contains(t, r.Warnings[0], "stream orders: started over instead of reading on")
		w.requireSame(t)
		require.Empty(t, w.state(t).Orders, "it is void")
		require.Equal(t, []messages.LoadID{{Name: "orders", Number: 2}}, w.state(t).Finished)
	})
}

// What a run would not do is refused when it is asked for.
func TestRewindOfAReplaceIsRefused(t *testing.T) {
	p := newPlace(t)
	doc, err := config.Parse("p.yaml", fmt.Appendf(nil, `version: "1.0"
pipeline: p
source: {use: file, config: {path: "%[1]s/in/*.csv"}, streams: [{name: s}]}
destination: {use: file, config: {path: "%[1]s/out", format: jsonl}, write_mode: replace}
state: {connection: "%[2]s/state.db"}
`, p.dir, p.state), plugin.Builtins(), config.OS())
	require.NoError(t, err)
	store, err := node.OpenStore(t.Context(), doc, false)
	require.NoError(t, err)
	e, err := store.Acquire(t.Context(), "p", statestore.Claim{})
	require.NoError(t, err)
	require.NoError(t, store.Save(t.Context(), "p", e, statestore.Update{Receipts: []messages.Receipt{{
		Part: "s/0", Load: "s", Version: messages.Version{Load: 1, Commit: 2}, Position: messages.Position{At: messages.Int64Cursor(7)},
	}}}))
	require.NoError(t, store.Close())

	l, err := node.OpenLedger(t.Context(), doc, node.LedgerOptions{Offline: true})
	require.NoError(t, err)
	_, _, err = l.Moments(t.Context(), "s")
	f, ok := errors.AsType[messages.Failure](err)
	require.True(t, ok)
	require.Contains(t, f.What, "load 1 of s replaces its target as a whole")
	require.Contains(t, f.Next, "state reset")
	require.NoError(t, l.Close())
}
