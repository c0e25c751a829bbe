package node_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rapidbyte.io/node/actors/run"
	"rapidbyte.io/node/actors/source"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/node"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a pipeline over in-memory connectors.
type world struct {
	src   *conntest.MemorySource
	dst   *conntest.MemoryDestination
	store *storetest.Memory
	spec  run.Spec

	dead   atomic.Bool // see crash: the state store hears nothing any more
	mu     sync.Mutex
	events []messages.Event
}

func newWorld(mode connectors.WriteMode, streams ...conntest.MemoryStream) *world {
	w := &world{
		src: conntest.NewMemorySource(streams...), dst: &conntest.MemoryDestination{}, store: storetest.NewMemory("store-1"),
	}
	w.spec = run.Spec{
		Pipeline: "p", Source: w.src, Destination: w.dst,
		Resources: run.Resources{
			MemoryBytes: 64 << 20, BatchBytesMax: 1 << 10, BatchesMax: 4, Tasks: 2, Retries: 3,
			Interval: source.Interval{Rows: 50}, Stall: time.Hour,
		},
	}
	for _, s := range streams {
		w.spec.Streams = append(w.spec.Streams, run.Stream{
			StreamSpec: connectors.StreamSpec{Stream: s.Stream, Sync: connectors.SyncFullRefresh, Mode: mode},
			Target:     string(s.Stream), OnLost: run.LostContinue,
		})
	}
	return w
}

func (w *world) observe(e messages.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

func (w *world) kinds() (out []messages.EventKind) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		out = append(out, e.Kind)
	}
	return out
}

// run runs the pipeline once in a node of its own; during, if set, runs beside it.
func (w *world) run(t *testing.T, during func(n *node.Node)) messages.RunResult {
	t.Helper()
	n := node.Start(node.Options{Observe: w.observe})
	defer time.Sleep(2 * time.Second) // the actor library's dead-letter throttle keeps a goroutine for a second
	defer n.Stop()
	done := make(chan messages.RunResult, 1)
	go func() { done <- n.Run(context.Background(), w.spec, w.store) }()
	if during != nil {
		during(n)
	}
	return <-done
}

// requireSame asserts that every row of the source is at the destination once.
func (w *world) requireSame(t *testing.T) {
	t.Helper()
	for _, s := range w.spec.Streams {
		want := w.src.Rows(s.Stream)
		got := w.dst.Rows(s.Target)
		missing, extra := conntest.Difference(want, got)
		require.Empty(t, missing, "stream %s: lost", s.Stream)
		require.Empty(t, extra, "stream %s: doubled", s.Stream)
	}
}

func (w *world) state(t *testing.T) statestore.State {
	t.Helper()
	s, err := w.store.Load(context.Background(), "p")
	require.NoError(t, err)
	return s
}

func bubble(t *testing.T, fn func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, fn)
}

func transient(text string) error {
	return &connectors.Error{Op: "test", Kind: connectors.KindTransient, Err: errors.New(text)}
}

func TestRunMovesEveryRowOnce(t *testing.T) {
	for _, mode := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeReplace, connectors.ModeUpsert} {
		t.Run(string(mode), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(mode, conntest.Numbers("orders", 1000), conntest.Numbers("users", 333))
				r := w.run(t, nil)
				require.Nil(t, r.Failure)
				require.Equal(t, messages.RunCompleted, r.State)
				w.requireSame(t)
				require.EqualValues(t, 1000, r.Streams[0].RowsRead)
				require.EqualValues(t, 1000, r.Streams[0].RowsWritten)
				require.Positive(t, r.Streams[0].Bytes)
				require.Len(t, w.state(t).Finished, 2)
				require.Empty(t, w.state(t).Run.ID, "the run has ended")
			})
		})
	}
}

func TestTransientFailureRetriesFromTheReceipt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 1000))
		w.dst.WriteFn = conntest.FailNth(5, transient("connection reset"))
		w.dst.CommittedFn = conntest.FailNth(4, transient("reply lost"))
		r := w.run(t, nil)
		require.Nil(t, r.Failure)
		require.Equal(t, messages.RunCompleted, r.State)
		require.Equal(t, 2, r.Streams[0].Retries)
		require.Contains(t, w.kinds(), messages.EventTaskRetry)
		w.requireSame(t)
	})
}

func TestDrainStopsAtACommittedPosition(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 10_000))
		w.dst.WriteFn = conntest.Delay(300 * time.Millisecond)
		start := time.Now()
		r := w.run(t, func(n *node.Node) {
			time.Sleep(3 * time.Second)
			n.Drain("SIGTERM")
		})
		require.Less(t, time.Since(start), 13*time.Second)
		require.Equal(t, messages.RunDrained, r.State)
		require.Nil(t, r.Failure)
		id := w.state(t).Run.ID
		require.Equal(t, r.RunID, id, "the run is unfinished")

		w.dst.WriteFn = nil
		r = w.run(t, nil)
		require.Equal(t, messages.RunCompleted, r.State)
		require.Equal(t, id, r.RunID, "an unfinished run is continued under its id")
		w.requireSame(t)
	})
}

// requests remembers what sessions were opened with.
type requests struct {
	*conntest.MemoryDestination
	seen []connectors.SessionRequest
}

// Open implements connectors.Destination.
func (d *requests) Open(ctx context.Context, r connectors.SessionRequest) (connectors.Session, error) {
	d.seen = append(d.seen, r)
	return d.MemoryDestination.Open(ctx, r)
}

func TestSessionKnowsTheRunThatOpensIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 10))
		d := &requests{MemoryDestination: w.dst}
		w.spec.Destination = d
		r := w.run(t, nil)
		require.Nil(t, r.Failure)
		require.NotEmpty(t, r.RunID)
		require.Equal(t, []connectors.SessionRequest{{Pipeline: "p", Epoch: r.Epoch, Run: r.RunID, Store: "store-1"}}, d.seen)
	})
}

// picky rejects the rows of every second batch.
type picky struct{ n int }

// Schema implements connectors.Transform.
func (*picky) Schema(_ messages.StreamID, in *arrow.Schema) (*arrow.Schema, error) { return in, nil }

// Open implements connectors.Transform.
func (p *picky) Open(context.Context, connectors.StageRequest) (connectors.Stage, error) {
	return p, nil
}

// Apply implements connectors.Stage.
func (p *picky) Apply(ctx context.Context, d messages.Data, out connectors.Outlet) error {
	if b, ok := d.(messages.Batch); ok {
		if p.n++; p.n%2 == 0 {
			return out(ctx, messages.Rejected{Stream: b.Stream, Reason: "picky", Rows: b.Rows})
		}
	}
	return out(ctx, d)
}

// Flush implements connectors.Stage.
func (*picky) Flush(context.Context, connectors.Outlet) error { return nil }

// Close implements connectors.Stage.
func (*picky) Close(context.Context) error { return nil }

func TestRejectedRowsAreCountedAndFailNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 1000))
		w.spec.Resources.Tasks = 1
		w.spec.Transforms = []run.Transform{{Transform: &picky{}, Name: "picky"}}
		r := w.run(t, nil)
		require.Nil(t, r.Failure)
		require.Equal(t, messages.RunCompleted, r.State)
		s := r.Streams[0]
		require.Positive(t, s.RowsRejected)
		require.EqualValues(t, 1000, s.RowsWritten+s.RowsRejected)
		require.Len(t, w.dst.Rejected("orders"), int(s.RowsRejected))
		for _, e := range w.events {
			if e.Kind == messages.EventStreamFinished {
				require.Equal(t, s.RowsRejected, e.Rejected)
			}
		}
	})
}

// talkative explains itself: once per session, and what its writers decide.
type talkative struct{ *conntest.MemoryDestination }

type talkativeSession struct{ connectors.Session }

type talkativeWriter struct {
	connectors.Writer
	commits int
}

// Open implements connectors.Destination.
func (d talkative) Open(ctx context.Context, r connectors.SessionRequest) (connectors.Session, error) {
	s, err := d.MemoryDestination.Open(ctx, r)
	return talkativeSession{s}, err
}

// Explain implements connectors.Explainer.
func (talkativeSession) Explain() []string { return []string{"swap: rename"} }

// OpenWriter implements connectors.Session.
func (s talkativeSession) OpenWriter(ctx context.Context, p connectors.Part, k messages.Token) (connectors.Writer, messages.Receipt, error) {
	w, r, err := s.Session.OpenWriter(ctx, p, k)
	if err != nil {
		return nil, r, err
	}
	return &talkativeWriter{Writer: w}, r, nil
}

// Commit implements connectors.Writer.
func (w *talkativeWriter) Commit(ctx context.Context, b messages.Barrier) (messages.Receipt, error) {
	w.commits++
	return w.Writer.Commit(ctx, b)
}

// Explain implements connectors.Explainer.
func (w *talkativeWriter) Explain() []string {
	if w.commits == 0 {
		return nil
	}
	return []string{"flush: 1mb"}
}

func TestWhatAConnectorExplainsIsToldOncePerStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 1000), conntest.Numbers("users", 200))
		w.spec.Destination = talkative{w.dst}
		require.Nil(t, w.run(t, nil).Failure)
		got := map[messages.StreamID][]string{}
		for _, e := range w.events {
			if e.Kind == messages.EventNote {
				got[e.Stream] = append(got[e.Stream], e.Message)
			}
		}
		want := []string{"swap: rename", "flush: 1mb"}
		require.Equal(t, map[messages.StreamID][]string{
			"":       {"tasks: 2 at a time (one per core, autotune is off)", "batch: at most 8192 rows, 1kb (autotune is off)"},
			"orders": want, "users": want,
		}, got)
	})
}
