package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
)

// ordersDocument moves the orders of the shop into a schema of its own.
func ordersDocument(name, mode, sync string) string {
	key, cursor := "", ""
	if mode == "upsert" {
		key = "  primary_key: [id]\n"
	}
	if sync == "incremental" {
		cursor = ", cursor_field: updated_at, tie_breaker_field: id"
	}
	return fmt.Sprintf(`version: "1.0"
pipeline: %s
source:
  use: postgres
  config: {host: "${SRC_HOST}", port: "${SRC_PORT}", user: postgres, password: "${PG_PASSWORD}", database: "${SRC_DB:-shop}"}
  streams: [{name: orders, sync_mode: %s%s}]
destination:
  use: postgres
  config: {host: "${DST_HOST}", port: "${DST_PORT}", user: postgres, password: "${PG_PASSWORD}", database: dw, schema: %s}
  write_mode: %s
%s`, name, sync, cursor, name, mode, key)
}

const moreOrders = `INSERT INTO orders SELECT i, 1, 'new', 1, '2026-03-01'::timestamptz + i * interval '1 second'
	FROM generate_series((SELECT max(id) + 1 FROM orders), (SELECT max(id) + 50 FROM orders)) i`

// ordersSum proves that a target has exactly the rows of the source.
const ordersSum = "SELECT count(*), sum(hashtextextended(id || ' ' || customer_id || status || total || updated_at, 0)::numeric) FROM "

// advisedCommands returns the commands of a `next` line, without the program.
func advisedCommands(t *testing.T, text string) [][]string {
	t.Helper()
	_, next, ok := strings.Cut(text, "next -> ")
	require.True(t, ok, text)
	var out [][]string
	for _, m := range regexp.MustCompile("`rapidbyte-node ([^`]*)`").FindAllStringSubmatch(next, -1) {
		out = append(out, strings.Fields(m[1]))
	}
	return out
}

// Rule 8 of recovery: each case is refused with both positions and the command that
// resolves it, and nothing is written. Who follows the advice has every row once.
func TestPGRefusals(t *testing.T) {
	const mine = " AND pipeline_id = (SELECT pipeline_id FROM _rapidbyte.owner WHERE pipeline = '$P')"
	w := newWorld(t)
	w.server.Exec(t, "postgres", "CREATE DATABASE elsewhere TEMPLATE shop")
	for _, c := range []struct {
		name, mode, sync string
		sql              string // at the destination; $P is pipeline and schema
		source           string // database that the document comes to name
		code             messages.Code
		why              []string // patterns: both positions
		follow           int      // which of the advised commands
	}{
		{
			name: "receipt_deleted", mode: "upsert", sync: "incremental", sql: "DELETE FROM _rapidbyte.receipt WHERE load = 'orders'" + mine, code: messages.CodeStateAhead,
			why: []string{`the state store has task orders at load 1, commit 2, at \(2026-03-01 .*, \d+\)`, `the destination has no receipt of it`},
		},
		{
			name: "receipt_deleted_append", mode: "append", sync: "incremental", sql: "DELETE FROM _rapidbyte.receipt WHERE load = 'orders'" + mine, code: messages.CodeStateAhead,
			why: []string{`the state store has task orders at load 1, commit 2, at \(2026-03-01 .*, \d+\)`, `the destination has no receipt of it`, `empty the target orders first`},
		},
		{
			name: "receipt_deleted_replace", mode: "replace", sync: "full_refresh", sql: "DELETE FROM _rapidbyte.receipt WHERE load = 'orders'" + mine, code: messages.CodeStateAhead,
			why: []string{`the state store has task orders at load 2, commit 1, at \d+; the destination has no receipt of it`},
		},
		{
			name: "commit_lowered", mode: "upsert", sync: "incremental", sql: "UPDATE _rapidbyte.receipt SET commit_no = commit_no - 1 WHERE load = 'orders'" + mine, code: messages.CodeStateAhead,
			why: []string{`the state store has task orders at load 1, commit 2, at \(2026-03-01 .*, \d+\); the destination has it at load 1, commit 1, at \(2026`}, follow: 1,
		},
		{
			name: "position_lowered", mode: "append", sync: "incremental", code: messages.CodeStateAhead,
			sql: `UPDATE _rapidbyte.receipt SET position = '{"at":{"t":"tuple","p":[{"t":"timestamptz","v":"2026-01-01 00:00:05+00"},{"t":"int64","v":"17"}]}}' WHERE load = 'orders'` + mine,
			why: []string{`the state store has task orders at load 1, commit 2, at \(2026-03-01 .*, \d+\); the destination has it at load 1, commit 2, at \(2026-01-01 00:00:05\+00, 17\)`},
		},
		{
			name: "load_deleted", mode: "append", sync: "incremental", sql: "DELETE FROM _rapidbyte.load WHERE name = 'orders'" + mine, code: messages.CodeStateAhead,
			why: []string{
				`the destination has a receipt of task orders at load 1, commit 2, at \(2026-03-01 .*, \d+\), and does not know that load`,
				`the state store has task orders at load 1, commit 2, at \(2026-03-01`,
			},
		},
		{
			name: "mark_deleted", mode: "replace", sync: "full_refresh", sql: "DELETE FROM _rapidbyte.load WHERE name = 'orders'" + mine, code: messages.CodeStateAhead,
			why: []string{`the state store calls load 2 of orders finished; the destination does not`}, follow: 1,
		},
		{
			name: "target_dropped", mode: "append", sync: "incremental", sql: "DROP TABLE $P.orders", code: messages.CodeStateAhead,
			why: []string{
				`the destination has task orders at load 1, commit 2, at \(2026-03-01 .*, \d+\), in table target_dropped.orders with OID \d+, and there is no such table`,
				`the state store has task orders at load 1, commit 2, at \(2026-03-01`,
			},
		},
		{
			name: "target_made_again", mode: "upsert", sync: "incremental", code: messages.CodeStateAhead,
			sql: "DROP TABLE $P.orders; CREATE TABLE $P.orders (id bigint PRIMARY KEY, customer_id int, status text, total numeric(12,2), updated_at timestamptz)",
			why: []string{`in table target_made_again.orders with OID \d+, and that name has a table with OID \d+`, `the state store has task orders at load 1, commit 2`},
		},
		{
			name: "target_renamed", mode: "append", sync: "incremental", code: messages.CodeStateAhead,
			sql: "CREATE TABLE $P.other AS SELECT * FROM $P.orders LIMIT 3; ALTER TABLE $P.orders RENAME TO old; ALTER TABLE $P.other RENAME TO orders",
			why: []string{`in table target_renamed.orders with OID \d+, and that name has a table with OID \d+`, `the state store has task orders at load 1, commit 2`},
		},
		{
			name: "other_source", mode: "upsert", sync: "incremental", source: "elsewhere", code: messages.CodeSourceGap,
			why: []string{
				`read from "postgres:\d+/shop", this is "postgres:\d+/elsewhere"`,
				`the destination has task orders at load 1, commit 2, at \(2026-03-01 .*, \d+\); the state store has task orders at load 1, commit 2, at \(2026-03-01`,
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			doc := write(t, ".", c.name+".yaml", ordersDocument(c.name, c.mode, c.sync))
			w.run(t, 0, "run", doc)
			w.server.Exec(t, "shop", moreOrders)
			w.run(t, 0, "run", doc)
			if c.sql != "" {
				w.server.Exec(t, "dw", strings.ReplaceAll(c.sql, "$P", c.name))
			}
			source := "shop"
			if c.source != "" {
				source = c.source
				w.env["SRC_DB"] = c.source
				defer delete(w.env, "SRC_DB")
			}
			w.server.Exec(t, source, moreOrders)
			before := w.everything(t)
			r := w.run(t, c.code.Exit(), "run", doc)
			require.Equal(t, before, w.everything(t), "nothing is written")
			require.Contains(t, r.stderr, string(c.code))
			require.Contains(t, r.stderr, "stream orders")
			for _, pattern := range c.why {
				require.Regexp(t, pattern, r.stderr)
			}
			commands := advisedCommands(t, r.stderr)
			require.Greater(t, len(commands), c.follow, r.stderr)
			if strings.Contains(r.stderr, "empty the target orders first") { // as good as dropped
				w.server.Exec(t, "dw", "DROP TABLE IF EXISTS "+c.name+".orders")
			}
			w.run(t, 0, commands[c.follow]...)
			w.run(t, 0, "run", doc)
			require.Equal(t, w.server.Query(t, source, ordersSum+"orders"), w.server.Query(t, "dw", ordersSum+c.name+".orders"))
		})
	}
}

// everything is what stands in the destination, but for the owners.
func (w world) everything(t *testing.T) string {
	t.Helper()
	out := ""
	for _, row := range w.server.Query(t, "dw", `SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema' AND c.relname <> 'owner' ORDER BY 1`) {
		out += fmt.Sprintln(row[0], w.server.Query(t, "dw", "SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM "+row[0]+" t"))
	}
	return out
}

// A target that was loaded by a source that remembers is not loaded again from the
// beginning: what was in it would be missing for good.
func TestPGRefusesATargetThatLostWhatIsNotReadAgain(t *testing.T) {
	w := newWorld(t)
	doc := write(t, ".", "p.yaml", `version: "1.0"
pipeline: p
source: {use: file, config: {path: "in/*.csv"}, streams: [{name: s}]}
destination:
  use: postgres
  config: {host: "${DST_HOST}", port: "${DST_PORT}", user: postgres, password: "${PG_PASSWORD}", database: dw}
  write_mode: append
`)
	write(t, ".", filepath.Join("in", "a.csv"), "id,v\n1,a\n2,b\n")
	w.run(t, 0, "run", doc)
	w.server.Exec(t, "dw", "DROP TABLE s")
	write(t, ".", filepath.Join("in", "b.csv"), "id,v\n3,c\n")
	r := w.run(t, messages.ExitState, "run", doc)
	require.Regexp(t, `the destination has task s.* at load 1, commit 1, .* in table public.s with OID \d+, and there is no such table any more`, r.stderr)
	require.Empty(t, w.server.Query(t, "dw", "SELECT 1 FROM pg_class WHERE relname = 's'"))
	w.run(t, 0, advisedCommands(t, r.stderr)[0]...)
	require.Equal(t, "3", w.one(t, "dw", "SELECT count(DISTINCT id) FROM s"))
	require.Equal(t, "3", w.one(t, "dw", "SELECT count(*) FROM s"))
}

// A destination that was restored from a dump is whole, only older: what the state store
// has beyond it is read and written again.
func TestPGRefusesADestinationThatWasRestored(t *testing.T) {
	w := newWorld(t)
	doc := write(t, ".", "restored.yaml", ordersDocument("restored", "append", "incremental"))
	w.run(t, 0, "run", doc)
	dump := exec.CommandContext(t.Context(), "pg_dump", "-d", w.server.URL("dw"), "--clean", "--if-exists", "-f", "dw.sql")
	out, err := dump.CombinedOutput()
	require.NoError(t, err, "%s", out)
	w.server.Exec(t, "shop", moreOrders)
	w.run(t, 0, "run", doc)
	script, err := os.Open("dw.sql")
	require.NoError(t, err)
	defer script.Close()
	w.server.Psql(t, "dw", script)

	w.server.Exec(t, "shop", moreOrders)
	before := w.everything(t)
	r := w.run(t, messages.ExitState, "run", doc)
	require.Equal(t, before, w.everything(t))
	require.Regexp(t, `the state store has task orders at load 1, commit 2, at \(2026-03-01 00:05:50\+00, 350\); the destination has it at load 1, commit 1, at \(2026-01-01 00:01:40\+00, 300\)`, r.stderr)
	commands := advisedCommands(t, r.stderr)
	require.Equal(t, []string{"state", "rebuild", "restored.yaml"}, commands[0])
	w.run(t, 0, commands[0]...)
	w.run(t, 0, "run", doc)
	require.Equal(t, w.server.Query(t, "shop", ordersSum+"orders"), w.server.Query(t, "dw", ordersSum+"restored.orders"))

	// One that is restored as it was has the same positions, but other tables.
	dump = exec.CommandContext(t.Context(), "pg_dump", "-d", w.server.URL("dw"), "--clean", "--if-exists", "-f", "dw.sql")
	out, err = dump.CombinedOutput()
	require.NoError(t, err, "%s", out)
	script, err = os.Open("dw.sql")
	require.NoError(t, err)
	defer script.Close()
	w.server.Psql(t, "dw", script)
	w.server.Exec(t, "shop", moreOrders)
	r = w.run(t, messages.ExitState, "run", doc)
	require.Regexp(t, `in table restored.orders with OID \d+, and that name has a table with OID \d+: bookkeeping and table were made again`, r.stderr)
	w.run(t, 0, advisedCommands(t, r.stderr)[0]...)
	w.run(t, 0, "run", doc)
	require.Equal(t, w.server.Query(t, "shop", ordersSum+"orders"), w.server.Query(t, "dw", ordersSum+"restored.orders"))

	// A table alone that was made again is not taken over with the rest.
	w.server.Exec(t, "dw", "CREATE TABLE restored.other AS SELECT * FROM restored.orders LIMIT 5; DROP TABLE restored.orders; ALTER TABLE restored.other RENAME TO orders")
	w.run(t, 0, "state", "rebuild", doc)
	require.NotContains(t, w.run(t, messages.ExitState, "run", doc).stderr, "state rebuild")
}
