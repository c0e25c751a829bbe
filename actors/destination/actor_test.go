package destination_test

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
	"rapidbyte.io/node/actors/destination"
	"rapidbyte.io/node/actors/flow"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a destination actor between probes.
type rig struct {
	t                 *testing.T
	sys               *actor.ActorSystem
	mem               *memory.CheckedAllocator
	up, owner, keeper *actortest.Probe // keeper: the checkpoint actor
	pid               *actor.PID
	task              flow.Task
	reg               *flow.Register
	dst               *conntest.MemoryDestination
	seq               messages.Seq
	rows              int
}

// bubble runs fn with a rig whose destination and session the caller may change first.
func bubble(t *testing.T, plant func(d *conntest.MemoryDestination), spoil func(connectors.Session) connectors.Session, fn func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, sys: actortest.System(t), mem: memory.NewCheckedAllocator(memory.DefaultAllocator), reg: flow.NewRegister(), dst: &conntest.MemoryDestination{}}
		if plant != nil {
			plant(r.dst)
		}
		session, err := r.dst.Open(t.Context(), connectors.SessionRequest{Pipeline: "p", Epoch: 1, Store: "s"})
		require.NoError(t, err)
		id := messages.LoadID{Name: "orders", Number: 1}
		r.task = flow.Task{Pipeline: "p", Token: messages.Token{Epoch: 1, Attempt: 1}, Part: connectors.Part{ID: "orders/0", Load: id, Streams: []messages.StreamID{"orders"}, Raw: offered}}
		st := conntest.Numbers("orders", 1)
		require.NoError(t, session.Begin(t.Context(), connectors.Load{
			ID: id, Mode: connectors.ModeAppend, Parts: []connectors.Part{r.task.Part},
			Streams: []connectors.StreamPlan{{Stream: "orders", Schema: st.Schema, Key: st.Key, Target: "orders"}},
		}))
		if spoil != nil {
			session = spoil(session)
		}
		r.up, r.owner, r.keeper = actortest.Spawn(t, r.sys), actortest.Spawn(t, r.sys), actortest.Spawn(t, r.sys)
		r.pid = r.owner.Child(destination.New(destination.Config{
			Task: r.task, Session: session, Window: flow.Window{Batches: 4, Bytes: 1 << 20}, Register: r.reg,
		}))
		r.sys.Root.Send(r.pid, flow.Wire{Up: r.up.PID, Checkpoint: r.keeper.PID, Owner: r.owner.PID})
		synctest.Wait() // nothing is sent to a stage that has not granted anything
		fn(r)
		require.NoError(t, r.sys.Root.StopFuture(r.pid).Wait())
		r.reg.ReleaseAll() // as the owner does when the attempt is over
		r.mem.AssertSize(t, 0)
	})
}

func (r *rig) stamp() messages.Stamp {
	r.seq++
	return messages.Stamp{Part: r.task.Part.ID, Token: r.task.Token, Seq: r.seq}
}

// taker is a writer with an opinion about undecoded rows.
type taker struct {
	connectors.Writer
	why string
}

func (w taker) TakesRaw() string { return w.why }

// raws is a session of takers.
type raws struct {
	connectors.Session
	why string
}

func (s raws) OpenWriter(ctx context.Context, p connectors.Part, t messages.Token) (connectors.Writer, messages.Receipt, error) {
	w, r, err := s.Session.OpenWriter(ctx, p, t)
	return taker{w, s.why}, r, err
}

// The writer has the last word about undecoded rows, and one that has never heard of them
// gets Arrow.
func TestAWriterIsAskedForTheLane(t *testing.T) {
	for name, c := range map[string]struct {
		offered   string
		spoil     func(connectors.Session) connectors.Session
		raw, says string
	}{
		"taken":       {"fmt/1", func(s connectors.Session) connectors.Session { return raws{s, ""} }, "fmt/1", ""},
		"declined":    {"fmt/1", func(s connectors.Session) connectors.Session { return raws{s, "of the types"} }, "", "of the types"},
		"not offered": {"", func(s connectors.Session) connectors.Session { return raws{s, ""} }, "", ""},
		"unheard of":  {"fmt/1", nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			offered = c.offered
			defer func() { offered = "" }()
			bubble(t, nil, c.spoil, func(r *rig) {
				got := actortest.Of[messages.Opened](r.owner.Take())
				require.Len(t, got, 1)
				require.Equal(t, c.raw, got[0].Raw)
				require.Equal(t, c.says, got[0].Why)
			})
		})
	}
}

// offered is the Raw of the part that a rig opens.
var offered string

// batch sends n rows.
func (r *rig) batch(n int) {
	r.t.Helper()
	rec, err := conntest.Build(r.mem, conntest.Numbers("orders", 1).Schema, conntest.NumberRows(r.rows+1, n))
	require.NoError(r.t, err)
	r.rows += n
	m := messages.Batch{Stamp: r.stamp(), Stream: "orders", Version: 1, Rows: messages.ArrowRows{Record: rec}}
	r.reg.Put(0, m.Seq, m.Rows)
	r.sys.Root.Send(r.pid, m)
}

func (r *rig) barrier(kind messages.BarrierKind) {
	r.sys.Root.Send(r.pid, messages.Barrier{
		Stamp: r.stamp(), Kind: kind, Position: messages.Position{At: messages.Int64Cursor(int64(r.rows))}, Rows: 1,
	})
}

func (r *rig) acks() []messages.DestinationAck {
	return actortest.Of[messages.DestinationAck](r.keeper.Take())
}

func (r *rig) failures() []messages.StageFailed {
	return actortest.Of[messages.StageFailed](r.owner.Take())
}

func TestOpeningIsToldBeforeCreditIsGranted(t *testing.T) {
	var gate *conntest.Gate
	bubble(t, func(d *conntest.MemoryDestination) {
		gate = conntest.NewGate()
		d.OpenWriterFn = gate.Hook()
	}, nil, func(r *rig) {
		require.Empty(t, r.up.Take(), "nothing is granted before the part is fenced")
		gate.Open()
		opened := actortest.Of[messages.Opened](r.owner.Take())
		require.Len(t, opened, 1)
		require.Equal(t, r.task.Token, opened[0].Token)
		require.Equal(t, []any{messages.Demand{Part: "orders/0", Token: r.task.Token, Batches: 4, Bytes: 1 << 20}}, r.up.Take())
	})
}

func TestAckFollowsCommit(t *testing.T) {
	bubble(t, func(d *conntest.MemoryDestination) {
		d.WriteFn, d.CommitFn = conntest.Delay(time.Minute), conntest.Delay(time.Minute)
	}, nil, func(r *rig) {
		r.batch(3)
		r.barrier(messages.BarrierPeriodic)
		require.Empty(t, r.acks())
		time.Sleep(time.Minute)
		require.Empty(t, r.acks(), "written, not committed")
		require.Empty(t, r.dst.Rows("orders"))
		time.Sleep(time.Minute)
		got := r.acks()
		require.Len(t, got, 1)
		require.EqualValues(t, 2, got[0].Seq)
		require.Equal(t, messages.Version{Load: 1, Commit: 1}, got[0].Receipt.Version)
		require.Len(t, r.dst.Rows("orders"), 3)
		require.Empty(t, actortest.Of[messages.TaskEnded](r.owner.Take()), "a periodic barrier ends nothing")
	})
}

func TestLastBarrierEndsTheTask(t *testing.T) {
	bubble(t, nil, nil, func(r *rig) {
		r.batch(3)
		r.barrier(messages.BarrierEnd)
		require.True(t, r.acks()[0].Receipt.Final)
		ended := actortest.Of[messages.TaskEnded](r.owner.Take())
		require.Equal(t, []messages.TaskEnded{{Part: "orders/0", Token: r.task.Token, Kind: messages.BarrierEnd, Seq: 2}}, ended)
	})
}

func TestFailedStageLatchesAndLeavesTheRestToTheRegister(t *testing.T) {
	bubble(t, func(d *conntest.MemoryDestination) { d.WriteFn = conntest.FailNth(2, errors.New("disk full")) }, nil, func(r *rig) {
		for range 4 {
			r.batch(2)
		}
		r.barrier(messages.BarrierEnd)
		got := r.failures()
		require.Len(t, got, 1, "the first cause, once")
		require.Contains(t, got[0].Failure.Why, "disk full")
		require.Equal(t, connectors.StageDestination, got[0].Stage)
		require.Empty(t, r.acks(), "no commit over a hole")
		require.Empty(t, r.dst.Rows("orders"))
		require.Equal(t, 2, r.reg.Len(), "nobody else releases them")
		r.batch(1) // still on its way when the stage failed
		require.Equal(t, 3, r.reg.Len())
	})
}

func TestUnknownCommitIsNotAcknowledged(t *testing.T) {
	bubble(t, func(d *conntest.MemoryDestination) { d.CommittedFn = conntest.FailNth(1, errors.New("reply lost")) }, nil, func(r *rig) {
		r.batch(2)
		r.barrier(messages.BarrierPeriodic)
		r.batch(2)
		r.barrier(messages.BarrierEnd)
		got := r.failures()
		require.Len(t, got, 1)
		require.Equal(t, string(connectors.CommitUnknown), got[0].Failure.Commit)
		require.Empty(t, r.acks())
		require.Len(t, r.dst.Rows("orders"), 2, "the next writer finds it")
	})
}

func TestItemsOfAnotherAttemptAreIgnored(t *testing.T) {
	bubble(t, nil, nil, func(r *rig) {
		stale := messages.Barrier{Stamp: messages.Stamp{Part: "orders/0", Token: messages.Token{Epoch: 1, Attempt: 9}, Seq: 1}}
		r.sys.Root.Send(r.pid, stale)
		stale.Stamp = messages.Stamp{Part: "orders/1", Token: r.task.Token, Seq: 1}
		r.sys.Root.Send(r.pid, stale)
		require.Empty(t, r.acks())
		r.batch(1)
		r.barrier(messages.BarrierEnd)
		require.Len(t, r.acks(), 1, "they have no number here")
	})
}

func TestGapInTheSequenceStopsTheStage(t *testing.T) {
	bubble(t, nil, nil, func(r *rig) {
		r.seq++ // an item is lost on its way
		r.barrier(messages.BarrierEnd)
		got := actortest.Of[actortest.Panicked](r.owner.Take())
		require.Len(t, got, 1)
		err, ok := got[0].Reason.(error)
		require.True(t, ok)
		require.ErrorContains(t, err, "item 2 after 0")
		require.ErrorContains(t, err, "onItem", "with the stack of the panic")
		require.Empty(t, r.acks())
		require.False(t, r.dst.Receipts("p")["orders/0"].Final)
	})
}

func TestAckIsRepeatedWhenItIsWanted(t *testing.T) {
	bubble(t, nil, nil, func(r *rig) {
		want := messages.AckWanted{Part: "orders/0", Token: r.task.Token}
		r.sys.Root.Send(r.pid, want)
		require.Empty(t, r.acks(), "nothing is committed")
		r.batch(1)
		r.barrier(messages.BarrierPeriodic)
		first := r.acks()
		require.Len(t, first, 1)
		r.sys.Root.Send(r.pid, want)
		r.sys.Root.Send(r.pid, want)
		require.Equal(t, append(first, first...), r.acks(), "twice, the same")
		want.Token.Attempt++
		r.sys.Root.Send(r.pid, want)
		require.Empty(t, r.acks())
	})
}

func TestBarriersDoNotPileUpBehindASlowCommit(t *testing.T) {
	commits := 0
	bubble(t, func(d *conntest.MemoryDestination) {
		d.CommitFn = func(ctx context.Context, c conntest.Call) error {
			commits++
			return conntest.Delay(time.Minute)(ctx, c)
		}
	}, nil, func(r *rig) {
		for range 1000 {
			r.barrier(messages.BarrierPeriodic)
		}
		r.barrier(messages.BarrierDrain)
		time.Sleep(10 * time.Minute)
		got := r.acks()
		require.Equal(t, 2, commits, "the one under way, and one for all behind it")
		require.EqualValues(t, 1001, got[len(got)-1].Seq)
		require.EqualValues(t, 1001, got[len(got)-1].Receipt.Rows.Read, "their counts add up")
	})
}

func TestCreditComesBackInHalfWindows(t *testing.T) {
	bubble(t, nil, nil, func(r *rig) {
		r.up.Take()
		r.batch(1)
		require.Empty(t, r.up.Take())
		r.batch(1)
		require.Len(t, actortest.Of[messages.Demand](r.up.Take()), 1)
	})
}

func TestStopCancelsACommitUnderWay(t *testing.T) {
	bubble(t, func(d *conntest.MemoryDestination) { d.CommitFn = conntest.Hang() }, nil, func(r *rig) {
		r.batch(1)
		r.barrier(messages.BarrierEnd)
		synctest.Wait()
		require.NoError(t, r.sys.Root.StopFuture(r.pid).Wait())
		require.Empty(t, r.acks())
		require.Empty(t, r.failures(), "whoever stops it knows why")
	})
}

// liar returns receipts that are not what was committed.
type liar struct {
	connectors.Session
	receipt func(*messages.Receipt)
}

type lyingWriter struct {
	connectors.Writer
	receipt func(*messages.Receipt)
}

func (l liar) OpenWriter(ctx context.Context, p connectors.Part, k messages.Token) (connectors.Writer, messages.Receipt, error) {
	w, r, err := l.Session.OpenWriter(ctx, p, k)
	return lyingWriter{w, l.receipt}, r, err
}

func (w lyingWriter) Commit(ctx context.Context, b messages.Barrier) (messages.Receipt, error) {
	r, err := w.Writer.Commit(ctx, b)
	w.receipt(&r)
	return r, err
}

func TestReceiptThatCannotBeIsNotBelieved(t *testing.T) {
	for name, lie := range map[string]func(*messages.Receipt){
		"part":     func(r *messages.Receipt) { r.Part = "orders/1" },
		"token":    func(r *messages.Receipt) { r.Token.Attempt++ },
		"version":  func(r *messages.Receipt) { r.Version.Commit++ },
		"position": func(r *messages.Receipt) { r.Position = messages.Position{At: messages.Int64Cursor(99)} },
		"final":    func(r *messages.Receipt) { r.Final = !r.Final },
		"rows":     func(r *messages.Receipt) { r.Rows.Applied-- },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(s connectors.Session) connectors.Session { return liar{s, lie} }, func(r *rig) {
				r.batch(2)
				r.barrier(messages.BarrierPeriodic)
				got := r.failures()
				require.Len(t, got, 1)
				require.Equal(t, string(connectors.KindInternal), got[0].Failure.Kind)
				require.Empty(t, r.acks(), "I1: nobody believes it")
			})
		})
	}
}
