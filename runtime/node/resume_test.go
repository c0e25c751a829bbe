package node_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/actors/run"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/node"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/storetest"
)

// only narrows the pipeline to streams, as `--stream` or an edited document does.
func (w *world) only(names ...messages.StreamID) (restore func()) {
	all := w.spec.Streams
	w.spec.Streams = nil
	for _, s := range all {
		for _, n := range names {
			if s.Stream == n {
				w.spec.Streams = append(w.spec.Streams, s)
			}
		}
	}
	return func() { w.spec.Streams = all }
}

// A stream that failed and was then taken out of the document must not keep the
// others from being loaded by later runs.
func TestLaterRunsLoadAgainWhenAFailedStreamWasRemoved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeReplace, conntest.Numbers("bad", 500), conntest.Numbers("good", 500))
		w.dst.WriteFn = always("bad/1", kinded(connectors.KindData, messages.CodeValueRange, "value out of range"))
		require.Equal(t, messages.RunFailed, w.run(t, nil).State)
		w.only("good")
		require.Nil(t, w.run(t, nil).Failure, "the run goes on, and has nothing left to do")

		w.src.Append("good", conntest.NumberRows(501, 100)...)
		r := w.run(t, nil)
		require.Nil(t, r.Failure)
		require.Len(t, r.Streams, 1, "a new run reads everything it is asked for")
		w.requireSame(t)
	})
}

// Several unfinished loads may be of several runs; the newest is the one to go on.
func TestLostStateGoesOnWithTheNewestUnfinishedRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("a", 100), conntest.Numbers("b", 100), conntest.Numbers("c", 100))
		w.dst.WriteFn = always("a/1", kinded(connectors.KindData, messages.CodeValueRange, "bad"))
		restore := w.only("a")
		require.Equal(t, messages.RunFailed, w.run(t, nil).State) // run 1: a is unfinished
		restore()
		restore = w.only("c")
		require.Nil(t, w.run(t, nil).Failure) // goes on with run 1 and ends it
		restore()
		time.Sleep(time.Second)
		restore = w.only("b", "c")
		w.dst.WriteFn = always("b/1", kinded(connectors.KindData, messages.CodeValueRange, "bad"))
		require.Equal(t, messages.RunFailed, w.run(t, nil).State) // run 2: b unfinished, c finished
		restore()
		require.Len(t, w.dst.Rows("c"), 200)

		w.dst.WriteFn = nil
		w.store = storetest.NewMemory("store-1")
		r := w.run(t, nil)
		require.Nil(t, r.Failure)
		require.Len(t, w.dst.Rows("c"), 200, "run 2 has finished c already")
	})
}

// A run over some streams ends the record of one that left others unfinished. What is
// unfinished goes on all the same, and a crash on the way doubles nothing.
func TestUnfinishedRunGoesOnAfterARunOverOtherStreams(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("a", 200), conntest.Numbers("b", 2_000), conntest.Numbers("c", 10))
		w.spec.Resources.Tasks = 4
		restore := w.only("a", "b")
		w.dst.WriteFn = conntest.Delay(time.Second)
		drain := func(n *node.Node) { time.Sleep(1500 * time.Millisecond); n.Drain("test") }
		require.Equal(t, messages.RunDrained, w.run(t, drain).State)
		restore()
		restore = w.only("c")
		require.Equal(t, messages.RunCompleted, w.run(t, nil).State)
		restore()
		restore = w.only("a", "b")

		n := node.Start(node.Options{})
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(5*time.Second, cancel)
		require.Equal(t, messages.RunDrained, n.Run(ctx, w.spec, w.store).State)
		n.Stop()
		time.Sleep(2 * time.Second)
		require.True(t, w.dst.Finished("p", messages.LoadID{Name: "a", Number: 1}))
		require.False(t, w.dst.Finished("p", messages.LoadID{Name: "b", Number: 1}))

		w.dst.WriteFn = nil
		require.Nil(t, w.run(t, nil).Failure)
		w.requireSame(t)
		restore()
	})
}

// twins gives two parts one name.
type twins struct{ *conntest.MemorySource }

type twinScan struct{ connectors.Scan }

func (s twins) Scan(ctx context.Context, r connectors.ScanRequest) (connectors.Scan, error) {
	scan, err := s.MemorySource.Scan(ctx, r)
	return twinScan{scan}, err
}

func (s twinScan) Plan() connectors.Plan {
	p := s.Scan.Plan()
	p.Loads[0].Parts[1].ID = p.Loads[0].Parts[0].ID
	return p
}

func TestTwoPartsOfOneNameAreRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 100))
		w.spec.Source = twins{w.src}
		r := w.run(t, nil)
		require.Equal(t, messages.CodeInternal, r.Failure.Code)
		require.Contains(t, r.Failure.Why, "orders/0")
		require.Empty(t, w.dst.Rows("orders"))
	})
}

// A full refresh starts a stream over once per run, not once per go of the run.
func TestFullRefreshIsNotDoneTwiceByOneRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("fast", 100), conntest.Numbers("slow", 2_000))
		w.spec.Resources.Tasks = 4
		for i := range w.spec.Streams {
			w.spec.Streams[i].Fresh = true
		}
		lost := kinded(connectors.KindScanLost, messages.CodeSourceGap, "the snapshot is gone")
		var once atomic.Bool
		w.src.ReadFn = func(ctx context.Context, c conntest.Call) error {
			if strings.HasPrefix(string(c.Part), "slow") {
				if err := conntest.Delay(time.Second)(ctx, c); err != nil {
					return err
				}
				if w.dst.Finished("p", messages.LoadID{Name: "fast", Number: 1}) && once.CompareAndSwap(false, true) {
					return lost
				}
			}
			return nil
		}
		r := w.run(t, nil)
		require.True(t, once.Load())
		require.Nil(t, r.Failure)
		w.requireSame(t)

		r = w.run(t, nil) // asked for again, it appends a second copy
		require.Nil(t, r.Failure)
		require.Len(t, w.dst.Rows("fast"), 200)
	})
}

// closing counts sessions that were opened and closed.
type closing struct {
	*conntest.MemoryDestination
	open atomic.Int64
}

type closingSession struct {
	connectors.Session
	d *closing
}

func (d *closing) Open(ctx context.Context, r connectors.SessionRequest) (connectors.Session, error) {
	s, err := d.MemoryDestination.Open(context.WithoutCancel(ctx), r) // too late to turn back
	if err != nil {
		return nil, err
	}
	d.open.Add(1)
	return &closingSession{Session: s, d: d}, nil
}

func (s *closingSession) Close(ctx context.Context) error {
	s.d.open.Add(-1)
	return s.Session.Close(ctx)
}

// A session that arrives while the pipeline is being stopped is closed all the same.
func TestStopWhileTheDestinationOpensLeaksNoSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 100))
		d := &closing{MemoryDestination: w.dst}
		w.spec.Destination = d
		w.dst.OpenFn = func(context.Context, conntest.Call) error { time.Sleep(time.Second); return nil }
		n := node.Start(node.Options{})
		for range 100 { // what arrives first, the session or the end of the last child, is chance
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(time.Second/2, cancel)
			r := n.Run(ctx, w.spec, w.store)
			require.Equal(t, messages.RunDrained, r.State)
			require.Zero(t, d.open.Load())
		}
		n.Stop()
		time.Sleep(2 * time.Second)
	})
}

// Stopping at once starts nothing new, although a slot becomes free meanwhile.
func TestStopAtOnceStartsNoFurtherTask(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 400), conntest.Numbers("users", 400))
		w.spec.Resources.Tasks = 1
		w.dst.WriteFn = conntest.Delay(time.Hour)
		ctx, cancel := context.WithCancel(context.Background())
		// The writer's close takes time: the failed attempt is leaving when the stop comes.
		w.src.ReadFn = conntest.Nth(2, func(context.Context, conntest.Call) error { return transient("read") })
		w.dst.CloseFn = func(context.Context, conntest.Call) error { time.Sleep(3 * time.Second); return nil }
		n := node.Start(node.Options{Observe: func(e messages.Event) {
			if e.Kind == messages.EventTaskRetry {
				time.AfterFunc(time.Second, cancel)
			}
			w.observe(e)
		}})
		within(t, time.Hour, func() { n.Run(ctx, w.spec, w.store) })
		n.Stop()
		time.Sleep(2 * time.Second)
		var started int
		for _, k := range w.kinds() {
			if k == messages.EventTaskStarted {
				started++
			}
		}
		require.Equal(t, 1, started)
	})
}

// A time-driven barrier without rows is not progress: a part that fails for ever
// must give up.
func TestEmptyCommitsAreNoProgress(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 100))
		w.spec.Resources.Tasks = 1
		w.spec.Resources.Interval.Every = time.Nanosecond // a barrier before each read
		w.src.OpenFn = conntest.Delay(time.Second)
		w.src.ReadFn = func(ctx context.Context, c conntest.Call) error {
			_ = conntest.Delay(time.Minute)(ctx, c)
			return transient("the origin hangs up")
		}
		var r messages.RunResult
		within(t, 24*time.Hour, func() { r = w.run(t, nil) })
		require.Equal(t, messages.RunFailed, r.State)
		require.Contains(t, r.Failure.Why, "hangs up")
	})
}

// More rows than an unfinished incremental load has are read by the same run.
func TestMoreIsReadByTheSameRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 1000))
		w.spec.Streams[0].Sync = connectors.SyncIncremental
		w.dst.WriteFn = conntest.Delay(time.Second)
		r := w.run(t, func(n *node.Node) { time.Sleep(5 * time.Second); n.Drain("test") })
		require.Equal(t, messages.RunDrained, r.State)
		w.src.Append("orders", conntest.NumberRows(1001, 100)...)
		w.dst.WriteFn = nil
		r = w.run(t, nil)
		require.Nil(t, r.Failure)
		require.Equal(t, messages.RunCompleted, r.State)
		w.requireSame(t)
	})
}

// The state store hears first what is forgotten, then what the destination has.
func TestForgettingComesBeforeWhatTheDestinationHas(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(connectors.ModeAppend, conntest.Numbers("orders", 100))
		require.Nil(t, w.run(t, nil).Failure)
		w.spec.Streams[0].Fresh = true
		var mu sync.Mutex
		var story []string
		w.store.SaveFn = func(_ context.Context, _ messages.PipelineID, _ messages.Epoch, u statestore.Update) storetest.Fate {
			mu.Lock()
			defer mu.Unlock()
			if len(u.Forget) > 0 {
				story = append(story, "forget")
			}
			for _, r := range u.Receipts {
				story = append(story, fmt.Sprintf("load %d", r.Version.Load))
			}
			return storetest.Fate{}
		}
		w.src.ScanFn = conntest.Fail(kinded(connectors.KindConfig, messages.CodeSourceMissing, "gone")) // nothing begins
		require.NotNil(t, w.run(t, nil).Failure)
		require.Equal(t, []string{"forget", "load 1", "load 1"}, story)
		require.Len(t, w.state(t).Receipts, 2, "K is a copy of D again")
	})
}

// Rows of two shapes or for two targets must not be mixed in one load.
func TestUnfinishedLoadDoesNotChangeItsShape(t *testing.T) {
	for name, edit := range map[string]func(w *world){
		"target": func(w *world) { w.spec.Streams[0].Target = "elsewhere" },
		"schema": func(w *world) { w.spec.Transforms = []run.Transform{{Transform: dropName{}, Name: "drop"}} },
	} {
		for _, mode := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeReplace, connectors.ModeUpsert} {
			t.Run(name+" of "+string(mode), func(t *testing.T) {
				bubble(t, func(t *testing.T) { testShape(t, mode, edit) })
			})
		}
	}
}

func testShape(t *testing.T, mode connectors.WriteMode, edit func(w *world)) {
	w := newWorld(mode, conntest.Numbers("orders", 2_000))
	w.dst.WriteFn = conntest.Delay(time.Second)
	r := w.run(t, func(n *node.Node) { time.Sleep(4 * time.Second); n.Drain("test") })
	require.Equal(t, messages.RunDrained, r.State)
	require.Positive(t, r.Streams[0].RowsWritten)
	w.dst.WriteFn = nil
	edit(w)
	r = w.run(t, nil)
	if mode == connectors.ModeAppend {
		require.Equal(t, messages.RunFailed, r.State, "half of the rows are there in the old shape")
		require.Equal(t, messages.CodeDocConflict, r.Failure.Code)
		require.Contains(t, r.Failure.Next, "--full-refresh")
		return
	}
	require.Nil(t, r.Failure)
	require.EqualValues(t, 2_000, r.Streams[0].RowsRead, "the load began again")
	require.Len(t, w.dst.Rows(w.spec.Streams[0].Target), 2_000)
}

// dropName drops the second column.
type dropName struct{ dropAll }

func (dropName) Schema(_ messages.StreamID, in *arrow.Schema) (*arrow.Schema, error) {
	return arrow.NewSchema(in.Fields()[:1], nil), nil
}

func (dropName) Open(context.Context, connectors.StageRequest) (connectors.Stage, error) {
	return dropName{}, nil
}

func (dropName) Apply(ctx context.Context, d messages.Data, out connectors.Outlet) error {
	b, ok := d.(messages.Batch)
	if !ok {
		return out(ctx, d)
	}
	defer b.Rows.Release()
	in := b.Rows.(messages.ArrowRows).Record //nolint:forcetypeassert // the memory source sends nothing else
	schema := arrow.NewSchema(in.Schema().Fields()[:1], nil)
	b.Rows = messages.ArrowRows{Record: array.NewRecordBatch(schema, in.Columns()[:1], in.NumRows())}
	return out(ctx, b)
}
