package peer

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"rapidbyte.io/node/bench/internal/scenario"
)

// psql is what a person does by hand: COPY out of one psql into another. Methods:
// text, the format of the pipe; merge and on_conflict, for an upsert; discard, the way
// out alone; load, the way in alone.
func psql(path string, w Work) (Line, error) {
	p := byHand{path: path, Work: w, format: "binary", table: w.Schema + "." + Ident(w.Tables[0])}
	if w.Method == "text" {
		p.format = "text"
	}
	switch {
	case w.Method == "discard":
		return Line{Commands: [][]string{p.out("")}, Stdout: "/dev/null", Limit: true}, nil
	case w.From == scenario.Postgres && w.To == scenario.CSV && w.Method == "" && len(w.Tables) == 1:
		return Line{Commands: [][]string{p.run(w.Source, "COPY "+p.table+" TO STDOUT (FORMAT csv, HEADER)")}, Stdout: w.Out}, nil
	case w.To != scenario.Postgres:
		return Line{}, unfit("%s to %s", w.From, w.To)
	case len(w.Tables) > 1 || w.Fresh:
		return p.dump()
	}
	switch w.Mode {
	case scenario.Append:
		if !slices.Contains([]string{"", "text"}, w.Method) {
			return Line{}, unfit("method %s of an append", w.Method)
		}
		return p.pipe("", p.in(p.table)), nil
	case scenario.Replace:
		return p.pipe("", p.replace()...), nil
	case scenario.Upsert:
		return p.upsert()
	case scenario.Incremental:
		return p.incremental(), nil
	}
	return Line{}, unfit("mode %s", w.Mode)
}

// byHand builds command lines of psql.
type byHand struct {
	Work
	path, format, table string
}

// run is psql without settings of the user's, stopping at the first error.
func (p byHand) run(url string, commands ...string) []string {
	out := []string{p.path, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url}
	for _, c := range commands {
		out = append(out, "-c", c)
	}
	return out
}

func (p byHand) out(query string) []string {
	if query == "" {
		query = p.table
	}
	return p.run(p.Source, fmt.Sprintf("COPY %s TO STDOUT (FORMAT %s)", query, p.format))
}

func (p byHand) in(table string) string {
	return fmt.Sprintf("COPY %s FROM STDIN (FORMAT %s)", table, p.format)
}

func (p byHand) pipe(query string, commands ...string) Line {
	return Line{Commands: [][]string{p.out(query), p.run(p.Target, commands...)}}
}

// replace makes a new table, its key, and swaps the two, in one transaction.
func (p byHand) replace() []string {
	next := p.Schema + ".next"
	return []string{
		"BEGIN", "CREATE TABLE " + next + " (LIKE " + p.table + ")", p.in(next), "ALTER TABLE " + next + " ADD PRIMARY KEY (" + Idents("", p.Key) + ")",
		"DROP TABLE " + p.table, "ALTER TABLE " + next + " RENAME TO " + Ident(p.Tables[0]), "COMMIT",
	}
}

// upsert stages the rows, and leaves equal rows alone.
func (p byHand) upsert() (Line, error) {
	var others []string
	for _, c := range p.Columns {
		if !slices.Contains(p.Key, c) {
			others = append(others, c)
		}
	}
	set := func(from string) string {
		out := make([]string, len(others))
		for i, c := range others {
			out[i] = Ident(c) + " = " + from + "." + Ident(c)
		}
		return strings.Join(out, ", ")
	}
	on := make([]string, len(p.Key))
	for i, k := range p.Key {
		on[i] = "t." + Ident(k) + " = s." + Ident(k)
	}
	changed := func(from string) string {
		return fmt.Sprintf("(%s) IS DISTINCT FROM (%s)", Idents("t.", others), Idents(from+".", others))
	}
	var statement string
	switch p.Method {
	case "merge":
		statement = fmt.Sprintf("MERGE INTO %s t USING staged s ON %s WHEN MATCHED AND %s THEN UPDATE SET %s WHEN NOT MATCHED THEN INSERT VALUES (%s)",
			p.table, strings.Join(on, " AND "), changed("s"), set("s"), Idents("s.", p.Columns))
	case "on_conflict":
		statement = fmt.Sprintf("INSERT INTO %s AS t SELECT * FROM staged ON CONFLICT (%s) DO UPDATE SET %s WHERE %s",
			p.table, Idents("", p.Key), set("excluded"), changed("excluded"))
	default:
		return Line{}, unfit("method %q of an upsert, expected merge or on_conflict", p.Method)
	}
	return p.pipe("", "BEGIN", "CREATE TEMPORARY TABLE staged (LIKE "+p.table+")", p.in("staged"), "ANALYZE staged", statement, "COMMIT"), nil
}

// incremental asks the target for what it has, and copies what is behind it.
func (p byHand) incremental() Line {
	cursor := Ident(p.Cursor)
	mark := p.run(p.Target, fmt.Sprintf("SELECT coalesce('WHERE %s > ' || quote_literal(max(%s)), '') FROM %s", cursor, cursor, p.table))
	mark = slices.Insert(mark, 1, "-At")
	out := p.run(p.Source, fmt.Sprintf(`COPY (SELECT * FROM %s $where) TO STDOUT (FORMAT %s)`, p.table, p.format))
	script := fmt.Sprintf("set -e; where=$(%s); %s | %s", shell(mark, false), shell(out, true), shell(p.run(p.Target, p.in(p.table)), false))
	return Line{Commands: [][]string{{"sh", "-c", script}}}
}

// shell quotes words for sh; with variables, $where is replaced by the shell.
func shell(words []string, variables bool) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		if variables {
			out[i] = strings.ReplaceAll(out[i], "$where", `'"$where"'`)
		}
	}
	return strings.Join(out, " ")
}

// dump is for many tables: pg_dump into psql.
func (p byHand) dump() (Line, error) {
	if p.From != scenario.Postgres || p.Mode != scenario.Append || p.Method != "" {
		return Line{}, unfit("%d tables, mode %s", len(p.Tables), p.Mode)
	}
	dump := "pg_dump"
	if dir := filepath.Dir(p.path); dir != "." {
		dump = filepath.Join(dir, dump)
	}
	args := []string{dump, "--no-owner", "--schema=" + p.Schema, "-d", p.Source}
	if !p.Fresh {
		args = slices.Insert(args, 1, "--data-only")
	}
	return Line{Commands: [][]string{args, p.run(p.Target)}}, nil
}
