package killtest

import (
	"fmt"
	"slices"
	"strings"

	"rapidbyte.io/node/connectors"
)

const (
	appends  = connectors.ModeAppend
	replaces = connectors.ModeReplace
	upserts  = connectors.ModeUpsert
)

// pipeline is the name of every pipeline: each has a folder of its own.
const pipeline = "kill"

// stream is one stream of a scenario.
type stream struct {
	name   string
	mode   connectors.WriteMode
	format string // end of the names of its files: csv, csv.gz, jsonl, parquet
	files  int    // per generation, each a part
	rows   int    // of one file
	sql    bool   // a transform filters and changes it
	view   bool   // of a server: it is a view, read in ranges of id
	ranges bool   // of a server: the table is read in ranges of id
	follow bool   // of a server: incremental, by qty and then id
}

// scenario is a kind of pipeline.
type scenario struct {
	name    string
	to      string // file, duckdb or postgres
	format  string // of a file destination
	streams []stream
	// made: rows come from the generator, which remembers nothing: a complete append
	// that is run again is a new load by intent.
	made bool
	rows int // per generation and stream, of the generator
	pace int // its rows per second and task
	// server: rows come from tables of one database and go into another.
	server bool
	swap   string // how a replace becomes visible there
	shared bool   // the state store is a schema beside the targets; otherwise a file
}

var scenarios = []scenario{
	{name: "gzip and lines appended to parquet", to: "file", format: "parquet", streams: []stream{
		{name: "a", mode: appends, format: "csv.gz", files: 3, rows: 2000},
		{name: "b", mode: appends, format: "jsonl", files: 2, rows: 2000},
	}},
	{name: "files appended to duckdb", to: "duckdb", streams: []stream{
		{name: "a", mode: appends, format: "jsonl", files: 3, rows: 1750, sql: true},
		{name: "b", mode: appends, format: "parquet", files: 3, rows: 1750},
	}},
	{name: "files replace duckdb tables", to: "duckdb", streams: []stream{ // many, because the swap of each is a moment
		{name: "a", mode: replaces, format: "csv", files: 3, rows: 500},
		{name: "b", mode: replaces, format: "parquet", files: 2, rows: 500},
		{name: "c", mode: replaces, format: "jsonl", files: 1, rows: 500},
		{name: "d", mode: replaces, format: "csv.gz", files: 1, rows: 500},
		{name: "e", mode: replaces, format: "csv", files: 2, rows: 500, sql: true},
		{name: "f", mode: replaces, format: "csv", files: 1, rows: 500},
	}},
	{name: "files upserted into duckdb", to: "duckdb", streams: []stream{
		{name: "a", mode: upserts, format: "csv.gz", files: 3, rows: 1250},
		{name: "b", mode: upserts, format: "jsonl", files: 2, rows: 1250},
	}},
	{name: "parquet through sql appended to csv", to: "file", format: "csv", streams: []stream{
		{name: "a", mode: appends, format: "parquet", files: 3, rows: 2500, sql: true},
		{name: "b", mode: appends, format: "csv", files: 2, rows: 2500},
	}},
	{name: "generator appended to duckdb in one go", to: "duckdb", made: true, rows: 5_000, pace: 8_000, streams: []stream{
		{name: "a", mode: appends},
		{name: "b", mode: appends},
	}},
	{name: "generator appended to lines in one go", to: "file", format: "jsonl", made: true, rows: 5_000, pace: 8_000, streams: []stream{
		{name: "a", mode: appends, sql: true},
		{name: "b", mode: appends},
	}},
	{name: "files replace parquet", to: "file", format: "parquet", streams: []stream{
		{name: "a", mode: replaces, format: "csv.gz", files: 3, rows: 500},
		{name: "b", mode: replaces, format: "jsonl", files: 2, rows: 500, sql: true},
		{name: "c", mode: replaces, format: "parquet", files: 2, rows: 500},
		{name: "d", mode: replaces, format: "csv", files: 2, rows: 500},
		{name: "e", mode: replaces, format: "jsonl", files: 1, rows: 500},
		{name: "f", mode: replaces, format: "csv", files: 2, rows: 500},
	}},
	{name: "every mode into duckdb", to: "duckdb", streams: []stream{
		{name: "a", mode: appends, format: "csv", files: 2, rows: 1500, sql: true},
		{name: "b", mode: replaces, format: "parquet", files: 2, rows: 1500},
		{name: "c", mode: upserts, format: "jsonl", files: 2, rows: 1000},
	}},
	{name: "generator replaces duckdb tables", to: "duckdb", made: true, rows: 2000, pace: 12_000, streams: []stream{
		{name: "a", mode: replaces, sql: true},
		{name: "b", mode: replaces},
		{name: "c", mode: replaces},
		{name: "d", mode: replaces},
		{name: "e", mode: replaces},
	}},
	{name: "both modes into csv", to: "file", format: "csv", streams: []stream{
		{name: "a", mode: appends, format: "csv", files: 3, rows: 1750},
		{name: "b", mode: replaces, format: "parquet", files: 2, rows: 1750},
	}},
	{name: "generator appended to parquet in one go", to: "file", format: "parquet", made: true, rows: 5_000, pace: 8_000, streams: []stream{
		{name: "a", mode: appends},
		{name: "b", mode: appends},
	}},
}

// stateStore is the kind of its state store.
func (s scenario) stateStore() string {
	if s.shared {
		return "postgres"
	}
	return "bbolt"
}

// again reports whether a complete run may be run again without loading twice.
func (s scenario) again() bool {
	return !slices.ContainsFunc(s.streams, func(st stream) bool { return st.mode == appends && s.forgets(st) })
}

// forgets reports whether a complete stream is read from its beginning the next time.
func (s scenario) forgets(st stream) bool { return s.made || s.server && !st.follow }

// versions reports whether a target is replaced, so that there is an old version.
func (s scenario) versions() bool {
	return slices.ContainsFunc(s.streams, func(st stream) bool { return st.mode == replaces })
}

// still reports whether a run that follows a complete one moves nothing.
func (s scenario) still() bool {
	return !s.versions() && !slices.ContainsFunc(s.streams, s.forgets)
}

// Small batches and intervals: a hundred commits in a run of a second.
const resources = "resources: {checkpoint_interval_rows: 50, max_batch_bytes: 3kb, parallelism: 2}\n"

// document returns the pipeline document; seed is of the generator.
func (s scenario) document(seed uint64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: \"1.0\"\npipeline: %s\nsource:\n", pipeline)
	if s.made {
		fmt.Fprintf(&b, "  use: generator\n  config: {rows: %d, seed: %d, rows_per_second: %d, columns: %s}\n", s.rows, seed, s.pace, generatorColumns)
	} else {
		b.WriteString("  use: file\n  config: {}\n")
	}
	b.WriteString("  streams:\n")
	for _, st := range s.streams {
		fmt.Fprintf(&b, "    - {name: %s, write_mode: %s", st.name, st.mode)
		if !s.made {
			fmt.Fprintf(&b, ", path: \"in/%s/*\"", st.name)
		}
		b.WriteString("}\n")
	}
	b.WriteString(s.transforms())
	if s.to == "file" {
		fmt.Fprintf(&b, "destination:\n  use: file\n  config: {path: out, format: %s}\n", s.format)
	} else {
		b.WriteString("destination:\n  use: duckdb\n  config: {path: out.duckdb}\n")
	}
	if slices.ContainsFunc(s.streams, func(st stream) bool { return st.mode == upserts }) {
		b.WriteString("  primary_key: [id]\n")
	}
	b.WriteString("state: {backend: bbolt, connection: state/state.db}\n")
	return b.String() + resources
}

// transforms is that part of the document.
func (s scenario) transforms() string {
	var steps strings.Builder
	for _, st := range s.streams {
		if st.sql {
			fmt.Fprintf(&steps, "  - use: sql\n    config: {query: \"SELECT id, name || '!' AS name, qty * 2 AS qty, price, flag FROM %s WHERE id %% 5 <> 0\"}\n    streams: [%s]\n", st.name, st.name)
		}
	}
	if steps.Len() == 0 {
		return ""
	}
	return "transforms:\n" + steps.String()
}

// transformed is what the transform makes of rows.
func (st stream) transformed(rows []row) []row {
	if !st.sql {
		return rows
	}
	var out []row
	for _, r := range rows {
		if r.ID%5 != 0 {
			r.Name += "!"
			r.Qty *= 2
			out = append(out, r)
		}
	}
	return out
}
