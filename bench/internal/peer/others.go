package peer

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"rapidbyte.io/node/bench/internal/scenario"
)

// pgcopydb copies whole databases; it has COPY on both sides and empties its targets,
// which spares them WAL.
func pgcopydb(path string, w Work) (Line, error) {
	if err := onlyPostgres(w, scenario.Append, scenario.Replace); err != nil {
		return Line{}, err
	}
	args := []string{path, "copy", "table-data"}
	if w.Fresh {
		args = []string{path, "clone", "--no-owner", "--index-jobs", strconv.Itoa(w.Tasks)}
	} else if w.Mode == scenario.Replace {
		args = []string{path, "clone", "--no-owner", "--drop-if-exists", "--index-jobs", strconv.Itoa(w.Tasks)}
	}
	args = append(args, "--source", w.Source, "--target", w.Target, "--table-jobs", strconv.Itoa(w.Tasks), "--dir", filepath.Join(w.Dir, "work"))
	return Line{Commands: [][]string{args}}, nil
}

// pgloader reads its command from a file.
func pgloader(path string, w Work) (Line, error) {
	if err := onlyPostgres(w, scenario.Append, scenario.Replace); err != nil {
		return Line{}, err
	}
	with := "data only, include no drop, create no tables, create no indexes, no foreign keys, reset no sequences"
	if w.Fresh || w.Mode == scenario.Replace {
		with = "include drop, create tables, create indexes, no foreign keys, reset no sequences"
	}
	file := filepath.Join(w.Dir, "pgloader.load")
	command := fmt.Sprintf("LOAD DATABASE\n FROM %s\n INTO %s\n WITH %s, workers = %d, concurrency = 1, batch rows = 25000, prefetch rows = 50000\n"+
		" SET work_mem TO '64MB', maintenance_work_mem TO '64MB'\n INCLUDING ONLY TABLE NAMES MATCHING ~/.*/ IN SCHEMA '%s';\n",
		withScheme(w.Source, "pgsql"), withScheme(w.Target, "pgsql"), with, max(2, w.Tasks), w.Schema)
	args := []string{path, "--on-error-stop", "--quiet", "--root-dir", filepath.Join(w.Dir, "pgloader"), file}
	return Line{Commands: [][]string{args}, Files: map[string]string{file: command}}, nil
}

// withScheme changes what is before :// and drops parameters, which pgloader refuses.
func withScheme(address, scheme string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	u.Scheme, u.RawQuery = scheme, ""
	return u.String()
}

// sling loads through a temporary table with COPY.
func sling(path string, w Work) (Line, error) {
	if err := onlyPostgres(w, scenario.Append, scenario.Replace, scenario.Upsert, scenario.Incremental); err != nil {
		return Line{}, err
	}
	if err := oneTable(w); err != nil {
		return Line{}, err
	}
	table := w.Schema + "." + w.Tables[0]
	args := []string{path, "run", "--src-conn", w.Source, "--src-stream", table, "--tgt-conn", w.Target, "--tgt-object", table}
	switch w.Mode {
	case scenario.Append: // into an empty table
		args = append(args, "--mode", "truncate")
	case scenario.Replace:
		args = append(args, "--mode", "full-refresh", "--primary-key", strings.Join(w.Key, ","))
	case scenario.Upsert:
		args = append(args, "--mode", "incremental", "--primary-key", strings.Join(w.Key, ","))
	case scenario.Incremental:
		args = append(args, "--mode", "incremental", "--update-key", w.Cursor)
	}
	return Line{Commands: [][]string{args}, Env: []string{"SLING_HOME_DIR=" + w.Dir, "SLING_DISABLE_TELEMETRY=true"}}, nil
}

// ingestr has a strategy for each mode.
func ingestr(path string, w Work) (Line, error) {
	if err := onlyPostgres(w, scenario.Append, scenario.Replace, scenario.Upsert, scenario.Incremental); err != nil {
		return Line{}, err
	}
	if err := oneTable(w); err != nil {
		return Line{}, err
	}
	strategy := map[scenario.Mode]string{scenario.Append: "append", scenario.Replace: "replace", scenario.Upsert: "merge", scenario.Incremental: "append"}[w.Mode]
	table := w.Schema + "." + w.Tables[0]
	args := []string{
		path, "ingest", "--yes", "--source-uri", withScheme(w.Source, "postgresql"), "--source-table", table, "--dest-uri", withScheme(w.Target, "postgresql"),
		"--dest-table", table, "--incremental-strategy", strategy,
	}
	if w.Mode == scenario.Upsert {
		for _, k := range w.Key {
			args = append(args, "--primary-key", k)
		}
	}
	if w.Mode == scenario.Incremental {
		args = append(args, "--incremental-key", w.Cursor)
	}
	return Line{Commands: [][]string{args}, Env: []string{"DISABLE_TELEMETRY=true", "HOME=" + w.Dir}}, nil
}

// Its batches: PostgreSQL takes 65,535 parameters in a statement.
const parametersMost = 65_535

// redpanda selects rows and inserts them in batches, several at a time.
func redpanda(path string, w Work) (Line, error) {
	if err := onlyPostgres(w, scenario.Append); err != nil {
		return Line{}, err
	}
	if err := oneTable(w); err != nil {
		return Line{}, err
	}
	table := w.Schema + "." + w.Tables[0]
	values := make([]string, len(w.Columns))
	for i, c := range w.Columns {
		values[i] = "this." + strconv.Quote(c)
	}
	config := map[string]any{
		"http":   map[string]any{"enabled": false},
		"logger": map[string]any{"level": "WARN"},
		"input":  map[string]any{"sql_select": map[string]any{"driver": "postgres", "dsn": w.Source, "table": table, "columns": w.Columns}},
		"output": map[string]any{"sql_insert": map[string]any{
			"driver": "postgres", "dsn": w.Target, "table": table, "columns": w.Columns, "args_mapping": "root = [" + strings.Join(values, ", ") + "]",
			"max_in_flight": 8, "batching": map[string]any{"count": max(1, min(5000, parametersMost/max(1, len(w.Columns)))), "period": "100ms"},
		}},
	}
	file, files, err := jsonFile(w.Dir, "connect.yaml", config)
	return Line{Commands: [][]string{{path, "run", file}}, Files: files}, err
}

// conduit takes a snapshot and goes on with changes until it is stopped.
func conduit(path string, w Work) (Line, error) {
	if err := onlyPostgres(w, scenario.Append); err != nil {
		return Line{}, err
	}
	if err := oneTable(w); err != nil {
		return Line{}, err
	}
	table := w.Schema + "." + w.Tables[0]
	end := func(id, kind string, settings map[string]any) map[string]any {
		return map[string]any{"id": id, "type": kind, "plugin": "builtin:postgres", "settings": settings}
	}
	config := map[string]any{"version": "2.2", "pipelines": []any{map[string]any{"id": "bench", "status": "running", "connectors": []any{
		end("from", "source", map[string]any{"url": w.Source, "tables": table, "sdk.batch.size": "10000", "sdk.batch.delay": "100ms"}),
		end("to", "destination", map[string]any{"url": w.Target, "table": table, "sdk.batch.size": "10000", "sdk.batch.delay": "100ms"}),
	}}}}
	file, files, err := jsonFile(w.Dir, "pipeline.yaml", config)
	return Line{
		Commands: [][]string{{path, "run", "--pipelines.path", file, "--db.type", "inmemory", "--api.enabled=false", "--log.level", "error"}},
		Files:    files, Forever: true,
	}, err
}

// jsonFile makes a file of configuration: JSON is YAML.
func jsonFile(dir, name string, value any) (string, map[string]string, error) {
	text, err := json.MarshalIndent(value, "", "  ")
	path := filepath.Join(dir, name)
	return path, map[string]string{path: string(text) + "\n"}, err
}

// Describe writes a line as text, for people and for tests.
func (l Line) Describe() string {
	var b strings.Builder
	for i, c := range l.Commands {
		if i > 0 {
			b.WriteString("| ")
		}
		b.WriteString(shell(c, false) + "\n")
	}
	if l.Stdout != "" {
		b.WriteString("> " + l.Stdout + "\n")
	}
	for _, e := range l.Env {
		b.WriteString("env " + e + "\n")
	}
	for _, name := range slices.Sorted(maps.Keys(l.Files)) {
		b.WriteString("file " + name + "\n" + l.Files[name])
	}
	if l.Forever {
		b.WriteString("until the target has the rows\n")
	}
	return b.String()
}
