package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
)

// The state of the sample stands in the database of its destination.
func TestPGStateInTheDatabaseOfTheDestination(t *testing.T) {
	w := newWorld(t)
	r := w.run(t, 0, "check", sampleDocument(t, "copy.yaml"))
	require.Contains(t, r.stdout, "ready to run")
	require.Equal(t, "0", w.one(t, "dw", "SELECT count(*) FROM pg_namespace WHERE nspname LIKE '_rapidbyte%'"), "check changes nothing")

	r = w.run(t, 0, "run", "copy.yaml", "-o", "json")
	var res runResult
	require.NoError(t, json.Unmarshal(r.envelope(t).Result, &res))
	require.Equal(t, fmt.Sprintf("127.0.0.1:%d/dw", w.server.Port()), res.Store)
	require.Equal(t, "300", w.one(t, "dw", "SELECT count(*) FROM raw.orders"))
	require.Equal(t, "2", w.one(t, "dw", "SELECT count(*) FROM _rapidbyte_state.receipt"))
	require.NoDirExists(t, ".rapidbyte")
	require.NotContains(t, w.one(t, "dw", "SELECT string_agg(t::text, ' ') FROM (SELECT value FROM _rapidbyte_state.run UNION ALL SELECT owner FROM _rapidbyte_state.lease) t"), canary)
	require.Empty(t, w.one(t, "dw", "SELECT owner FROM _rapidbyte_state.lease"), "the lease is given back")
	require.Contains(t, w.run(t, 0, "run", sampleDocument(t, "sandboxed.yaml")).stdout, "state in ")

	// A lost store is not taken as empty; the destination knows.
	text, err := os.ReadFile("copy.yaml")
	require.NoError(t, err)
	replacing := strings.NewReplacer("copy_shop", "again", "append", "replace", "schema: raw", "schema: again").Replace(string(text))
	write(t, ".", "again.yaml", replacing)
	w.run(t, 0, "run", "again.yaml")
	w.server.Exec(t, "dw", "DROP SCHEMA _rapidbyte_state CASCADE")
	r = w.run(t, messages.ExitDestination, "run", "again.yaml")
	require.Contains(t, r.stderr, "--rebuild-state")
	w.run(t, 0, "run", "again.yaml", "--rebuild-state")
	require.Equal(t, "300", w.one(t, "dw", "SELECT count(*) FROM again.orders"))

	// Damage by hand.
	w.server.Exec(t, "dw", "UPDATE _rapidbyte_state.receipt SET value = replace(value, '\"commit\":', '\"commit\":1')")
	r = w.run(t, messages.ExitState, "run", "again.yaml")
	require.Contains(t, r.stderr, string(messages.CodeStateDamaged))
	w.run(t, 0, "state", "rebuild", "again.yaml")
	require.Equal(t, "2", w.one(t, "dw", "SELECT count(*) FROM _rapidbyte_state.receipt"))
	require.Contains(t, w.run(t, 0, "state", "show", "again.yaml").stdout, "customers")
	w.server.Exec(t, "dw", "UPDATE _rapidbyte_state.receipt SET value = replace(value, '\"commit\":', '\"commit\":1')")
	w.run(t, 0, "run", "again.yaml", "--rebuild-state")
	require.Equal(t, "300", w.one(t, "dw", "SELECT count(*) FROM again.orders"))

	// A right that is missing is named by check and by run.
	w.server.Exec(t, "postgres", "CREATE ROLE stranger LOGIN")
	write(t, ".", "stranger.yaml", strings.Replace(string(text), "postgres://postgres:", "postgres://stranger:", 1))
	for _, command := range []string{"check", "run"} {
		r = w.run(t, messages.ExitState, command, "stranger.yaml")
		require.Contains(t, r.stdout+r.stderr, `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "_rapidbyte_state" TO "stranger"`)
	}
}

// sharedDocument moves generated rows slowly, with its state in the server.
func sharedDocument(w world, rows int) string {
	return generatorDocument("shared", fmt.Sprintf("rows: %d, rows_per_second: 4000", rows), "file", "path: out, format: jsonl", "a") +
		"resources: {checkpoint_interval_rows: 500}\nstate: {connection: '" + w.server.URL("dw") + "'}\n"
}

// A second node is refused while the first one runs, and needs not wait when that one was killed.
func TestPGAKilledRunIsTakenOverAtOnce(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	const rows = 80_000
	write(t, dir, "p.yaml", sharedDocument(w, rows))
	first := start(t, dir, "run", "p.yaml", "--events", "events")
	await(t, filepath.Join(dir, "events"), `"event":"checkpoint"`)

	second := start(t, dir, "run", "p.yaml")
	require.Equal(t, messages.ExitState, second.wait(t, 30*time.Second), second.stderr.String())
	require.Contains(t, second.stderr.String(), string(messages.CodeStateHeld))
	require.Contains(t, second.stderr.String(), "process "+strconv.Itoa(first.cmd.Process.Pid)+" (rapidbyte-node)")
	require.Contains(t, second.stderr.String(), "goes on renewing")

	require.NoError(t, first.cmd.Process.Signal(syscall.SIGKILL))
	<-first.ended
	began := time.Now()
	third := start(t, dir, "run", "p.yaml", "--events", "events3")
	await(t, filepath.Join(dir, "events3"), `"event":"checkpoint"`)
	require.Less(t, time.Since(began), 12*time.Second, "the lease lasts 15 s")
	require.Zero(t, third.wait(t, time.Minute), third.stderr.String())
	got, err := committed(filepath.Join(dir, "out"), "shared", "a")
	require.NoError(t, err)
	require.Len(t, got, rows, "nothing is lost, nothing is doubled")
}

// Nobody replays dead letters beside a run.
func TestPGAReplayHoldsThePipeline(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	write(t, dir, "p.yaml", sharedDocument(w, 200_000))
	first := start(t, dir, "run", "p.yaml", "--events", "events")
	await(t, filepath.Join(dir, "events"), `"event":"checkpoint"`)
	write(t, ".", "q.yaml", `version: "1.0"
pipeline: shared
source:
  use: postgres
  config: {host: "${SRC_HOST}", port: "${SRC_PORT}", user: postgres, database: shop}
  streams: [{name: customers}]
destination:
  use: postgres
  config: {host: "${DST_HOST}", port: "${DST_PORT}", user: postgres, database: dw}
  write_mode: append
  on_data_error: dlq
state: {connection: "`+w.server.URL("dw")+`"}
`)
	r := w.run(t, messages.ExitState, "dlq", "replay", "q.yaml")
	require.Contains(t, r.stderr, string(messages.CodeStateHeld))
	require.NoError(t, first.cmd.Process.Signal(syscall.SIGTERM))
	require.Equal(t, messages.ExitCancelled, first.wait(t, 20*time.Second), first.stderr.String())
	w.run(t, 0, "dlq", "replay", "q.yaml")
}
