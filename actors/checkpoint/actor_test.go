package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rapidbyte.io/node/actors/actortest"
	"rapidbyte.io/node/actors/checkpoint"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a checkpoint actor whose owner, source and destination are probes.
type rig struct {
	t                *testing.T
	sys              *actor.ActorSystem
	owner, src, dest *actortest.Probe
	pid              *actor.PID
	store            *storetest.Memory
	token            messages.Token
}

var orders = messages.LoadID{Name: "orders", Number: 1}

func bubble(t *testing.T, fn func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, sys: actortest.System(t), store: storetest.NewMemory("s"), token: messages.Token{Epoch: 1, Attempt: 1}}
		epoch, err := r.store.Acquire(t.Context(), "p", statestore.Claim{})
		require.NoError(t, err)
		r.owner, r.src, r.dest = actortest.Spawn(t, r.sys), actortest.Spawn(t, r.sys), actortest.Spawn(t, r.sys)
		r.pid = r.owner.Child(checkpoint.New(checkpoint.Config{Pipeline: "p", Epoch: epoch, Store: r.store}))
		fn(r)
		require.NoError(t, r.sys.Root.StopFuture(r.pid).Wait())
	})
}

func (r *rig) send(m any) { r.sys.Root.Send(r.pid, m) }

// begin lets one part of orders run.
func (r *rig) begin() {
	r.send(checkpoint.OpenRun{Run: statestore.Run{ID: "r1", Epoch: 1}})
	r.send(checkpoint.Began{Load: orders, Parts: []messages.PartID{"orders/0"}})
	r.start()
	r.owner.Take()
}

func (r *rig) start() {
	r.send(checkpoint.TaskStarted{
		Opened: messages.Opened{Token: r.token, Receipt: r.receipt(0, false)}, Source: r.src.PID, Destination: r.dest.PID,
	})
}

func (r *rig) receipt(commit uint64, final bool) messages.Receipt {
	return messages.Receipt{
		Part: "orders/0", Load: "orders", Version: messages.Version{Load: 1, Commit: commit}, Token: r.token, Final: final,
		Position: messages.Position{At: messages.Int64Cursor(int64(commit))},
	}
}

func (r *rig) ack(commit uint64, final bool) messages.DestinationAck {
	return messages.DestinationAck{Pipeline: "p", Seq: messages.Seq(2 * commit), Receipt: r.receipt(commit, final)}
}

func (r *rig) stored() []messages.Receipt {
	st, err := r.store.Load(r.t.Context(), "p")
	require.NoError(r.t, err)
	return st.Receipts
}

func TestStagesAreToldOnlyWhatIsPersisted(t *testing.T) {
	bubble(t, func(r *rig) {
		r.begin()
		r.store.SaveFn = func(context.Context, messages.PipelineID, messages.Epoch, statestore.Update) storetest.Fate {
			time.Sleep(time.Second)
			return storetest.Fate{}
		}
		r.send(r.ack(1, false))
		require.Empty(t, r.src.Take())
		require.Empty(t, r.owner.Take(), "acknowledged, not persisted")
		time.Sleep(time.Second)
		want := messages.CheckpointCommitted{Part: "orders/0", Token: r.token, Seq: 2, Position: messages.Position{At: messages.Int64Cursor(1)}}
		require.Equal(t, []any{want}, r.src.Take())
		require.Equal(t, []any{want}, r.dest.Take())
		require.Equal(t, []any{checkpoint.Persisted{CheckpointCommitted: want, Receipt: r.receipt(1, false)}}, r.owner.Take())
		require.Equal(t, []messages.Receipt{r.receipt(1, false)}, r.stored())
	})
}

func TestDoubledLateAndStaleAcksChangeNothing(t *testing.T) {
	bubble(t, func(r *rig) {
		r.begin()
		var saves atomic.Int64
		r.store.SaveFn = func(context.Context, messages.PipelineID, messages.Epoch, statestore.Update) storetest.Fate {
			saves.Add(1)
			return storetest.Fate{}
		}
		r.send(r.ack(3, false)) // the newest stands for those before it
		r.owner.Take()
		require.EqualValues(t, 1, saves.Load())
		for _, m := range []messages.DestinationAck{r.ack(3, false), r.ack(1, false), r.ack(2, false)} {
			r.send(m)
		}
		require.Empty(t, r.owner.Take())
		stale := r.ack(9, false)
		stale.Receipt.Token.Attempt = 7
		r.send(stale)
		stale.Receipt.Token = messages.Token{Epoch: 9, Attempt: 1}
		r.send(stale)
		stale = r.ack(9, false)
		stale.Pipeline = "q"
		r.send(stale)
		stale = r.ack(9, false)
		stale.Receipt.Part = "orders/9"
		r.send(stale)
		require.Equal(t, []any{
			checkpoint.Reject{Err: checkpoint.ErrStaleAttempt},
			checkpoint.Reject{Err: checkpoint.ErrStaleEpoch},
			checkpoint.Reject{Err: checkpoint.ErrOtherPipeline},
			checkpoint.Reject{Err: checkpoint.ErrUnknownPart},
		}, r.owner.Take())
		require.EqualValues(t, 1, saves.Load())
		require.Equal(t, []messages.Receipt{r.receipt(3, false)}, r.stored())
	})
}

func TestLostAckIsAskedFor(t *testing.T) {
	bubble(t, func(r *rig) {
		r.begin()
		require.Empty(t, r.dest.Take())
		time.Sleep(6 * time.Second)
		require.Equal(t, []any{messages.AckWanted{Part: "orders/0", Token: r.token}}, r.dest.Take())
		r.send(r.ack(1, true))
		r.dest.Take()
		time.Sleep(time.Minute)
		require.Empty(t, r.dest.Take(), "a final receipt is the last")
	})
}

func TestFailedSaveIsDoneAgain(t *testing.T) {
	for name, done := range map[string]bool{"not done": false, "done, but not told": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.begin()
				var saves atomic.Int64
				r.store.SaveFn = func(context.Context, messages.PipelineID, messages.Epoch, statestore.Update) storetest.Fate {
					if saves.Add(1) == 1 {
						return storetest.Fate{Err: errors.New("disk hiccup"), Done: done}
					}
					return storetest.Fate{}
				}
				r.send(r.ack(1, false))
				require.Len(t, actortest.Of[checkpoint.SaveTrouble](r.owner.Take()), 1)
				require.Empty(t, r.src.Take())
				time.Sleep(2 * time.Second)
				require.Len(t, actortest.Of[checkpoint.Persisted](r.owner.Take()), 1)
				require.Len(t, r.src.Take(), 1)
			})
		})
	}
}

func TestStoreThatStaysDownHalts(t *testing.T) {
	bubble(t, func(r *rig) {
		r.begin()
		r.store.SaveFn = func(context.Context, messages.PipelineID, messages.Epoch, statestore.Update) storetest.Fate {
			return storetest.Fate{Err: fmt.Errorf("write: %w", statestore.ErrFull)}
		}
		r.send(r.ack(1, false))
		time.Sleep(30 * time.Second)
		got := actortest.Of[checkpoint.Halted](r.owner.Take())
		require.NotEmpty(t, got)
		require.Equal(t, messages.CodeStateFull, got[0].Failure.Code)
		require.Empty(t, r.src.Take(), "I3: nothing may be forgotten")
	})
}

func TestYoungerOwnerHaltsAtOnce(t *testing.T) {
	bubble(t, func(r *rig) {
		r.begin()
		_, err := r.store.Acquire(t.Context(), "p", statestore.Claim{})
		require.NoError(t, err)
		r.send(r.ack(1, false))
		got := actortest.Of[checkpoint.Halted](r.owner.Take())
		require.Len(t, got, 1)
		require.Equal(t, messages.CodeFenced, got[0].Failure.Code)
		r.send(r.ack(2, false))
		time.Sleep(time.Minute)
		require.Empty(t, r.owner.Take())
		require.Empty(t, r.src.Take())
		require.NotContains(t, r.stored(), r.receipt(1, false))
	})
}

func TestHaltedComesBeforeTheRunIsMarked(t *testing.T) {
	for name, ev := range map[string]checkpoint.Recovered{
		"receipt is gone": {Stored: []messages.Receipt{(&rig{}).receipt(3, false)}},
		"load is gone":    {StoredFinished: []messages.LoadID{orders}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.send(checkpoint.OpenRun{Run: statestore.Run{ID: "r1", Epoch: 1}, Recovered: ev})
				got := r.owner.Take()
				require.Len(t, got, 2)
				halted, ok := got[0].(checkpoint.Halted)
				require.True(t, ok)
				require.Equal(t, messages.CodeStateAhead, halted.Failure.Code)
				require.Contains(t, halted.Failure.Why, "load 1")
				require.Contains(t, halted.Failure.Why, "orders")
				require.Equal(t, checkpoint.RunMarked{}, got[1])
			})
		})
	}
}

func TestRunIsMarkedWhenTheStateIsRepaired(t *testing.T) {
	bubble(t, func(r *rig) {
		fails := 2
		r.store.SaveFn = func(_ context.Context, _ messages.PipelineID, _ messages.Epoch, u statestore.Update) storetest.Fate {
			if len(u.Receipts) == 0 || fails == 0 {
				return storetest.Fate{}
			}
			fails--
			return storetest.Fate{Err: errors.New("busy")}
		}
		r.send(checkpoint.OpenRun{
			Run:       statestore.Run{ID: "r1", Epoch: 1},
			Recovered: checkpoint.Recovered{Begun: []messages.LoadID{orders}, Durable: []messages.Receipt{r.receipt(3, true)}, Finished: []messages.LoadID{orders}},
		})
		require.Empty(t, actortest.Of[checkpoint.RunMarked](r.owner.Take()), "the record is there, the receipt is not")
		time.Sleep(5 * time.Second)
		require.Equal(t, []checkpoint.RunMarked{{}}, actortest.Of[checkpoint.RunMarked](r.owner.Take()))
		require.Equal(t, []messages.Receipt{r.receipt(3, true)}, r.stored())
	})
}

func TestConclusionIsAnswered(t *testing.T) {
	bubble(t, func(r *rig) {
		r.begin()
		ended := statestore.Run{ID: "r1", Epoch: 1, State: messages.RunCompleted, Ended: time.Now().UTC()}
		r.send(checkpoint.ConcludeRun{Run: ended})
		require.Equal(t, []any{checkpoint.RunMarked{Conclude: true}}, r.owner.Take())
		runs, err := r.store.Runs(t.Context(), "p", 1)
		require.NoError(t, err)
		require.Equal(t, messages.RunCompleted, runs[0].State)
		r.store.SaveFn = func(context.Context, messages.PipelineID, messages.Epoch, statestore.Update) storetest.Fate {
			return storetest.Fate{Err: errors.New("disk hiccup")}
		}
		r.send(checkpoint.ConcludeRun{Run: ended})
		require.Empty(t, r.owner.Take(), "it is tried again")
		time.Sleep(10 * time.Second)
		got := actortest.Of[checkpoint.RunMarked](r.owner.Take())
		require.Len(t, got, 1)
		require.ErrorContains(t, got[0].Err, "disk hiccup")
	})
}
