package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"rapidbyte.io/node/connectors/postgres/pgtest"
)

// Rows are compared where they are: each server hashes the text of every row, and adds
// the hashes up, so that neither the order nor the size of a table matters. The texts
// are made under the same settings, with the columns in the order of the source.
const settings = `SET extra_float_digits = 1; SET TimeZone = 'UTC'; SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres';
	SET bytea_output = 'hex'; SET search_path = public; `

// shape is what a table is, beside its rows.
type shape struct {
	columns []string // name, type and NOT NULL of each
	names   []string
	key     string // of the primary key; empty: none
}

// digest stands for the rows of a table.
type digest struct{ rows, sum, xor string }

// tables returns the names of the tables of a database. A partition belongs to its table.
func tables(t pgtest.T, s *pgtest.Server, db string) (out []string) {
	t.Helper()
	for _, row := range s.Query(t, db, `SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
		AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY relname`) {
		out = append(out, row[0])
	}
	return out
}

// shapes describes the tables of a database.
func shapes(t pgtest.T, s *pgtest.Server, db string) map[string]shape {
	t.Helper()
	out := map[string]shape{}
	for _, table := range tables(t, s, db) {
		out[table] = shape{}
	}
	for _, row := range s.Query(t, db, settings+`SELECT c.relname, quote_ident(a.attname),
			a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
		FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
		WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`) {
		if sh, ok := out[row[0]]; ok {
			sh.names, sh.columns = append(sh.names, row[1]), append(sh.columns, row[2])
			out[row[0]] = sh
		}
	}
	for _, row := range s.Query(t, db, settings+`SELECT c.relname, pg_get_constraintdef(k.oid) FROM pg_constraint k
		JOIN pg_class c ON c.oid = k.conrelid WHERE k.contype = 'p' AND c.relnamespace = 'public'::regnamespace`) {
		if sh, ok := out[row[0]]; ok {
			sh.key = row[1]
			out[row[0]] = sh
		}
	}
	return out
}

// ownTypes describes the enums and domains that columns have, with labels and checks.
func ownTypes(t pgtest.T, s *pgtest.Server, db string) string {
	t.Helper()
	return fmt.Sprint(s.Query(t, db, settings+`SELECT t.typname, t.typtype, format_type(nullif(t.typbasetype, 0), t.typtypmod), t.typnotnull,
			(SELECT string_agg(quote_literal(enumlabel), ',' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid),
			(SELECT string_agg(conname || ' ' || pg_get_constraintdef(oid), ',' ORDER BY conname) FROM pg_constraint WHERE contypid = t.oid)
		FROM pg_type t WHERE t.typnamespace = 'public'::regnamespace AND t.typtype IN ('e', 'd')
			AND EXISTS (SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE a.atttypid = t.oid AND c.relkind IN ('r', 'p') AND NOT a.attisdropped)
		ORDER BY t.typname`))
}

// digests hashes the rows of tables; shapes are those of the source.
func digests(t pgtest.T, s *pgtest.Server, db string, shapes map[string]shape, times int) map[string]digest {
	t.Helper()
	var parts []string
	for _, table := range slices.Sorted(maps.Keys(shapes)) {
		parts = append(parts, fmt.Sprintf(`SELECT '%s', %d * count(*), %[2]d * sum(hashtextextended("the row"::text, 0)::numeric),
			CASE WHEN %[2]d %% 2 = 0 THEN 0 ELSE bit_xor(hashtextextended("the row"::text, 1)) END
			FROM (SELECT %[3]s FROM public.%[4]s) AS "the row"`,
			strings.ReplaceAll(table, "'", "''"), times, strings.Join(shapes[table].names, ", "), quote(table)))
	}
	out := map[string]digest{}
	for _, row := range s.Query(t, db, settings+strings.Join(parts, "\nUNION ALL ")) {
		out[row[0]] = digest{row[1], row[2], row[3]}
	}
	return out
}

// compare finds every table of the source at the destination of a mode: its columns,
// their types, its key where it was not dropped, and each row that many times.
func (e *example) compare(mode, step string, times int) {
	e.t.Helper()
	db := e.database(mode)
	want, got := shapes(e.t, e.source, e.name), shapes(e.t, e.target, db)
	if w, g := slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)); !slices.Equal(w, g) {
		e.fail("%s: tables %v, want %v", step, g, w)
	}
	there, landed := digests(e.t, e.source, e.name, want, times), digests(e.t, e.target, db, want, 1)
	e.grid.begin(step)
	for table, w := range want {
		g, verdict := got[table], " ="
		if times > 1 {
			g.key = w.key
		}
		if g.key != w.key || !slices.Equal(g.columns, w.columns) || landed[table] != there[table] {
			verdict = " DIFFERENT"
			e.t.Errorf("%s: %s: table %s\nhas  %v, %v\nwant %v, %v", e.name, step, table, landed[table], g, there[table], w)
		}
		e.grid.add(table, landed[table].rows+verdict)
	}
	if w, g := ownTypes(e.t, e.source, e.name), ownTypes(e.t, e.target, db); w != g {
		e.t.Errorf("%s: %s: types %s, want %s", e.name, step, g, w)
	}
}

// grid is a table of results: one line per table, one column per step.
type grid struct {
	steps []string
	cells map[string][]string
}

func (g *grid) begin(step string) { g.steps = append(g.steps, step) }

func (g *grid) add(table, cell string) {
	if g.cells == nil {
		g.cells = map[string][]string{}
	}
	g.cells[table] = append(g.cells[table], cell)
}

// String implements fmt.Stringer.
func (g grid) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\t"+strings.Join(g.steps, "\t"))
	for _, table := range slices.Sorted(maps.Keys(g.cells)) {
		fmt.Fprintln(w, table+"\t"+strings.Join(g.cells[table], "\t"))
	}
	_ = w.Flush() // a strings.Builder takes everything
	return b.String()
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
