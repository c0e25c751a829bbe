package generator_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/connectors/generator"
	"rapidbyte.io/node/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// everyKind has one column of each kind, two of them with missing values.
func everyKind() []generator.ColumnConfig {
	return []generator.ColumnConfig{
		{Name: "id", Kind: generator.KindID},
		{Name: "int", Kind: generator.KindInt, Nulls: 0.5},
		{Name: "float", Kind: generator.KindFloat},
		{Name: "bool", Kind: generator.KindBool, Nulls: 0.25},
		{Name: "text", Kind: generator.KindText, Bytes: 13},
		{Name: "bytes", Kind: generator.KindBytes, Bytes: 20, Nulls: 1},
		{Name: "timestamp", Kind: generator.KindTimestamp},
		{Name: "date", Kind: generator.KindDate},
		{Name: "uuid", Kind: generator.KindUUID},
		{Name: "decimal", Kind: generator.KindDecimal},
	}
}

func newSource(t require.TestingT, cfg generator.SourceConfig) *generator.Source {
	s, err := generator.NewSource(cfg)
	require.NoError(t, err)
	return s
}

// read reads rows [from, rows) of a stream in batches of n.
func read(t *testing.T, s connectors.Source, stream messages.StreamID, n int64, columns ...string) []string {
	t.Helper()
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	scan, err := s.Scan(t.Context(), connectors.ScanRequest{Streams: []connectors.StreamSpec{{Stream: stream, Columns: columns}}, Splits: 1})
	require.NoError(t, err)
	part := scan.Plan().Loads[0].Parts[0]
	r, err := s.Open(t.Context(), connectors.ReadRequest{Part: part, Mem: mem, Limits: connectors.Limits{BatchRows: n}})
	require.NoError(t, err)
	var rows []string
	e := &conntest.Emitter{Part: part.ID, Sink: func(_ context.Context, it messages.Item) error {
		if b, ok := it.(messages.Batch); ok {
			defer b.Rows.Release()
			a, _ := b.Rows.(messages.ArrowRows)
			rows = append(rows, conntest.RowTexts(a.Record)...)
		}
		return nil
	}}
	require.NoError(t, r.Read(t.Context(), e))
	require.NoError(t, e.Finished())
	require.Empty(t, e.Broken())
	return rows
}

func TestSourceConforms(t *testing.T) {
	for name, sync := range map[string]connectors.SyncMode{"full refresh": connectors.SyncFullRefresh, "incremental": connectors.SyncIncremental} {
		t.Run(name, func(t *testing.T) {
			conntest.Source(t, conntest.SourceFactory{
				Incremental: sync == connectors.SyncIncremental, AnyStream: true,
				New: func(conntest.T) conntest.Origin {
					cfg := generator.SourceConfig{Rows: 37, Seed: 7, Columns: everyKind()}
					return conntest.Origin{
						Source: newSource(t, cfg), Reopen: func(conntest.T) connectors.Source { return newSource(t, cfg) },
						Streams: conntest.Specs(sync, connectors.ModeAppend, "orders", "customers"),
						Rows: func(conntest.T) map[messages.StreamID][]string {
							return map[messages.StreamID][]string{
								"orders":    read(t, newSource(t, cfg), "orders", 1000),
								"customers": read(t, newSource(t, cfg), "customers", 1000),
							}
						},
					}
				},
			})
		})
	}
}

func TestBlackholeConforms(t *testing.T) {
	conntest.Destination(t, conntest.DestinationFactory{
		Modes: []connectors.WriteMode{connectors.ModeAppend, connectors.ModeUpsert, connectors.ModeReplace}, Forgets: true,
		New: func(conntest.T) conntest.Target {
			d, err := generator.NewDestination(generator.DestinationConfig{})
			require.NoError(t, err)
			return conntest.Target{Destination: d}
		},
	})
}

func TestRowsDependOnSeedStreamAndRowOnly(t *testing.T) {
	cfg := generator.SourceConfig{Rows: 100, Seed: 1, Columns: everyKind()}
	want := read(t, newSource(t, cfg), "orders", 1000)
	require.Equal(t, want, read(t, newSource(t, cfg), "orders", 3), "other batches, same rows")
	longer := cfg
	longer.Rows = 500
	require.Equal(t, want, read(t, newSource(t, longer), "orders", 64)[:100], "more rows do not change the first ones")

	other := cfg
	other.Seed = 2
	for name, got := range map[string][]string{
		"seed": read(t, newSource(t, other), "orders", 1000), "stream": read(t, newSource(t, cfg), "Orders", 1000),
	} {
		same := 0
		for i := range got {
			if strings.SplitN(got[i], "|", 2)[1] == strings.SplitN(want[i], "|", 2)[1] {
				same++
			}
		}
		require.Zero(t, same, "another %s gives other rows", name)
	}
}

// The rows of a seed are a promise: examples and benchmarks compare them.
func TestRowsAreStable(t *testing.T) {
	cfg := generator.SourceConfig{Rows: 2, Seed: 42, Columns: everyKind()}
	require.Equal(t, goldenRows, read(t, newSource(t, cfg), "golden", 10))
}

func TestValuesAreOfTheirKind(t *testing.T) {
	const n = 20_000
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	s := newSource(t, generator.SourceConfig{Rows: n, Seed: 3, Columns: everyKind()})
	rows := read(t, s, "kinds", 4096)
	columns := make([]map[string]int, 10)
	for i := range columns {
		columns[i] = make(map[string]int)
	}
	for _, r := range rows {
		for i, v := range strings.Split(r, "|") {
			columns[i][v]++
		}
	}
	require.Len(t, columns[0], n, "ids are unique")
	require.InDelta(t, 0.5, float64(columns[1][conntest.Null])/n, 0.02, "share of missing values")
	require.Greater(t, len(columns[2]), n-10, "floats differ")
	require.InDelta(t, 0.25, float64(columns[3][conntest.Null])/n, 0.02)
	require.InDelta(t, 1, float64(columns[3]["true"])/float64(columns[3]["false"]), 0.1, "as many true as false")
	require.Equal(t, map[string]int{conntest.Null: n}, columns[5], "all values are missing")
	require.Greater(t, len(columns[7]), 8000, "days spread")
	require.Len(t, columns[8], n, "uuids are unique")
	for v := range columns[4] {
		require.Regexp(t, `^[a-p]{13}$`, v)
	}
	for v := range columns[6] {
		require.Regexp(t, `^202[0-4]-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$`, v)
	}
	for v := range columns[8] {
		require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, v)
	}
	for v := range columns[9] {
		require.Regexp(t, `^-?\d{1,8}(\.\d{1,2})?$`, v)
	}
}

func TestProjectionKeepsValues(t *testing.T) {
	s := newSource(t, generator.SourceConfig{Rows: 5, Seed: 1, Columns: everyKind()})
	all, some := read(t, s, "orders", 10), read(t, s, "orders", 10, "date", "id")
	for i, row := range all {
		v := strings.Split(row, "|")
		require.Equal(t, v[7]+"|"+v[0], some[i])
	}
	_, err := s.Scan(t.Context(), connectors.ScanRequest{Streams: []connectors.StreamSpec{{Stream: "orders", Columns: []string{"nope"}}}, Splits: 1})
	require.Equal(t, connectors.KindConfig, connectors.KindOf(err))
	require.ErrorContains(t, err, "nope")
}

func TestUnfinishedLoadOfAnotherConfigurationIsLost(t *testing.T) {
	specs := conntest.Specs(connectors.SyncFullRefresh, connectors.ModeAppend, "orders")
	cfg := generator.SourceConfig{Rows: 50, Seed: 1}
	scan, err := newSource(t, cfg).Scan(t.Context(), connectors.ScanRequest{Streams: specs, Splits: 2})
	require.NoError(t, err)
	l := scan.Plan().Loads[0]
	previous := connectors.Recovered{Loads: []connectors.LoadStatus{{ID: l.ID, History: l.History}}, Parts: l.Parts}
	continuity := func(cfg generator.SourceConfig) connectors.Continuity {
		scan, err := newSource(t, cfg).Scan(t.Context(), connectors.ScanRequest{Streams: specs, Splits: 2, Previous: previous})
		require.NoError(t, err)
		return scan.Plan().Loads[0].Continuity
	}
	require.Equal(t, connectors.ContinueExact, continuity(cfg))
	cfg.Seed = 2
	require.Equal(t, connectors.ContinueLost, continuity(cfg))
	_, err = newSource(t, cfg).Open(t.Context(), connectors.ReadRequest{Part: l.Parts[0], Mem: memory.DefaultAllocator})
	require.ErrorContains(t, err, "another configuration")
}

func TestIncrementalReadsOnlyRowsThatWereAdded(t *testing.T) {
	d := &conntest.MemoryDestination{}
	run := conntest.Run{
		Destination: d, Streams: conntest.Specs(connectors.SyncIncremental, connectors.ModeAppend, "orders"), Splits: 3, Every: 5,
	}
	for epoch, rows := range []int64{20, 20, 50} {
		run.Epoch, run.Source = messages.Epoch(epoch+1), newSource(t, generator.SourceConfig{Rows: rows, Seed: 1})
		_, err := conntest.Drive(t.Context(), run)
		require.NoError(t, err)
		require.ElementsMatch(t, read(t, run.Source, "orders", 100), d.Rows("orders"))
	}
}

func TestRowsPerSecondSlowsATask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started := time.Now()
		rows := read(t, newSource(t, generator.SourceConfig{Rows: 1000, Seed: 1, RowsPerSecond: 100}), "orders", 5000)
		require.Len(t, rows, 1000)
		require.InDelta(t, 10, time.Since(started).Seconds(), 0.5)
	})
}

func TestRowsPerSecondDoesNotDelayCancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(t, generator.SourceConfig{Rows: 1000, Seed: 1, RowsPerSecond: 1})
		scan, err := s.Scan(t.Context(), connectors.ScanRequest{Streams: []connectors.StreamSpec{{Stream: "slow"}}, Splits: 1})
		require.NoError(t, err)
		r, err := s.Open(t.Context(), connectors.ReadRequest{Part: scan.Plan().Loads[0].Parts[0], Mem: memory.DefaultAllocator})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		started := time.Now()
		err = r.Read(ctx, &conntest.Emitter{Sink: func(_ context.Context, it messages.Item) error {
			if b, ok := it.(messages.Batch); ok {
				conntest.Release(b)
			}
			return nil
		}})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 1500*time.Millisecond, time.Since(started))
	})
}

func TestBlackholeDelaysAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := generator.NewDestination(generator.DestinationConfig{WriteDelay: "5ms", CommitDelay: "1s"})
		require.NoError(t, err)
		require.True(t, d.Forgets())
		started := time.Now()
		out, err := conntest.Drive(t.Context(), conntest.Run{
			Source: newSource(t, generator.SourceConfig{Rows: 100, Seed: 1}), Destination: d,
			Streams: conntest.Specs(connectors.SyncFullRefresh, connectors.ModeAppend, "orders"),
			Limits:  connectors.Limits{BatchRows: 10}, Every: 50,
		})
		require.NoError(t, err)
		require.Equal(t, 2, out.Commits)
		require.Equal(t, 2*time.Second+50*time.Millisecond, time.Since(started))
		rows, bytes := d.Totals()
		require.Equal(t, int64(100), rows)
		require.Greater(t, bytes, int64(100*(8+12+16+8)))
	})
}

func TestProblemsAreReportedAllAtOnce(t *testing.T) {
	cfg := generator.SourceConfig{Rows: -1, RowsPerSecond: -2, Columns: []generator.ColumnConfig{
		{Name: "a", Kind: "colour"},
		{Name: "a", Kind: generator.KindInt, Bytes: 5},
		{Kind: generator.KindText, Nulls: 2},
		{Name: "i", Kind: generator.KindID, Nulls: 0.5},
	}}
	var paths []string
	for _, p := range cfg.Problems() {
		paths = append(paths, p.Path)
	}
	require.Equal(t, []string{
		"rows", "rows_per_second", "columns[0].kind", "columns[1].name", "columns[1].bytes", "columns[2].name", "columns[2].nulls", "columns[3].nulls",
	}, paths)
	_, err := generator.NewSource(cfg)
	require.Equal(t, connectors.KindConfig, connectors.KindOf(err))
	require.Empty(t, generator.SourceConfig{}.Problems())

	bad := generator.DestinationConfig{WriteDelay: "fast", CommitDelay: "-1s"}
	require.Len(t, bad.Problems(), 2)
	_, err = generator.NewDestination(bad)
	require.ErrorContains(t, err, "duration such as")
}

func TestSettingsWithoutMeaningAreRefused(t *testing.T) {
	s := newSource(t, generator.SourceConfig{Rows: 1})
	specs := []connectors.StreamSpec{{}, {Stream: "a", Sync: connectors.SyncCDC}, {Stream: "b", Filter: "id > 1"}}
	found, err := s.Check(t.Context(), specs)
	require.NoError(t, err)
	require.Len(t, found, 3)
	for _, spec := range specs {
		_, err := s.Scan(t.Context(), connectors.ScanRequest{Streams: []connectors.StreamSpec{spec}, Splits: 1})
		require.Equal(t, connectors.KindConfig, connectors.KindOf(err))
	}
	streams, err := s.Discover(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, streams, 1)
	require.Equal(t, []string{"id"}, streams[0].Key)
}

func BenchmarkSource(b *testing.B) {
	for _, c := range []struct {
		name    string
		columns []generator.ColumnConfig
	}{
		{"fixed", []generator.ColumnConfig{{Name: "id", Kind: generator.KindID}, {Name: "a", Kind: generator.KindInt}, {Name: "b", Kind: generator.KindFloat}, {Name: "c", Kind: generator.KindTimestamp}}},
		{"default", nil},
		{"every kind", everyKind()},
		{"payload 1kb", []generator.ColumnConfig{{Name: "id", Kind: generator.KindID}, {Name: "p", Kind: generator.KindBytes}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := newSource(b, generator.SourceConfig{Rows: int64(b.N) * 8192, Seed: 1, Columns: c.columns})
			scan, err := s.Scan(b.Context(), connectors.ScanRequest{Streams: []connectors.StreamSpec{{Stream: "bench"}}, Splits: 1})
			require.NoError(b, err)
			r, err := s.Open(b.Context(), connectors.ReadRequest{
				Part: scan.Plan().Loads[0].Parts[0], Mem: memory.DefaultAllocator, Limits: connectors.Limits{BatchRows: 8192},
			})
			require.NoError(b, err)
			var size int64
			e := &conntest.Emitter{Sink: func(_ context.Context, it messages.Item) error {
				if batch, ok := it.(messages.Batch); ok {
					size += batch.Rows.Bytes()
					batch.Rows.Release()
				}
				return nil
			}}
			b.ReportAllocs()
			b.ResetTimer()
			require.NoError(b, r.Read(b.Context(), e))
			b.SetBytes(size / int64(b.N))
			b.ReportMetric(float64(b.N)*8192/b.Elapsed().Seconds()/1e6, "Mrows/s")
		})
	}
}

var goldenRows = []string{
	`1|603088401|734.6609507558082|true|iiihpnbbifidm|\N|2023-11-12T07:01:14.896094Z|2008-09-16|6a64064d-53d4-4604-8838-40f8eb348f7b|-4733771.24`,
	`2|\N|211.1917257108361|true|nnfhecboaejaf|\N|2020-12-24T22:13:24.982259Z|2019-09-21|a0ce0299-3074-4fd9-a4bc-e44f07ea6b22|-8828709.23`,
}
