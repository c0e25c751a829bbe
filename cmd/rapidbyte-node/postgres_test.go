package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
)

// shop is a source database as the sample documents expect it, in a server of its own.
const shop = `
CREATE TABLE customers (id int PRIMARY KEY, email text NOT NULL, age int);
INSERT INTO customers SELECT i, 'c' || i || '@example.org', i FROM generate_series(1, 50) i;
CREATE TABLE orders (id bigint PRIMARY KEY, customer_id int, status text, total numeric(12,2), updated_at timestamptz NOT NULL);
INSERT INTO orders SELECT i, i % 50, 'new', i, '2026-01-01'::timestamptz + (i / 3) * interval '1 second' FROM generate_series(1, 300) i;
CREATE TABLE events (id bigint PRIMARY KEY, payload jsonb);
INSERT INTO events SELECT i, jsonb_build_object('n', i) FROM generate_series(1, 5000) i;
CREATE VIEW recent AS SELECT * FROM orders WHERE id > 290;
CREATE SCHEMA sales;
CREATE TABLE sales.orders (id int PRIMARY KEY, note text);
INSERT INTO sales.orders VALUES (1, 'a');
`

// world is a server with the databases of the sample documents.
type world struct {
	server *pgtest.Server
	env    map[string]string
}

func newWorld(t *testing.T) world {
	t.Helper()
	s := pgtest.Start(t, "fsync=off")
	if s.User() != "postgres" {
		s.Exec(t, "postgres", "CREATE ROLE postgres SUPERUSER LOGIN")
	}
	s.Exec(t, "postgres", "CREATE DATABASE shop")
	s.Exec(t, "postgres", "CREATE DATABASE dw")
	s.Exec(t, "shop", shop)
	t.Chdir(t.TempDir())
	port := strconv.Itoa(s.Port())
	return world{server: s, env: map[string]string{
		"SRC_HOST": "127.0.0.1", "SRC_PORT": port, "DST_HOST": "127.0.0.1", "DST_PORT": port, "PG_PASSWORD": canary,
	}}
}

// run invokes the program, which must end with code.
func (w world) run(t *testing.T, code int, args ...string) invoked {
	t.Helper()
	r := invoke(t, w.env, args...)
	require.Equal(t, code, r.code, "%v\n%s\n%s", args, r.stdout, r.stderr)
	require.NotContains(t, r.stdout+r.stderr, canary)
	return r
}

// one returns the only value of a query.
func (w world) one(t *testing.T, db, sql string) string {
	t.Helper()
	rows := w.server.Query(t, db, sql)
	require.Len(t, rows, 1)
	return rows[0][0]
}

func sampleDocument(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(testdataDir, "rapidbyte", name))
	require.NoError(t, err)
	return write(t, ".", name, string(text))
}

// testdataDir is found before a test changes the folder.
var testdataDir, _ = filepath.Abs("testdata")

func TestPGSampleDocumentsRun(t *testing.T) {
	w := newWorld(t)
	w.run(t, 0, "check", sampleDocument(t, "incremental.yaml"))
	w.run(t, 0, "run", "incremental.yaml")
	require.Equal(t, "300", w.one(t, "dw", "SELECT count(*) FROM raw.orders WHERE status = 'NEW'"))

	// Rows behind the cursor, ties with the last one, and a changed row.
	w.server.Exec(t, "shop", `INSERT INTO orders VALUES (301, 1, 'new', 5, '2026-01-01 00:01:40Z'), (302, 1, 'new', 0, '2026-01-02');
		UPDATE orders SET status = 'paid', updated_at = '2026-01-03' WHERE id = 7`)
	r := w.run(t, 0, "run", "incremental.yaml", "-o", "json")
	var res runResult
	require.NoError(t, json.Unmarshal(r.envelope(t).Result, &res))
	require.Less(t, res.Streams[0].RowsRead, int64(20), "only what is new")
	require.Equal(t, "301", w.one(t, "dw", "SELECT count(*) FROM raw.orders"))
	require.Equal(t, "PAID", w.one(t, "dw", "SELECT status FROM raw.orders WHERE id = 7"))
	again := w.run(t, 0, "run", "incremental.yaml").stdout
	require.Regexp(t, `orders +nothing new`, again, "a stream that goes on another time has come to its end for this one")
	require.NotContains(t, again, "resumes")
	require.Equal(t, "301", w.one(t, "dw", "SELECT count(*) FROM raw.orders"))

	// A reset reads everything again and doubles nothing.
	w.server.Exec(t, "dw", "DELETE FROM raw.orders WHERE id < 10")
	r = w.run(t, 0, "run", "incremental.yaml", "--full-refresh", "-o", "json")
	require.NoError(t, json.Unmarshal(r.envelope(t).Result, &res))
	require.EqualValues(t, 302, res.Streams[0].RowsRead)
	require.Equal(t, "301", w.one(t, "dw", "SELECT count(*) FROM raw.orders"))

	require.Contains(t, w.run(t, 0, "run", sampleDocument(t, "partitioned.yaml"), "-vv").stderr, "; flush ")
	require.Equal(t, "5000", w.one(t, "dw", "SELECT count(DISTINCT id) FROM raw.events"))
	require.Equal(t, "5000", w.one(t, "dw", "SELECT count(*) FROM raw.events"))
	w.run(t, 0, "run", sampleDocument(t, "sandboxed.yaml"))
	require.Equal(t, "50", w.one(t, "dw", "SELECT count(*) FROM public.customers"))
}

func TestPGIncrementalAppendsWhatIsNew(t *testing.T) {
	w := newWorld(t)
	text, err := os.ReadFile(sampleDocument(t, "incremental.yaml"))
	require.NoError(t, err)
	write(t, ".", "p.yaml", strings.NewReplacer("write_mode: upsert", "write_mode: append", "primary_key: [id]", "metadata_columns: true").Replace(string(text)))
	w.run(t, 0, "run", "p.yaml")
	w.server.Exec(t, "shop", "INSERT INTO orders VALUES (301, 1, 'new', 5, '2026-02-01')")
	w.run(t, 0, "run", "p.yaml")
	w.run(t, 0, "run", "p.yaml")
	require.Equal(t, "301", w.one(t, "dw", "SELECT count(*) FROM raw.orders"))
	require.Equal(t, "2", w.one(t, "dw", "SELECT count(DISTINCT _rb_run) FROM raw.orders"))
	write(t, ".", "r.yaml", strings.Replace(string(text), "write_mode: upsert", "write_mode: replace", 1))
	require.Contains(t, w.run(t, messages.ExitConfig, "check", "r.yaml").stderr, "sync_mode incremental contradicts write_mode replace")
}

func TestPGCopyNeedsNoDocument(t *testing.T) {
	w := newWorld(t)
	from, to := w.server.URL("shop"), w.server.URL("dw")
	r := w.run(t, 0, "copy", "--from", from, "--to", to, "--tables", "public.*", "--schema", "raw")
	require.Contains(t, r.stdout, "copy_shop_to_dw_")
	require.NotContains(t, r.stdout, "recent", "a view is left out")
	require.Equal(t, "5000", w.one(t, "dw", "SELECT count(*) FROM raw.events"))
	w.server.Exec(t, "shop", "DELETE FROM events WHERE id > 10")
	w.run(t, 0, "copy", "--from", from, "--to", to, "--tables", "events", "--schema", "raw")
	require.Equal(t, "10", w.one(t, "dw", "SELECT count(*) FROM raw.events"))

	w.run(t, 0, "copy", "--from", from, "--to", to, "--tables", "*.*", "--exclude", "events", "--schema", "whole", "--parallelism", "2")
	require.Equal(t, "1", w.one(t, "dw", "SELECT count(*) FROM whole.sales_orders"))
	require.Equal(t, "300", w.one(t, "dw", "SELECT count(*) FROM whole.public_orders"))

	w.server.Exec(t, "dw", "CREATE TABLE public.customers (id int); INSERT INTO public.customers VALUES (7)")
	r = w.run(t, messages.ExitConfig, "copy", "--from", from, "--to", to, "--tables", "customers")
	require.Contains(t, r.stderr, "this copy has not made them: customers")
	require.Equal(t, "1", w.one(t, "dw", "SELECT count(*) FROM public.customers"))
	w.run(t, 0, "copy", "--from", from, "--to", to, "--tables", "customers", "--write-mode", "replace")
	require.Equal(t, "50", w.one(t, "dw", "SELECT count(*) FROM public.customers"))

	r = w.run(t, messages.ExitConfig, "copy", "--from", from, "--to", from)
	require.Contains(t, r.stderr, "would be written into the table that it is read from")
	r = w.run(t, 0, "copy", "--from", from, "--to", "duckdb:shop.duckdb", "--tables", "customers")
	require.Contains(t, r.stdout, "customers")
	w.run(t, 0, "init", "--from", from, "--to", "duckdb:shop.duckdb", "--tables", "orders", "--file", "shop.yaml")
	text, err := os.ReadFile("shop.yaml")
	require.NoError(t, err)
	require.Contains(t, string(text), "`cursor_field: updated_at`, `tie_breaker_field: id`")
}

func TestPGDeadLettersAreSetAsideAndReplayed(t *testing.T) {
	w := newWorld(t)
	w.server.Exec(t, "dw", "CREATE TABLE customers (id int PRIMARY KEY, email text NOT NULL, age int CHECK (age <> 7))")
	write(t, ".", "p.yaml", `version: "1.0"
pipeline: p
source:
  use: postgres
  config: {host: "${SRC_HOST}", port: "${SRC_PORT}", user: postgres, password: "${PG_PASSWORD}", database: shop}
  streams: [{name: customers}]
destination:
  use: postgres
  config: {host: "${DST_HOST}", port: "${DST_PORT}", user: postgres, password: "${PG_PASSWORD}", database: dw}
  write_mode: append
  on_data_error: dlq
`)
	r := w.run(t, 0, "run", "p.yaml")
	require.Contains(t, r.stdout, "1 rejected")
	require.Contains(t, r.stdout, "rapidbyte-node dlq list p.yaml")
	require.Equal(t, "49", w.one(t, "dw", "SELECT count(*) FROM customers"))

	r = w.run(t, 0, "dlq", "list", "p.yaml")
	require.Contains(t, r.stdout, "23514")
	require.Contains(t, r.stdout, "1 dead letter\n")
	id := strings.Fields(r.stdout)[0]
	r = w.run(t, 0, "dlq", "show", "p.yaml", id)
	require.Contains(t, r.stdout, `"email": "c7@example.org"`)
	r = w.run(t, messages.ExitData, "dlq", "replay", "p.yaml")
	require.Contains(t, r.stdout, "1 left")
	require.Contains(t, w.run(t, 0, "dlq", "export", "p.yaml", "--stream", "public.customers").stdout, `"row":{"id":7,`)

	w.server.Exec(t, "dw", "ALTER TABLE customers DROP CONSTRAINT customers_age_check")
	r = w.run(t, 0, "dlq", "replay", "p.yaml", id)
	require.Contains(t, r.stdout, "1 dead letter written")
	require.Equal(t, "50", w.one(t, "dw", "SELECT count(*) FROM customers"))
	require.Contains(t, w.run(t, 0, "dlq", "list", "p.yaml").stdout, "no dead letters")
	require.Contains(t, w.run(t, 0, "dlq", "purge", "p.yaml", "--yes").stdout, "0 dead letters removed")
}

// A database of a thousand tables is copied with few connections: they are looked at all
// the while.
func TestPGAThousandTables(t *testing.T) {
	const tables, connectionsMax = 1000, 10
	w := newWorld(t)
	w.server.Exec(t, "postgres", "CREATE DATABASE many")
	w.server.Exec(t, "postgres", "CREATE DATABASE copied")
	for block := range 10 { // a transaction may hold only so many locks
		w.server.Exec(t, "many", fmt.Sprintf(`DO $$ BEGIN FOR i IN %d..%d LOOP
			EXECUTE format('CREATE TABLE t%%s AS SELECT g AS id, md5(g::text) AS v FROM generate_series(1, 10) g', i);
			EXECUTE format('ALTER TABLE t%%s ADD PRIMARY KEY (id)', i); END LOOP; END $$`, block*100, block*100+99))
	}
	var most atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var looking sync.WaitGroup
	looking.Go(func() { most.Store(mostConnections(ctx, t, w.server.URL("postgres"))) })
	w.run(t, 0, "copy", "--from", w.server.URL("many"), "--to", w.server.URL("copied"), "--output", "json")
	cancel()
	looking.Wait()
	require.Positive(t, most.Load())
	require.LessOrEqual(t, most.Load(), int64(connectionsMax), "connections at a time, both ends together")
	const sum = `SELECT count(*), sum(hashtextextended(x::text, 0)::numeric) FROM (SELECT c.relname, (xpath('/row/c/text()',
		query_to_xml(format('SELECT sum(hashtextextended(t::text, 0)::numeric) AS c FROM %I t', c.relname), false, true, '')))[1]::text AS h
		FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r') AS x`
	source := w.server.Query(t, "many", sum)
	require.Equal(t, strconv.Itoa(tables), source[0][0])
	require.Equal(t, source, w.server.Query(t, "copied", sum))
}

// mostConnections returns the most connections of ours that were seen at a time.
func mostConnections(ctx context.Context, t *testing.T, url string) int64 {
	conn, err := pgx.Connect(context.WithoutCancel(ctx), url)
	if err != nil {
		t.Error(err)
		return -1
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var most int64
	for tick := time.NewTicker(2 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return most
		case <-tick.C:
		}
		var n int64
		if err := conn.QueryRow(context.WithoutCancel(ctx), "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'rb:%'").Scan(&n); err != nil {
			t.Error(err)
			return -1
		}
		most = max(most, n)
	}
}
