package duckdb

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
)

func sourceOf(t *testing.T, sql string) (*Source, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.duckdb")
	sqlFile(t, path, sql)
	s, err := NewSource(SourceConfig{Path: path})
	require.NoError(t, err)
	return s, path
}

// readAll scans one stream with one part per splits and reads it whole.
func readAll(t *testing.T, s *Source, spec connectors.StreamSpec, splits int) ([]string, error) {
	t.Helper()
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	sc, err := s.Scan(t.Context(), connectors.ScanRequest{Streams: []connectors.StreamSpec{spec}, Splits: splits})
	if err != nil {
		return nil, err
	}
	defer sc.Close(t.Context())
	var out []string
	for _, p := range sc.Plan().Loads[0].Parts {
		r, err := s.Open(t.Context(), connectors.ReadRequest{Part: p, Mem: mem, Limits: connectors.Limits{BatchRows: 5000, BatchBytes: 1 << 20, RowBytes: 1 << 20}})
		if err != nil {
			return nil, err
		}
		err = r.Read(t.Context(), &conntest.Emitter{Part: p.ID, Sink: func(_ context.Context, it messages.Item) error {
			if b, ok := it.(messages.Batch); ok {
				defer b.Rows.Release()
				out = append(out, conntest.RowTexts(b.Rows.(messages.ArrowRows).Record)...)
			}
			return nil
		}})
		require.NoError(t, r.Close(context.Background()))
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

func TestDiscover(t *testing.T) {
	s, _ := sourceOf(t, `CREATE TABLE users (id INTEGER PRIMARY KEY, note VARCHAR NOT NULL, created_at TIMESTAMP, updated_at TIMESTAMPTZ); INSERT INTO users VALUES (1, 'x', NULL, NULL);
		CREATE VIEW names AS SELECT note FROM users; CREATE SCHEMA other; CREATE TABLE other.t (a INTEGER, b INTEGER, PRIMARY KEY (b, a));
		CREATE SCHEMA _rapidbyte; CREATE TABLE _rapidbyte.owner (x INTEGER)`)
	found, err := s.Discover(t.Context(), nil)
	require.NoError(t, err)
	var names []string
	for _, d := range found {
		names = append(names, string(d.Stream))
	}
	require.Equal(t, []string{"names", "users", "other.t"}, names)
	require.Equal(t, []string{"id"}, found[1].Key)
	require.Equal(t, []string{"updated_at", "created_at", "id"}, found[1].Cursors)
	require.Equal(t, int64(1), found[1].Rows)
	require.False(t, found[1].Schema.Field(0).Nullable)
	require.False(t, found[1].Schema.Field(1).Nullable)
	require.True(t, found[1].Schema.Field(2).Nullable)
	require.True(t, found[0].Schema.Field(0).Nullable)
	require.Equal(t, []string{"b", "a"}, found[2].Key)

	in, err := NewSource(SourceConfig{Path: s.cfg.Path, Schema: "other"})
	require.NoError(t, err)
	found, err = in.Discover(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Equal(t, messages.StreamID("t"), found[0].Stream)
}

func TestReadWhatTheDocumentAsksFor(t *testing.T) {
	s, _ := sourceOf(t, `CREATE TABLE "or.ders" (id INTEGER, n VARCHAR, x DOUBLE); INSERT INTO "or.ders" SELECT i, 'n' || i, i / 2 FROM range(10) r(i);
		CREATE VIEW v AS SELECT id, n FROM "or.ders" WHERE id < 3; CREATE SCHEMA "Ö"; CREATE TABLE "Ö"."t""t" (a INTEGER); INSERT INTO "Ö"."t""t" VALUES (1);
		CREATE TABLE shadow (rowid VARCHAR, a INTEGER); INSERT INTO shadow VALUES ('z', 1), ('y', 2)`)
	for _, c := range []struct {
		spec connectors.StreamSpec
		want []string
	}{
		{connectors.StreamSpec{Stream: "or.ders", Columns: []string{"N", "id"}, Filter: "id >= 8 -- the last ones"}, []string{"n8|8", "n9|9"}},
		{connectors.StreamSpec{Stream: "main.or.ders", Filter: "id = 1 OR id = 2", Columns: []string{"id"}}, []string{"1", "2"}},
		{connectors.StreamSpec{Stream: "or.ders", Filter: "false"}, nil},
		{connectors.StreamSpec{Stream: "v"}, []string{"0|n0", "1|n1", "2|n2"}},
		{connectors.StreamSpec{Stream: `Ö.t"t`}, []string{"1"}},
		{connectors.StreamSpec{Stream: "shadow"}, []string{"z|1", "y|2"}},
	} {
		got, err := readAll(t, s, c.spec, 3)
		require.NoError(t, err)
		require.Equal(t, c.want, got, c.spec)
	}
}

func TestWhatCannotBeRead(t *testing.T) {
	s, path := sourceOf(t, `CREATE TABLE orders (id INTEGER); CREATE TABLE users (id INTEGER); INSERT INTO users VALUES (1);
		CREATE TABLE huge (h HUGEINT); INSERT INTO huge VALUES (170141183460469231731687303715884105727)`)
	for _, c := range []struct {
		spec connectors.StreamSpec
		kind connectors.Kind
		code messages.Code
		says string
	}{
		{connectors.StreamSpec{Stream: "oders"}, connectors.KindConfig, messages.CodeStreamUnknown, "nearest: orders"},
		{connectors.StreamSpec{Stream: "_rapidbyte.owner"}, connectors.KindConfig, messages.CodeStreamUnknown, ""},
		{connectors.StreamSpec{Stream: "users", Columns: []string{"nope"}}, connectors.KindSchema, messages.CodeSchemaColumn, "nope"},
		{connectors.StreamSpec{Stream: "users", Columns: []string{"id", "ID"}}, connectors.KindConfig, messages.CodeDocConflict, "twice"},
		{connectors.StreamSpec{Stream: "users", Filter: "nope > 1"}, connectors.KindConfig, messages.CodeDocValue, "nope"},
		{connectors.StreamSpec{Stream: "users", Filter: "id = ?"}, connectors.KindConfig, messages.CodeDocValue, "parameters"},
		{connectors.StreamSpec{Stream: "users", Filter: "true); DROP TABLE users; --"}, connectors.KindConfig, messages.CodeDocValue, "syntax error"},
		{connectors.StreamSpec{Stream: "users", Filter: "id IN (SELECT length(content) FROM read_text('/etc/hostname'))"}, connectors.KindConfig, messages.CodeDocValue, "disabled"},
		{connectors.StreamSpec{Stream: "users", Sync: connectors.SyncCDC}, connectors.KindConfig, messages.CodeNotAvailable, "full_refresh"},
		{connectors.StreamSpec{Stream: "huge"}, connectors.KindData, messages.CodeRowBroken, "more than 38 digits"},
		{connectors.StreamSpec{Stream: "users", Filter: "error('x') IS NULL"}, connectors.KindTransient, messages.CodeSource, ""},
	} {
		_, err := readAll(t, s, c.spec, 1)
		if c.kind == connectors.KindTransient {
			require.Error(t, err)
			continue
		}
		e := requireError(t, err, c.kind, c.code, c.says)
		require.Equal(t, c.spec.Stream, e.Place.Stream)
		found, err := s.Check(t.Context(), []connectors.StreamSpec{c.spec})
		require.NoError(t, err)
		require.Equal(t, c.kind != connectors.KindData, len(found) == 1, "check predicts it")
	}
	dir := filepath.Dir(path)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "junk"), []byte(strings.Repeat("junk", 5000)), 0o600))
	for name, code := range map[string]messages.Code{"none": messages.CodeSourceMissing, "junk": messages.CodeFileDamaged, ".": messages.CodeSourceMissing} {
		s, err := NewSource(SourceConfig{Path: filepath.Join(dir, name)})
		require.NoError(t, err)
		_, err = s.Discover(t.Context(), nil)
		requireError(t, err, connectors.KindConfig, code)
		found, err := s.Check(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, code, found[0].Code)
		require.NoFileExists(t, filepath.Join(dir, "none"))
	}
}

func TestFileThatThisProcessWrites(t *testing.T) {
	h := newHarness(t)
	s, err := NewSource(SourceConfig{Path: h.path})
	require.NoError(t, err)
	_, err = s.Discover(t.Context(), nil)
	requireError(t, err, connectors.KindConfig, messages.CodeDocConflict)
}

func TestOddTypesAreReadAsText(t *testing.T) {
	s, _ := sourceOf(t, `CREATE TABLE t (e ENUM('a','b'), b BIT, z TIMETZ, u UHUGEINT, i INTERVAL, h HUGEINT, j JSON, id UUID, el ENUM('x')[], un UNION(a INTEGER, s VARCHAR));
		INSERT INTO t VALUES ('b', '101', '12:00:00+02', 340282366920938463463374607431768211455, INTERVAL 3 DAY, -5, '{"a": 1}', 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6', ['x'], 7)`)
	got, err := readAll(t, s, connectors.StreamSpec{Stream: "t"}, 1)
	require.NoError(t, err)
	require.Equal(t, []string{`b|101|12:00:00+02|340282366920938463463374607431768211455|3 days|-5|{"a": 1}|f81d4fae-7dec-11d0-a765-00a0c91e6bf6|[x]|7`}, got)
	found, err := s.Discover(t.Context(), nil)
	require.NoError(t, err)
	for name, want := range map[string]string{"j": "json", "id": "uuid"} {
		f, _ := found[0].Schema.FieldsByName(name)
		meaning, _ := f[0].Metadata.GetValue(typeKey)
		require.Equal(t, want, meaning)
	}
}

func TestRealSplits(t *testing.T) {
	s, _ := sourceOf(t, "CREATE TABLE big AS SELECT i AS id, 'row ' || i AS name FROM range(600000) r(i); DELETE FROM big WHERE id % 3 = 0")
	sc, err := s.Scan(t.Context(), connectors.ScanRequest{Streams: []connectors.StreamSpec{{Stream: "big"}}, Splits: 8})
	require.NoError(t, err)
	require.Len(t, sc.Plan().Loads[0].Parts, 3, "a part has at least a row group")
	got, err := readAll(t, s, connectors.StreamSpec{Stream: "big"}, 8)
	require.NoError(t, err)
	require.Len(t, got, 400_000)
	seen := map[string]bool{}
	for _, r := range got {
		require.False(t, seen[r])
		seen[r] = true
	}
}

func TestChangedFileIsNoticed(t *testing.T) {
	s, path := sourceOf(t, "CREATE TABLE t AS SELECT i FROM range(20) r(i)")
	s.splitRows = 5
	spec := []connectors.StreamSpec{{Stream: "t"}}
	sc, err := s.Scan(t.Context(), connectors.ScanRequest{Streams: spec, Splits: 4})
	require.NoError(t, err)
	plan := sc.Plan()
	part := plan.Loads[0].Parts[0]
	again := func() connectors.Load {
		t.Helper()
		sc, err := s.Scan(t.Context(), connectors.ScanRequest{Streams: spec, Splits: 1, Previous: connectors.Recovered{
			Loads: []connectors.LoadStatus{{ID: plan.Loads[0].ID}}, Parts: plan.Loads[0].Parts,
		}})
		require.NoError(t, err)
		return sc.Plan().Loads[0]
	}
	require.Equal(t, connectors.ContinueExact, again().Continuity)
	require.Len(t, again().Parts, 4)

	require.NoError(t, os.Chtimes(path, time.Now(), time.Now().Add(time.Second)))
	_, err = s.Open(t.Context(), connectors.ReadRequest{Part: part})
	requireError(t, err, connectors.KindScanLost, messages.CodeSourceChanged)
	require.Equal(t, connectors.ContinueDrift, again().Continuity)

	sqlFile(t, path, "INSERT INTO t VALUES (100)")
	drifted := again()
	require.Equal(t, connectors.ContinueDrift, drifted.Continuity)
	require.Len(t, drifted.Parts, 4)
	require.Contains(t, string(drifted.Parts[3].Split), `"to":21`)
	r, err := s.Open(t.Context(), connectors.ReadRequest{Part: drifted.Parts[3]})
	require.NoError(t, err)
	require.NoError(t, r.Close(t.Context()))

	sqlFile(t, path, "ALTER TABLE t ADD COLUMN x INTEGER")
	require.Equal(t, connectors.ContinueLost, again().Continuity)
}

func TestRowOverTheLimitIsNamed(t *testing.T) {
	s, _ := sourceOf(t, "CREATE TABLE t AS SELECT repeat('x', CASE WHEN i = 7 THEN 2000000 ELSE 1 END) AS s FROM range(20) r(i)")
	_, err := readAll(t, s, connectors.StreamSpec{Stream: "t"}, 1)
	e := requireError(t, err, connectors.KindData, messages.CodeRowTooLarge)
	require.Equal(t, messages.StreamID("t"), e.Place.Stream)
}

func TestDatabaseWithUnmergedLogIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.duckdb")
	said := killedChild(t, connectors.ModeAppend, path, 1)
	require.FileExists(t, path+".wal", "the child was killed: %s", said)
	s, err := NewSource(SourceConfig{Path: path})
	require.NoError(t, err)
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	got, err := readAll(t, s, connectors.StreamSpec{Stream: "orders"}, 1)
	require.NoError(t, err)
	require.NotEmpty(t, got)
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after, "reading changes nothing")
	require.FileExists(t, path+".wal")
}
