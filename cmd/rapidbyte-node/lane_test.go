package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
)

// lanes is a server with a source and a destination database, in which types of the same
// name have different OIDs.
type lanes struct {
	server *pgtest.Server
	runs   int
}

func newLanes(t *testing.T) *lanes {
	t.Helper()
	l := &lanes{server: pgtest.Start(t, "fsync=off")}
	l.server.Exec(t, "postgres", "CREATE DATABASE src TEMPLATE template0 ENCODING 'UTF8'")
	l.server.Exec(t, "postgres", "CREATE DATABASE dst TEMPLATE template0 ENCODING 'UTF8'")
	l.server.Exec(t, "dst", "CREATE TYPE decoy AS ENUM ('x')")
	t.Chdir(t.TempDir())
	return l
}

// laneDoc is a document in pieces.
type laneDoc struct {
	name       string // also of the schema at the destination
	source     string // keys of its config
	stream     string // keys beside the name
	table      string // or several
	transforms string
	config     string // keys of the destination's config
	write      string // keys beside the mode
	mode       string
	resources  string
}

// write writes the document and returns its path.
func (l *lanes) write(t *testing.T, d laneDoc) string {
	t.Helper()
	login := func(db string) string {
		return fmt.Sprintf("host: 127.0.0.1, port: %d, user: %s, database: %s", l.server.Port(), l.server.User(), db)
	}
	streams := ""
	for name := range strings.FieldsSeq(d.table) {
		streams += "{name: " + name + d.stream + "}, "
	}
	text := "version: \"1.0\"\npipeline: " + d.name + "\nsource: {use: postgres, config: {" + login("src") + d.source + "}, streams: [" + streams + "]}\n"
	if d.transforms != "" {
		text += "transforms: [" + d.transforms + "]\n"
	}
	if d.mode == "" {
		d.mode = "append"
	}
	text += "destination: {use: postgres, config: {" + login("dst") + ", schema: " + d.name + d.config + "}, write_mode: " + d.mode + d.write + "}\n"
	if d.resources != "" {
		text += "resources: {" + d.resources + "}\n"
	}
	return write(t, ".", d.name+".yaml", text)
}

// run runs a document, which must end with code.
func (l *lanes) run(t *testing.T, d laneDoc, code int) (runResult, invoked) {
	t.Helper()
	r := invoke(t, nil, "run", l.write(t, d), "-o", "json")
	require.Equal(t, code, r.code, "%s\n%s", r.stdout, r.stderr)
	var res runResult
	require.NoError(t, json.Unmarshal(r.envelope(t).Result, &res))
	return res, r
}

// rows are digests of the rows of a table, sorted: each value counts as it is printed.
func (l *lanes) rows(t *testing.T, db, table string) []string {
	t.Helper()
	var out []string
	for _, r := range l.server.Query(t, db, "SELECT md5(t::text) || ' ' || left(t::text, 120) FROM "+table+" t ORDER BY 1") {
		out = append(out, r[0])
	}
	return out
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

// both runs a document in each lane and returns the names of the two schemas.
func (l *lanes) both(t *testing.T, d laneDoc) (raw, arrow string) {
	t.Helper()
	l.runs++
	for _, c := range []struct {
		name, resources string
		lane            messages.Lane
		into            *string
	}{{"raw", "", messages.LanePassthrough, &raw}, {"arrow", "passthrough: off", messages.LaneArrow, &arrow}} {
		one := d
		one.name = fmt.Sprintf("%s_%d", c.name, l.runs)
		one.resources = strings.Trim(d.resources+", "+c.resources, ", ")
		res, _ := l.run(t, one, messages.ExitOK)
		for _, s := range res.Streams {
			require.Equal(t, c.lane, s.Lane, "%s: %s", s.Stream, s.LaneReason)
		}
		*c.into = one.name
	}
	return raw, arrow
}

// types has each type that passes, in a table with a row per kind of value.
const types = `
CREATE TYPE mood AS ENUM ('sad', 'it''s ok', 'très');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN word AS varchar(8) NOT NULL DEFAULT 'x';
CREATE TABLE types (
	id bigint PRIMARY KEY, b bool, i2 smallint, i4 integer, f4 real, f8 double precision, n numeric, n2 numeric(12,4), n3 numeric(60,20),
	t text, v varchar, v5 varchar(5), c char(4), nm name, ch "char", by bytea, d date, tm time, tm3 time(3), ts timestamp, ts0 timestamp(0), tz timestamptz,
	iv interval, iv0 interval(0), u uuid, j json, jb jsonb, m mood, p positive, w word,
	ab bool[], ai int[], al bigint[], an numeric[], an2 numeric(9,2)[], at text[], av varchar(3)[], az timestamptz[], au uuid[], aj jsonb[], g int GENERATED ALWAYS AS (1 + 1) STORED);
INSERT INTO types (id, w) VALUES (1, 'nulls'), (-2, '');
INSERT INTO types VALUES (3, true, -32768, 2147483647, 'NaN', '-Infinity', '1.50', 1.5, 0.00000000000000000001, '', '', '', '', '', 'z', '', '0044-03-15 BC', '00:00', '00:00',
	'2026-01-01 00:00:00.000001', '2026-01-01', '1969-12-31 23:59:59.999999Z', '1 mon -2 days 00:00:00.000001', '-5 s', '00000000-0000-0000-0000-000000000000', '{"a": 1, "a": 2}', '{"a": [1, "é"]}',
	'it''s ok', 1, 'a', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}');
INSERT INTO types VALUES (9223372036854775807, false, 0, -1, -0.0, 1e-300, 'NaN', -99999999.9999, -1, E'tab\t\\ \n é 漢 😀', repeat('x', 100), 'épée', 'ab', 'name', 'a', '\x00ff0a', '5874897-12-31', '23:59:59.999999', '01:02:03.457',
	'290000-12-31 23:59:59', '0001-01-01', '2026-06-01 12:00+02', '-178000000 years', '3 days', 'ffffffff-ffff-ffff-ffff-ffffffffffff', 'null', 'null',
	'très', 2147483647, 'w', '{t,NULL,f}', '{1,NULL,-1}', '{9223372036854775807}', '{1.10,NULL,NaN}', '{1.10}', '{"",NULL,"a,b","\"\\"}', '{abc}', '{2026-01-01Z}', '{NULL}', '{"{\"a\": 1}"}');
CREATE TABLE empty (id int PRIMARY KEY, t text);
CREATE TABLE huge AS SELECT i AS id, repeat(chr(64 + i), i * 1000000) AS t, decode(repeat('ab', i * 100000), 'hex') AS b FROM generate_series(1, 9) i;
CREATE TABLE many AS SELECT i AS id, 'row ' || i AS t, i / 7.0 AS n, CASE WHEN i % 3 = 0 THEN now() + i * interval '1 s' END AS at FROM generate_series(1, 60000) i;
ALTER TABLE many ADD PRIMARY KEY (id);
CREATE TABLE parted (id int, day date) PARTITION BY RANGE (id);
CREATE TABLE parted_a PARTITION OF parted FOR VALUES FROM (0) TO (500);
CREATE TABLE parted_b PARTITION OF parted FOR VALUES FROM (500) TO (2000);
INSERT INTO parted SELECT i, '2026-01-01'::date + i FROM generate_series(1, 1500) i;
CREATE VIEW seen AS SELECT id, t || '!' AS t FROM many WHERE id < 100;
`

func TestPGBothLanesWriteTheSame(t *testing.T) {
	l := newLanes(t)
	l.server.Exec(t, "src", types)
	tables := []string{"types", "empty", "huge", "many", "parted", "seen"}
	for _, mode := range []string{"append", "replace", "upsert"} {
		for _, resources := range []string{"", "parallelism: 3, checkpoint_interval_rows: 500, max_batch_bytes: 40000"} {
			t.Run(mode+"/"+resources, func(t *testing.T) {
				d := laneDoc{table: strings.Join(tables, " "), mode: mode, resources: resources}
				if mode == "upsert" {
					d.write = ", primary_key: [id]"
				}
				raw, arrow := l.both(t, d)
				for _, table := range tables {
					want := l.rows(t, "src", table)
					require.Equal(t, want, l.rows(t, "dst", raw+"."+table), table)
					require.Equal(t, want, l.rows(t, "dst", arrow+"."+table), table)
					for _, ends := range [][2]string{{raw, arrow}, {arrow, raw}} {
						require.Empty(t, l.server.Query(t, "dst", fmt.Sprintf("SELECT x::text FROM %[1]s.%[3]s x EXCEPT ALL SELECT x::text FROM %[2]s.%[3]s x", ends[0], ends[1], table)))
					}
				}
			})
		}
	}
}

// Rows that Arrow has no place for stop the one lane and are exact in the other.
func TestPGPassthroughTakesWhatArrowCannotHold(t *testing.T) {
	l := newLanes(t)
	for name, c := range map[string]struct{ typ, value string }{
		"day":     {"date", "infinity"},
		"instant": {"timestamptz", "-infinity"},
		"late":    {"timestamp", "294276-12-31 23:59:59"},
		"nan":     {"numeric(9,2)", "NaN"},
		"noon":    {"time", "24:00:00"},
		"matrix":  {"int[]", "{{1,2},{3,4}}"},
		"shifted": {"int[]", "[5:6]={1,2}"},
	} {
		table := "odd_" + name
		l.server.Exec(t, "src", fmt.Sprintf("CREATE TABLE %s (id int, v %s); INSERT INTO %[1]s VALUES (1, NULL), (2, '%[3]s')", table, c.typ, c.value))
		l.run(t, laneDoc{name: name, table: table}, messages.ExitOK)
		require.Equal(t, l.rows(t, "src", table), l.rows(t, "dst", name+"."+table), name)
		_, r := l.run(t, laneDoc{name: name + "_arrow", table: table, resources: "passthrough: off"}, messages.ExitData)
		require.Contains(t, r.stdout, `"row": 2`, name)
	}
}

// What ends a run in one lane ends it in the other, and names the same row.
func TestPGBothLanesRefuseTheSame(t *testing.T) {
	l := newLanes(t)
	l.server.Exec(t, "postgres", "CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
	l.server.Exec(t, "ascii", `CREATE TABLE broken (id int, t text); INSERT INTO broken VALUES (1, 'fine'), (2, E'\xff')`)
	l.server.Exec(t, "src", `CREATE TABLE checked AS SELECT i AS id, i::text AS t FROM generate_series(1, 30000) i; CREATE TABLE wide AS SELECT i AS id, repeat('x', i * 700000) AS t FROM generate_series(1, 2) i`)
	for _, c := range []struct {
		doc     laneDoc
		prepare string
		code    int
		row     string
	}{
		{laneDoc{table: "checked", resources: "checkpoint_interval_rows: 3000"}, "CREATE TABLE checked (id int, t text, CHECK (id <> 20001))", messages.ExitData, `"row": 20001`},
		{laneDoc{table: "checked", mode: "upsert", write: ", primary_key: [id]"}, "CREATE TABLE checked (id int PRIMARY KEY, t text, CHECK (id <> 20001))", messages.ExitData, ""},
		{laneDoc{table: "wide", resources: "max_row_bytes: 1mb"}, "", messages.ExitData, `"row": 2`},
		{laneDoc{table: "broken"}, "", messages.ExitData, `"row": 2`},
	} {
		var codes []string
		for _, resources := range []string{"", "passthrough: off"} {
			d := c.doc
			l.runs++
			d.name = fmt.Sprintf("refused_%d", l.runs)
			d.resources = strings.Trim(d.resources+", "+resources, ", ")
			if d.table == "broken" {
				d.source = ", database: ascii"
			}
			if c.prepare != "" {
				l.server.Exec(t, "dst", fmt.Sprintf("CREATE SCHEMA %[1]s; SET search_path = %[1]s; ", d.name)+c.prepare)
			}
			path := l.write(t, d)
			if d.table == "broken" { // the key is given once
				text := strings.Replace(read(t, path), "database: src, database: ascii", "database: ascii", 1)
				write(t, ".", path, text)
			}
			r := invoke(t, nil, "run", path, "-o", "json")
			require.Equal(t, c.code, r.code, "%s\n%s", r.stdout, r.stderr)
			require.Contains(t, r.stdout, c.row)
			e := r.envelope(t)
			require.NotNil(t, e.Error)
			codes = append(codes, string(e.Error.Code))
		}
		require.Equal(t, codes[0], codes[1], c.doc.table)
	}
}

// The lane is chosen by what would write the same: check says beforehand which one, the
// run afterwards, and both say why.
func TestPGTheLaneAndItsReasonAreTold(t *testing.T) {
	l := newLanes(t)
	l.server.Exec(t, "src", `CREATE TYPE mood AS ENUM ('a'); CREATE TABLE orders (id int PRIMARY KEY, amount numeric(10,2), note text, at timestamptz DEFAULT '2026-01-01');
		INSERT INTO orders VALUES (1, 1, 'a'), (2, 2, 'b'); CREATE TABLE nets (id int, at inet); INSERT INTO nets VALUES (1, '::1'); CREATE TABLE moods (id int, m mood[]); INSERT INTO moods VALUES (1, '{a}')`)
	const asIs = "CREATE TABLE orders (id int PRIMARY KEY, amount numeric(10,2), note text, at timestamptz)"
	for i, c := range []struct {
		doc     laneDoc
		prepare string
		reason  string // empty: they pass through
	}{
		{laneDoc{}, "", ""},
		{laneDoc{}, asIs, ""},
		{laneDoc{mode: "replace"}, asIs, ""},
		{laneDoc{mode: "upsert"}, asIs, ""},
		{laneDoc{stream: ", columns: [note, id]"}, asIs, ""},
		{laneDoc{stream: ", filter: 'id > 1'"}, "", ""},
		{laneDoc{stream: ", partition_key: id", resources: "parallelism: 2"}, "", ""},
		{laneDoc{}, "CREATE TABLE orders (id int PRIMARY KEY, amount numeric(10,2), more int DEFAULT 7)", ""},
		{laneDoc{}, "CREATE TABLE orders (note text, at timestamptz, amount numeric(10,2), id int GENERATED ALWAYS AS IDENTITY)", ""},
		{laneDoc{resources: "autotune: {flush_bytes: 2mb}"}, "", ""},

		{laneDoc{resources: "passthrough: off"}, "", "resources.passthrough is off"},
		{laneDoc{transforms: "{use: sql, config: {query: 'SELECT * FROM orders'}}"}, "", "a transform needs the values"},
		{laneDoc{write: ", on_data_error: dlq"}, "", "on_data_error dlq needs the values of a row that is refused"},
		{laneDoc{write: ", on_data_error: skip"}, "", "on_data_error skip needs the values of a row that is refused"},
		{laneDoc{write: ", metadata_columns: true"}, "", "metadata_columns adds values to each row"},
		{laneDoc{config: ", load_method: insert"}, "", "load_method insert sends values, not rows"},
		{laneDoc{stream: ", sync_mode: incremental, cursor_field: id"}, "", "an incremental stream finds its position in the values"},
		{laneDoc{source: ", as_text: [public.orders.amount]"}, "", "column amount of type numeric(10,2) travels as text"},
		{laneDoc{table: "nets"}, "", "column at of type inet travels as text"},
		{laneDoc{table: "moods"}, "", "column m of type \"public\".\"mood\"[] has elements that each server numbers in its own way"},
		{laneDoc{}, "CREATE TABLE orders (id bigint, amount numeric(10,2), note text, at timestamptz)", "column id of type integer is bigint in the table"},
		{laneDoc{}, "CREATE TABLE orders (id int, amount numeric(12,2), note text, at timestamptz)", "column amount of type numeric(10,2) is numeric(12,2) in the table"},
		{laneDoc{}, "CREATE TABLE orders (id int, amount numeric, note varchar(20), at timestamptz)", "column amount of type numeric(10,2) is numeric in the table"},
		{laneDoc{}, "CREATE TABLE orders (id int, amount numeric(10,2), note text GENERATED ALWAYS AS ('x') STORED)", "column note is computed by the table"},
		{laneDoc{write: ", schema_evolution: {new_column: ignore}"}, "CREATE TABLE orders (id int)", "the table has no column amount"},
	} {
		d := c.doc
		d.name = fmt.Sprintf("told_%d", i)
		if d.table == "" {
			d.table = "orders"
		}
		if c.prepare != "" {
			l.server.Exec(t, "dst", fmt.Sprintf("CREATE SCHEMA %[1]s; SET search_path = %[1]s; ", d.name)+c.prepare)
		}
		lane, says := messages.LanePassthrough, "rows pass through as they are (pgcopy-binary)"
		if c.reason != "" {
			lane, says = messages.LaneArrow, "rows travel as Arrow, because "+c.reason
		}
		path := l.write(t, d)
		r := invoke(t, nil, "check", path)
		require.Equal(t, messages.ExitOK, r.code, "%s%s", r.stdout, r.stderr)
		require.Contains(t, r.stdout, "    "+says+"\n", "%d", i)
		var report checkResult
		require.NoError(t, json.Unmarshal(invoke(t, nil, "check", path, "-o", "json").envelope(t).Result, &report))
		require.Equal(t, lane, report.Streams[0].Lane)
		require.Equal(t, c.reason, report.Streams[0].Reason)
		r = invoke(t, nil, "run", path, "-o", "json", "--events", d.name+".ndjson")
		require.Equal(t, messages.ExitOK, r.code, "%s%s", r.stdout, r.stderr)
		var res runResult
		require.NoError(t, json.Unmarshal(r.envelope(t).Result, &res))
		require.Equal(t, lane, res.Streams[0].Lane, "%d: %s", i, res.Streams[0].LaneReason)
		require.Equal(t, c.reason, res.Streams[0].LaneReason)
		require.Contains(t, read(t, d.name+".ndjson"), strings.ReplaceAll(says, `"`, `\"`))
		require.NotEqual(t, "0", l.server.Query(t, "dst", "SELECT count(*) FROM "+d.name+"."+d.table)[0][0])
	}
}

// A run that is killed in the middle of a COPY goes on exactly, in either lane: a position
// means the same in both.
func TestKillInEitherLaneAndGoOnInTheOther(t *testing.T) {
	l := newLanes(t)
	const rows = 40_000
	l.server.Exec(t, "src", fmt.Sprintf("CREATE TABLE many AS SELECT i AS id, repeat('row ' || i, 10) AS t FROM generate_series(1, %d) i; ALTER TABLE many ADD PRIMARY KEY (id)", rows))
	// The server takes its time, so that there is a middle.
	l.server.Exec(t, "dst", `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF NEW.id % 400 = 0 THEN PERFORM pg_sleep(0.03); END IF; RETURN NEW; END$$`)
	for i, c := range []struct{ mode, first, then string }{
		{"append", "auto", "auto"}, {"append", "auto", "off"}, {"append", "off", "auto"}, {"upsert", "auto", "auto"}, {"upsert", "auto", "off"},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			name := fmt.Sprintf("killed_%d", i)
			l.server.Exec(t, "dst", fmt.Sprintf(`CREATE SCHEMA %[1]s; CREATE TABLE %[1]s.many (id int PRIMARY KEY, t text);
				CREATE TRIGGER slow BEFORE INSERT ON %[1]s.many FOR EACH ROW EXECUTE FUNCTION public.slow()`, name))
			if c.mode == "append" {
				l.server.Exec(t, "dst", "ALTER TABLE "+name+".many DROP CONSTRAINT many_pkey") // a row that came twice would be seen
			}
			d := laneDoc{name: name, table: "many", mode: c.mode, resources: "parallelism: 1, checkpoint_interval_rows: 3000, max_batch_bytes: 65536, passthrough: " + c.first}
			events := filepath.Join(".", name+".ndjson")
			p := start(t, ".", "run", l.write(t, d), "--events", events)
			await(t, events, `"event":"checkpoint"`)
			require.NoError(t, p.cmd.Process.Kill())
			p.wait(t, 10*time.Second)
			before := l.server.Query(t, "dst", "SELECT count(*) FROM "+name+".many")[0][0]
			require.NotEqual(t, "0", before)
			require.NotEqual(t, fmt.Sprint(rows), before, "it was killed in the middle")
			l.server.Exec(t, "dst", "DROP TRIGGER slow ON "+name+".many")
			d.resources = strings.Replace(d.resources, "passthrough: "+c.first, "passthrough: "+c.then, 1)
			res, _ := l.run(t, d, messages.ExitOK)
			lane := map[string]messages.Lane{"auto": messages.LanePassthrough, "off": messages.LaneArrow}[c.then]
			require.Equal(t, lane, res.Streams[0].Lane)
			require.Equal(t, l.rows(t, "src", "many"), l.rows(t, "dst", name+".many"))
			if c.mode == "append" {
				require.Less(t, res.Streams[0].RowsWritten, int64(rows), "it went on")
			}
		})
	}
}
