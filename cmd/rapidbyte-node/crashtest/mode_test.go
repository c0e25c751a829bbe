package crashtest

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

// pipeline is the name of every pipeline: each has databases and a folder of its own.
const pipeline = "crash"

// row is a row of every stream, at the source and at the destination.
type row struct {
	id   int64
	name string
	qty  int64
}

// text is the whole row: two rows are equal when their texts are.
func (r row) text() string { return fmt.Sprintf("%d|%s|%d", r.id, r.name, r.qty) }

var names = []string{"plain", "a,b", `say "x"`, "two\nlines", " spaces ", "größe 表", "tab\there", "NULL", "0012", `back\slash`, "'"}

// made is row id of a generation.
func made(id int64, generation int) row {
	return row{id: id, name: fmt.Sprintf("%s %d-%d", names[int(id)%len(names)], id, generation), qty: 3*id + int64(generation)}
}

// stretch makes rows [from, to) of a generation.
func stretch(from, to int64, generation int) []row {
	var out []row
	for id := from; id < to; id++ {
		out = append(out, made(id, generation))
	}
	return out
}

// stream is one stream of a mode.
type stream struct {
	name   string
	mode   connectors.WriteMode
	follow bool // incremental, by qty and then id
	sql    bool // a transform changes it
	bad    bool // the target refuses each fiftieth row, which becomes a dead letter
	// old is what the source holds before the target is loaded for the first time; none:
	// the crashes come in the first load. fresh replaces it at the source (replace), is
	// laid over it (upsert) or comes behind it (append).
	old, fresh []row
}

// refused reports whether the target does not take a row.
func (s stream) refused(r row) bool { return s.bad && r.id%50 == 0 }

// source is what the source holds in the end.
func (s stream) source() []row {
	switch s.mode {
	case appends:
		return slices.Concat(s.old, s.fresh)
	case replaces:
		return s.fresh
	case upserts:
		return overlay(s.old, s.fresh)
	}
	panic("unknown mode")
}

func overlay(old, fresh []row) []row {
	newest := map[int64]row{}
	var ids []int64
	for _, r := range slices.Concat(old, fresh) {
		if _, ok := newest[r.id]; !ok {
			ids = append(ids, r.id)
		}
		newest[r.id] = r
	}
	out := make([]row, len(ids))
	for i, id := range ids {
		out[i] = newest[id]
	}
	return out
}

// target is what arrives of rows.
func (s stream) target(rows []row) []row {
	var out []row
	for _, r := range rows {
		if s.refused(r) {
			continue
		}
		if s.sql {
			r.name += "!"
		}
		out = append(out, r)
	}
	return out
}

// mode is a kind of pipeline.
type mode struct {
	name    string
	servers bool   // from one database of a server to another
	to      string // file or duckdb
	streams []stream
}

// Rows of a server are read, and committed, by ranges of blocks. Those without a transform
// pass through undecoded.
var modes = []mode{
	{name: "append", servers: true, streams: []stream{
		{name: "a", mode: appends, sql: true, bad: true, fresh: stretch(1, 600, 1)},
	}},
	{name: "upsert", servers: true, streams: []stream{
		{name: "u", mode: upserts, sql: true, old: stretch(1, 400, 1), fresh: stretch(200, 500, 2)},
	}},
	{name: "replace", servers: true, streams: []stream{
		{name: "r", mode: replaces, sql: true, old: stretch(1, 300, 1), fresh: stretch(100, 500, 2)},
	}},
	{name: "incremental", servers: true, streams: []stream{
		{name: "i", mode: appends, follow: true, sql: true, old: stretch(1, 300, 1), fresh: stretch(300, 800, 1)},
	}},
	{name: "passthrough", servers: true, streams: []stream{
		{name: "p", mode: appends, fresh: stretch(1, 600, 1)},
	}},
	{name: "passthrough_upsert", servers: true, streams: []stream{
		{name: "p", mode: upserts, old: stretch(1, 400, 1), fresh: stretch(200, 500, 2)},
	}},
	{name: "files", to: "file", streams: []stream{
		{name: "a", mode: appends, sql: true, old: stretch(1, 500, 1), fresh: stretch(500, 2500, 1)},
		{name: "r", mode: replaces, old: stretch(1, 500, 1), fresh: stretch(300, 1500, 2)},
	}},
	{name: "duckdb", to: "duckdb", streams: []stream{
		{name: "a", mode: appends, sql: true, old: stretch(1, 500, 1), fresh: stretch(500, 1500, 1)},
		{name: "u", mode: upserts, old: stretch(1, 500, 1), fresh: stretch(300, 1000, 2)},
		{name: "r", mode: replaces, old: stretch(1, 500, 1), fresh: stretch(300, 1000, 2)},
	}},
}

// still reports whether a stream that is complete is not read again.
func (m mode) still(s stream) bool { return s.mode != replaces && (s.follow || !m.servers) }

// doubles reports whether a run after a complete one loads everything once more.
func (m mode) doubles() bool {
	return slices.ContainsFunc(m.streams, func(s stream) bool { return s.mode == appends && !m.still(s) })
}

// loaded reports whether there is an old version at the target.
func (m mode) loaded() bool { return len(m.streams[0].old) > 0 }

// document is the pipeline of a mode; from, to and state are of its servers.
func (m mode) document(from, to, state string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: \"1.0\"\npipeline: %s\nsource:\n", pipeline)
	if m.servers {
		fmt.Fprintf(&b, "  use: postgres\n  config: {dsn: %q}\n  streams:\n", from)
	} else {
		b.WriteString("  use: file\n  config: {}\n  streams:\n")
	}
	for _, s := range m.streams {
		fmt.Fprintf(&b, "    - {name: %s, write_mode: %s", s.name, s.mode)
		switch {
		case !m.servers:
			fmt.Fprintf(&b, ", path: \"in/%s/*\"", s.name)
		case s.follow:
			b.WriteString(", columns: [id, name, qty], sync_mode: incremental, cursor_field: qty, tie_breaker_field: id")
		default:
			b.WriteString(", columns: [id, name, qty]")
		}
		b.WriteString("}\n")
	}
	if slices.ContainsFunc(m.streams, func(s stream) bool { return s.sql }) {
		b.WriteString("transforms:\n")
	}
	for _, s := range m.streams {
		if s.sql {
			fmt.Fprintf(&b, "  - {use: sql, config: {query: \"SELECT id, name || '!' AS name, qty FROM %s\"}, streams: [%s]}\n", s.name, s.name)
		}
	}
	switch {
	case m.servers:
		fmt.Fprintf(&b, "destination:\n  use: postgres\n  config: {dsn: %q}\n", to)
	case m.to == "duckdb":
		b.WriteString("destination:\n  use: duckdb\n  config: {path: out.duckdb}\n")
	default:
		b.WriteString("destination:\n  use: file\n  config: {path: out, format: parquet}\n")
	}
	if slices.ContainsFunc(m.streams, func(s stream) bool { return s.mode == upserts }) {
		b.WriteString("  primary_key: [id]\n")
	}
	if slices.ContainsFunc(m.streams, func(s stream) bool { return s.bad }) {
		b.WriteString("  on_data_error: dlq\n")
	}
	b.WriteString(state)
	return b.String() + "resources: {checkpoint_interval_rows: 60, max_batch_bytes: 4kb, max_inflight_batches: 2, parallelism: 2}\n"
}
