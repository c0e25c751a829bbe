package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
)

// matrix is the chinook database and a schema of it for each case: what has landed is
// compared with the source row by row, in one statement.
type matrix struct {
	server *pgtest.Server
	cases  int
}

const chinook = "chinook"

// newMatrix loads the dump of examples/chinook.
func newMatrix(t *testing.T) *matrix {
	t.Helper()
	f, err := os.Open(filepath.Join(testdataDir, "../../../examples/chinook/data/chinook.sql.gz"))
	require.NoError(t, err)
	defer f.Close()
	text, err := gzip.NewReader(f)
	require.NoError(t, err)
	dump, err := io.ReadAll(text)
	require.NoError(t, err)
	m := &matrix{server: pgtest.Start(t, "fsync=off")}
	m.server.Exec(t, "postgres", "CREATE DATABASE "+chinook+" TEMPLATE template0 ENCODING 'UTF8'")
	m.server.Psql(t, chinook, bytes.NewReader(dump))
	t.Chdir(t.TempDir())
	return m
}

// pipeline is a document in pieces. Empty pieces are left out.
type pipeline struct {
	name        string // also of the schema at the destination
	source      string // use and config; empty: the database
	streams     string // as a list
	transforms  string
	destination string // use and config; empty: the database, in a schema of its own
	write       string // keys beside write_mode, one a line
	mode        string
	resources   string
}

// fresh is a pipeline that nobody has run.
func (m *matrix) fresh(mode, streams string) pipeline {
	m.cases++
	return pipeline{name: fmt.Sprintf("case_%d", m.cases), mode: mode, streams: streams}
}

// run writes the document and runs it; it must end with code.
func (m *matrix) run(t *testing.T, p pipeline, code int) runResult {
	t.Helper()
	login := fmt.Sprintf("host: 127.0.0.1, port: %d, user: %s, database: %s", m.server.Port(), m.server.User(), chinook)
	if p.source == "" {
		p.source = "use: postgres\n  config: {" + login + "}"
	}
	if p.destination == "" {
		p.destination = "use: postgres\n  config: {" + login + ", schema: " + p.name + "}"
	}
	text := "version: \"1.0\"\npipeline: " + p.name + "\nsource:\n  " + p.source + "\n  streams: [" + p.streams + "]\n"
	if p.transforms != "" {
		text += "transforms:\n" + p.transforms
	}
	text += "destination:\n  " + p.destination + "\n  write_mode: " + p.mode + "\n"
	for line := range strings.Lines(p.write) {
		text += "  " + strings.TrimSpace(line) + "\n"
	}
	if p.resources != "" {
		text += "resources: {" + p.resources + "}\n"
	}
	r := invoke(t, nil, "run", write(t, ".", p.name+".yaml", text), "-o", "json")
	require.Equal(t, code, r.code, "%s\n%s\n%s", text, r.stdout, r.stderr)
	var res runResult
	require.NoError(t, json.Unmarshal(r.envelope(t).Result, &res))
	return res
}

// same requires that a table of a case holds exactly the rows of a query, each times times.
func (m *matrix) same(t *testing.T, p pipeline, table, columns, query string, times int) {
	t.Helper()
	want := query + strings.Repeat(" UNION ALL "+query, times-1)
	got := "SELECT " + columns + " FROM " + p.name + "." + table
	for _, difference := range []string{
		"SELECT 'too many', * FROM ((" + got + ") EXCEPT ALL (" + want + ")) x LIMIT 5",
		"SELECT 'missing', * FROM ((" + want + ") EXCEPT ALL (" + got + ")) x LIMIT 5",
	} {
		require.Empty(t, m.server.Query(t, chinook, difference), table)
	}
	require.NotEqual(t, "0", m.one(t, "SELECT count(*) FROM "+p.name+"."+table), "it compares something")
}

func (m *matrix) sql(t *testing.T, sql string) {
	t.Helper()
	m.server.Exec(t, chinook, sql)
}

func (m *matrix) one(t *testing.T, sql string) string {
	t.Helper()
	return m.server.Query(t, chinook, sql)[0][0]
}

// Every combination that a user meets first, with the program, on a real database: what
// has landed equals what is expected, row by row, after each run.
func TestPGMatrix(t *testing.T) {
	m := newMatrix(t)
	t.Run("full refresh", m.fullRefresh)
	t.Run("incremental", m.incremental)
	t.Run("late rows", m.lateRows)
	t.Run("on_data_error", m.dataErrors)
	t.Run("schema evolution", m.drift)
	t.Run("transforms", m.transforms)
	t.Run("files", m.files)
}

// A knob changes how fast rows move, never which.
func (m *matrix) fullRefresh(t *testing.T) {
	knobs := []string{
		"", "passthrough: off", "passthrough: off, checkpoint_interval_rows: 500", "compression: lz4", "compression: zstd, autotune: {enabled: false}",
		"autotune: {enabled: true, parallelism: 3, partition_mode: range, flush_bytes: 4096}, checkpoint_interval_rows: 500",
	}
	tables := []string{"invoice", "track", "playlist_track"}
	for _, mode := range []string{"append", "replace", "upsert"} {
		for _, resources := range knobs {
			t.Run(mode+"/"+resources, func(t *testing.T) {
				p := m.fresh(mode, "{name: invoice}, {name: track}, {name: playlist_track}")
				p.resources = resources
				lane := messages.LanePassthrough
				if strings.Contains(resources, "passthrough: off") {
					lane = messages.LaneArrow
				}
				for _, s := range m.run(t, p, messages.ExitOK).Streams {
					require.Equal(t, lane, s.Lane, "%s %s", s.Stream, s.LaneReason)
				}
				for _, table := range tables {
					m.same(t, p, table, "*", "SELECT * FROM public."+table, 1)
				}
				times := 1
				if mode == "append" { // a second copy, which the keys would refuse
					times = 2
					for _, table := range tables {
						m.sql(t, "ALTER TABLE "+p.name+"."+table+" DROP CONSTRAINT "+table+"_pkey")
					}
				}
				m.run(t, p, messages.ExitOK)
				for _, table := range tables {
					m.same(t, p, table, "*", "SELECT * FROM public."+table, times)
				}
			})
		}
	}
}

// Three runs with inserts in between: ties with the last row that was read, and newer ones.
func (m *matrix) incremental(t *testing.T) {
	for _, mode := range []string{"append", "upsert"} {
		t.Run(mode, func(t *testing.T) {
			table := "ledger_" + mode
			m.sql(t, "CREATE TABLE "+table+" AS SELECT invoice_id AS id, invoice_date AS at, total FROM invoice; ALTER TABLE "+table+" ADD PRIMARY KEY (id)")
			p := m.fresh(mode, "{name: "+table+", sync_mode: incremental, cursor_field: at, tie_breaker_field: id}")
			all := "SELECT id, at, total FROM public." + table
			res := m.run(t, p, messages.ExitOK)
			require.EqualValues(t, 412, res.Streams[0].RowsWritten)
			m.same(t, p, table, "id, at, total", all, 1)
			for _, rows := range []int64{40, 3} {
				m.sql(t, fmt.Sprintf(`INSERT INTO %[1]s SELECT (SELECT max(id) FROM %[1]s) + i, (SELECT max(at) FROM %[1]s) + i / 10 * interval '1 day', i FROM generate_series(1, %[2]d) i`, table, rows))
				res = m.run(t, p, messages.ExitOK)
				require.Equal(t, rows, res.Streams[0].RowsWritten, "only what is new")
				m.same(t, p, table, "id, at, total", all, 1)
			}
			res = m.run(t, p, messages.ExitOK)
			require.Zero(t, res.Streams[0].RowsWritten)
			m.same(t, p, table, "id, at, total", all, 1)
		})
	}
}

// A row that appears behind the cursor is not seen, unless lookback reads there again.
func (m *matrix) lateRows(t *testing.T) {
	m.sql(t, "CREATE TABLE visits AS SELECT invoice_id AS id, invoice_date AS at FROM invoice; ALTER TABLE visits ADD PRIMARY KEY (id)")
	const cursor = "{name: visits, sync_mode: incremental, cursor_field: at, tie_breaker_field: id"
	strict, lookback := m.fresh("upsert", cursor+"}"), m.fresh("upsert", cursor+", cursor_mode: lookback, lookback: 48h}")
	for _, p := range []pipeline{strict, lookback} {
		m.run(t, p, messages.ExitOK)
		m.same(t, p, "visits", "*", "SELECT * FROM public.visits", 1)
	}
	m.sql(t, "INSERT INTO visits SELECT 1000, max(at) - interval '1 hour' FROM visits; INSERT INTO visits SELECT 1001, max(at) + interval '1 hour' FROM visits")
	m.run(t, strict, messages.ExitOK)
	m.same(t, strict, "visits", "*", "SELECT * FROM public.visits WHERE id <> 1000", 1)
	m.run(t, lookback, messages.ExitOK)
	m.same(t, lookback, "visits", "*", "SELECT * FROM public.visits", 1)
}

// Rows that the target refuses end the run, are left out, or are set aside.
func (m *matrix) dataErrors(t *testing.T) {
	const bad = 64 // invoices of more than 10
	require.Equal(t, strconv.Itoa(bad), m.one(t, "SELECT count(*) FROM invoice WHERE total > 10"))
	for _, mode := range []string{"append", "upsert"} {
		for _, policy := range []string{"fail", "skip", "dlq"} {
			t.Run(mode+"/"+policy, func(t *testing.T) {
				p := m.fresh(mode, "{name: invoice}")
				p.write = "on_data_error: " + policy
				m.sql(t, "CREATE SCHEMA "+p.name+"; CREATE TABLE "+p.name+".invoice (LIKE public.invoice INCLUDING INDEXES, CHECK (total <= 10))")
				if policy == "fail" {
					m.run(t, p, messages.ExitData)
					require.Equal(t, "0", m.one(t, "SELECT count(*) FROM "+p.name+".invoice"))
					return
				}
				res := m.run(t, p, messages.ExitOK)
				require.EqualValues(t, bad, res.Streams[0].RowsRejected)
				m.same(t, p, "invoice", "*", "SELECT * FROM public.invoice WHERE total <= 10", 1)
				letters := strings.Count(invoke(t, nil, "dlq", "export", p.name+".yaml").stdout, "\n")
				require.Equal(t, map[string]int{"skip": 0, "dlq": bad}[policy], letters)
			})
		}
	}
}

// What the shape of the source becomes between two runs, under the default policies and
// those of new columns.
func (m *matrix) drift(t *testing.T) {
	for i, c := range []struct {
		name, change, write string
		code                int
		columns             string // of the target afterwards
		query               string // the rows that it then holds; empty: those of before
	}{
		{"new column, added", "ADD COLUMN more int DEFAULT 7", "", messages.ExitOK, "id,name,more", "SELECT * FROM public.%s"},
		{"new column, ignored", "ADD COLUMN more int DEFAULT 7", "schema_evolution: {new_column: ignore}", messages.ExitOK, "id,name", "SELECT id, name FROM public.%s"},
		{"new column, refused", "ADD COLUMN more int DEFAULT 7", "schema_evolution: {new_column: fail}", messages.ExitSchema, "id,name", ""},
		{"removed column, ignored", "DROP COLUMN name", "", messages.ExitOK, "id,name", "SELECT id, CASE WHEN id < 9000 THEN name END FROM (SELECT n.id, w.name FROM public.%[1]s n LEFT JOIN public.was_%[1]s w USING (id)) x"},
		{"other type, refused", "ALTER COLUMN name TYPE bytea USING convert_to(name, 'UTF8')", "", messages.ExitSchema, "id,name", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := fmt.Sprintf("drift_%d", i)
			m.sql(t, "CREATE TABLE "+table+" AS SELECT artist_id AS id, name::text FROM artist; ALTER TABLE "+table+" ADD PRIMARY KEY (id)")
			p := m.fresh("upsert", "{name: "+table+"}")
			p.write = c.write
			m.run(t, p, messages.ExitOK)
			before := "SELECT id, name FROM public." + table
			m.same(t, p, table, "*", before, 1)
			m.sql(t, "CREATE TABLE was_"+table+" AS "+before)
			m.sql(t, "ALTER TABLE "+table+" "+c.change)
			m.sql(t, "INSERT INTO "+table+" (id) VALUES (9000)")
			m.run(t, p, c.code)
			require.Equal(t, c.columns, m.columns(t, p, table))
			if c.query == "" {
				m.same(t, p, table, "*", "SELECT id, name FROM public.was_"+table, 1)
				return
			}
			m.same(t, p, table, "*", fmt.Sprintf(c.query, table), 1)
		})
	}
	t.Run("nullability, allowed", m.nullability)
}

func (m *matrix) columns(t *testing.T, p pipeline, table string) string {
	t.Helper()
	return m.one(t, "SELECT string_agg(column_name, ',' ORDER BY ordinal_position) FROM information_schema.columns WHERE table_schema = '"+p.name+"' AND table_name = '"+table+"'")
}

// A column that may be NULL from now on is read and written. The constraint of the target
// is its owner's: it stays until somebody drops it, and names the column of a row with NULL.
func (m *matrix) nullability(t *testing.T) {
	m.sql(t, "CREATE TABLE names AS SELECT artist_id AS id, name::text FROM artist; ALTER TABLE names ADD PRIMARY KEY (id), ALTER name SET NOT NULL")
	p := m.fresh("upsert", "{name: names}")
	m.run(t, p, messages.ExitOK)
	m.sql(t, "ALTER TABLE names ALTER name DROP NOT NULL; INSERT INTO names VALUES (9000, 'x')")
	m.run(t, p, messages.ExitOK)
	m.same(t, p, "names", "*", "SELECT * FROM public.names", 1)
	m.sql(t, "INSERT INTO names VALUES (9001, NULL)")
	m.run(t, p, messages.ExitData)
	m.same(t, p, "names", "*", "SELECT * FROM public.names WHERE id <> 9001", 1)
	m.sql(t, "ALTER TABLE "+p.name+".names ALTER name DROP NOT NULL")
	m.run(t, p, messages.ExitOK)
	m.same(t, p, "names", "*", "SELECT * FROM public.names", 1)
}

// A filter and a projection, and two steps in a row.
func (m *matrix) transforms(t *testing.T) {
	const filter = "  - use: sql\n    config: {query: \"SELECT invoice_id, upper(billing_country) AS country, total FROM invoice WHERE total > 5\"}\n"
	const second = "  - use: sql\n    config: {query: \"SELECT invoice_id * 10 AS tenfold, country FROM invoice WHERE country LIKE 'U%'\"}\n"
	for _, mode := range []string{"append", "replace"} {
		p := m.fresh(mode, "{name: invoice}")
		p.transforms = filter
		res := m.run(t, p, messages.ExitOK)
		require.EqualValues(t, 412, res.Streams[0].RowsRead)
		require.Equal(t, m.one(t, "SELECT count(*) FROM invoice WHERE total > 5"), strconv.FormatInt(res.Streams[0].RowsWritten, 10))
		m.same(t, p, "invoice", "*", "SELECT invoice_id, upper(billing_country), total FROM public.invoice WHERE total > 5", 1)

		p = m.fresh(mode, "{name: invoice}")
		p.transforms = filter + second
		m.run(t, p, messages.ExitOK)
		m.same(t, p, "invoice", "*", "SELECT invoice_id * 10, upper(billing_country) FROM public.invoice WHERE total > 5 AND upper(billing_country) LIKE 'U%'", 1)
	}
}

// Out to files of each format and compression, and back.
func (m *matrix) files(t *testing.T) {
	for _, c := range []struct{ format, compression, glob string }{
		{"parquet", "none", "*.parquet"},
		{"parquet", "zstd", "*.parquet"},
		{"parquet", "snappy", "*.parquet"},
		{"arrow", "none", "*.arrow"},
		{"arrow", "zstd", "*.arrow"},
		{"jsonl", "none", "*.jsonl"},
		{"jsonl", "gzip", "*.jsonl.gz"},
	} {
		t.Run(c.format+"/"+c.compression, func(t *testing.T) {
			out := m.fresh("replace", "{name: track, columns: [track_id, name, milliseconds]}")
			out.destination = fmt.Sprintf("use: file\n  config: {path: %s, format: %s, compression: %s}", out.name, c.format, c.compression)
			res := m.run(t, out, messages.ExitOK)
			require.EqualValues(t, 3503, res.Streams[0].RowsWritten)
			found, err := filepath.Glob(filepath.Join(out.name, "track", c.glob))
			require.NoError(t, err)
			require.NotEmpty(t, found)

			back := m.fresh("append", fmt.Sprintf("{name: track, path: %q}", filepath.Join(out.name, "track", c.glob)))
			back.source = "use: file\n  config: {}"
			for range 2 { // files that were read are not read again
				m.run(t, back, messages.ExitOK)
				m.same(t, back, "track", "track_id, name, milliseconds", "SELECT track_id, name, milliseconds FROM public.track", 1)
			}
		})
	}
}
