package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/node"
)

// exact requires that a target has every row of the source once.
func (w world) exact(t *testing.T, schema string) {
	t.Helper()
	require.Equal(t, w.server.Query(t, "shop", ordersSum+"orders"), w.server.Query(t, "dw", ordersSum+schema+".orders"))
}

// result decodes the result of a command line.
func result[T any](t *testing.T, r invoked) (out T) {
	t.Helper()
	require.NoError(t, json.Unmarshal(r.envelope(t).Result, &out))
	return out
}

// A rewind reads on from an earlier checkpoint, once; an upsert stays exact.
func TestPGRewindReadsOnFromAnEarlierCheckpoint(t *testing.T) {
	w := newWorld(t)
	doc := write(t, ".", "rewound.yaml", ordersDocument("rewound", "upsert", "incremental"))
	for range 3 {
		w.run(t, 0, "run", doc)
		w.server.Exec(t, "shop", moreOrders)
	}
	listed := w.run(t, 0, "state", "rewind", doc, "--stream", "orders").stdout
	require.Regexp(t, `1 +\S+Z +epoch 3 +0 rows behind it +\(timestamptz 2026-03-01 00:06:40\+00, int64 400\)
2 +\S+Z +epoch 2 +50 rows behind it +\(timestamptz 2026-03-01 00:05:50\+00, int64 350\)
3 +\S+Z +epoch 1 +100 rows behind it +\(timestamptz 2026-01-01 00:01:40\+00, int64 300\)
4 +\S+Z +begun +400 rows behind it +the beginning
4 kept checkpoints of orders`, listed)
	require.Contains(t, w.run(t, messages.ExitUsage, "state", "rewind", doc, "--stream", "orders", "--to", "9").stderr, "there is no kept checkpoint 9; there are 4")
	require.Contains(t, w.run(t, messages.ExitUsage, "state", "rewind", doc, "--stream", "orders", "--to", "1").stderr, "stands at kept checkpoint 1 already")

	// What somebody has done to the target behind it is mended by reading again.
	w.server.Exec(t, "dw", "DELETE FROM rewound.orders WHERE id BETWEEN 310 AND 390")
	plan := w.run(t, messages.ExitUsage, "state", "rewind", doc, "--stream", "orders", "--to", "3")
	require.Contains(t, plan.stdout, "orders  the next run reads about 100 rows of load 1 again\n  orders  from (timestamptz 2026-03-01 00:06:40+00, int64 400) back to (timestamptz 2026-01-01 00:01:40+00, int64 300)\n")
	require.Contains(t, plan.stdout, "nothing was changed yet")
	require.NotContains(t, w.run(t, 0, "state", "show", doc).stdout, "reads on from")
	w.run(t, 0, "state", "rewind", doc, "--stream", "public.orders", "--to", "3", "--yes")
	require.Contains(t, w.run(t, 0, "state", "show", doc).stdout, "the next run reads on from (timestamptz 2026-01-01 00:01:40+00, int64 300)")
	r := result[runResult](t, w.run(t, 0, "run", doc, "-o", "json"))
	require.EqualValues(t, 150, r.Streams[0].RowsRead)
	w.exact(t, "rewound")
	require.NotContains(t, w.run(t, 0, "state", "show", doc).stdout, "reads on from")
	r = result[runResult](t, w.run(t, 0, "run", doc, "-o", "json"))
	require.Zero(t, r.Streams[0].RowsRead, "once")
}

// The target of an append has the rows behind the checkpoint twice then, and is told so.
func TestPGRewindWarnsOfAnAppend(t *testing.T) {
	w := newWorld(t)
	doc := write(t, ".", "appended.yaml", ordersDocument("appended", "append", "incremental"))
	w.run(t, 0, "run", doc)
	w.server.Exec(t, "shop", moreOrders)
	w.run(t, 0, "run", doc)
	r := w.run(t, 0, "state", "rewind", doc, "--stream", "orders", "--to", "2", "--yes")
	require.Contains(t, r.stdout, "the write mode is append: rows that are in orders are there twice then")
	w.server.Exec(t, "dw", "DELETE FROM appended.orders WHERE id > 300")
	w.run(t, 0, "run", doc)
	w.exact(t, "appended")
}

// A run that is killed right after a rewind goes on with it, and nothing is missing.
func TestPGRewindSurvivesKill(t *testing.T) {
	w := newWorld(t)
	w.server.Exec(t, "shop", strings.ReplaceAll(moreOrders, "+ 50", "+ 60000"))
	text := ordersDocument("killed", "upsert", "incremental") + "resources: {checkpoint_interval_rows: 500}\n"
	doc := write(t, ".", "killed.yaml", text)
	w.run(t, 0, "run", doc)
	w.server.Exec(t, "shop", moreOrders)
	w.run(t, 0, "run", doc)
	moments := result[stateMoments](t, w.run(t, 0, "state", "rewind", doc, "--stream", "orders", "-o", "json")).Moments
	require.Len(t, moments, 3)
	w.server.Exec(t, "dw", "UPDATE killed.orders SET status = 'changed' WHERE id % 3 = 0")
	w.run(t, 0, "state", "rewind", doc, "--stream", "orders", "--to", "3", "--yes")
	for delay := 50 * time.Millisecond; delay < 400*time.Millisecond; delay += 50 * time.Millisecond {
		w.killed(t, doc, delay)
		report := result[node.StateReport](t, w.run(t, 0, "state", "show", doc, "-o", "json"))
		task := report.Loads[0].Tasks[0]
		require.GreaterOrEqual(t, *task.Behind, int64(0), "the store is never ahead")
	}
	w.run(t, 0, "run", doc)
	w.exact(t, "killed")

	// And one that is started over.
	w.run(t, 0, "state", "reset", doc, "--yes")
	w.server.Exec(t, "dw", "DELETE FROM killed.orders WHERE id % 7 = 0")
	for delay := 100 * time.Millisecond; delay < 400*time.Millisecond; delay += 100 * time.Millisecond {
		w.killed(t, doc, delay)
	}
	w.run(t, 0, "run", doc)
	w.exact(t, "killed")
	report := result[node.StateReport](t, w.run(t, 0, "state", "show", doc, "-o", "json"))
	require.EqualValues(t, 2, report.Loads[0].Number, "started over once")
	require.Nil(t, report.Loads[0].Order)
}

// killed runs a document in a process of its own, which does not live long.
func (w world) killed(t *testing.T, doc string, after time.Duration) {
	t.Helper()
	path, err := exec.LookPath("rapidbyte-node")
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), path, "run", doc, "-q")
	cmd.Env = os.Environ()
	for name, v := range w.env {
		cmd.Env = append(cmd.Env, name+"="+v)
	}
	require.NoError(t, cmd.Start())
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	_ = cmd.Wait() // killed, or done before
}

// A reset of one stream starts that one over, and no other.
func TestPGResetStartsOneStreamOver(t *testing.T) {
	w := newWorld(t)
	text := strings.Replace(ordersDocument("reset", "upsert", "incremental"), "streams: [",
		"streams: [{name: customers, sync_mode: incremental, cursor_field: id}, ", 1)
	doc := write(t, ".", "reset.yaml", text)
	w.run(t, 0, "run", doc)
	w.server.Exec(t, "dw", "DELETE FROM reset.orders; DELETE FROM reset.customers")
	r := w.run(t, 0, "state", "reset", doc, "--stream", "orders", "--yes")
	require.Contains(t, r.stdout, "orders  the next run starts over and reads all rows again; load 1 has read 300 rows")
	show := w.run(t, 0, "state", "show", doc).stdout
	require.Equal(t, 1, strings.Count(show, "the next run starts it over"), show)
	w.run(t, 0, "run", doc)
	w.exact(t, "reset")
	require.Equal(t, "0", w.one(t, "dw", "SELECT count(*) FROM reset.customers"))
	show = w.run(t, 0, "state", "show", doc).stdout
	require.NotContains(t, show, "starts it over")
	require.Regexp(t, `customers  load 1, goes on, upsert`, show)
	require.Regexp(t, `orders  load 2, goes on, upsert, 300 rows read, 300 written`, show)

	// A stream that has left the document is forgotten; its target stays.
	write(t, ".", "reset.yaml", ordersDocument("reset", "upsert", "incremental"))
	r = w.run(t, 0, "state", "reset", doc, "--stream", "customers", "--yes")
	require.Contains(t, r.stdout, "the document has no such stream: its state is dropped, its target stays")
}

// A state that is carried to another store goes on there, and nothing is doubled.
func TestPGExportedStateGoesOnElsewhere(t *testing.T) {
	w := newWorld(t)
	text := ordersDocument("carried", "append", "incremental")
	doc := write(t, ".", "carried.yaml", text)
	w.run(t, 0, "run", doc)
	w.server.Exec(t, "shop", moreOrders)
	w.run(t, 0, "run", doc)
	w.run(t, 0, "state", "export", doc, "state.json")
	exported, err := os.ReadFile("state.json")
	require.NoError(t, err)
	require.NotContains(t, string(exported), canary)
	moved := write(t, ".", "moved.yaml", text+"state: {connection: "+filepath.Join("elsewhere", "state.db")+"}\n")
	w.run(t, 0, "state", "import", moved, "state.json")
	require.Contains(t, w.run(t, 0, "state", "rewind", moved, "--stream", "orders").stdout, "3 kept checkpoints")
	w.server.Exec(t, "shop", moreOrders)
	w.run(t, 0, "run", moved)
	w.exact(t, "carried")
	require.Contains(t, w.run(t, messages.ExitDestination, "run", doc).stderr, "RB-5007")

	// An old export is a state behind the destination: it is repaired, not believed.
	w.run(t, 0, "state", "import", moved, "state.json", "--force")
	w.server.Exec(t, "shop", moreOrders)
	w.run(t, 0, "run", moved)
	w.exact(t, "carried")
}

// A state moves from a file into a database that machines share. There it can be looked at
// beside a run, which is not disturbed; what would change it is refused while the run
// lives.
func TestPGStateThatMachinesShare(t *testing.T) {
	w := newWorld(t)
	text := ordersDocument("shared", "upsert", "incremental") + "resources: {checkpoint_interval_rows: 1000}\n"
	doc := write(t, ".", "file.yaml", text)
	w.run(t, 0, "run", doc)
	w.run(t, 0, "state", "export", doc, "state.json")
	shared := write(t, ".", "shared.yaml", text+"state: {connection: \""+w.server.URL("dw")+"\"}\n")
	w.run(t, 0, "state", "import", shared, "state.json")
	w.server.Exec(t, "shop", moreOrders)
	before := result[node.StateReport](t, w.run(t, 0, "state", "show", shared, "-o", "json")).Destination.Epoch

	conn, err := pgx.Connect(t.Context(), w.server.URL("shop"))
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), "BEGIN; LOCK TABLE orders") // the run waits for it
	require.NoError(t, err)
	done := make(chan invoked, 1)
	go func() { done <- invoke(t, w.env, "run", shared) }()
	for epoch := before; epoch == before; { // until it owns the pipeline
		epoch = result[node.StateReport](t, w.run(t, 0, "state", "show", shared, "-o", "json")).Destination.Epoch
	}
	for _, args := range [][]string{{"reset", shared, "--yes"}, {"rebuild", shared}, {"import", shared, "state.json", "--force"}} {
		require.Contains(t, w.run(t, messages.ExitState, append([]string{"state"}, args...)...).stderr, "RB-6002", "%v", args)
	}
	_, err = conn.Exec(t.Context(), "ROLLBACK")
	require.NoError(t, err)
	r := <-done
	require.Zero(t, r.code, r.stderr)
	w.exact(t, "shared")
	require.Regexp(t, `(?m)^2 runs$`, w.run(t, 0, "runs", "list", shared).stdout)
	w.run(t, 0, "state", "rewind", shared, "--stream", "orders", "--to", "2", "--yes")
	w.run(t, 0, "run", shared)
	w.exact(t, "shared")
	w.run(t, 0, "state", "rebuild", shared)
	require.Zero(t, result[runResult](t, w.run(t, 0, "run", shared, "-o", "json")).Streams[0].RowsRead)
}

// Looking fences nobody: a run goes on beside it. (With a state store that other processes
// can open; here the destination is looked at as state show does.)
func TestPGASurveyBesideARun(t *testing.T) {
	w := newWorld(t)
	w.server.Exec(t, "shop", strings.ReplaceAll(moreOrders, "+ 50", "+ 100000"))
	text := ordersDocument("beside", "upsert", "incremental") + "resources: {checkpoint_interval_rows: 1000}\n"
	doc := write(t, ".", "beside.yaml", text)
	done := make(chan invoked, 1)
	go func() { done <- invoke(t, w.env, "run", doc) }()
	elsewhere := write(t, ".", "elsewhere.yaml", text+"state: {connection: other.db}\n")
	looked := 0
	for {
		select {
		case r := <-done:
			require.Zero(t, r.code, r.stderr)
			require.Positive(t, looked)
			w.exact(t, "beside")
			require.Equal(t, "1", w.one(t, "dw", "SELECT epoch FROM _rapidbyte.owner WHERE pipeline = 'beside'"))
			return
		default:
			r := w.run(t, 0, "state", "show", elsewhere, "-o", "json")
			if loads := result[node.StateReport](t, r).Loads; len(loads) > 0 {
				looked++
				require.Equal(t, connectors.ModeUpsert, loads[0].Mode)
			}
		}
	}
}

// Every command works where the destination is DuckDB, too.
func TestPGStateOfADuckDBDestination(t *testing.T) {
	w := newWorld(t)
	doc := write(t, ".", "duck.yaml", fmt.Sprintf(`version: "1.0"
pipeline: duck
source:
  use: postgres
  config: {host: "${SRC_HOST}", port: "${SRC_PORT}", user: postgres, password: "${PG_PASSWORD}", database: shop}
  streams: [{name: orders, sync_mode: incremental, cursor_field: updated_at, tie_breaker_field: id}]
destination: {use: duckdb, config: {path: %s}, write_mode: upsert, primary_key: [id]}
`, "x.duckdb"))
	for range 2 {
		w.run(t, 0, "run", doc)
		w.server.Exec(t, "shop", moreOrders)
	}
	require.Regexp(t, `orders +2 +2 +same +350 +2.1 +3 +\(timestamptz`, w.run(t, 0, "state", "show", doc).stdout)
	w.run(t, 0, "state", "rewind", doc, "--stream", "orders", "--to", "2", "--yes")
	r := result[runResult](t, w.run(t, 0, "run", doc, "-o", "json"))
	require.EqualValues(t, 100, r.Streams[0].RowsRead)
	w.run(t, 0, "state", "rebuild", doc)
	r = result[runResult](t, w.run(t, 0, "run", doc, "-o", "json"))
	require.Zero(t, r.Streams[0].RowsRead)
}
