package overhead_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/actors/run"
	"rapidbyte.io/node/actors/source"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/file"
	"rapidbyte.io/node/connectors/generator"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/node"
	"rapidbyte.io/node/statestore/bbolt"
)

const (
	batchRows    = 4096
	barrierEvery = 64 // batches
	window       = 16 // batches
)

// batch returns 4,096 rows of an int64 and a float64 column. The caller owns it.
func batch() arrow.RecordBatch {
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "v", Type: arrow.PrimitiveTypes.Float64},
	}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for i := range batchRows {
		b.Field(0).(*array.Int64Builder).Append(int64(i))
		b.Field(1).(*array.Float64Builder).Append(float64(i))
	}
	return b.NewRecordBatch()
}

// repeat is a source that emits one batch n times, a barrier behind every 64.
type repeat struct {
	record arrow.RecordBatch
	n      int
}

func (repeat) Check(context.Context, []connectors.StreamSpec) ([]connectors.Finding, error) {
	return nil, nil
}

func (repeat) Discover(context.Context, []connectors.StreamSpec) ([]connectors.Discovered, error) {
	return nil, nil
}

type scan struct{ plan connectors.Plan }

func (s scan) Plan() connectors.Plan     { return s.plan }
func (scan) Close(context.Context) error { return nil }

func (r repeat) Scan(_ context.Context, q connectors.ScanRequest) (connectors.Scan, error) {
	id := messages.LoadID{Name: "s", Number: 1}
	for _, l := range q.Previous.Loads {
		id.Number = l.ID.Number + 1
	}
	return scan{connectors.Plan{Identity: "repeat", Loads: []connectors.Load{{
		ID: id, Streams: []connectors.StreamPlan{{Stream: "s", Schema: r.record.Schema()}},
		Parts: []connectors.Part{{ID: "s/0", Load: id, Streams: []messages.StreamID{"s"}, Split: []byte("{}")}},
	}}}}, nil
}

func (r repeat) Open(context.Context, connectors.ReadRequest) (connectors.Reader, error) {
	return r, nil
}
func (repeat) Close(context.Context) error { return nil }

func (r repeat) Read(ctx context.Context, out connectors.Emitter) error {
	at := func(i int) messages.Position { return messages.Position{At: messages.Int64Cursor(int64(i))} }
	for i := range r.n {
		r.record.Retain()
		if err := out.Emit(ctx, messages.Batch{Stream: "s", Version: 1, Rows: messages.ArrowRows{Record: r.record}}); err != nil {
			return err
		}
		if (i+1)%barrierEvery == 0 {
			if err := out.Barrier(ctx, messages.BarrierPeriodic, at(i+1)); err != nil {
				return err
			}
		}
	}
	return out.Barrier(ctx, messages.BarrierEnd, at(r.n))
}

// pass is a transform that hands on what it gets.
type pass struct{}

func (pass) Schema(_ messages.StreamID, in *arrow.Schema) (*arrow.Schema, error) { return in, nil }
func (pass) Open(context.Context, connectors.StageRequest) (connectors.Stage, error) {
	return pass{}, nil
}

func (pass) Apply(ctx context.Context, d messages.Data, out connectors.Outlet) error {
	return out(ctx, d)
}
func (pass) Flush(context.Context, connectors.Outlet) error { return nil }
func (pass) Close(context.Context) error                    { return nil }

func spec(src connectors.Source, dst connectors.Destination) run.Spec {
	return run.Spec{
		Pipeline: "bench", Source: src, Destination: dst,
		Streams: []run.Stream{{
			StreamSpec: connectors.StreamSpec{Stream: "s", Sync: connectors.SyncFullRefresh, Mode: connectors.ModeAppend}, Target: "s",
		}},
		Resources: run.Resources{MemoryBytes: 256 << 20, BatchesMax: window, Tasks: 1, Interval: source.Interval{Bytes: 64 << 20}},
	}
}

// through runs s once in a node of its own and checks what arrived.
func through(b *testing.B, s run.Spec, rows int64) {
	b.Helper()
	store, err := bbolt.Open(b.Context(), bbolt.Config{Path: b.TempDir() + "/state.db"})
	require.NoError(b, err)
	defer store.Close()
	n := node.Start(node.Options{})
	defer n.Stop()
	b.ResetTimer()
	start := time.Now()
	r := n.Run(context.Background(), s, store)
	took := time.Since(start)
	b.StopTimer()
	require.Nil(b, r.Failure)
	require.Equal(b, rows, r.Streams[0].RowsWritten, "every row arrived once")
	report(b, took, int(rows/batchRows))
}

func report(b *testing.B, took time.Duration, batches int) {
	b.Helper()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(took.Nanoseconds())/float64(batches), "ns/batch")
	b.ReportMetric(float64(batches)/took.Seconds(), "batches/s")
}

// count returns how many batches to send: enough to drown start and end.
func count(b *testing.B) int { return max(b.N, 4096) }

func BenchmarkActors(b *testing.B) {
	for _, transforms := range []int{0, 1, 2} {
		b.Run(fmt.Sprintf("transforms=%d", transforms), func(b *testing.B) {
			record, n := batch(), count(b)
			defer record.Release()
			hole, err := generator.NewDestination(generator.DestinationConfig{})
			require.NoError(b, err)
			s := spec(repeat{record: record, n: n}, hole)
			for range transforms {
				s.Transforms = append(s.Transforms, run.Transform{Transform: pass{}, Name: "pass"})
			}
			b.ReportAllocs()
			through(b, s, int64(n)*batchRows)
		})
	}
}

// BenchmarkChannels moves the same batches through as many goroutines as the actors
// have workers, over channels of the same window, with an ack per barrier.
func BenchmarkChannels(b *testing.B) {
	for _, transforms := range []int{0, 1, 2} {
		b.Run(fmt.Sprintf("transforms=%d", transforms), func(b *testing.B) {
			record, n := batch(), count(b)
			defer record.Release()
			type item struct {
				record arrow.RecordBatch
				seq    int // of a barrier
			}
			next := func(in <-chan item) <-chan item {
				out := make(chan item, window)
				go func() {
					defer close(out)
					for m := range in {
						out <- m
					}
				}()
				return out
			}
			b.ReportAllocs()
			b.ResetTimer()
			start := time.Now()
			head := make(chan item, window)
			go func() {
				defer close(head)
				for i := range n {
					record.Retain()
					head <- item{record: record}
					if (i+1)%barrierEvery == 0 {
						head <- item{seq: i + 1}
					}
				}
			}()
			var tail <-chan item = head
			for range transforms {
				tail = next(tail)
			}
			acks, rows := make(chan int, window), int64(0)
			done := make(chan struct{})
			go func() {
				defer close(done)
				for range acks {
				}
			}()
			for m := range tail {
				if m.record == nil {
					acks <- m.seq
					continue
				}
				rows += m.record.NumRows()
				m.record.Release()
			}
			close(acks)
			<-done
			took := time.Since(start)
			b.StopTimer()
			require.Equal(b, int64(n)*batchRows, rows)
			report(b, took, n)
		})
	}
}

// BenchmarkParquet is the work beside which the overhead stands: 4,096-row batches of
// six columns from the generator into snappy Parquet, through the whole engine.
func BenchmarkParquet(b *testing.B) {
	n := max(b.N, 512)
	src, err := generator.NewSource(generator.SourceConfig{Rows: int64(n) * batchRows, Seed: 1})
	require.NoError(b, err)
	dst, err := file.NewDestination(file.DestinationConfig{Path: b.TempDir(), Format: "parquet"})
	require.NoError(b, err)
	b.ReportAllocs()
	through(b, spec(src, dst), int64(n)*batchRows)
}
